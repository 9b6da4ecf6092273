"""`/v1/embeddings`: what goes in is checked; what comes out is numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.call import Body, Call, Chunk, Reply, Said, Segment, Tape, Words
from gateway.forms.completions import input_segments, unchecked_inputs
from gateway.forms.valid import check_case, check_inputs, check_model, missing


class Embeddings:
    """A `Form` without a shape for a refusal: a block is an error, whatever the policy's `on_block`."""

    endpoint = "embeddings"
    path = "/embeddings"
    streams = False
    done = True
    refuses = False

    def check(self, body: Body, most_messages: int) -> int:
        check_case(body, None)
        check_model(body)
        if body.get("input") is None:
            raise missing("input")
        return check_inputs(body["input"], "input")

    def segments(self, body: Body) -> list[Segment]:
        return input_segments(body, "input")

    def earlier(self, body: Body) -> str:
        return ""

    def unchecked(self, body: Body) -> list[str]:
        return unchecked_inputs(body, "input")

    def guided(self, body: Body, text: str) -> Body:
        return body

    def choices(self, body: Body) -> int:
        return 1

    def wants_usage(self, body: Body) -> bool:
        return False

    def well_formed(self, body: Body) -> bool:
        return isinstance(body.get("data"), list)

    def usage(self, body: Body) -> Body | None:
        usage = body.get("usage")
        return usage if isinstance(usage, dict) else None

    def replies(self, body: Body) -> list[Reply]:
        return []

    def rewritten(self, body: Body, said: Said, text: str) -> Body:
        return body

    def refused(self, body: Body, words: Mapping[int, Words], why: Body) -> Body:
        return {"guardrails": why}

    def refusal(self, call: Call, words: Words, why: Body) -> Body:
        return {"guardrails": why}

    def tape(self, call: Call) -> Tape:
        raise AssertionError("embeddings are not streamed")

    def ends(self, body: Body) -> Sequence[int]:
        return ()

    def last(self, body: Body) -> bool:
        return True

    def error(self, body: Body) -> Chunk:
        return Chunk(body)


EMBEDDINGS = Embeddings()
