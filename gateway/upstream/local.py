"""Any transformers model in process: a folder or a hub id, with its own chat template.

torch and transformers are imported when the engine starts, nowhere else in the gateway. Chats that wait together are
generated together, and those that come meanwhile wait for that batch to end: enough for trying a model out, no
replacement for an inference server. Text in a message that looks like a control token is encoded as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.errors import BadRequest, ConfigError
from gateway.upstream.generation import Generation
from gateway.upstream.worker import WorkerEngine

ANSWER_TOKENS = 1024  # when the client sets no limit
MARK = "\ue000{}\ue001"  # private use characters: stand for a message's content while the template is rendered
MARKS = re.compile("\ue000(\\d+)\ue001")


class TransformersEngine(WorkerEngine):
    """`Engine` over transformers' `generate`. The threads are torch's, for the whole process."""

    def __init__(self, model: str, threads: int = 0, max_batch: int = 8) -> None:
        self.model = model
        super().__init__(threads, max_batch)

    @property
    def name(self) -> str:
        """The hub id, or the name of the folder."""
        path = Path(self.model)
        return path.resolve().name if path.is_dir() else self.model

    def load(self) -> Transformer:
        return Transformer(self.model, self.threads)


class Transformer:
    """The loaded model; `step` generates one batch to its end."""

    def __init__(self, model: str, threads: int) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise ConfigError(
                f"upstream.model: {model} needs {error.name}, which is not installed. pip install 'hhh-gateway[local]'"
            ) from None
        torch.set_num_threads(threads)
        try:
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
            network: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype="auto")
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ConfigError(f"upstream.model: {model} cannot be loaded: {' '.join(str(error).split())}") from None
        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = network.to(self.device).eval()
        self.script = Script(tokenizer)
        self.tokenizer = tokenizer
        defaults = network.generation_config
        self.temperature = float(defaults.temperature or 1.0) if defaults.do_sample else 0.0
        self.ends = frozenset(_ids(defaults.eos_token_id) | _ids(tokenizer.eos_token_id))
        self.pad = next(iter(_ids(tokenizer.pad_token_id) | _ids(defaults.pad_token_id) or self.ends), 0)
        self.settings = transformers.GenerationConfig(
            do_sample=False, num_beams=1, pad_token_id=self.pad, eos_token_id=sorted(self.ends) or None
        )
        known = [getattr(network.config, "max_position_embeddings", None), tokenizer.model_max_length]
        self.context = min([int(n) for n in known if n and n < 10**9], default=4096)
        self.rows: list[Generation] = []

    def drop(self) -> None:
        self.rows = []

    def active(self) -> list[Generation]:
        return list(self.rows)

    def open(self, generation: Generation) -> None:
        prompt = self.script.prompt(generation.job.messages, generation.job.control)
        room = self.context - len(prompt)
        if room < 1:
            raise BadRequest(
                f"This model's context is {self.context} tokens, and the messages take {len(prompt)}.",
                param="messages",
                code="context_length_exceeded",
            )
        most = min(generation.job.sampling.max_tokens or ANSWER_TOKENS, room)
        generation.open(prompt, most, self.ends, self._decode, self.temperature)

    def admit(self, generations: list[Generation]) -> None:
        self.rows = [*self.rows, *generations]

    def step(self) -> None:
        rows = [row for row in self.rows if not (row.done or row.cancelled)]
        width = max((len(row.prompt) for row in rows), default=0)
        if rows:
            ids = [[self.pad] * (width - len(row.prompt)) + row.prompt for row in rows]
            mask = [[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
            chooser = Chooser(rows, self.pad, self.torch)
            with self.torch.inference_mode():
                self.network.generate(
                    input_ids=self.torch.tensor(ids, device=self.device),
                    attention_mask=self.torch.tensor(mask, device=self.device),
                    generation_config=self.settings,
                    max_new_tokens=max(row.most for row in rows),
                    logits_processor=[chooser.choose],
                    stopping_criteria=[chooser.ended],
                )
        self.rows = []

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


class Chooser:
    """Samples each row by its own settings inside `generate`: all logits but those of the chosen tokens become -inf."""

    def __init__(self, rows: list[Generation], pad: int, torch: Any) -> None:
        self.rows = rows
        self.pad = pad
        self.torch = torch

    def choose(self, input_ids: Any, scores: Any) -> Any:
        logits = scores.float().cpu().numpy()
        chosen = [self.pad if row.done or row.cancelled else row.take(logits[i]) for i, row in enumerate(self.rows)]
        only = self.torch.full_like(scores, float("-inf"))
        only[self.torch.arange(len(chosen)), self.torch.tensor(chosen)] = 0
        return only

    def ended(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        flags = [row.done or row.cancelled for row in self.rows]
        return self.torch.tensor(flags, dtype=self.torch.bool, device=input_ids.device)


class Script:
    """Prompts of ids by a tokenizer's chat template, in which no control token comes from a message's text."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = {str(token): int(i) for i, token in tokenizer.added_tokens_decoder.items()}
        self.controls = frozenset(added.values()) | frozenset(tokenizer.all_special_ids)
        self.names = sorted((name for name in added if name), key=len, reverse=True)

    def prompt(self, messages: Sequence[Mapping[str, str]], control: str) -> list[int]:
        """Ids of the conversation, ready for the answer. Raises `BadRequest` when the template refuses it."""
        plain = [{"role": m["role"], "content": MARKS.sub("", m["content"])} for m in messages]
        marked = [{"role": m["role"], "content": MARK.format(i)} for i, m in enumerate(plain)]
        parts = MARKS.split(self._render(marked, control))
        pieces = [
            self.text(plain[int(part)]["content"]) if i % 2 else self._encode(part) for i, part in enumerate(parts)
        ]
        whole = self._encode(self._render(plain, control))
        # Encoded in one go is how the model was trained, and right unless a message spelled a control token.
        if self._count(whole) == sum(map(self._count, pieces)):
            return whole
        return [token for piece in pieces for token in piece]

    def text(self, text: str) -> list[int]:
        """Ids of ordinary text. A control token's name in it is cut after its first character, so that none forms."""
        if not text:
            return []
        ids = self._encode(text, split_special_tokens=True)
        if not self.controls.intersection(ids):
            return ids
        for name in self.names:
            at = text.find(name)
            if at >= 0 and len(name) > 1:
                return self.text(text[: at + 1]) + self.text(text[at + 1 :])
        return [token for token in ids if token not in self.controls]

    def _count(self, ids: list[int]) -> int:
        return sum(token in self.controls for token in ids)

    def _encode(self, text: str, **options: Any) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False, **options)) if text else []

    def _render(self, messages: list[dict[str, str]], control: str) -> str:
        if not self.tokenizer.chat_template:
            turns = [f"{message['role'].capitalize()}: {message['content']}\n" for message in messages]
            return "".join(turns) + "Assistant:"
        render: Callable[..., Any] = self.tokenizer.apply_chat_template
        try:
            return str(render(messages, tokenize=False, add_generation_prompt=True, control=control))
        except Exception as error:  # noqa: BLE001 - the seam of the upstream: a template raises what it likes
            raise BadRequest(
                f"The model's chat template refuses these messages: {' '.join(str(error).split())[:200]}",
                param="messages",
            ) from None


def _ids(value: int | list[int] | None) -> set[int]:
    if value is None:
        return set()
    return {value} if isinstance(value, int) else set(value)
