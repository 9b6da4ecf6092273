"""What flows down the data path, whatever the endpoint: a call, the whole reply to it, or the chunks of a stream.

A `Form` knows one API: where its texts are, and how it says no. The guard knows texts and verdicts only, so that every
endpoint takes the same path. The forms themselves are in `gateway.forms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from gateway.digits import write

Route = Literal["allow", "advise", "review", "refuse"]
OnBlock = Literal["completion", "error"]
Kind = Literal["user", "tool"]
Body = Mapping[str, Any]
Message = dict[str, Any]
Path = tuple[str | int, ...]


def dump(value: Any) -> bytes:
    """JSON as we write it: UTF-8, compact, numbers as they came, non-ASCII kept.

    Escapes only where half a surrogate pair needs one.
    """
    try:
        return write(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return write(value, ensure_ascii=True).encode()


@dataclass(frozen=True, slots=True)
class Segment:
    """A new text of a request, and its place in the body. Those of one `group` are one thing said in pieces."""

    kind: Kind
    path: Path
    text: str
    group: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """A text of a whole reply, and its place in the body; of a tool's call when `tool`."""

    name: str
    path: Path
    text: str
    tool: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """One choice of a reply. `filtered`: a filter of the upstream's has already refused it."""

    said: Sequence[Said]
    filtered: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """What a chunk adds to one text of one choice. A `final` text is whole; a `tool` text is nothing until it is."""

    choice: int
    name: str
    text: str
    tool: bool = False
    final: bool = False


@dataclass(frozen=True, slots=True)
class Moves:
    """What a chunk does: pieces of text, and the choices that it ends, with the reason."""

    pieces: Sequence[Piece] = ()
    ends: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a refusal for the fields that may carry them; the policy's `refusal_style` says which."""

    content: str | None
    refusal: str | None

    @property
    def text(self) -> str:
        return self.content or self.refusal or ""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole reply of the model: `body` parsed, `raw` its bytes as they came (None when made here).

    `headers`: what the model server says beside it that is for the client.
    """

    body: Body
    raw: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def payload(self) -> bytes:
        return self.raw if self.raw is not None else dump(self.body)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of a streamed reply, parsed, with its bytes as they came (None when made here) and its name, if any.

    `headers`: as of a `Completion`, those of the whole stream.
    """

    body: Body
    raw: bytes | None = None
    event: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def payload(self) -> bytes:
        return self.raw if self.raw is not None else dump(self.body)


class Tape(Protocol):
    """One streamed reply: what its chunks say, what the client has seen of it, and how it ends in a refusal."""

    def read(self, chunk: Chunk) -> Moves:
        """What a chunk of the model's does. Raises `UpstreamBroken` when it is none."""

    def sent(self, chunk: Chunk) -> None:
        """The client has been sent this chunk."""

    def without(self, chunk: Chunk, choices: set[int]) -> Chunk | None:
        """The chunk without these choices; None when nothing is left of it that the client asked for."""

    def open(self) -> list[int]:
        """Choices whose end the client has not been sent."""

    def refuse(self, choice: int, words: Words, why: Body) -> list[Chunk]:
        """End a choice in a refusal; `why` is the `guardrails` object."""

    def close(self, usage: Body | None) -> list[Chunk]:
        """After refusals: what is missing of the end of the stream."""


class Form(Protocol):
    """One API of OpenAI's: the shapes of its requests, replies and streams."""

    endpoint: str  # as metrics and logs call it
    path: str  # under the upstream's address
    streams: bool
    done: bool  # whether its streams end in `[DONE]`
    refuses: bool  # whether it has a shape for a refusal; else a block is always an error

    def check(self, body: Body, most_messages: int) -> int:
        """How many characters of text a valid request has. Raises `BadRequest` or `TooLarge` naming the parameter."""

    def segments(self, body: Body) -> list[Segment]:
        """The texts of a request that are new."""

    def earlier(self, body: Body) -> str:
        """The user's last turns before the new ones, as far as a short new one may refer to them."""

    def unchecked(self, body: Body) -> list[str]:
        """The kinds of what is new and no text: one of `UNCHECKED` for each."""

    def guided(self, body: Body, text: str) -> Body:
        """The request with the policy's guidance for the model added, where the API has a place for it."""

    def choices(self, body: Body) -> int:
        """How many choices a request asks for."""

    def wants_usage(self, body: Body) -> bool:
        """Whether a stream shall end in what was used."""

    def well_formed(self, body: Body) -> bool:
        """Whether what is checked in a whole reply has the types that it must have."""

    def usage(self, body: Body) -> Body | None:
        """What a reply or a chunk says was used."""

    def replies(self, body: Body) -> list[Reply]:
        """The choices of a whole reply."""

    def rewritten(self, body: Body, said: Said, text: str) -> Body:
        """The reply with one text replaced, and nothing left that would spell out what was there."""

    def refused(self, body: Body, words: Mapping[int, Words], why: Body) -> Body:
        """The reply with these of its `replies` refused; nothing of what they said remains."""

    def refusal(self, call: Call, words: Words, why: Body) -> Body:
        """The reply to a request for which the model was never called."""

    def tape(self, call: Call) -> Tape:
        """For one streamed reply. Not called where the API does not stream."""

    def ends(self, body: Body) -> Sequence[int]:
        """The choices that a chunk ends, so that a stream that broke off is known from one that is over."""

    def last(self, body: Body) -> bool:
        """Whether a chunk is the last of its stream by itself."""

    def error(self, body: Body) -> Chunk:
        """An error object as the last event of a stream that failed."""


# Kinds of content that no check reads.
UNCHECKED = ("image", "audio", "video", "file", "tokens", "other")


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an endpoint.

    `body` is the client's JSON, parsed and never edited in place; `raw` its bytes, which go upstream as they came
    unless a rewrite dropped them (`with_body`, `with_model`). `characters`: how much text it has.
    """

    form: Form
    body: Body
    raw: bytes | None
    request_id: str
    route: Route = "allow"
    on_block: OnBlock = "completion"
    characters: int = 0

    @property
    def model(self) -> str:
        return str(self.body.get("model") or "")

    @property
    def stream(self) -> bool:
        return self.form.streams and self.body.get("stream") is True

    @property
    def choices(self) -> int:
        return self.form.choices(self.body)

    @property
    def wants_usage(self) -> bool:
        return self.form.wants_usage(self.body)

    def with_body(self, body: Body) -> Call:
        return self if body is self.body else replace(self, body=body, raw=None)

    def with_model(self, model: str) -> Call:
        return self if model == self.model else self.with_body({**self.body, "model": model})

    def with_route(self, route: Route) -> Call:
        return replace(self, route=route)

    def payload(self) -> bytes:
        """The bytes to send upstream."""
        return self.raw if self.raw is not None else dump(self.body)
