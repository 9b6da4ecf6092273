"""How a conversation becomes a model's token ids: the embedded model's layout, or another model's chat template.

Both keep a text from being read as control tokens: the layout encodes it as text, and for a template the names of the
tokenizer's special tokens are broken up by a space.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from finetune.align.rows import Message
from gateway.upstream.layout import END, SPECIALS, Layout

Encoded = tuple[list[int], list[bool]]


class Talk(Protocol):
    """`tokenizer` is transformers'. `end` is the id that ends an answer."""

    tokenizer: Any
    end: int

    def prompt(self, messages: Sequence[Message], control: str, limit: int) -> list[int]:
        """Ids up to where the answer begins; the oldest turns are dropped to fit `limit`. May raise `ValueError`."""

    def answer(self, text: str) -> list[int]:
        """Ids of an answer and what ends it."""

    def plain(self, text: str) -> list[int]:
        """Ids of a text by itself, as it would stand within an answer."""

    def decode(self, ids: Sequence[int]) -> str: ...


class LayoutTalk:
    """The embedded model: `gateway.upstream.layout`, with its control tokens."""

    def __init__(self, layout: Layout, tokenizer: Any) -> None:
        self.layout = layout
        self.tokenizer = tokenizer
        self.end = layout.ids[END]

    def prompt(self, messages: Sequence[Message], control: str, limit: int) -> list[int]:
        return self.layout.prompt(messages, control, limit)

    def answer(self, text: str) -> list[int]:
        return [*self.layout.text(text), self.end]

    def plain(self, text: str) -> list[int]:
        return self.layout.text(text)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.layout.tokenizer.decode(list(ids), skip_special_tokens=True))


class TemplateTalk:
    """Any model with a chat template. There are no control tokens; what was asked for must show in the conversation.

    The answer begins where the template's generation prompt ends. What follows the answer's text in the template up to
    and including the first special token (Qwen's `<|im_end|>`, say) ends it.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise ValueError(f"{tokenizer.name_or_path}: its tokenizer has no chat template")
        self.tokenizer = tokenizer
        names = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names))) if names else None
        self._closing = self._ending()
        self.end = self._closing[-1]

    def prompt(self, messages: Sequence[Message], control: str, limit: int) -> list[int]:
        kept = [{**message, "content": self._text(message["content"])} for message in messages]
        while True:
            ids = self._render(kept)
            if len(ids) <= limit:
                return ids
            first = 1 if kept[0]["role"] == "system" else 0
            if len(kept) - first < 3:
                raise ValueError(f"{len(ids)} tokens where {limit} fit")
            del kept[first : first + 2]

    def answer(self, text: str) -> list[int]:
        return [*self.plain(text), *self._closing]

    def plain(self, text: str) -> list[int]:
        return list(self.tokenizer(self._text(text), add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _text(self, text: str) -> str:
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text) if self._special else text

    def _render(self, messages: Sequence[Message]) -> list[int]:
        made = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
        return list(made["input_ids"])

    def _ending(self) -> list[int]:
        asked = [{"role": "user", "content": "a"}]
        before = self.tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        said = [*asked, {"role": "assistant", "content": "answer"}]
        whole = self.tokenizer.apply_chat_template(said, tokenize=False)
        after = whole[len(before) :].partition("answer")[2] if whole.startswith(before) else ""
        ids = list(self.tokenizer(after, add_special_tokens=False)["input_ids"]) if after else []
        special = set(self.tokenizer.all_special_ids)
        ends = next((at for at, token in enumerate(ids) if token in special), None)
        return ids[: ends + 1] if ends is not None else [*ids, self.tokenizer.eos_token_id]


def load(folder: str) -> Talk:
    """The talk of the model in `folder`, or of an id on the hub."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    if all(token in vocabulary for token in SPECIALS):
        from finetune.hhh import tokenizer as own

        return LayoutTalk(Layout(own.load(Path(folder) / "tokenizer.json")), tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return TemplateTalk(tokenizer)


def dialogue(talk: Talk, messages: Sequence[Message], control: str, limit: int) -> Encoded:
    """A dialogue's ids, and for each whether it is learned: the answers of the assistant and what ends them.

    Cut at `limit`. Raises `ValueError` where the template does not render a prompt as the beginning of what follows.
    """
    ids: list[int] = []
    learned: list[bool] = []
    last = len(messages) - 1
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = talk.prompt(messages[:at], control if at == last else "comply", 1_000_000)
        if prompt[: len(ids)] != ids:
            raise ValueError("the chat template changes earlier turns; use dialogues of one answer with it")
        learned += [False] * (len(prompt) - len(ids))
        answer = talk.answer(message["content"])
        ids = [*prompt, *answer]
        learned += [True] * len(answer)
    return ids[:limit], learned[:limit]
