"""The table of errors: every error is in it, and every entry is OpenAI's shape."""

from __future__ import annotations

import inspect

import httpx2 as httpx
import pytest

from gateway import errors
from gateway.http.errors import TABLE, reply
from tests.gateway.http.conftest import Front, check_error

FAILURES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.GatewayError) and not error.__subclasses__()
]


def test_no_error_is_missing_from_the_table() -> None:
    assert set(TABLE) == set(FAILURES)
    assert not issubclass(errors.ConfigError, errors.GatewayError)


def test_the_tree_of_the_docstring_is_the_tree_of_the_code() -> None:
    names = {line.split()[0] for line in (errors.__doc__ or "").splitlines()[2:] if line.strip()}
    defined = {name for name, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, Exception)}
    assert defined <= names


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: error.__name__)
def test_every_error_has_a_status_and_all_four_keys(error: type[errors.GatewayError]) -> None:
    if error is errors.UpstreamRejected:
        made: errors.GatewayError = errors.UpstreamRejected(500, None, {})
    elif error is errors.RailFailed:
        made = errors.RailFailed("triage", "timeout")
    else:
        made = error("It failed.")
    status, body, headers = reply(made)
    assert 400 <= status < 600
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert headers.get("x-should-retry") == ("false" if error is errors.RailFailed else None)


@pytest.mark.parametrize(
    ("upstream", "ours"),
    [
        *((status, status) for status in (400, 404, 409, 413, 415, 422, 429)),
        *((status, 502) for status in (401, 402, 403, 408, 500, 502, 503, 504, 529)),
    ],
)
def test_status_of_a_rejection(upstream: int, ours: int) -> None:
    said = {"message": "said", "type": "a_type", "param": "a_param", "code": "a_code"}
    status, body, headers = reply(errors.UpstreamRejected(upstream, said, {"retry-after": "3"}))
    assert status == ours
    assert headers == {"retry-after": "3"}
    assert body["error"] == (
        said
        if ours == upstream != 502
        else {
            "message": f"The model server answered with status {upstream}.",
            "type": "upstream_error",
            "param": None,
            "code": "upstream_rejected",
        }
    )


def test_rejection_keeps_what_else_the_upstream_said() -> None:
    said = {"message": "said", "type": "t", "param": None, "code": 400, "innererror": {"code": "x"}}
    assert reply(errors.UpstreamRejected(400, said, {}))[1]["error"] == said
    assert reply(errors.UpstreamRejected(429, {**said, "code": None}, {}))[1]["error"] == {**said, "code": None}


@pytest.mark.parametrize("said", [None, {}, {"message": None}, {"message": 1, "type": [], "param": {}}])
def test_rejection_without_a_proper_error_object(said: dict[str, object] | None) -> None:
    _, body, _ = reply(errors.UpstreamRejected(400, said, {}))
    assert body["error"] == {
        "message": "The model server answered with status 400.",
        "type": "invalid_request_error",
        "param": None,
        "code": "upstream_rejected",
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1", 404, "unknown_url"),
        ("POST", "/v1/images/generations", 404, "unknown_url"),
        ("GET", "/v1/responses/resp_1", 404, "unknown_url"),
        ("POST", "/v1/chat/completions/more", 404, "unknown_url"),
        ("GET", "/docs", 404, "unknown_url"),
        ("GET", '/%22%3Cscript%3E"', 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("PUT", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/metrics", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/chat/completions", 405, "method_not_allowed"),
    ],
)
def test_no_such_route(front: Front, method: str, path: str, status: int, code: str) -> None:
    response = front.client.request(method, path)
    check_error(response, status, code, front.upstream)
    if status == 405:
        assert response.headers["allow"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/v1/models", 200), ("/v1/chat/completions", 405)],
)
def test_head(front: Front, path: str, status: int) -> None:
    response: httpx.Response = front.client.head(path)
    assert response.status_code == status
    assert response.content == b""
