"""The chart: rendered with Go's templates and sprig, as Helm does it, and held against Kubernetes' own schemas."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from gateway.config import Config
from tests.conftest import ROOT

CHART = ROOT / "deploy" / "helm" / "hhh-gateway"
SPRIG = Path("/usr/share/gocode/src/github.com/Masterminds/sprig")

Values = dict[str, Any]
Render = Callable[[Values], "subprocess.CompletedProcess[str]"]

KEYS: Values = {"clientKeys": {"existingSecret": "clients"}}
EVERYTHING: Values = {
    "clientKeys": {"existingSecret": "clients", "keysFileKey": "keys.json"},
    "config": {
        "upstream": {"base_url": "http://vllm:8000/v1"},
        "audit": {"url": "postgresql+asyncpg://hhh@postgres/hhh", "password_env": "DB_PASSWORD"},
    },
    "policies": {
        name: {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "rails" / name).iterdir()}
        for name in ("finance", "general")
    },
    "extraEnv": [{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}],
    "workers": 2,
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "vllm"}}}], "ports": [{"port": 8000}]}],
    },
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "podAnnotations": {"team": "safety"},
    "imagePullSecrets": [{"name": "registry"}],
}
PERSISTENT: Values = {**KEYS, "replicaCount": 1, "persistence": {"enabled": True, "storageClass": "fast"}}


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    if shutil.which("go") is None or not SPRIG.is_dir():
        pytest.skip("needs Debian's golang-go, golang-github-masterminds-sprig-dev and golang-k8s-sigs-yaml-dev")
    folder = tmp_path_factory.mktemp("render")
    environment = {
        **os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(folder / "cache"),
    }  # fmt: skip
    source = Path(__file__).with_name("render.go")
    subprocess.run(["go", "build", "-o", folder / "render", source], check=True, env=environment, timeout=300)

    def rendered(values: Values) -> subprocess.CompletedProcess[str]:
        file = folder / "values.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        command = [folder / "render", CHART, "guard", "chat", file]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return rendered


def objects(render: Render, values: Values) -> dict[tuple[str, str], Any]:
    """What the chart makes of values, by kind and name."""
    done = render(values)
    assert done.returncode == 0, done.stderr
    found = [one for one in yaml.safe_load_all(done.stdout) if one is not None]
    assert len({(one["kind"], one["metadata"]["name"]) for one in found}) == len(found)
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


@pytest.mark.parametrize("version", ["1.27", "1.37"])
@pytest.mark.parametrize("values", [KEYS, EVERYTHING, PERSISTENT], ids=["least", "everything", "persistent"])
def test_objects_are_what_kubernetes_takes(render: Render, values: Values, version: str) -> None:
    for (kind, _), one in objects(render, values).items():
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "guard"
        if kind not in ("ServiceMonitor", "PrometheusRule"):  # of the Prometheus operator, not of Kubernetes
            kubernetes_validate.validate(one, version, strict=True)


def test_a_schema_that_lets_anything_pass_would_show(render: Render) -> None:
    deployment = objects(render, KEYS)["Deployment", "guard-hhh-gateway"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["path"] = "/readyz"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, "1.27", strict=True)


def test_everything_that_was_asked_for_is_there(render: Render) -> None:
    kinds = sorted(kind for kind, _ in objects(render, EVERYTHING))
    assert kinds == [
        "ConfigMap", "ConfigMap", "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy",
        "PodDisruptionBudget", "PrometheusRule", "PrometheusRule", "PrometheusRule", "Service", "ServiceAccount",
        "ServiceMonitor",
    ]  # fmt: skip


def test_the_configuration_is_one_that_the_gateway_takes(render: Render) -> None:
    text = objects(render, EVERYTHING)["ConfigMap", "guard-hhh-gateway"]["data"]["config.yaml"]
    settings = yaml.safe_load(text)
    assert settings["host"] == "0.0.0.0"
    assert settings["rails_dir"] == "/etc/hhh-policies"
    config = Config(**settings)
    assert config.upstream.kind == "remote"
    assert config.audit.password_env == "DB_PASSWORD"


def test_policies_arrive_to_the_byte_where_they_are_mounted(render: Render) -> None:
    made = objects(render, EVERYTHING)
    texts = made["ConfigMap", "guard-hhh-gateway-policies"]["data"]
    volumes = made["Deployment", "guard-hhh-gateway"]["spec"]["template"]["spec"]["volumes"]
    [items] = [one["configMap"]["items"] for one in volumes if one["name"] == "policies"]
    arrived = {item["path"]: texts[item["key"]] for item in items}
    wanted = {f"{name}/{file}": text for name, files in EVERYTHING["policies"].items() for file, text in files.items()}
    assert {path: text.rstrip("\n") for path, text in arrived.items()} == {
        path: text.rstrip("\n") for path, text in wanted.items()
    }


def test_the_pod_gives_away_nothing(render: Render) -> None:
    pod = objects(render, KEYS)["Deployment", "guard-hhh-gateway"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/data", "/tmp"}


def test_alerts_and_dashboards_are_those_of_the_repository(render: Render) -> None:
    made = objects(render, EVERYTHING)
    rules = {file.stem: file for file in (ROOT / "deploy" / "prometheus" / "rules").glob("*.yml")}
    for name in ("over_refusal", "health", "reload"):
        spec = made["PrometheusRule", f"guard-hhh-gateway-{name.replace('_', '-')}"]["spec"]
        assert spec == yaml.safe_load(rules[name].read_text(encoding="utf-8"))
    boards = made["ConfigMap", "guard-hhh-gateway-dashboards"]["data"]
    for file in (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"):
        assert json.loads(boards[file.name]) == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "clientKeys.existingSecret: name a Secret"),
        ({**PERSISTENT, "replicaCount": 2}, "one SQLite file serves one pod"),
        ({**PERSISTENT, "autoscaling": {"enabled": True}}, "one SQLite file serves one pod"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(render: Render, values: Values, reason: str) -> None:
    done = render(values)
    assert done.returncode == 1
    assert reason in done.stderr


def test_the_schema_takes_the_defaults_and_what_is_used_here() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for values in (KEYS, EVERYTHING, PERSISTENT):
        jsonschema.validate({**defaults, **values}, schema)
    described = set(schema["properties"]) - {"global", "nameOverride", "fullnameOverride"}
    assert described == set(defaults)


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 3},
        {"replicaCount": "3"},
        {"config": {"host": "0.0.0.0"}},
        {"policies": {"finance": {"actions.py": "import os"}}},
        {"policies": {"../etc": {"policy.yml": ""}}},
        {"serviceMonitor": {"interval": "often"}},
    ],
)
def test_the_schema_takes_nothing_else(values: Values) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)
