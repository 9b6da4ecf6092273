"""Triage at the speed of traffic: classified in small batches on a thread of its own, each verdict remembered."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import isfinite

from classifiers.explain import Weight, explain
from classifiers.message import Classifier, Judgement, Message

Screen = Callable[[Message], Judgement | None]


class Judge:
    """Scores texts. Those that arrive while a batch runs form the next one.

    `memory` verdicts are kept, least recently used first out, by the message's hash; the texts themselves are not kept.
    `screen`, where there is one, is asked first and on the event loop: its 0.1 ms is less than a change of threads.
    """

    def __init__(self, classifier: Classifier, *, max_batch: int, memory: int, screen: Screen | None = None) -> None:
        self._classifier = classifier
        self._screen = screen
        self._max_batch = max_batch
        self._memory = memory
        self._remembered: OrderedDict[bytes, Judgement] = OrderedDict()
        self._waiting: list[tuple[Message, asyncio.Future[Judgement]]] = []
        self._running: asyncio.Task[None] | None = None
        self._explaining = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="triage")

    async def score(self, message: Message) -> Judgement:
        """The judgement of a message: remembered, or the screen's, or the classifier's. Raises whatever that raises."""
        key = _key(message)
        known = self._remembered.get(key)
        if known is not None:
            self._remembered.move_to_end(key)
            return known
        cleared = self._screen(message) if self._screen is not None else None
        if cleared is not None:
            return cleared
        judgement = await self._classified(message)
        if self._memory:
            self._remembered[key] = judgement
            while len(self._remembered) > self._memory:
                self._remembered.popitem(last=False)
        return judgement

    async def score_reply(self, text: str) -> Judgement:
        """The same for a model's reply, which the screen knows nothing of, and which is not worth remembering."""
        return await self._classified(Message(text, kind="reply"))

    async def explain(self, message: Message, label: str) -> list[Weight]:
        """The words that moved the score; where none did by itself, those that did with their neighbours.

        One at a time, and not on triage's thread, for traffic must not wait.
        """
        async with self._explaining:
            for together in (1, 4):
                found = await asyncio.to_thread(explain, self._classifier, message, label, together=together)
                if found:
                    break
            return found

    async def _classified(self, message: Message) -> Judgement:
        future: asyncio.Future[Judgement] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
                batch = [(message, future) for message, future in batch if not future.done()]  # some gave up
                if batch:
                    await self._score(batch)
        finally:
            self._running = None

    async def _score(self, batch: list[tuple[Message, asyncio.Future[Judgement]]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            messages = [message for message, _ in batch]
            judgements = await loop.run_in_executor(self._thread, self._classifier.score, messages)
            pairs = list(zip(batch, judgements, strict=True))
        except Exception as error:  # noqa: BLE001  the seam of a rail: handed to each who waits
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), judgement in pairs:
            if future.done():
                continue
            if all(map(isfinite, (*judgement.scores.values(), judgement.toxicity))):
                future.set_result(judgement)
            else:  # not a number is below every threshold, and would let everything through
                future.set_exception(ValueError("the classifier gave no number"))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _key(message: Message) -> bytes:
    said = "\0".join((message.kind, message.before, message.text))
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()
