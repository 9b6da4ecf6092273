"""OpenAI's chat completions over an engine in this process: requests to jobs, pieces to bodies and chunks.

What an engine cannot do is said (images, logprobs) or left out (tools, response formats: the embedded model can
neither call nor format). It serves one model, and runs every choice as a job of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from gateway.call import Call, Chunk, Completion
from gateway.errors import BadRequest, ModelNotFound, NotServed
from gateway.forms.chat import CHAT
from gateway.upstream.engine import Engine, Job, Piece, Sampling
from gateway.upstream.layout import Control

CHOICES = 16


class InProcess:
    """`Upstream` over an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._created = int(time.time())

    async def start(self) -> None:
        await self.engine.start()

    async def close(self) -> None:
        await self.engine.close()

    async def ready(self) -> bool:
        return self.engine.ready()

    async def models(self) -> Mapping[str, Any]:
        model = {"id": self.engine.name, "object": "model", "created": self._created, "owned_by": "hhh-gateway"}
        return {"object": "list", "data": [model]}

    async def complete(self, chat: Call) -> Completion:
        tasks = [asyncio.ensure_future(_whole(self.engine, job)) for job in self._jobs(chat)]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": None,
                "finish_reason": answer.finish,
            }
            for i, answer in enumerate(answers)
        ]
        return Completion({**self._head("chat.completion"), "choices": choices, "usage": usage(answers)})

    async def stream(self, chat: Call) -> AsyncGenerator[Chunk, None]:
        jobs = self._jobs(chat)
        head = self._head("chat.completion.chunk")
        blank = {"usage": None} if chat.wants_usage else {}

        def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> Chunk:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            return Chunk({**head, "choices": [choice], **blank})

        ended: list[Piece] = []
        async with aclosing(_merged(self.engine, jobs)) as pieces:
            opened = False
            async for index, piece in pieces:
                if not opened:  # only now, so that a request that cannot be served is an error and no stream
                    opened = True
                    for i in range(len(jobs)):
                        yield chunk(i, {"role": "assistant", "content": "", "refusal": None})
                if piece.text:
                    yield chunk(index, {"content": piece.text})
                if piece.finish is not None:
                    ended.append(piece)
                    yield chunk(index, {}, piece.finish)
        if chat.wants_usage:
            yield Chunk({**head, "choices": [], "usage": usage(ended)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.engine.name,
        }

    def _jobs(self, chat: Call) -> list[Job]:
        """One job per choice. Raises `NotServed`, `BadRequest` and `ModelNotFound`."""
        if chat.form is not CHAT:
            raise NotServed("This model answers chat completions only.")
        if chat.model != self.engine.name:
            raise ModelNotFound(chat.model)
        body = chat.body
        if body.get("logprobs") or body.get("top_logprobs"):
            raise BadRequest("This model gives no logprobs.", param="logprobs")
        if chat.choices > CHOICES:
            raise BadRequest(f"At most {CHOICES} choices are made at once.", param="n")
        job = Job(
            messages=[
                {"role": str(message.get("role")), "content": text(message, i)}
                for i, message in enumerate(chat.body["messages"])
            ],
            control=control(chat),
            sampling=sampling(body),
        )
        seed = job.sampling.seed
        if seed is None:
            return [job] * chat.choices
        return [replace(job, sampling=replace(job.sampling, seed=seed + i)) for i in range(chat.choices)]


def control(chat: Call) -> Control:
    """The control token of a route: the policy decides, the model only says it."""
    if chat.route == "advise":
        return "advise"
    return "refuse" if chat.route == "refuse" else "comply"


def text(message: Mapping[str, Any], index: int) -> str:
    """A message's text; text parts are joined."""
    content = message.get("content")
    where = f"messages[{index}].content"
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest("Content must be a string or an array of parts.", param=where)
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "refusal" and isinstance(part.get("refusal"), str):
            parts.append(part["refusal"])
        elif kind == "text" and isinstance(part.get("text"), str):
            parts.append(part["text"])
        else:
            raise BadRequest(f"This model reads text only, and a part is of type {str(kind)[:40]!r}.", param=where)
    return "\n".join(parts)


def sampling(body: Mapping[str, Any]) -> Sampling:
    """The sampling settings of a request; raises `BadRequest` naming the field."""
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else ([] if stop is None else stop)
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(s, str) and s for s in stops):
        raise BadRequest("stop must be a string or at most four strings, none empty.", param="stop")
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    top_p = _number(body, "top_p", 0, 1)
    return Sampling(
        temperature=_number(body, "temperature", 0, 2),
        top_p=1.0 if top_p is None else top_p,
        max_tokens=_integer(body, limit, 1),
        stop=tuple(stops),
        seed=_seed(body),
        presence_penalty=_number(body, "presence_penalty", -2, 2) or 0.0,
        frequency_penalty=_number(body, "frequency_penalty", -2, 2) or 0.0,
    )


def usage(answers: list[Piece]) -> dict[str, int]:
    """The prompt once, the answers of all choices."""
    prompt = answers[0].prompt_tokens if answers else 0
    completion = sum(answer.completion_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _number(body: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRequest(f"{name} must be a number.", param=name)
    if not low <= value <= high:
        raise BadRequest(f"{name} must be between {low} and {high}.", param=name)
    return float(value)


def _integer(body: Mapping[str, Any], name: str, low: int | None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or (low is not None and value < low):
        raise BadRequest(f"{name} must be an integer{'' if low is None else f' of at least {low}'}.", param=name)
    return value


def _seed(body: Mapping[str, Any]) -> int | None:
    value = _integer(body, "seed", None)
    return None if value is None else value % 2**63


async def _whole(engine: Engine, job: Job) -> Piece:
    """The answer as one piece."""
    parts = []
    async with aclosing(engine.generate(job)) as pieces:
        async for piece in pieces:
            parts.append(piece.text)
    return replace(piece, text="".join(parts))


async def _merged(engine: Engine, jobs: list[Job]) -> AsyncGenerator[tuple[int, Piece], None]:
    """The pieces of all jobs as they come, with the index of the job. Closing it cancels all of them."""
    if len(jobs) == 1:
        async with aclosing(engine.generate(jobs[0])) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    out: asyncio.Queue[tuple[int, Piece] | BaseException | None] = asyncio.Queue()

    async def pump(index: int, job: Job) -> None:
        async with aclosing(engine.generate(job)) as pieces:
            async for piece in pieces:
                out.put_nowait((index, piece))

    def ended(task: asyncio.Task[None]) -> None:
        out.put_nowait(None if task.cancelled() else task.exception())

    tasks = [asyncio.create_task(pump(i, job)) for i, job in enumerate(jobs)]
    for task in tasks:
        task.add_done_callback(ended)
    running = len(tasks)
    try:
        while running:
            item = await out.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
