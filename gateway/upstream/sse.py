"""Server-sent events, read: the data of each event, from bytes that may be cut anywhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from gateway.errors import UpstreamBroken


async def events(pieces: AsyncIterable[bytes], most_bytes: int) -> AsyncGenerator[bytes, None]:
    """The `data` of each event; comments and other fields are skipped. Lines end in LF, CRLF or CR.

    Raises `UpstreamBroken` when one line is longer than `most_bytes`.
    """
    pending = b""
    data: list[bytes] = []
    async for piece in pieces:
        pending += piece
        # A CR at the very end may be the first half of a CRLF: wait for what follows.
        whole = pending[:-1] if pending.endswith(b"\r") else pending
        lines = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        pending = lines.pop() + pending[len(whole) :]
        if len(pending) > most_bytes:
            raise UpstreamBroken("A line of the model server's stream is too long.")
        for line in lines:
            if line.startswith(b"data:"):
                value = line[5:]
                data.append(value[1:] if value.startswith(b" ") else value)
            elif not line and data:
                yield b"\n".join(data)
                data = []
    last = pending.rstrip(b"\r")
    if last.startswith(b"data:"):
        data.append(last[5:].strip())
    if data:
        yield b"\n".join(data)
