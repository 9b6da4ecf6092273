"""The endpoints that the guard stands before, each with a request, a reply, and how a refusal looks in its shape.

`python -m tests.endpoints` writes the table in docs/api.md; `tests/gateway/http/test_matrix.py` proves each cell.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes import chunk, completion

DOCS = Path(__file__).resolve().parent.parent / "docs" / "api.md"
BEGIN, END = "<!-- python -m tests.endpoints -->\n", "<!-- end -->\n"

Replies = Callable[[str, str], tuple[Any, list[dict[str, Any]]]]


@dataclass(frozen=True)
class Endpoint:
    """`request(asked, said, arguments, stream)`; `replies` None: no model is asked; `refusal` is empty for none."""

    path: str
    label: str
    streams: tuple[bool, ...]
    stages: tuple[str, ...]
    request: Callable[[str, str, str, bool], dict[str, Any]]
    replies: Replies | None
    refusal: Callable[[Any, bool], str]


def events(response: Any) -> list[Any]:
    """The data of each event of a stream."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def _calls(arguments: str) -> list[dict[str, Any]]:
    return [{"index": 0, "id": "c1", "type": "function", "function": {"name": "mail", "arguments": arguments}}]


def _chat_replies(said: str, arguments: str) -> tuple[Any, list[dict[str, Any]]]:
    reply = completion(said)
    if arguments:
        reply["choices"][0]["message"]["tool_calls"] = _calls(arguments)
    pieces = [chunk({"content": letter}) for letter in said]
    calls = [chunk({"tool_calls": _calls(letter)}) for letter in arguments]
    return reply, [chunk({"role": "assistant", "content": ""}), *pieces, *calls, chunk({}, "stop")]


def _chat_refusal(response: Any, stream: bool) -> str:
    assert response.status_code == 200, response.text
    if not stream:
        choice = response.json()["choices"][0]
        return str(choice["message"]["content"]) if choice["finish_reason"] == "content_filter" else ""
    assert response.text.endswith("data: [DONE]\n\n")
    choices = [choice for event in events(response) for choice in event["choices"]]
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(ends) == 1
    return "".join(choice["delta"].get("refusal") or "" for choice in choices) if ends == ["content_filter"] else ""


def _text_replies(said: str, arguments: str) -> tuple[Any, list[dict[str, Any]]]:
    def body(text: str, finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return {"id": "cmpl-up", "object": "text_completion", "created": 1, "model": "up", "choices": [choice]}

    whole = {**body(said, "stop"), "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
    return whole, [*(body(letter, None) for letter in said), body("", "stop")]


def _text_refusal(response: Any, stream: bool) -> str:
    assert response.status_code == 200, response.text
    bodies = events(response) if stream else [response.json()]
    choices = [choice for body in bodies for choice in body["choices"]]
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(ends) == 1
    return "".join(choice["text"] for choice in choices) if ends == ["content_filter"] else ""


def response_body(said: str, arguments: str = "") -> dict[str, Any]:
    """A response of `/v1/responses` as a model server would answer it."""
    part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    call = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "mail", "arguments": arguments}
    return {
        "id": "resp_up",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "up-model",
        "output": [item, {**call, "status": "completed"}] if arguments else [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 12,
        },
    }


def response_events(said: list[str], arguments: list[str]) -> list[dict[str, Any]]:
    """The events of a streamed response that says these pieces, and calls a tool with those."""
    whole = response_body("".join(said), "".join(arguments))
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    message = whole["output"][0]
    part = message["content"][0]
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    found: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**message, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []} for piece in said),
        {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": message},
    ]
    if arguments:
        call = whole["output"][1]
        at = {"item_id": "fc_1", "output_index": 1}
        kind = "response.function_call_arguments"
        found += [
            {"type": "response.output_item.added", "output_index": 1, "item": {**call, "arguments": ""}},
            *({"type": f"{kind}.delta", **at, "delta": piece} for piece in arguments),
            {"type": f"{kind}.done", **at, "arguments": call["arguments"]},
            {"type": "response.output_item.done", "output_index": 1, "item": call},
        ]
    found.append({"type": "response.completed", "response": whole})
    return [{**event, "sequence_number": number} for number, event in enumerate(found)]


def _responses_replies(said: str, arguments: str) -> tuple[Any, list[dict[str, Any]]]:
    return response_body(said, arguments), response_events(list(said), list(arguments))


def _responses_refusal(response: Any, stream: bool) -> str:
    assert response.status_code == 200, response.text
    body = events(response)[-1]["response"] if stream else response.json()
    if body["status"] != "incomplete":
        return ""
    assert body["incomplete_details"] == {"reason": "content_filter"}
    parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["refusal"] for part in parts if part["type"] == "refusal")


def _embeddings_replies(said: str, arguments: str) -> tuple[Any, list[dict[str, Any]]]:
    data = [{"object": "embedding", "index": 0, "embedding": [0.1, -0.25]}]
    return {"object": "list", "data": data, "model": "up", "usage": {"prompt_tokens": 1, "total_tokens": 1}}, []


def _error_refusal(response: Any, stream: bool) -> str:
    if response.status_code == 200:
        return ""
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "content_filter"
    return str(response.json()["error"]["message"])


def _conversation(asked: str, said: str, arguments: str) -> list[dict[str, Any]]:
    reply: dict[str, Any] = {"role": "assistant", "content": said}
    if arguments:
        reply["tool_calls"] = _calls(arguments)
    return [{"role": "user", "content": asked}, reply]


def _litellm_request(asked: str, said: str, arguments: str, stream: bool) -> dict[str, Any]:
    """Where the reply has something of its own to check, after the model; else before it."""
    if said.startswith("Well") or arguments:
        calls = {"tool_calls": _calls(arguments)} if arguments else {}
        return {"texts": [said], "input_type": "response", "request_data": {}, **calls}
    messages = [{"role": "user", "content": asked}]
    return {"texts": [asked], "structured_messages": messages, "input_type": "request", "request_data": {}}


def _litellm_refusal(response: Any, stream: bool) -> str:
    body = response.json()
    return str(body["blocked_reason"]) if body["action"] == "BLOCKED" else ""


BOTH, WHOLE = (False, True), (False,)
ALL = ("triage", "input", "output", "tool")

ENDPOINTS = (
    Endpoint(
        "/v1/chat/completions",
        "chat_completions",
        BOTH,
        ALL,
        lambda asked, said, arguments, stream: {
            "model": "m",
            "messages": [{"role": "user", "content": asked}],
            "stream": stream,
        },
        _chat_replies,
        _chat_refusal,
    ),
    Endpoint(
        "/v1/responses",
        "responses",
        BOTH,
        ALL,
        lambda asked, said, arguments, stream: {"model": "m", "input": asked, "stream": stream},
        _responses_replies,
        _responses_refusal,
    ),
    Endpoint(
        "/v1/completions",
        "completions",
        BOTH,
        ("triage", "input", "output"),
        lambda asked, said, arguments, stream: {"model": "m", "prompt": asked, "stream": stream},
        _text_replies,
        _text_refusal,
    ),
    Endpoint(
        "/v1/embeddings",
        "embeddings",
        WHOLE,
        ("triage", "input"),
        lambda asked, said, arguments, stream: {"model": "m", "input": ["Hello", asked]},
        _embeddings_replies,
        _error_refusal,
    ),
    Endpoint(
        "/v1/guardrails/check",
        "guardrails_check",
        WHOLE,
        ALL,
        lambda asked, said, arguments, stream: {"messages": _conversation(asked, said, arguments)},
        None,
        lambda response, stream: response.json().get("refusal", ""),
    ),
    Endpoint(
        "/beta/litellm_basic_guardrail_api",
        "litellm_guardrail",
        WHOLE,
        ALL,
        _litellm_request,
        None,
        _litellm_refusal,
    ),
)


def table() -> str:
    """The endpoints in rows, the stages in columns, as docs/api.md has them."""
    lines = ["| endpoint | stream | " + " | ".join(ALL) + " |", "|---" * (len(ALL) + 2) + "|"]
    for endpoint in ENDPOINTS:
        for stream in endpoint.streams:
            cells = ["blocks" if stage in endpoint.stages else "-" for stage in ALL]
            lines.append(f"| `{endpoint.path}` | {'yes' if stream else 'no'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    page = DOCS.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    DOCS.write_text(head + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
