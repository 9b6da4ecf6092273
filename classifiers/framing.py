"""A message as the encoder reads it: token ids in overlapping windows. Training and serving share it.

`[CLS] text [SEP]` for a user's turn by itself, `[CLS] earlier turns [SEP] text [SEP]` where earlier ones help to
understand it, and `[CLS] tool result [SEP] text [SEP]` for what a tool returned. Control tokens that stand in a text
are read as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from classifiers.message import Message
from classifiers.text import normalise

BEFORE_TOKENS = 48
_TOOL = "tool result"


def text_tokenizer(path: Path) -> Tokenizer:
    """No padding, no cut; `[SEP]` typed by a user is not the control token."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


@dataclass(frozen=True, slots=True)
class Framing:
    """`window_tokens` with the control tokens; a window begins `stride_tokens` after the one before it."""

    tokenizer: Tokenizer
    window_tokens: int
    stride_tokens: int
    max_windows: int
    begin: int
    end: int

    def windows(self, message: Message) -> tuple[list[list[int]], bool]:
        """Token ids of each window, and whether they cover the text.

        Past the cap, half of the windows come from the beginning and half from the end.
        """
        front = self._front(message)
        text = normalise(message.text)
        # The middle of what could not fit at twelve characters a token is not even tokenised.
        limit = self.max_windows * self.stride_tokens * 6
        whole = len(text) <= 2 * limit
        if not whole:
            text = f"{text[:limit]} {text[-limit:]}"
        ids = self._ids(text)
        room = self.window_tokens - len(front) - 1
        stride = max(1, room - (self.window_tokens - self.stride_tokens))
        starts = list(range(0, max(1, len(ids) - (room - stride)), stride))
        complete = whole and len(starts) <= self.max_windows
        if len(starts) > self.max_windows:
            half = self.max_windows // 2
            # The last windows are counted from the end, so that the text's last token is always read.
            ending = [max(0, len(ids) - room - stride * back) for back in reversed(range(self.max_windows - half))]
            starts = starts[:half] + ending
        return [[*front, *ids[start : start + room], self.end] for start in starts], complete

    def _front(self, message: Message) -> list[int]:
        before = _TOOL if message.kind == "tool" else normalise(message.before)
        kept = min(BEFORE_TOKENS, self.window_tokens // 3)
        return [self.begin, *self._ids(before)[-kept:], self.end] if before else [self.begin]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids
