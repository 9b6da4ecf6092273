"""`/v1/responses`. A refusal is a message with a part of type `refusal`, and the response ends `incomplete`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

from gateway.call import Body, Call, Chunk, Reply, Said, Segment, Tape, Words
from gateway.forms.events import LAST, ResponseTape, refusal_part
from gateway.forms.items import check_request, earlier, new_segments, said_by, unchecked_items
from gateway.forms.places import put

NO_USAGE: Mapping[str, Any] = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}

# What of a request its response repeats, and what it says where the request did not.
_REPEATED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}


class Responses:
    """A `Form` whose replies have one choice: the response."""

    endpoint = "responses"
    path = "/responses"
    streams = True
    done = False
    refuses = True

    def check(self, body: Body, most_messages: int) -> int:
        return check_request(body, most_messages)

    def segments(self, body: Body) -> list[Segment]:
        return new_segments(body)

    def earlier(self, body: Body) -> str:
        return earlier(body)

    def unchecked(self, body: Body) -> list[str]:
        return unchecked_items(body)

    def guided(self, body: Body, text: str) -> Body:
        """The guidance joined to `instructions`, or, where those are no text, before the input."""
        instructions = body.get("instructions")
        if isinstance(instructions, (str, NoneType)):
            return {**body, "instructions": f"{instructions}\n\n{text}" if instructions else text}
        given = body.get("input")
        items = given if isinstance(given, list) else [{"role": "user", "content": given}] if given else []
        return {**body, "input": [{"role": "developer", "content": text}, *items]}

    def choices(self, body: Body) -> int:
        return 1

    def wants_usage(self, body: Body) -> bool:
        return True

    def well_formed(self, body: Body) -> bool:
        return _is_response(body)

    def usage(self, body: Body) -> Body | None:
        response = body.get("response")
        usage = (response if isinstance(response, dict) else body).get("usage")
        return usage if isinstance(usage, dict) else None

    def replies(self, body: Body) -> list[Reply]:
        said = [one for index, item in enumerate(body["output"]) for one in said_by(item, ("output", index))]
        if isinstance(body.get("output_text"), str) and body["output_text"]:
            said.append(Said("content", ("output_text",), body["output_text"]))
        details = body.get("incomplete_details")
        return [Reply(said, isinstance(details, dict) and details.get("reason") == "content_filter")]

    def rewritten(self, body: Body, said: Said, text: str) -> Body:
        changed = put(body, said.path, text)
        if len(said.path) == 5:  # a part of a message's content: its logprobs would still spell out what was there
            changed = put(changed, (*said.path[:-1], "logprobs"), [])
        return changed

    def refused(self, body: Body, words: Mapping[int, Words], why: Body) -> Body:
        return {**ended(body, [message(words[0])], body.get("usage"), why)}

    def refusal(self, call: Call, words: Words, why: Body) -> Body:
        return ended(blank(call), [message(words)], None, why)

    def tape(self, call: Call) -> Tape:
        return ResponseTape(blank(call), ended)

    def ends(self, body: Body) -> Sequence[int]:
        return [0] if self.last(body) else []

    def last(self, body: Body) -> bool:
        return body.get("type") in LAST

    def error(self, body: Body) -> Chunk:
        """Flat, as OpenAI's event has it, and with the object that its clients raise as an error."""
        error = body["error"]
        flat = {name: error.get(name) for name in ("code", "message", "param")}
        return Chunk({"type": "error", **flat, "sequence_number": 0, "error": error}, event=b"error")


def blank(call: Call) -> dict[str, Any]:
    """A response that has not begun."""
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": call.model,
        "output": [],
        **{name: call.body.get(name, value) for name, value in _REPEATED.items()},
        "usage": None,
    }


def ended(response: Body, output: list[Body], usage: Body | None, why: Body) -> dict[str, Any]:
    """A response that a refusal ended, with this output."""
    kept = {name: value for name, value in response.items() if name != "output_text"}
    return {
        **kept,
        "status": "incomplete",
        "error": None,
        "incomplete_details": {"reason": "content_filter"},
        "output": output,
        "usage": dict(usage or NO_USAGE),
        "guardrails": why,
    }


def message(words: Words) -> dict[str, Any]:
    """A message that says the words of a refusal and nothing else."""
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [refusal_part(words)],
    }


def _is_response(body: Body) -> bool:
    output = body.get("output")
    return (
        isinstance(output, list)
        and all(isinstance(item, dict) for item in output)
        and isinstance(body.get("usage"), (dict, NoneType))
    )


RESPONSES = Responses()
