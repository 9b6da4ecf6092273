"""Server-sent events, read: the data of each event, from bytes that may be cut anywhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from typing import NamedTuple

from gateway.errors import UpstreamBroken

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event; `name` is None where it has none."""

    data: bytes
    name: bytes | None = None


async def events(pieces: AsyncIterable[bytes], most_bytes: int) -> AsyncGenerator[Event, None]:
    """The data of each event, and its name; comments, other fields and events without data are skipped.

    Lines end in LF, CRLF or CR. The last event need not be closed by an empty line.
    Raises `UpstreamBroken` when one event, or one line, is longer than `most_bytes`.
    """
    data: list[bytes] = []
    named: bytes | None = None
    size = 0
    async for line in _lines(pieces, most_bytes):
        if not line:
            if any(data):
                yield Event(b"\n".join(data), named)
            data, named, size = [], None, 0
            continue
        name, _, value = line.partition(b":")
        if name == b"event":
            named = value.removeprefix(b" ")
        if name == b"data":
            data.append(value.removeprefix(b" "))
            size += len(value) + 1
            if size > most_bytes:
                raise UpstreamBroken("An event of the model server's stream is too long.")
    if any(data):
        yield Event(b"\n".join(data), named)


async def _lines(pieces: AsyncIterable[bytes], most_bytes: int) -> AsyncGenerator[bytes, None]:
    """The lines without their ends, each as soon as it is whole; the last need not have an end."""
    pending = b""
    after_cr = False
    first = True
    async for piece in pieces:
        if not piece:
            continue
        # A CR at a cut ended its line; an LF that follows is the other half of that end.
        whole = pending + (piece[1:] if after_cr and piece.startswith(b"\n") else piece)
        after_cr = piece.endswith(b"\r")
        # The dot keeps `splitlines` from losing an empty last line. Of bytes it splits at CR, LF and CRLF only.
        *lines, rest = (whole + b".").splitlines()
        pending = rest[:-1]
        if max(map(len, (pending, *lines))) > most_bytes:
            raise UpstreamBroken("A line of the model server's stream is too long.")
        for line in lines:
            yield line.removeprefix(_BYTE_ORDER_MARK) if first else line
            first = False
    if pending:
        yield pending.removeprefix(_BYTE_ORDER_MARK) if first else pending
