"""What is evaluated: a model in this process or a server, behind one question and one reply.

A local model is run by the gateway's own engines, so that it is measured as it would be served: our embedded folder
(ONNX), the folder of a training run (`model/` with `tokenizer/`), any transformers folder, or a hub id.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from gateway.errors import BadRequest
from gateway.upstream.engine import Engine, Job, Sampling
from gateway.upstream.layout import CONTROLS, Control

HASHED_BYTES = 512 * 2**20
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """A conversation to answer. `control` counts only for a model that has our control tokens."""

    messages: tuple[Message, ...]
    control: Control = "comply"
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 256

    def key(self, subject: str) -> str:
        """What the answer is remembered by."""
        return hashlib.sha256(json.dumps([subject, asdict(self)], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Reply:
    """`blocked`: a gateway or a provider's filter answered. `refusal`: the model said so in the field of that name.

    `error`: there is no answer, and asking again would not give one (a prompt that is too long, for one).
    """

    text: str
    blocked: bool = False
    refusal: bool = False
    error: str | None = None


class Subject(Protocol):
    name: str
    fingerprint: str
    controls: bool

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def reply(self, ask: Ask) -> Reply: ...


class NoSubject(ValueError):
    """Nothing can be evaluated: no such model, no such server. The message says which."""


class Local:
    """A model in this process; `batch` conversations are generated together."""

    def __init__(self, model: str, threads: int = 0, batch: int = 16) -> None:
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        folder = Path(model)
        self.name = folder.resolve().name if folder.is_dir() else model
        self.fingerprint = fingerprint(folder) if folder.is_dir() else model
        self.place = self._assemble(folder) if (folder / "model" / "config.json").is_file() else model
        self.controls = has_controls(Path(self.place))
        self._engine = self._build(threads, batch)

    async def start(self) -> None:
        await self._engine.start()

    async def close(self) -> None:
        await self._engine.close()

    def forget(self) -> None:
        """Remove what was assembled."""
        if self._scratch is not None:
            self._scratch.cleanup()

    async def reply(self, ask: Ask) -> Reply:
        try:
            return Reply(await self._generate(ask, tools=True))
        except BadRequest as error:
            if getattr(error, "code", None) == "context_length_exceeded":
                return Reply("", error="the prompt is longer than the model's context")
        try:  # many chat templates know no tool role
            return Reply(await self._generate(ask, tools=False))
        except BadRequest as error:
            return Reply("", error=str(error))

    async def _generate(self, ask: Ask, tools: bool) -> str:
        sampling = Sampling(temperature=ask.temperature, max_tokens=ask.max_tokens, seed=ask.seed)
        parts = []
        async with aclosing(self._engine.generate(Job(spoken(ask.messages, tools), ask.control, sampling))) as pieces:
            async for piece in pieces:
                parts.append(piece.text)
        return "".join(parts)

    def _build(self, threads: int, batch: int) -> Engine:
        if is_embedded(Path(self.place)):
            from gateway.upstream.embedded import EmbeddedEngine

            return EmbeddedEngine(Path(self.place), threads, batch)
        from gateway.upstream.local import TransformersEngine

        return TransformersEngine(self.place, threads, batch)

    def _assemble(self, run: Path) -> str:
        """The model and the tokenizer of a training run in one folder, as transformers reads them."""
        self._scratch = tempfile.TemporaryDirectory(prefix="hhh-eval-")
        self.name = run.resolve().name
        for part in ("tokenizer", "model"):
            for path in sorted((run / part).glob("*")):
                target = Path(self._scratch.name) / path.name
                if path.is_file() and not target.exists():
                    target.symlink_to(path.resolve())
        return self._scratch.name


def spoken(messages: tuple[Message, ...], tools: bool) -> list[dict[str, str]]:
    """Role and text only; without `tools`, what a tool returned is told by the user."""
    found = []
    for message in messages:
        role, said = str(message["role"]), str(message.get("content") or "")
        if role == "tool" and not tools:
            role, said = "user", f"The tool returned:\n{said}"
        elif message.get("tool_calls") and not tools:
            said = "I will look at it."
        found.append({"role": role, "content": said})
    return found


def is_embedded(folder: Path) -> bool:
    """Whether a folder is one of `finetune.hhh.export`."""
    config = folder / "config.json"
    if not config.is_file() or not (folder / "model.onnx").is_file():
        return False
    return bool(json.loads(config.read_text(encoding="utf-8")).get("model_type") == "hhh-embedded")


def has_controls(folder: Path) -> bool:
    """Whether the tokenizer of a folder has our control tokens; a hub id is not looked into."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return False
    text = file.read_text(encoding="utf-8")
    return all(json.dumps(token) in text for token in CONTROLS.values())


def fingerprint(folder: Path) -> str:
    """Of the files of a model: their contents, or for large ones their sizes and times."""
    digest = hashlib.sha256()
    names = (".json", ".onnx", ".safetensors", ".bin", ".jinja", ".model", ".data")
    # Not deeper: a report may lie in the run's own folder.
    places = (folder, folder / "model", folder / "tokenizer")
    files = [path for place in places if place.is_dir() for path in place.iterdir() if path.is_file()]
    for path in sorted(path for path in files if path.name.endswith(names)):
        if path.name in ("result.json", "export.json", "training_args.bin"):
            continue
        about = path.stat()
        digest.update(f"{path.relative_to(folder)}:{about.st_size}".encode())
        digest.update(path.read_bytes() if about.st_size <= HASHED_BYTES else str(about.st_mtime_ns).encode())
    return digest.hexdigest()
