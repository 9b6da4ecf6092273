"""One configuration from flags, environment, file and defaults, and errors that name the place and the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.config import Config, load, read_yaml
from gateway.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def test_defaults() -> None:
    config = load()
    assert (config.host, config.port, config.policy) == ("127.0.0.1", 8000, "finance")
    assert config.upstream.kind == "local"
    assert config.client_keys() == ()


def test_flags_win_over_environment_over_file_over_defaults(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("port: 1001\nhost: 127.0.0.2\npolicy: general\nupstream:\n  model: file\n  retries: 1\n")
    monkeypatch.setenv("HHH_PORT", "1002")
    monkeypatch.setenv("HHH_HOST", "127.0.0.3")
    monkeypatch.setenv("HHH_UPSTREAM__MODEL", "environment")
    monkeypatch.setenv("HHH_UPSTREAM__TIMEOUT__CONNECT_SECONDS", "9")
    config = load(path, port=1003, policy=None)
    assert config.port == 1003
    assert config.host == "127.0.0.3"
    assert config.policy == "general"
    assert config.upstream.model == "environment"
    assert config.upstream.retries == 1
    assert config.upstream.timeout.connect_seconds == 9
    assert config.upstream.timeout.total_seconds == 600
    assert config.log_level == "info"


def test_names_in_the_environment_have_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("hhh_port", "1002")
    assert load().port == 1002


def test_environment_as_json_and_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HHH_UPSTREAM", '{"base_url": "http://host:1/v1", "retries": 4}')
    monkeypatch.setenv("HHH_UPSTREAM__MODEL", "")
    monkeypatch.setenv("HHH_PORT", "")
    config = load()
    assert (config.upstream.base_url, config.upstream.retries) == ("http://host:1/v1", 4)
    assert config.upstream.model is None
    assert config.port == 8000


def test_frozen() -> None:
    config = load()
    with pytest.raises(ValidationError):
        config.port = 1
    with pytest.raises(ValidationError):
        config.upstream.retries = 1


def test_empty_file(written: Callable[[str], Path]) -> None:
    assert load(written("")).model_dump() == load().model_dump()
    assert load(written("# nothing\n")).model_dump() == load().model_dump()


FILES = [
    ("prot: 1", "prot - unknown setting"),
    ("upstream: {basurl: x}", "upstream.basurl - unknown setting"),
    ("upstream:\n  timeout: {first_byte: 1}", "upstream.timeout.first_byte - unknown setting"),
    ("1: 2", "1 - unknown setting"),
    ("port: eighty", "port - Input should be a valid integer"),
    ("port: 70000", "port - Input should be less than or equal to 65535"),
    ("port: [1]", "port - Input should be a valid integer"),
    ("upstream: null", "upstream - Input should be a valid dictionary"),
    ("upstream: remote", "upstream - Input should be a valid dictionary"),
    ("upstream: {kind: remote}", "upstream - kind is remote, but base_url is not set"),
    ("upstream: {kind: far}", "upstream.kind - Input should be 'local' or 'remote'"),
    ("upstream: {retries: -1}", "upstream.retries - Input should be greater than or equal to 0"),
    ("upstream: {timeout: {connect_seconds: 0}}", "upstream.timeout.connect_seconds - Input should be greater than 0"),
    ("limits: {body_bytes: 0}", "limits.body_bytes - Input should be greater than 0"),
    ("log_level: loud", "log_level - Input should be 'debug', 'info', 'warning' or 'error'"),
    ("policy: ../finance", "policy - String should match pattern"),
    ("policy: ''", "policy - String should match pattern"),
    ("port: 1\nport: 2", "port is there twice"),
    ("upstream: {retries: 1, retries: 2}", "retries is there twice"),
    ("- port", "a mapping is expected at the top"),
    ("just text", "a mapping is expected at the top"),
    ("port: [1", "expected ',' or ']'"),
    ("port: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ("\x00", "special characters are not allowed"),
    ("port: " + "[" * 1500, "nested too deep"),
]


@pytest.mark.parametrize(("text", "message"), FILES, ids=[text[:30] for text, _ in FILES])
def test_file_that_is_wrong(written: Callable[[str], Path], text: str, message: str) -> None:
    path = written(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_merge_keys_of_yaml_may_be_overridden(written: Callable[[str], Path]) -> None:
    path = written("a: &a {port: 1, host: x}\nb: {<<: *a, port: 2}\n")
    assert read_yaml(path)["b"] == {"port": 2, "host": "x"}


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"policy: \xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml: "):
        load(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HHH_PORT", "eighty", "environment: port - Input should be a valid integer"),
        ("HHH_UPSTREAM__RETRIES", "9", "environment: upstream.retries - Input should be less than or equal to 5"),
        ("HHH_UPSTREAM__BASURL", "x", "environment: upstream.basurl - unknown setting"),
        ("HHH_UPSTREM__BASE_URL", "x", "environment: HHH_UPSTREM__BASE_URL - unknown setting"),
        ("HHH_UPSTREAM", "{bad", 'environment: error parsing value for field "upstream"'),
        ("HHH_UPSTREAM__KIND", "remote", "environment: upstream - kind is remote, but base_url is not set"),
    ],
)
def test_environment_that_is_wrong(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    path = written("host: 127.0.0.1\n")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(message)


def test_flag_that_is_wrong(written: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="flags: port - Input should be less"):
        load(written("port: 1\n"), port=70000)


@pytest.mark.parametrize("name", ["HHH_GATEWAY_PORT_8000_TCP_ADDR", "HHH_GATEWAY_SERVICE_HOST", "HHH_KEYS"])
def test_other_names_in_the_environment_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An orchestrator sets such names for a service called hhh-gateway."""
    monkeypatch.setenv(name, "x")
    load()


ADDRESSES = {
    "host:8001/v1": "must be an address",
    "localhost": "must be an address",
    "ftp://host/v1": "must be an address",
    "http://": "must be an address",
    "http:///v1": "must be an address",
    "http://host:port/v1": "must be an address",
    "http://host:99999/v1": "must be an address",
    "http://[::1/v1": "must be an address",
    "http://user:sk-secret@host/v1": "must have no user",
    "http://host/v1?key=sk-secret": "must have no user",
    "http://host/v1#x": "must have no user",
}


@pytest.mark.parametrize(("address", "message"), ADDRESSES.items(), ids=str)
def test_base_url_that_is_wrong(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(upstream={"base_url": address})
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://host:8001/v1", "https://api.example.com/v1/", "http://[::1]:1"])
def test_base_url_makes_the_upstream_remote(address: str) -> None:
    upstream = load(upstream={"base_url": address, "kind": "local"}).upstream
    assert upstream.kind == "remote"
    assert upstream.base_url == address.rstrip("/")


def test_secrets_are_named_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HHH_CLIENT__KEYS", "key-one, key-two,,")
    config = load(client_keys_env="HHH_CLIENT__KEYS")
    assert config.client_keys() == ("key-one", "key-two")
    assert "key-one" not in repr(config)
    monkeypatch.setenv("HHH_CLIENT__KEYS", " , ")
    with pytest.raises(ConfigError, match="client_keys_env: the variable HHH_CLIENT__KEYS holds no key"):
        load(client_keys_env="HHH_CLIENT__KEYS")
    monkeypatch.delenv("HHH_CLIENT__KEYS")
    for wrong in ({"client_keys_env": "NO_SUCH"}, {"upstream": {"base_url": "http://h/v1", "api_key_env": "NO_SUCH"}}):
        with pytest.raises(ConfigError, match="the environment variable NO_SUCH is not set"):
            load(None, **wrong)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert load(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "localhost.example.com"])
def test_elsewhere_a_key_is_needed(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="is not loopback, and no client keys are configured"):
        load(host=host)
    monkeypatch.setenv("KEYS", "one")
    assert load(host=host, client_keys_env="KEYS").host == host


def test_policies_are_the_shipped_ones_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (load().policies() / "finance" / "config.yml").is_file()
    (tmp_path / "rails").mkdir()
    assert load().policies() == Path("rails")
    assert load(rails_dir=Path("mine")).policies() == Path("mine")


def settings(section: type[Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, field in section.model_fields.items():
        nested = field.annotation if hasattr(field.annotation, "model_fields") else None
        found += settings(nested) if nested else [(f"{section.__name__}.{name}", field)]
    return found


@pytest.mark.parametrize(("name", "field"), settings(Config), ids=[name for name, _ in settings(Config)])
def test_every_setting_is_described(name: str, field: Any) -> None:
    assert field.description, name
