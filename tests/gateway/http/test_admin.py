"""What an admin reads of records, probes and policies; and the console's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from gateway.http.console import FOLDER
from gateway.keys import command
from tests.fakes import eventually
from tests.gateway.http.conftest import chat, check_error


@pytest.fixture
def admin(gateway: Callable[..., httpx.Client], tmp_path: Path) -> tuple[httpx.Client, dict[str, str]]:
    """A client with an admin's key, and the headers of another that has none of an admin's."""
    keys = tmp_path / "keys.json"
    _, secret = command.create(keys, "operator", role="admin")
    _, other = command.create(keys, "app")
    audit = {"url": f"sqlite+aiosqlite:///{tmp_path}/audit.db", "text": "full", "batch_seconds": 0.02}
    client = gateway(keys_file=keys, audit=audit)
    client.headers["authorization"] = f"Bearer {secret}"
    return client, {"authorization": f"Bearer {other}"}


def listed(client: httpx.Client, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/decisions", params=query).json()
    return found


def test_decisions_are_paged_and_each_has_the_last_word_on_it(admin: tuple[httpx.Client, dict[str, str]]) -> None:
    client, user = admin
    ids = [
        client.post("/v1/chat/completions", json=chat(f"MARK-HARM {n}"), headers=user).headers["x-request-id"]
        for n in range(5)
    ]
    for verdict in ("correct", "wrong_refusal"):
        client.post("/v1/feedback", json={"request_id": ids[2], "verdict": verdict})
    first = listed(client, limit=3)
    assert first["has_more"]
    rest = listed(client, limit=3, before=first["data"][-1]["id"])
    assert not rest["has_more"]
    rows = first["data"] + rest["data"]
    assert [row["request_id"] for row in rows] == ids[::-1]
    assert [row["feedback"] and row["feedback"]["verdict"] for row in rows] == [None, None, "wrong_refusal", None, None]
    assert rows[0]["reason"] == "triage: harmful 0.95"
    assert rows[0]["text"] == "MARK-HARM 4"
    assert [row["id"] for row in listed(client, request_id=ids[1])["data"]] == [rows[3]["id"]]
    client.post("/v1/chat/completions", json=chat("What is a bond?"), headers=user)
    assert eventually(lambda: listed(client, decision="allow")["data"])[0]["text"] == "What is a bond?"
    matrix = client.get("/v1/feedback").json()
    assert matrix["matrix"]["harmless"] == {"answered": 0, "refused_by_model": 0, "refused": 1}
    assert matrix["wrong_by_category"] == {"harmful.fraud": 1}


def test_a_request_id_that_was_used_twice(admin: tuple[httpx.Client, dict[str, str]]) -> None:
    client, _ = admin
    for n in range(2):
        client.post("/v1/chat/completions", json=chat(f"MARK-HARM {n}"), headers={"x-request-id": "mine"})
    older = listed(client, request_id="mine")["data"][1]["id"]
    said = {"request_id": "mine", "decision_id": older, "verdict": "correct"}
    assert client.post("/v1/feedback", json=said).status_code == 200
    assert [bool(row["feedback"]) for row in listed(client)["data"]] == [False, True]


@pytest.mark.parametrize(
    "query",
    ["decision=blocked", "limit=0", "limit=101", "limit=x", "limit=1e9", "before=a%00b", "request_id=" + "x" * 129],
)
def test_what_makes_no_sense_is_said(admin: tuple[httpx.Client, dict[str, str]], query: str) -> None:
    client, _ = admin
    check_error(client.get(f"/v1/decisions?{query}"), 400, "invalid_value", None)


@pytest.mark.parametrize("path", ["decisions", "feedback", "probes", "policies"])
def test_only_an_admin_reads(admin: tuple[httpx.Client, dict[str, str]], path: str) -> None:
    client, user = admin
    check_error(client.get(f"/v1/{path}", headers=user), 403, "insufficient_permissions", None)
    check_error(client.get(f"/v1/{path}", headers={"authorization": "Bearer no"}), 401, "invalid_api_key", None)
    assert client.get(f"/v1/{path}").status_code == 200


def test_details_of_a_check_are_an_admins(admin: tuple[httpx.Client, dict[str, str]]) -> None:
    client, user = admin
    asked = {"messages": [{"role": "user", "content": "Which fund? MARK-ADVICE"}]}
    for more in ({"detail": True}, {"policy": "finance"}):
        response = client.post("/v1/guardrails/check", json={**asked, **more}, headers=user)
        check_error(response, 403, "insufficient_permissions", None)
    assert "detail" not in client.post("/v1/guardrails/check", json=asked, headers=user).json()
    response = client.post("/v1/guardrails/check", json={**asked, "policy": "none_such"})
    check_error(response, 400, "policy_not_found", None)
    detail = client.post("/v1/guardrails/check", json={**asked, "detail": True}).json()["detail"]
    assert detail["scores"]["regulated_advice"] == 0.9
    assert [one["words"] for one in detail["words"]["found"]] == ["MARK-ADVICE"]
    assert detail["steps"][0]["stage"] == "triage"
    assert {"input"} == {step["stage"] for step in detail["steps"][1:]}
    assert all(step["rails"] for step in detail["steps"])
    assert "licensed" in detail["guidance"]


def test_the_console_is_public_and_holds_nothing(admin: tuple[httpx.Client, dict[str, str]]) -> None:
    client, _ = admin
    bare = {"authorization": ""}
    page = client.get("/console", headers=bare)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/console/about.json", headers=bare).json()["key"] is True
    for path in FOLDER.iterdir():
        assert client.get(f"/console/{path.name}", headers=bare).content == path.read_bytes()
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path
        assert len(text.splitlines()) < 300
        for word in ("innerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, path
    for path in ("/console/../app.py", "/console/..%2fapp.py", "/console/none.js", "/console/%2e%2e"):
        assert client.get(path, headers=bare).status_code in (404, 308)
    assert client.get("/console/", headers=bare).headers["location"] == "../console"
