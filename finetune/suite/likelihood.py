"""How likely a model finds a text, and how it represents words: for models whose weights are at hand.

Two kinds: a transformers model, scored in batches, and our embedded ONNX file, which gives the logits of the last
position only and so is led through a text token by token. The ONNX file has word vectors but no sentence vectors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy
from numpy.typing import NDArray

from finetune.suite.subject import Message, is_embedded
from gateway.upstream.layout import BOS, END, SPECIALS, Control, Layout

Floats = NDArray[numpy.float64]
Turn = tuple[Sequence[Message], Control, str]


@dataclass(frozen=True, slots=True)
class Scored:
    """Sum of the log-probabilities (nats) of so many tokens."""

    logprob: float
    tokens: int

    @property
    def mean(self) -> float:
        return self.logprob / self.tokens if self.tokens else float("nan")


class Likelihood(Protocol):
    def answers(self, turns: Sequence[Turn], whole: bool = False) -> list[Scored]:
        """Of each answer after its conversation; `whole`: with the token that ends it."""

    def texts(self, texts: Sequence[str]) -> list[Scored]:
        """Of each text by itself, from its beginning."""

    def words(self, words: Sequence[str]) -> Floats:
        """(words, size): input embeddings; the mean where a word is several tokens."""

    def sentences(self, texts: Sequence[str]) -> Floats | None:
        """(texts, size): the mean of the last hidden layer; None where there is none."""


def load(model: str, threads: int = 0) -> Likelihood:
    """For a folder or a hub id. Raises what loading raises."""
    if is_embedded(Path(model)):
        return Onnx(Path(model))
    return Torch(model, threads)


class Onnx:
    """Our embedded model. One text at a time, one thread: some 700 tokens a second."""

    def __init__(self, folder: Path) -> None:
        import onnx
        from onnx import numpy_helper
        from tokenizers import Tokenizer

        from finetune.hhh.export import Session

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._layout = Layout(Tokenizer.from_file(str(folder / "tokenizer.json")))
        self._context = int(config["context"])
        file = folder / "model.onnx"
        self._session = Session(file, int(config["layers"]), int(config["heads"]), int(config["head_width"]))
        stored = {one.name: one for one in onnx.load(str(file)).graph.initializer}
        self._embeddings: Floats = numpy_helper.to_array(stored["embedding.weight"]).astype(numpy.float64)

    def answers(self, turns: Sequence[Turn], whole: bool = False) -> list[Scored]:
        found = []
        prompt: list[int] = []
        state: Any = None
        for messages, control, answer in turns:
            ids = self._layout.text(answer) + ([self._layout.ids[END]] if whole else [])
            asked = self._layout.prompt(spoken(messages), control, self._context // 2)
            if asked != prompt or state is None:
                prompt, state = asked, self._session.run(asked, self._session.empty)
            found.append(self._lead(state, ids[: self._context - len(prompt)]))
        return found

    def texts(self, texts: Sequence[str]) -> list[Scored]:
        begun = self._session.run([self._layout.ids[BOS]], self._session.empty)
        return [self._lead(begun, self._layout.text(text)[: self._context - 1]) for text in texts]

    def words(self, words: Sequence[str]) -> Floats:
        return numpy.stack([self._embeddings[self._layout.text(word)].mean(axis=0) for word in words])

    def sentences(self, texts: Sequence[str]) -> Floats | None:
        return None

    def _lead(self, state: Any, ids: Sequence[int]) -> Scored:
        logits, past = state
        total = 0.0
        for at, token in enumerate(ids):
            total += float(logits[token] - numpy.logaddexp.reduce(logits.astype(numpy.float64)))
            if at + 1 < len(ids):
                logits, past = self._session.run([token], past)
        return Scored(total, len(ids))


class Torch:
    """A transformers model, with our layout where the tokenizer is ours, else with its own chat template."""

    def __init__(self, model: str, threads: int = 0, batch: int = 16) -> None:
        import torch
        import transformers

        from gateway.upstream.local import Script

        if threads:
            torch.set_num_threads(threads)
        self._torch: Any = torch
        self._batch = batch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
        network: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype="auto")
        self._network = network.to(self._device).eval()
        self._tokenizer = tokenizer
        self._context = int(getattr(network.config, "max_position_embeddings", 0) or 4096)
        ours = all(tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id) for token in SPECIALS)
        self._layout = Layout(tokenizer.backend_tokenizer) if ours else None
        self._script = None if ours else Script(tokenizer)
        self._end = tokenizer.eos_token_id
        self._begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id

    def answers(self, turns: Sequence[Turn], whole: bool = False) -> list[Scored]:
        rows = []
        for messages, control, answer in turns:
            prompt = self._prompt(messages, control)
            ending = [self._end] if whole and self._end is not None else []
            rows.append((prompt, (self._ids(answer) + ending)[: max(1, self._context - len(prompt))]))
        return self._score(rows)

    def texts(self, texts: Sequence[str]) -> list[Scored]:
        return self._score([([self._begin], self._ids(text)[: self._context - 1]) for text in texts])

    def words(self, words: Sequence[str]) -> Floats:
        weights = self._network.get_input_embeddings().weight.detach().float().cpu().numpy()
        return numpy.stack([weights[self._word(word)].mean(axis=0) for word in words]).astype(numpy.float64)

    def sentences(self, texts: Sequence[str]) -> Floats | None:
        found = []
        with self._torch.inference_mode():
            for text in texts:
                ids = self._torch.tensor([[self._begin, *self._ids(text)]], device=self._device)
                hidden = self._network(input_ids=ids, output_hidden_states=True).hidden_states[-1]
                found.append(hidden[0, 1:].float().mean(dim=0).cpu().numpy())
        return numpy.stack(found).astype(numpy.float64)

    def _prompt(self, messages: Sequence[Message], control: Control) -> list[int]:
        if self._layout is not None:
            return self._layout.prompt(spoken(messages), control, self._context // 2)
        assert self._script is not None
        return self._script.prompt(spoken(messages), control)

    def _ids(self, text: str) -> list[int]:
        if self._layout is not None:
            return self._layout.text(text)
        assert self._script is not None
        return self._script.text(text)

    def _word(self, word: str) -> list[int]:
        """Ids of a word as it stands within a sentence."""
        if self._layout is not None:
            return self._layout.text(word)
        head = self._ids("the")
        return self._ids(f"the {word}")[len(head) :] or self._ids(word)

    def _score(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
        found: list[Scored] = [Scored(0.0, 0)] * len(rows)
        order = sorted(range(len(rows)), key=lambda at: len(rows[at][0]) + len(rows[at][1]))
        for start in range(0, len(order), self._batch):
            part = order[start : start + self._batch]
            for at, scored in zip(part, self._forward([rows[at] for at in part]), strict=True):
                found[at] = scored
        return found

    def _forward(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
        torch = self._torch
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for at, (prompt, answer) in enumerate(rows):
            ids[at, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
            mask[at, : len(prompt) + len(answer)] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            logits = self._network(input_ids=ids, attention_mask=mask).logits
            found = []
            for at, (prompt, answer) in enumerate(rows):
                begin, end = len(prompt) - 1, len(prompt) + len(answer) - 1
                logs = torch.log_softmax(logits[at, begin:end].float(), dim=-1)
                picked = logs.gather(1, ids[at, begin + 1 : end + 1, None])
                found.append(Scored(float(picked.sum()), len(answer)))
        return found


def spoken(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": str(message["role"]), "content": str(message.get("content") or "")} for message in messages]
