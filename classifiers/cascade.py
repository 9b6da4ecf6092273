"""Triage in two tiers: the screen clears what is plainly harmless, the encoder judges the rest.

A message is normalised, its other readings are sought (`disguise`), and a long one is cut into overlapping passages.
What the screen clears of them ends there; of the rest the encoder reads at most `MOST_PASSAGES`, half from the
beginning and half from the end, and the judgement says so (`complete`). A short turn is judged by itself and again with
the turns before it, unless those were a risk themselves. A screened text carries no toxicity and no category: the
screen was trained to let nothing pass that the encoder would give a high toxicity. Model cards say how often each tier
errs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from classifiers import shipped
from classifiers.disguise import Words, readings
from classifiers.labels import LABELS
from classifiers.language import language
from classifiers.message import Classifier, Judgement, Message, merged
from classifiers.screen import MOST_CHARACTERS, Screen, plain
from classifiers.text import normalise
from classifiers.triage import Triage

PASSAGE_CHARACTERS = 900
OVERLAP_CHARACTERS = 200
MOST_PASSAGES = 40
# More than this is not read, however harmless it looks.
MOST_TEXT = 400_000
# A turn longer than this says by itself what it asks for.
SHORT_CHARACTERS = 300

Points = Mapping[str, Mapping[str, Mapping[str, float]]]
# The injection score from which a tool result is one whatever its mark makes of it: from a user it would be refused.
CERTAIN = 0.9
Others = Callable[[Triage], Classifier]
"""Other classifiers in place of the encoder, or beside it."""


class Reader:
    """Tier 1 with all that a message needs before the encoder can read it. A `Classifier`."""

    def __init__(self, encoder: Classifier, screen: Screen | None, words: Words) -> None:
        self._encoder = encoder
        self._screen = screen
        self._words = words

    def score(self, messages: Sequence[Message]) -> list[Judgement]:
        """One judgement per message, in order."""
        messages = [replace(message, text=normalise(message.text)) for message in messages]
        parts = [self._parts(message) for message in messages]
        beside = [_context(message, read) for message, (read, _) in zip(messages, parts, strict=True)]
        asked = zip(parts, beside, strict=True)
        judged = iter(self._encoder.score([part for (read, _), more in asked for part in (*read, *more)]))
        found: list[Judgement] = []
        for message, (read, complete), more in zip(messages, parts, beside, strict=True):
            said = [next(judged) for _ in read]
            rest = [next(judged) for _ in more]
            if message.kind == "tool":
                said = [_untrusted(marked, plain) for marked, plain in zip(said, rest, strict=True)]
            elif rest:
                together, before = rest
                said += [together] if before.label == LABELS[0] else []
            whole = merged(said) if said else _harmless(0.0)
            spoken = language(message.text) if read else whole.language
            found.append(replace(whole, complete=complete and whole.complete, language=spoken))
        return found

    def _parts(self, message: Message) -> tuple[list[Message], bool]:
        """What the encoder must read of a message, and whether that and what the screen cleared is all of it."""
        text = message.text
        complete = len(text) <= MOST_TEXT
        if not complete:
            text = f"{text[: MOST_TEXT // 2]} {text[-MOST_TEXT // 2 :]}"
        cut = passages(text)
        found = [Message(one, kind=message.kind) for one in cut if len(cut) == 1 or not self._clears(one, message)]
        for reading in readings(text, self._words):
            found += [Message(one, kind=message.kind) for one in passages(reading)]
        if len(found) > MOST_PASSAGES:
            complete = False
            found = found[: MOST_PASSAGES // 2] + found[-MOST_PASSAGES // 2 :]
        return found, complete

    def _clears(self, passage: str, message: Message) -> bool:
        if self._screen is None or message.kind != "user" or not plain(passage):
            return False
        return self._screen.score([passage])[0] < self._screen.threshold


class Cascade:
    """Both tiers behind one `score`. Without a screen the encoder judges everything."""

    def __init__(self, encoder: Classifier, screen: Screen | None, words: Words, points: Points | None = None) -> None:
        self.reader = Reader(encoder, screen, words)
        self.operating_points = points or {}
        self._screen = screen

    @classmethod
    def load(cls, weights: Path | None = None, threads: int = 1, others: Others | None = None) -> Cascade:
        """From a folder of triage weights (None: the shipped ones) with its screen in `screen/`, if it has one.

        A screen that was distilled from another encoder than the folder's is left out, since its bound would not hold;
        so it is where `others` make another tier 1 of it. Raises `shipped.CorruptWeights`.
        """
        folder = weights or shipped.TRIAGE
        ours = Triage.load(folder, threads)
        words = known_words(ours)
        if others is not None:
            return cls(others(ours), None, words, ours.operating_points)
        own = shipped.SCREEN if folder.resolve() == shipped.TRIAGE.resolve() else folder / "screen"
        screen = Screen.load(own) if (own / "manifest.json").is_file() else None
        fitting = screen if screen is not None and screen.encoder == fingerprint(folder) else None
        return cls(ours, fitting, words, ours.operating_points)

    @property
    def screens(self) -> bool:
        """Whether there is a tier 0."""
        return self._screen is not None

    def score(self, messages: Sequence[Message]) -> list[Judgement]:
        """One judgement per message, in order; `tier` says who judged."""
        found = [self.clear(message) for message in messages]
        read = iter(self.reader.score([one for one, known in zip(messages, found, strict=True) if known is None]))
        return [known if known is not None else next(read) for known in found]

    def clear(self, message: Message) -> Judgement | None:
        """The screen's judgement if it clears the message, in about 0.1 ms; None where more must be done."""
        if self._screen is None or message.kind != "user" or not plain(message.text):
            return None
        text = normalise(message.text)
        score = self._screen.score([text])[0]
        if score < self._screen.threshold and message.before and len(text) <= SHORT_CHARACTERS:
            score = max(score, *self._screen.score([joined(text, message.before)]))
        return _harmless(score) if score < self._screen.threshold else None


def _context(message: Message, read: Sequence[Message]) -> list[Message]:
    """What is read beside a message to judge it.

    Of a short turn: it with those before it, and those alone; what was a risk by itself has had its own verdict, and
    must not make this turn one. Of a tool result: the same text without the mark.
    """
    if message.kind == "tool":
        return [replace(one, kind="user") for one in read]
    if not message.before or message.kind != "user" or len(message.text) > SHORT_CHARACTERS:
        return []
    return [message, Message(message.before)]


def _untrusted(marked: Judgement, plain: Judgement) -> Judgement:
    """A tool result's judgement: as the encoder reads it with its mark, unless it is an injection in anyone's mouth."""
    return plain if plain.scores["prompt_injection"] >= CERTAIN else marked


def passages(text: str) -> list[str]:
    """A text in overlapping passages, cut at spaces where there are any; a short one is one passage."""
    if len(text) <= MOST_CHARACTERS:
        return [text]
    found: list[str] = []
    start = 0
    while True:
        end = start + PASSAGE_CHARACTERS
        if end >= len(text):
            found.append(text[start:])
            return found
        space = text.rfind(" ", end - OVERLAP_CHARACTERS, end)
        end = space if space > 0 else end
        found.append(text[start:end])
        begin = text.find(" ", end - OVERLAP_CHARACTERS, end - OVERLAP_CHARACTERS // 2)
        start = begin + 1 if begin > 0 else end - OVERLAP_CHARACTERS


def fingerprint(folder: Path) -> str:
    """The sha256 of the encoder in a verified folder, as its manifest has it."""
    files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    return str(files.get("model.onnx"))


def known_words(triage: Triage) -> Words:
    """The words of the encoder's vocabulary with their rank, the most frequent first."""
    vocabulary = triage.framing.tokenizer.get_vocab()
    return {word: rank for word, rank in vocabulary.items() if word.isalpha() and (len(word) > 1 or word in "ai")}


def joined(text: str, before: str) -> str:
    """A turn with those before it, as the screen reads them."""
    return f"{normalise(before)} {text}"


def _harmless(score: float) -> Judgement:
    scores = {label: score / (len(LABELS) - 1) for label in LABELS[1:]}
    return Judgement("benign", "benign", {LABELS[0]: 1 - score, **scores}, 0.0, tier="screen")
