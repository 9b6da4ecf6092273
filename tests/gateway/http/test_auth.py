"""Client keys: who has none gets a 401, and nothing is given away, time included."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from gateway.errors import Unauthorized
from gateway.http.auth import authenticate
from gateway.keys.command import create
from gateway.keys.ring import Ring
from gateway.record.metrics import Metrics
from tests.fakes import Recorder
from tests.gateway.http.conftest import HELLO, check_error

REFUSED = [
    None,
    "",
    "Bearer",
    "Bearer wrong",
    "Bearer key-on",
    "Bearer key-one,key-two",
    "Bearer key-one key-two",
    "Bearer KEY-ONE",
    "Basic key-one",
    "key-one",
    "Bearer k\xe9y",
    "Bearer hhh_000000000000_x",
]


def ring(*given: str, path: Path | None = None) -> Ring:
    found = Ring(path, given, Metrics(), lambda entry: None)
    found.open()
    return found


def test_front_door(gateway: Callable[..., httpx.Client], upstream: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIENT_KEYS", "key-one, key-two ,")
    client = gateway(client_keys_env="CLIENT_KEYS")
    for given in REFUSED:
        headers = {} if given is None else {"authorization": given.encode("latin-1")}
        for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/models/up-model")):
            response = client.request(method, path, headers=headers, json=HELLO if method == "POST" else None)
            message = check_error(response, 401, "invalid_api_key", upstream)
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.headers["x-request-id"]
            assert "key-" not in message
            assert ("didn't provide" in message) == (not given)
    assert upstream.bodies == []
    for path in ("/livez", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200
    for given in ("Bearer key-one", "bearer key-two", "Bearer  key-one"):
        headers = {"authorization": given.encode()}
        assert client.post("/v1/chat/completions", json=HELLO, headers=headers).status_code == 200
        assert client.get("/v1/models/up-model", headers=headers).status_code == 200
    assert len(upstream.bodies) == 3


def test_key_is_asked_for_before_the_body_is_looked_at(
    gateway: Callable[..., httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_KEYS", "key-one")
    client = gateway(client_keys_env="CLIENT_KEYS")
    assert client.post("/v1/chat/completions", content=b"{").status_code == 401
    assert client.post("/v1/chat/completions", content=b" " * 20_000_000).status_code == 401


@pytest.mark.parametrize("given", [None, "Bearer ", "Bearer  ", " key-one", "Bearer\tkey-one"])
def test_odd_headers(given: str | None) -> None:
    with pytest.raises(Unauthorized):
        authenticate(ring("key-one"), given)


def test_without_keys_everyone_may_call() -> None:
    for given in (None, "Bearer anything"):
        assert (authenticate(ring(), given).name, authenticate(ring(), given).role) == ("", "admin")


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": []}))
    with pytest.raises(Unauthorized):
        authenticate(ring(path=tmp_path / "keys.json"), "Bearer anything")


def test_keys_beyond_ascii() -> None:
    """A header arrives as bytes, each shown as a character."""
    keys = ring("schl\u00fcssel")
    authenticate(keys, "Bearer " + "schl\u00fcssel".encode().decode("latin-1"))
    with pytest.raises(Unauthorized):
        authenticate(keys, "Bearer schl\u00fcssel")


def test_every_key_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many comparisons of as many bytes, whether a key is accepted, wrong, or of an id that does not exist."""
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr("gateway.keys.secret.hmac.compare_digest", compare)
    made, secret = create(tmp_path / "keys.json", "app")
    keys = ring("a", "b", "c", path=tmp_path / "keys.json")
    for given, name in (
        ("a", "env-1"),
        ("c", "env-3"),
        (secret, "app"),
        (secret + "x", None),
        (f"hhh_{made.id}_x", None),
        (f"hhh_{'0' * 12}_x", None),
        ("x" * 1000, None),
    ):
        compared.clear()
        if name is not None:
            assert authenticate(keys, f"Bearer {given}").name == name
        else:
            with pytest.raises(Unauthorized):
                authenticate(keys, f"Bearer {given}")
        assert len(compared) == 4
        assert {len(one) for pair in compared for one in pair} == {32}
