"""The embedded model: ONNX Runtime on the CPU, no torch, chats decoded together.

Continuous batching: between two steps finished chats leave the batch and waiting ones join it. Rows are padded on the
left to a common length. Deterministic: with a seed, an answer does not depend on what else is in the batch, up to
rounding. A demonstration model of a few million parameters; it follows no instructions in system messages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from classifiers.shipped import CorruptWeights, verified
from gateway.errors import BadRequest, ConfigError
from gateway.upstream.generation import Generation
from gateway.upstream.layout import END, PAD, Layout, PromptTooLong
from gateway.upstream.worker import WorkerEngine

SHIPPED = Path(__file__).parent / "weights" / "hhh-embedded"
FILES = ("model.onnx", "tokenizer.json", "config.json")
ANSWER_TOKENS = 160  # kept free for the answer when a prompt is fitted, unless the client asks for fewer


def verify(folder: Path) -> dict[str, Any]:
    """The model's config.json, once every file is what manifest.json says. Raises `ConfigError`."""
    try:
        path = verified(folder, FILES) / "config.json"
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return config
    except (CorruptWeights, OSError, ValueError) as error:
        raise ConfigError(f"{folder}: no model of ours: {error}") from None


class EmbeddedEngine(WorkerEngine):
    """`Engine` over a folder written by `finetune.hhh.export`; None is the shipped one."""

    def __init__(self, folder: Path | None = None, threads: int = 0, max_batch: int = 8) -> None:
        self.folder = folder or SHIPPED
        super().__init__(threads, max_batch)

    @property
    def name(self) -> str:
        return self.folder.name

    def load(self) -> Batch:
        return Batch(self.folder, self.threads)


class Batch:
    """The session, and the rows being decoded: `past` holds [rows, heads, length, width] per layer and part."""

    def __init__(self, folder: Path, threads: int) -> None:
        config = verify(folder)
        self.context = int(config["context"])
        self.temperature = float(config["temperature"])
        self.cache = [f"{i}.{part}" for i in range(int(config["layers"])) for part in ("key", "value")]
        self.shape = (int(config["heads"]), int(config["head_width"]))
        self.layout = Layout(Tokenizer.from_file(str(folder / "tokenizer.json")))
        self.ends = frozenset({self.layout.ids[END]})
        # What an answer cannot contain: every special token but the one that ends it.
        self.barred = np.array([i for token, i in self.layout.ids.items() if token != END], dtype=np.int64)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin between steps would take the cores from the event loop and the classifier.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.outputs = ["logits", *(f"present.{name}" for name in self.cache)]
        self.drop()

    def drop(self) -> None:
        self.rows: list[Generation] = []
        self.past: list[Any] = []
        self.mask = np.zeros((0, 0), dtype=np.int32)
        self.tokens = np.zeros(0, dtype=np.int64)

    def active(self) -> list[Generation]:
        return list(self.rows)

    def open(self, generation: Generation) -> None:
        asked = generation.job.sampling.max_tokens
        room = max(1, min(asked or ANSWER_TOKENS, ANSWER_TOKENS, self.context // 2))
        try:
            prompt = self.layout.prompt(generation.job.messages, generation.job.control, self.context - room)
        except PromptTooLong as error:
            raise BadRequest(
                f"This model's context is {self.context} tokens. The last message, with the system message, takes "
                f"at least {error.needed}, and {error.limit} fit beside the answer.",
                param="messages",
                code="context_length_exceeded",
            ) from None
        most = min(asked or self.context, self.context - len(prompt))
        generation.open(prompt, most, self.ends, self._decode, self.temperature)

    def admit(self, generations: list[Generation]) -> None:
        """Read the prompts of new rows, choose their first tokens, and join them to the batch."""
        width = max(len(generation.prompt) for generation in generations)
        ids = np.full((len(generations), width), self.layout.ids[PAD], dtype=np.int64)
        mask = np.zeros((len(generations), width), dtype=np.int32)
        for row, generation in enumerate(generations):
            ids[row, width - len(generation.prompt) :] = generation.prompt
            mask[row, width - len(generation.prompt) :] = 1
        heads, head_width = self.shape
        empty = onnxruntime.OrtValue.ortvalue_from_numpy(
            np.zeros((len(generations), heads, 0, head_width), dtype=np.float32)
        )
        logits, past = self._run(ids, mask, [empty] * len(self.cache))
        tokens = self._choose(generations, logits)
        if self.rows:
            length = max(width, self.mask.shape[1])
            pasts = zip(self.past, past, strict=True)
            past = [
                onnxruntime.OrtValue.ortvalue_from_numpy(
                    np.concatenate([_pad(old.numpy(), length, 2), _pad(new.numpy(), length, 2)])
                )
                for old, new in pasts
            ]
            mask = np.concatenate([_pad(self.mask, length, 1), _pad(mask, length, 1)])
            tokens = np.concatenate([self.tokens, tokens])
        self.rows, self.past, self.mask, self.tokens = [*self.rows, *generations], past, mask, tokens
        self._leave()

    def step(self) -> None:
        self._leave()
        if not self.rows:
            return
        mask = np.concatenate([self.mask, np.ones((len(self.rows), 1), dtype=np.int32)], axis=1)
        logits, self.past = self._run(self.tokens[:, None], mask, self.past)
        self.mask = mask
        self.tokens = self._choose(self.rows, logits)
        self._leave()

    def _run(self, ids: NDArray[np.int64], mask: NDArray[np.int32], past: list[Any]) -> tuple[Any, list[Any]]:
        positions = np.maximum(np.cumsum(mask, axis=1, dtype=np.int64) - 1, 0)[:, -ids.shape[1] :]
        plain = {"input_ids": ids, "attention_mask": mask, "position_ids": np.ascontiguousarray(positions)}
        feeds = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in plain.items()}
        feeds.update((f"past.{name}", value) for name, value in zip(self.cache, past, strict=True))
        logits, *present = self.session.run_with_ort_values(self.outputs, feeds)
        return logits.numpy(), list(present)

    def _choose(self, rows: list[Generation], logits: Any) -> NDArray[np.int64]:
        logits[:, self.barred] = -np.inf
        return np.array([row.take(logits[i]) for i, row in enumerate(rows)], dtype=np.int64)

    def _leave(self) -> None:
        """Let go of rows that are done or cancelled, and of padding that no row needs any more."""
        keep = [i for i, row in enumerate(self.rows) if not (row.done or row.cancelled)]
        if len(keep) == len(self.rows):
            return
        if not keep:
            self.drop()
            return
        first = int(self.mask[keep].any(axis=0).argmax())
        self.past = [
            onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value.numpy()[keep][:, :, first:]))
            for value in self.past
        ]
        self.mask = self.mask[keep][:, first:]
        self.tokens = self.tokens[keep]
        self.rows = [self.rows[i] for i in keep]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.layout.tokenizer.decode(list(ids), skip_special_tokens=True))


def _pad(value: NDArray[Any], length: int, axis: int) -> NDArray[Any]:
    """`value` with zeros before it along `axis`."""
    widths = [(0, 0)] * value.ndim
    widths[axis] = (length - value.shape[axis], 0)
    return np.pad(value, widths)
