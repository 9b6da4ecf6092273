"""Answers of one subject, remembered in a file as they come, so that a stopped run goes on where it was.

An answer is found again by the hash of the subject, the conversation and the sampling. A server is known by its address
and the model's name only: after a change behind them, begin with a fresh file.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from finetune.suite.subject import Ask, Reply, Subject

Progress = Callable[[int], None]


class Answers:
    def __init__(self, path: Path, subject: Subject, concurrency: int) -> None:
        self._path = path
        self._subject = subject
        self._places = asyncio.Semaphore(concurrency)
        self._known: dict[str, Reply] = {}
        self.asked = 0
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    self._known[row["key"]] = Reply(**row["reply"])
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a run that was killed while it wrote

    async def all(self, asks: Sequence[Ask], progress: Progress = lambda _: None) -> list[Reply]:
        """One reply per ask, in order. The first failure cancels the rest; what came is kept."""
        tasks = [asyncio.create_task(self.one(ask)) for ask in asks]
        try:
            for count, task in enumerate(asyncio.as_completed(tasks), 1):
                await task
                progress(count)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        return [task.result() for task in tasks]

    async def one(self, ask: Ask) -> Reply:
        key = ask.key(self._subject.fingerprint)
        if key in self._known:
            return self._known[key]
        async with self._places:
            if key in self._known:
                return self._known[key]
            reply = await self._subject.reply(ask)
        self._known[key] = reply
        self.asked += 1
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"key": key, "reply": asdict(reply)}, ensure_ascii=False) + "\n")
        return reply
