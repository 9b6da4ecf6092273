"""Real clients, unchanged, in front of a gateway: what is allowed arrives, and a block is what each takes for one.

They run as processes of their own, from `.venv-clients` and `tests/clients/node`, which `make setup` fills.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

HERE = Path(__file__).resolve().parent
BIN = ROOT / ".venv-clients" / "bin"
NODE = HERE / "node"

pytestmark = pytest.mark.usefixtures("no_settings")

needs_python = pytest.mark.skipif(not (BIN / "python").exists(), reason="make setup fills .venv-clients")
needs_node = pytest.mark.skipif(
    not (NODE / "node_modules" / "openai").exists() or shutil.which("node") is None, reason="make setup installs it"
)


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=HERE,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def check(found: dict[str, Any]) -> None:
    """Allowed text as the model said it; a block as a finish reason that says so, with the words of the policy."""
    for way, results in found.items():
        finish, text = results["Hello"]
        assert finish in ("stop", "completed"), (way, finish, text)
        assert text == ("2" if way == "embeddings" else "An index fund."), way
        finish, text = results["MARK-HARM"]
        if way == "embeddings":
            assert "BadRequest" in finish or "ContentPolicy" in finish, (finish, text)
            continue
        assert finish == "content_filter" or "ContentFilter" in finish, (way, finish, text)
        assert "can't help" in text or "ContentFilter" in finish, (way, finish, text)


@needs_node
def test_openai_for_node(base_url: str) -> None:
    check(json.loads(run("node", NODE / "client.mjs", base_url)))


@needs_python
def test_langchain_and_litellm(base_url: str) -> None:
    said = run(BIN / "python", HERE / "others.py", base_url)
    found = json.loads(said.strip().splitlines()[-1])  # LiteLLM prints before it raises
    assert found.keys() == {"langchain-openai", "litellm"}
    for client in found.values():
        check(client)


@needs_python
def test_llm(base_url: str, tmp_path: Path) -> None:
    """Simon Willison's command line, whose `-m` is a model of ours; it streams unless told not to."""
    model = f"- model_id: ours\n  model_name: m\n  api_base: {base_url}\n  api_key_name: none\n"
    (tmp_path / "extra-openai-models.yaml").write_text(model)
    for flags in ([], ["--no-stream"]):
        command = [BIN / "llm", "-m", "ours", "--key", "none", "--no-log", *flags]
        assert run(*command, "Hello", LLM_USER_PATH=str(tmp_path)).strip() == "An index fund."
        assert "can't help" in run(*command, "MARK-HARM", LLM_USER_PATH=str(tmp_path))


@needs_python
def test_schemathesis(base_url: str) -> None:
    """Requests made from our own OpenAPI document, valid and not: no 500, and no status that it does not name."""
    done = run(
        BIN / "schemathesis", "run", base_url.replace("/v1", "/openapi.json"), "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance", "--max-examples", "25",
        "--phases", "examples,coverage,fuzzing", "--seed", "1", "--exclude-path-regex", "metrics|livez|readyz",
    )  # fmt: skip
    made = re.search(r"(\d+) generated, (\d+) passed", done)
    assert made is not None, done[-1500:]
    assert made[1] == made[2]
    assert int(made[1]) > 100


def test_the_matrix_in_the_docs_names_the_versions_that_are_tested() -> None:
    """Client and version, as pinned, in docs/api.md."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints-clients.txt").read_text(), re.MULTILINE))
    own = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    node = json.loads((NODE / "package.json").read_text())["dependencies"]["openai"]
    for name, version in [
        ("openai (Python)", own["openai"]), ("openai (Node)", node), ("langchain-openai", pins["langchain-openai"]),
        ("litellm", pins["litellm"]), ("llm", pins["llm"]),
    ]:  # fmt: skip
        assert f"| {name} | {version} |" in page, name
