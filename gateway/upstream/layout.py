"""How a conversation becomes the embedded model's token ids, in training and in serving alike.

A prompt is `<|bos|>`, then turns: `<|system|>text<|end|>` (optional), `<|user|>text<|end|>`,
`<|assistant|><|comply|>answer<|end|>`, and last `<|assistant|>` with the control token that the route asks for.
Control tokens are only ever inserted here by id: text that looks like one is encoded as ordinary text. It is no
chat template for other models; those bring their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tokenizers import Tokenizer

Control = Literal["comply", "advise", "refuse"]

BOS, SYSTEM, USER, ASSISTANT, END, PAD = "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CONTROLS: Mapping[str, str] = {"comply": "<|comply|>", "advise": "<|advise|>", "refuse": "<|refuse|>"}
SPECIALS = (BOS, SYSTEM, USER, ASSISTANT, END, *CONTROLS.values(), PAD)


class PromptTooLong(ValueError):
    """The system message and the last user turn alone need `needed` tokens of `limit`."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(f"{needed} tokens where {limit} fit")
        self.needed = needed
        self.limit = limit


class Layout:
    """Token ids of turns. Takes ownership of `tokenizer`, which from here on cannot produce a special id from text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.ids: dict[str, int] = {}
        for token in SPECIALS:
            found = tokenizer.token_to_id(token)
            if found is None:
                raise ValueError(f"the tokenizer has no {token}")
            self.ids[token] = found
        self.longest = 4 * max(map(len, tokenizer.get_vocab()))  # 4: the normaliser may join characters

    def text(self, text: str) -> list[int]:
        """Ids of ordinary text; never one of the special ids."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def opening(self, control: str) -> list[int]:
        """What stands before an answer."""
        return [self.ids[ASSISTANT], self.ids[CONTROLS[control]]]

    def turn(self, role: str, text: str) -> list[int]:
        """One finished turn. Roles other than system, developer and assistant are read as the user's."""
        if role == "assistant":
            head = self.opening("comply")
        else:
            head = [self.ids[SYSTEM if role in ("system", "developer") else USER]]
        return [*head, *self.text(text), self.ids[END]]

    def prompt(self, messages: Sequence[Mapping[str, Any]], control: str, limit: int) -> list[int]:
        """Ids of the conversation (text contents only), at most `limit` of them.

        System messages are joined and come first. The oldest other turns are dropped until the rest fits, but the
        last user turn and what follows it stay. Raises `PromptTooLong` when that cannot be done.
        """
        system = "\n\n".join(m["content"] for m in messages if m["role"] in ("system", "developer") and m["content"])
        rest = [m for m in messages if m["role"] not in ("system", "developer")]
        last = max((i for i, m in enumerate(rest) if m["role"] != "assistant"), default=len(rest))
        kept = [system, *(m["content"] for m in rest[last:])]
        # No token stands for more characters than `longest`, so these cannot fit: said before they are encoded.
        if sum(map(len, kept)) > limit * self.longest:
            raise PromptTooLong(sum(map(len, kept)) // self.longest, limit)
        head = [self.ids[BOS], *(self.turn("system", system) if system else [])]
        body = [token for m in rest[last:] for token in self.turn(str(m["role"]), m["content"])]
        tail = self.opening(control)
        if len(head) + len(body) + len(tail) > limit:
            raise PromptTooLong(len(head) + len(body) + len(tail), limit)
        for message in reversed(rest[:last]):
            room = limit - len(head) - len(body) - len(tail)
            if len(message["content"]) > room * self.longest:
                break
            turn = self.turn(str(message["role"]), message["content"])
            if len(turn) > room:
                break
            body = turn + body
        return [*head, *body, *tail]
