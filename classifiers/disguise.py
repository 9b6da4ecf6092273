"""Other readings of a text: what it says once words spelt out are joined, leetspeak is undone and codes are decoded.

Finds base64, hexadecimal, binary, percent and character escapes, ciphers that shift the alphabet (rot13 among them),
text written backwards, letters set apart, and digits in place of letters. A reading is judged beside the text itself.

Does not find: substitution ciphers, Morse, keyboard shifts, words hidden in others or spread over lines, pictures made
of letters, anything encrypted, and codes nested more than twice.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote

MOST_READINGS = 6
_MOST_CHARACTERS = 4_000
_DEEPEST = 2

_BASE64 = re.compile(r"(?<![\w+/=])[A-Za-z0-9+/_-]{12,}={0,2}(?![\w+/])")
_HEX = re.compile(r"(?:\b|(?:\\|0)x)[0-9a-fA-F]{2}(?:(?:\s|\\x|0x|,|:|-){0,3}[0-9a-fA-F]{2}){7,}\b")
_BINARY = re.compile(r"\b[01]{8}(?:[\s,]{0,2}[01]{8}){3,}\b")
_ESCAPES = re.compile(r"(?:%[0-9a-fA-F]{2}){2}|&#x?[0-9a-fA-F]{2,5};|\\u[0-9a-fA-F]{4}")
_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
# Letters set apart by one and the same mark; wider gaps, or another mark, part the words.
_APART = re.compile(r"(?<!\w)\w(?:([ ._*~|-])\w)(?:\1\w){2,}(?:(?:\s{2,}|[ ]?[/,|]\s?)\w(?:\1\w)*)*(?!\w)")
_LEET = str.maketrans("013457@$!|+", "oieastasilt")
_LEET_WORD = re.compile(
    r"(?<!\S)(?=\S*[A-Za-z])(?=\S*(?:[A-Za-z][013457@$!|+]|[013457@$!|+][A-Za-z]))[\w@$!|+]{3,}(?!\S)"
)
_WORD = re.compile(r"[A-Za-z']+")

Words = Mapping[str, int]
"""Known words with their rank by frequency, the most frequent first."""


def readings(text: str, words: Words) -> list[str]:
    """Other readings of a normalised text, at most `MOST_READINGS`; none for most texts."""
    found: list[str] = []
    _read(text, words, found, 0)
    return found[:MOST_READINGS]


def _read(text: str, words: Words, found: list[str], depth: int) -> None:
    for read in (_decoded, _joined, _unleeted, _shifted):
        for one in read(text, words):
            one = one[:_MOST_CHARACTERS].strip()
            if len(found) < MOST_READINGS and len(one) > 3 and one != text and one not in found:
                found.append(one)
                if depth + 1 < _DEEPEST:
                    _read(one, words, found, depth + 1)


def _decoded(text: str, words: Words) -> Iterator[str]:
    """Each run that is code for text, alone and, where there is more around it, in its place."""
    decoders: tuple[tuple[re.Pattern[str], Callable[[str], bytes | None]], ...] = (
        (_BINARY, _from_binary),
        (_HEX, _from_hex),
        (_BASE64, _from_base64),
    )
    for pattern, decode in decoders:
        for match in pattern.finditer(text):
            said = _as_text(decode(match[0]))
            if said:
                yield said
                around = text[: match.start()] + text[match.end() :]
                if len(around.strip()) > 3:
                    yield text[max(0, match.start() - 300) : match.start()] + said + text[match.end() :][:300]
    if _ESCAPES.search(text):
        plain = _UNICODE_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), html.unescape(unquote(text)))
        yield plain.encode("utf-8", "replace").decode()


def _from_binary(run: str) -> bytes:
    bits = re.sub(r"[^01]", "", run)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))


def _from_hex(run: str) -> bytes | None:
    digits = re.sub(r"\\x|0x|[^0-9a-fA-F]", "", run)
    return bytes.fromhex(digits) if len(digits) % 2 == 0 else None


def _from_base64(run: str) -> bytes | None:
    run = run.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(run + "=" * (-len(run) % 4), validate=True)
    except binascii.Error:
        return None


def _as_text(raw: bytes | None) -> str | None:
    """What decodes to letters and spaces; None for what was no text."""
    try:
        said = (raw or b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
    letters = sum(letter.isalpha() or letter == " " for letter in said)
    return said if len(said) >= 6 and said.isprintable() and letters >= 0.8 * len(said) else None


def _joined(text: str, words: Words) -> Iterator[str]:
    """Letters set apart put together; where nothing parts the words, they are told apart by what words there are."""
    if _APART.search(text):
        yield _APART.sub(lambda run: _together(run[0], run[1], words), text)


def _together(run: str, mark: str, words: Words) -> str:
    parts = re.split(r"\s{2,}|[ ]?[/,|]\s?" if mark == " " else r"\s+|[/,|]", run)
    joined = ["".join(letter for letter in part if letter != mark) for part in parts]
    return " ".join(apart for part in joined for apart in segment(part.lower(), words))


def segment(run: str, words: Words, longest: int = 14) -> list[str]:
    """The likeliest words that a run of letters is made of. A word's cost grows with the digits of its rank (Zipf)."""
    if run in words or len(run) < 4:
        return [run]
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(run) + 1):
        options = []
        for start in range(max(0, end - longest), end):
            rank = words.get(run[start:end])
            cost = 4 + len(str(rank)) * 2.3 if rank is not None else 12.0 * (end - start)
            if end - start == 1 and run[start] not in "ai":
                cost += 8
            options.append((best[start][0] + cost, start))
        best.append(min(options))
    out: list[str] = []
    end = len(run)
    while end:
        start = best[end][1]
        out.append(run[start:end])
        end = start
    return out[::-1]


def _unleeted(text: str, words: Words) -> Iterator[str]:
    """Digits and signs as the letters they stand for, where that makes at least one long or two short words."""
    made = 0

    def letters(match: re.Match[str]) -> str:
        nonlocal made
        core = match[0].rstrip("!|+")
        end = match[0][len(core) :]
        if sum(map(str.isalpha, core)) * 2 < len(core):  # 100k
            return match[0]
        for l_for_1 in (False, True):
            said = (core.replace("1", "l") if l_for_1 else core).translate(_LEET)
            if said != core and said.lower() in words and core.lower() not in words:
                made += 2 if len(said) >= 4 else 1
                return said + end
        return match[0]

    said = _LEET_WORD.sub(letters, text)
    if made >= 2:
        yield said


def _shifted(text: str, words: Words) -> Iterator[str]:
    """A run of words that mean nothing until the alphabet is shifted, or the run is read backwards."""
    for run in _meaningless(text, words):
        sample = run[:200]
        options = [(_sense(_shift(sample, by), words), by) for by in range(1, 26)]
        share, by = max(options)
        if share >= 0.7:
            yield _shift(run, by)
        elif _sense(sample[::-1], words) >= 0.7:
            yield run[::-1]
        elif _sense(" ".join(word[::-1] for word in sample.split()), words) >= 0.7:
            yield " ".join(word[::-1] for word in run.split())


def _meaningless(text: str, words: Words) -> Iterator[str]:
    """Runs of at least three words of which hardly any is known, in the first characters of a text."""
    start: int | None = None
    last, total, strange = 0, 0, 0
    for match in [*_WORD.finditer(text[:_MOST_CHARACTERS]), None]:
        unknown = match is not None and len(match[0]) > 1 and not _common(match[0], words)
        if match is not None and (unknown or (start is not None and total <= 3 * strange and len(match[0]) < 4)):
            if start is None:
                start, total, strange = match.start(), 0, 0
            total, strange = total + 1, strange + unknown
            last = match.end() if unknown else last
            continue
        if start is not None and strange >= 3:
            yield text[start:last]
        start = None


def _common(word: str, words: Words) -> bool:
    return words.get(word.lower().strip("'"), 1 << 30) < 12_000


def _sense(text: str, words: Words) -> float:
    """The share of letters that stand in common words."""
    found = _WORD.findall(text)
    letters = sum(map(len, found))
    return sum(len(word) for word in found if len(word) > 1 and _common(word, words)) / max(1, letters)


def _shift(text: str, by: int) -> str:
    lower = "abcdefghijklmnopqrstuvwxyz"
    turned = lower[by:] + lower[:by]
    return text.translate(str.maketrans(lower + lower.upper(), turned + turned.upper()))
