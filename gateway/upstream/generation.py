"""One answer in the making: its tokens, the text they spell, and the way back to the event loop.

`Text` turns token ids into whole characters and watches for stop strings. `Generation` is what an engine's thread
works on; what it emits is read by `pieces` on the loop. Neither knows how logits are made.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from gateway.upstream.engine import Finish, Job, Logits, Piece, Sampler


class Text:
    """Text that grows by tokens, given out in whole characters, ending before the first stop string."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        self.decode = decode
        self.stop = [string for string in stop if string]
        self.ids: list[int] = []
        self.spelled = 0  # ids[:spelled] are in `held` or were given out
        self.window = 0  # ids[window:spelled] give the decoder its left context
        self.held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """What can be given out now that `token` is there."""
        self.ids.append(token)
        before = self.decode(self.ids[self.window : self.spelled])
        after = self.decode(self.ids[self.window :])
        # A replacement character at the end is a character whose last bytes are still to come.
        if len(after) <= len(before) or after.endswith("\ufffd"):
            return ""
        self.window, self.spelled = self.spelled, len(self.ids)
        self.held += after[len(before) :]
        return self._release()

    def rest(self) -> str:
        """What is left when no more tokens come."""
        if self.stopped:
            return ""
        before = self.decode(self.ids[self.window : self.spelled])
        self.held += self.decode(self.ids[self.window :])[len(before) :]
        out = self._release()
        if not self.stopped:
            out, self.held = out + self.held, ""
        return out

    def _release(self) -> str:
        found = [at for at in (self.held.find(string) for string in self.stop) if at >= 0]
        if found:
            out, self.held, self.stopped = self.held[: min(found)], "", True
            return out
        keep = max((_tail(self.held, string) for string in self.stop), default=0)
        cut = len(self.held) - keep
        out, self.held = self.held[:cut], self.held[cut:]
        return out


def _tail(text: str, string: str) -> int:
    """How many characters at the end of `text` may be the beginning of `string`."""
    for size in range(min(len(text), len(string) - 1), 0, -1):
        if text.endswith(string[:size]):
            return size
    return 0


class Generation:
    """One job on its way through an engine. Made on the event loop, worked on by the engine's one thread."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.cancelled = False
        self.done = False
        self.prompt: list[int] = []
        self.count = 0
        self.most = 0
        self.ends: frozenset[int] = frozenset()
        self._loop = asyncio.get_running_loop()
        self._out: asyncio.Queue[Piece | Exception] = asyncio.Queue()

    def open(
        self,
        prompt: list[int],
        most: int,
        ends: frozenset[int],
        decode: Callable[[Sequence[int]], str],
        default_temperature: float,
    ) -> None:
        """Begin with a prompt of ids; at most `most` tokens, ended by any of `ends`."""
        self.prompt, self.most, self.ends = prompt, most, ends
        self.text = Text(decode, self.job.sampling.stop)
        self.sampler = Sampler(self.job.sampling, default_temperature)

    def take(self, logits: Logits) -> int:
        """Choose the next token from its logits [vocabulary], emit what it spells, and end where it ends."""
        token = self.sampler.pick(logits)
        self.count += 1
        if token in self.ends:
            self._finish(self.text.rest(), "stop")
            return token
        text = self.text.add(token)
        if self.text.stopped:
            self._finish(text, "stop")
        elif self.count >= self.most:
            text += self.text.rest()
            self._finish(text, "stop" if self.text.stopped else "length")
        elif text:
            self._emit(Piece(text))
        return token

    def fail(self, error: Exception) -> None:
        self.done = True
        self._emit(error)

    def _finish(self, text: str, finish: Finish) -> None:
        self.done = True
        self._emit(Piece(text, finish, len(self.prompt), self.count))

    def _emit(self, item: Piece | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to read it
            self._loop.call_soon_threadsafe(self._out.put_nowait, item)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """What the engine's thread emits, on the loop. Closing this cancels the work."""
        try:
            while True:
                item = await self._out.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if item.finish is not None:
                    return
        finally:
            self.cancelled = True
