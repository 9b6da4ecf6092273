"""Keys of a file, through the front door: what each may do, and that a change holds from the next request on."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from typer.testing import CliRunner

from gateway.cli import main
from gateway.keys import command, file
from tests.fakes import Recorder, eventually, samples
from tests.gateway.http.conftest import HELLO, chat, check_error


class Issued:
    """A file of keys, and the secrets by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.secrets: dict[str, str] = {}

    def add(self, name: str, **options: Any) -> dict[str, str]:
        """The headers of a new key."""
        _, self.secrets[name] = command.create(self.path, name, **options)
        return self.headers(name)

    def headers(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.secrets[name]}"}


@pytest.fixture
def issued(tmp_path: Path) -> Issued:
    return Issued(tmp_path / "keys.json")


def ask(client: httpx.Client, headers: dict[str, str], body: Any = HELLO) -> httpx.Response:
    return client.post("/v1/chat/completions", json=body, headers=headers)


def test_the_command_line(tmp_path: Path, gateway: Callable[..., httpx.Client]) -> None:
    """A secret is shown once and kept nowhere; a key works from its creation to its revocation, without a restart."""
    path = tmp_path / "keys.json"
    hhh = CliRunner()
    made = hhh.invoke(main, ["keys", "create", "app", "--file", str(path), "--requests-per-minute", "100", "--json"])
    assert made.exit_code == 0, made.output
    secret = json.loads(made.stdout)["key"]
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    client = gateway(keys_file=path)
    assert ask(client, {"authorization": f"Bearer {secret}"}).status_code == 200
    other = hhh.invoke(main, ["keys", "create", "other", "--file", str(path), "--expires", "90d", "--model", "gpt-*"])
    assert "cannot be shown again" in other.stderr
    assert ask(client, {"x-api-key": other.stdout.strip()}, {**HELLO, "model": "gpt-9"}).status_code == 200
    again = hhh.invoke(main, ["keys", "create", "app", "--file", str(path)])
    assert (again.exit_code, again.stderr) == (2, f"{path}: there is a key app already\n")

    assert hhh.invoke(main, ["keys", "revoke", "app", "--file", str(path)]).exit_code == 0
    check_error(ask(client, {"authorization": f"Bearer {secret}"}), 401, "invalid_api_key", None)
    assert ask(client, {"x-api-key": other.stdout.strip()}, {**HELLO, "model": "gpt-9"}).status_code == 200
    rows = json.loads(hhh.invoke(main, ["keys", "list", "--file", str(path), "--json"]).stdout)["keys"]
    assert [(row["name"], row["state"]) for row in rows] == [("app", "revoked"), ("other", "active")]
    assert "hash" not in rows[0]
    path.chmod(0o640)
    assert hhh.invoke(main, ["keys", "revoke", "other", "--file", str(path)]).exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o640  # whoever could read it still can
    shown = hhh.invoke(main, ["keys", "list", "--file", str(path)], env={"COLUMNS": "200"}).stdout
    assert "100 requests/min" in shown
    assert hhh.invoke(main, ["keys", "revoke", "nobody", "--file", str(path)]).exit_code == 2
    wrong = hhh.invoke(main, ["keys", "create", "x", "--file", str(path), "--role", "king"])
    assert wrong.exit_code == 2
    assert "role" in wrong.stderr


def test_a_key_names_its_policy_its_block_mode_and_its_models(
    issued: Issued, gateway: Callable[..., httpx.Client]
) -> None:
    plain = issued.add("plain")
    general = issued.add("general", policy="general", on_block="error", models=["up-*", "m"])
    narrow = issued.add("narrow", models=["other"])
    client = gateway(keys_file=issued.path)
    assert ask(client, plain).headers["x-guardrail-policy"].startswith("finance@sha256:")
    found = ask(client, general, chat("MARK-HARM please"))
    assert found.headers["x-guardrail-policy"].startswith("general@sha256:")
    check_error_code(found, 400, "content_filter")
    assert ask(client, plain, chat("MARK-HARM please")).status_code == 200
    kept = client.post(
        "/v1/chat/completions", json=chat("MARK-HARM"), headers={**general, "x-guardrail-on-block": "completion"}
    )
    assert kept.json()["choices"][0]["finish_reason"] == "content_filter"

    check_error(ask(client, narrow), 404, "model_not_found", None)
    listed = [client.get("/v1/models", headers=key).json()["data"] for key in (plain, general, narrow)]
    assert [[one["id"] for one in data] for data in listed] == [["up-model"], ["up-model"], []]
    assert client.get("/v1/models/up-model", headers=general).status_code == 200
    check_error(client.get("/v1/models/up-model", headers=narrow), 404, "model_not_found", None)
    counted = samples(client.get("/metrics").text)
    assert counted['hhh_refusals_total{category="harmful.fraud",policy="general",source="triage"}'] == 2
    assert counted['hhh_requests_total{endpoint="embeddings",outcome="block",policy="general"}'] == 0

    # A policy that nobody named until now is loaded when a key does, without a restart.
    late = issued.add("late", policy="customer_service")
    assert ask(client, plain).status_code == 200
    early = ask(client, late)
    assert early.status_code in (200, 503)
    if early.status_code == 503:
        assert early.json()["error"]["code"] == "not_ready"
    found = eventually(lambda: (reply := ask(client, late)).status_code == 200 and reply)
    assert found.headers["x-guardrail-policy"].startswith("customer_service@sha256:")


def check_error_code(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_roles_feedback_and_records(issued: Issued, tmp_path: Path, gateway: Callable[..., httpx.Client]) -> None:
    app, other, admin = issued.add("app"), issued.add("other"), issued.add("admin", role="admin")
    database = tmp_path / "audit.db"
    client = gateway(keys_file=issued.path, audit={"url": f"sqlite+aiosqlite:///{database}", "batch_seconds": 0.05})
    refused = ask(client, app, chat("MARK-HARM please"))
    opinion = {"request_id": refused.headers["x-request-id"], "verdict": "wrong_refusal"}

    def say(key: dict[str, str]) -> httpx.Response:
        return client.post("/v1/feedback", json=opinion, headers=key)

    check_error(say(other), 404, "request_not_found", None)
    assert say(app).status_code == 200
    assert say(admin).status_code == 200
    for key in (app, other):
        check_error(client.post("/v1/probes", headers=key), 403, "insufficient_permissions", None)
    assert client.post("/v1/probes", headers=admin).status_code == 200
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT key, decision FROM decisions").fetchall() == [("app", "block")]


def test_a_change_of_the_file_holds_from_the_next_request(issued: Issued, gateway: Callable[..., httpx.Client]) -> None:
    app, gone = issued.add("app"), issued.add("gone", expires=command.moment("2020-01-31"))
    client = gateway(keys_file=issued.path)
    assert "expired" in check_error(ask(client, gone), 401, "invalid_api_key", None)
    for number in range(20):
        name = f"key-{number}"
        assert ask(client, issued.add(name)).status_code == 200
        command.revoke(issued.path, name)
        assert "revoked" in check_error(ask(client, issued.headers(name)), 401, "invalid_api_key", None)

    good = issued.path.read_text()
    replaced = (('"name": "app"', '"name": "gone"'), ("hash", "hsah"), ('"name": "app"', '"name": "app", "models": []'))
    for bad in (good[:-20], "[]", *(good.replace(this, that) for this, that in replaced)):
        issued.path.write_text(bad)
        assert ask(client, app).status_code == 200
    issued.path.write_text(good.replace('"name": "app",', '"name": "app", "policy": "nonesuch",'))
    assert ask(client, app).status_code == 200
    counted = samples(client.get("/metrics").text)
    assert counted['hhh_key_file_loads_total{result="rejected"}'] == 6
    assert counted['hhh_key_file_loads_total{result="loaded"}'] == 41
    assert "nonesuch" in client.get("/readyz?verbose").json()["keys"]
    issued.path.unlink()
    assert ask(client, app).status_code == 200  # a file that is gone revokes nobody
    issued.path.write_text('{"keys": []}')
    assert ask(client, app).status_code == 401


def test_a_mounted_secret(tmp_path: Path, gateway: Callable[..., httpx.Client]) -> None:
    """Kubernetes swaps a symbolic link to a folder; the file is one behind it."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
    before, after = Issued(tmp_path / "one" / "keys.json"), Issued(tmp_path / "two" / "keys.json")
    before.add("old")
    after.add("new")
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "keys.json").symlink_to("..data/keys.json")
    client = gateway(keys_file=tmp_path / "keys.json")
    assert ask(client, before.headers("old")).status_code == 200
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert client.get("/readyz?verbose").json()["keys"] == "1 keys"
    assert [ask(client, key).status_code for key in (before.headers("old"), after.headers("new"))] == [401, 200]


def test_check_looks_at_the_keys(issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HHH_KEYS_FILE", str(issued.path))
    issued.add("app")
    good = CliRunner().invoke(main, ["check"])
    assert (good.exit_code, good.stdout.splitlines()[-1]) == (0, f"{issued.path}  1 keys")
    issued.add("other", policy="nonesuch")
    bad = CliRunner().invoke(main, ["check"])
    assert bad.exit_code == 2
    assert bad.stderr.startswith(f"{issued.path}: key other - policy - ")


def test_reading_a_thousand_keys_takes_milliseconds(issued: Issued) -> None:
    issued.add("first")
    (entry,) = file.read(issued.path)
    many = [entry.model_copy(update={"id": f"{number:012x}", "name": f"key-{number}"}) for number in range(1_000)]
    file.write(issued.path, tuple(many))

    def seconds() -> float:
        began = time.thread_time()
        assert len(file.read(issued.path)) == 1_000
        return time.thread_time() - began

    assert min(seconds() for _ in range(5)) < 0.1


def test_openai_client(issued: Issued, gateway: Callable[..., httpx.Client], upstream: Recorder) -> None:
    issued.add("app", models=["m"])
    client = gateway(keys_file=issued.path)
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key=issued.secrets["app"], max_retries=0) as one:
        assert one.chat.completions.create(**HELLO).choices[0].message.content
        with pytest.raises(openai.NotFoundError) as missing:
            one.chat.completions.create(**{**HELLO, "model": "gpt-9"})
        assert missing.value.code == "model_not_found"
    with (
        openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="hhh_wrong", max_retries=0) as one,
        pytest.raises(openai.AuthenticationError),
    ):
        one.models.list()
    assert len(upstream.bodies) == 1
