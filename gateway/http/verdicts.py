"""The checks without the model: `POST /v1/guardrails/check`, and LiteLLM's generic guardrail API.

Both take the guard's path of chat completions. LiteLLM calls its API before the model (`input_type: request`) and after
it (`response`), with the texts of the messages apart, and the messages themselves where it has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.call import Body, Call, Completion
from gateway.config import Limits
from gateway.errors import BadRequest, TooLarge
from gateway.forms.chat import CHAT, check_message, is_models
from gateway.forms.places import at, strings
from gateway.forms.texts import new_turns
from gateway.forms.valid import check_case, check_count, check_object, missing
from gateway.guard.verdict import Verdict
from gateway.http.details import details, wanted, way
from gateway.http.exchange import answered, read_body
from gateway.http.requests import check_characters, parse_json
from gateway.http.service import Visit
from gateway.record.observation import Observation


async def check(request: Request, visit: Visit) -> Response:
    """The verdict on `messages`. An assistant's message at the end is checked as the reply to those before it.

    An admin's key may ask for `detail`, and name the `policy`.
    """
    limits, seen = visit.config.limits, visit.seen
    body = parse_json(await read_body(request, limits.body_bytes))
    call, reply = _conversation(body, limits, seen)
    detailed = wanted(body, visit)
    pipeline = way(request, body, visit, call, detailed)
    seen.steps = [] if detailed else None
    found = await pipeline.check(call, reply, seen)
    await seen.settle()
    policy = pipeline.guard.policy
    content: dict[str, Any] = {
        "decision": seen.decision,
        "stage": seen.stage or None,
        "rail": seen.rail or None,
        "category": seen.category or None,
        "route": seen.route,
        "label": seen.label,
        "score": round(seen.score, 6),
        "policy": {"name": policy.name, "version": policy.version},
        "request_id": seen.request_id,
        "latency_ms": seen.latency_ms(),
    }
    if isinstance(found, Verdict):
        content |= {"reason": found.reason, "refusal": found.text}
    elif isinstance(found, Completion):
        why = found.body.get("guardrails")
        message = found.body["choices"][0]["message"]
        if why is not None:
            content |= {"reason": why["reason"], "refusal": message.get("content") or message.get("refusal")}
        elif found is not reply:
            content["messages"] = [*call.body["messages"], message]
    elif seen.decision == "modify":
        content["messages"] = found.body["messages"]
    if detailed:
        seen.finish()  # what follows is no part of the check, and none of its time
        content["detail"] = await details(pipeline, call, visit, found)
    return answered(content, seen)


def _conversation(body: Mapping[str, Any], limits: Limits, seen: Observation) -> tuple[Call, Completion | None]:
    check_case(body, None)
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise BadRequest("'messages' must be an array", param="messages", code="invalid_type")
    check_count(messages, limits.messages, "messages")
    check_characters(sum(check_message(one, f"messages[{index}]") for index, one in enumerate(messages)), limits)
    reply = messages[-1] if len(messages) > 1 and messages[-1]["role"] == "assistant" else None
    asked = messages[:-1] if reply is not None else messages
    return _call(asked, seen), _completion(reply) if reply is not None else None


def _call(messages: list[Any], seen: Observation) -> Call:
    return Call(CHAT, {"model": "none", "messages": messages}, None, seen.request_id)


def _completion(message: Mapping[str, Any]) -> Completion:
    body: Body = {"choices": [{"index": 0, "message": dict(message), "finish_reason": "stop"}]}
    if not CHAT.well_formed(body):
        raise BadRequest("the last message is no reply of an assistant", param="messages", code="invalid_type")
    return Completion(body)


async def litellm(request: Request, visit: Visit) -> Response:
    """`action`: BLOCKED with a reason, GUARDRAIL_INTERVENED with the texts as the rails rewrote them, or NONE."""
    limits, pipeline, seen = visit.config.limits, visit.pipeline, visit.seen
    body = parse_json(await read_body(request, limits.body_bytes))
    check_case(body, None)
    texts = _texts(body, limits)
    asked: list[Any] = []
    if body.get("input_type", "request") == "response":
        reply = _spoken(texts, body)
        found = await pipeline.check(_call([{"role": "user", "content": ""}], seen), reply, seen)
    else:
        reply = None
        asked = _asked(texts, body, limits)
        call = _call(asked, seen)
        found = await visit.way(call).check(call, None, seen)
    await seen.settle()
    if isinstance(found, Verdict):
        return _litellm("BLOCKED", seen, blocked_reason=found.text)
    if isinstance(found, Completion):
        if "guardrails" in found.body:
            refused = next(one["message"] for one in found.body["choices"] if one["finish_reason"] == "content_filter")
            return _litellm("BLOCKED", seen, blocked_reason=refused["content"] or refused["refusal"])
        if found is not reply:
            said = [choice["message"].get("content") or "" for choice in found.body["choices"]]
            return _litellm("GUARDRAIL_INTERVENED", seen, texts=said[: len(texts)])
        return _litellm("NONE", seen)
    if seen.decision == "modify":
        return _litellm("GUARDRAIL_INTERVENED", seen, texts=_rewritten(texts, asked, found))
    return _litellm("NONE", seen)


def _litellm(action: str, seen: Observation, **members: Any) -> Response:
    return answered({"action": action, **members}, seen)


def _texts(body: Mapping[str, Any], limits: Limits) -> list[str]:
    texts = body.get("texts")
    if texts is None:
        texts = []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadRequest("'texts' must be an array of strings", param="texts", code="invalid_type")
    if len(texts) > limits.messages:
        raise TooLarge(f"at most {limits.messages} texts are taken", param="texts")
    check_characters(sum(map(len, texts)), limits)
    if body.get("input_type", "request") not in ("request", "response"):
        raise BadRequest("'input_type' must be `request` or `response`", param="input_type", code="invalid_value")
    return texts


def _asked(texts: list[str], body: Mapping[str, Any], limits: Limits) -> list[Any]:
    """The messages where LiteLLM has them, so that only what is new is checked; else each text as a user's.

    A text that is in none of the messages is new too: it is put before the user's last turn.
    """
    messages = body.get("structured_messages")
    if not isinstance(messages, list) or not messages:
        return [{"role": "user", "content": text} for text in texts] or [{"role": "user", "content": ""}]
    check_count(messages, limits.messages, "structured_messages")
    for index, message in enumerate(messages):
        check_message(check_object(message, f"structured_messages[{index}]"), f"structured_messages[{index}]")
    known = {text for message in messages for _, text in strings(message.get("content"))}
    others = [{"role": "user", "content": text} for text in texts if text not in known]
    end = new_turns(messages, is_models).start
    return [*messages[:end], *others, *messages[end:]]


def _spoken(texts: list[str], body: Mapping[str, Any]) -> Completion:
    """Each text as a choice of its own, and the tools' calls as another."""
    messages: list[dict[str, Any]] = [{"role": "assistant", "content": text} for text in texts]
    calls = body.get("tool_calls")
    if isinstance(calls, list) and calls:
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
    choices = [{"index": index, "message": one, "finish_reason": "stop"} for index, one in enumerate(messages)]
    if not CHAT.well_formed({"choices": choices}):
        raise BadRequest("'tool_calls' must be an array of calls", param="tool_calls", code="invalid_type")
    return Completion({"choices": choices})


def _rewritten(texts: list[str], before: list[Any], call: Call) -> list[str]:
    """The texts with what the rails rewrote, wherever it stands among them."""
    changed: dict[str, str] = {}
    for place, text in strings(before):
        now = at(call.body["messages"], place) if "role" not in place else text
        if now != text:
            changed[text] = now
    return [changed.get(text, text) for text in texts]
