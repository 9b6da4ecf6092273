"""The thread of an in-process engine: it takes new generations when there is room and works on them in turns.

The event loop only ever waits on a queue. What a turn does is the engine's: `Model` is all that this knows of it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator
from typing import Protocol

from gateway.errors import ClientError, Draining, UpstreamBroken
from gateway.upstream.engine import Job, Piece, cores
from gateway.upstream.generation import Generation


class Model(Protocol):
    """What runs on the thread. An exception other than `ClientError` fails the generations that were in it."""

    def open(self, generation: Generation) -> None:
        """Encode its prompt; raises `ClientError`."""

    def admit(self, generations: list[Generation]) -> None:
        """Take opened generations in."""

    def step(self) -> None:
        """Bring all that were admitted forward, and drop those that are done or cancelled."""

    def active(self) -> list[Generation]:
        """Those not done yet."""

    def drop(self) -> None:
        """Forget all of them, whatever state they are in."""


class WorkerEngine:
    """An `Engine` whose model runs on a `Worker`. A subclass says how it is called and how it is loaded."""

    def __init__(self, threads: int, max_batch: int) -> None:
        self.threads = cores(threads)
        self.max_batch = max_batch
        self._worker: Worker | None = None

    def load(self) -> Model:
        """Load the model; called off the event loop. Raises `ConfigError`."""
        raise NotImplementedError

    async def start(self) -> None:
        self._worker = Worker(await asyncio.to_thread(self.load), self.max_batch)
        self._worker.start()

    async def close(self) -> None:
        if self._worker is not None:
            await self._worker.close()

    def ready(self) -> bool:
        return self._worker is not None and self._worker.alive()

    def generate(self, job: Job) -> AsyncGenerator[Piece, None]:
        if self._worker is None:
            raise RuntimeError("start() comes first")
        return self._worker.generate(job)


class Worker:
    """One thread for one model; at most `max_batch` generations at once, the rest wait in order."""

    def __init__(self, model: Model, max_batch: int) -> None:
        self.model = model
        self.max_batch = max_batch
        self._waiting: queue.SimpleQueue[Generation | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def close(self) -> None:
        """Ends the thread after its current step; what was being generated fails."""
        self._closed.set()
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closed.is_set()

    async def generate(self, job: Job) -> AsyncGenerator[Piece, None]:
        if not self.alive():
            raise Draining("The model is not running.")
        generation = Generation(job)
        self._waiting.put(generation)
        pieces = generation.pieces()
        try:
            async for piece in pieces:
                yield piece
        finally:
            generation.cancelled = True
            await pieces.aclose()

    def _run(self) -> None:
        while not self._closed.is_set():
            fresh: list[Generation] = []
            try:
                self._arrive(fresh)
                if fresh:
                    self.model.admit(fresh)
                if self.model.active():
                    self.model.step()
            except Exception as error:  # noqa: BLE001 - the seam of the upstream: the model failed, the thread goes on
                self._fail([*self.model.active(), *fresh], error)
        self._drain()

    def _arrive(self, fresh: list[Generation]) -> None:
        """Fill `fresh` with waiting generations for which there is room, opened. Blocks while nothing else is to do."""
        active = len(self.model.active())
        while active + len(fresh) < self.max_batch:
            try:
                generation = self._waiting.get(block=not active and not fresh)
            except queue.Empty:
                break
            if generation is None:
                break
            if generation.cancelled:
                continue
            fresh.append(generation)
            try:
                self.model.open(generation)
            except ClientError as error:
                fresh.pop().fail(error)

    def _fail(self, generations: list[Generation], error: Exception) -> None:
        for generation in generations:
            if not generation.done:
                generation.fail(UpstreamBroken(f"The model failed ({type(error).__name__})."))
        self.model.drop()

    def _drain(self) -> None:
        left = self.model.active()
        while True:
            try:
                generation = self._waiting.get(block=False)
            except queue.Empty:
                break
            if generation is not None:
                left.append(generation)
        for generation in left:
            if not generation.done:
                generation.fail(Draining("The model was stopped."))
        self.model.drop()
