"""Rows to learn from: dialogues, preference pairs and single judged replies, each checked before anything is trained.

Every bad row is named by file and line. Unless the recipe says `on_bad_rows: skip` a run does not start with one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from finetune.suite.held_out import trainable, trainable_row

Message = dict[str, str]
ROLES = ("system", "user", "assistant")
CONTROLS = ("comply", "advise", "refuse")
SHOWN = 20


class BadRows(ValueError):
    """Some rows are wrong. `str()` lists file, line and reason of the first `SHOWN`, and counts the rest."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        shown = [str(problem) for problem in problems[:SHOWN]]
        more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        super().__init__("\n".join([f"{len(problems)} bad rows; on_bad_rows: skip leaves them out", *shown, *more]))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[BadRows], tuple[Sequence[Problem]]]:
        return BadRows, (self.problems,)  # from one process to another as it was made, not as it is told


@dataclass(frozen=True, slots=True)
class Problem:
    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages that end with the assistant's; `control` is the manner asked of the last answer, if the row says."""

    id: str
    messages: tuple[Message, ...]
    control: str | None = None
    category: str = ""
    facts: tuple[str, ...] = ()

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]


@dataclass(frozen=True, slots=True)
class Pair:
    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    category: str = ""
    control: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """One reply that somebody called good or bad."""

    id: str
    prompt: tuple[Message, ...]
    reply: str
    good: bool
    category: str = ""
    control: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    path: Path
    rows: int
    bad: int
    sha256: str


Row = TypeVar("Row", Dialogue, Pair, Judged)


@dataclass(slots=True)
class Rows:
    """What was read, of one or several kinds, and what was left out."""

    dialogues: list[Dialogue] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def manifest(self) -> dict[str, Any]:
        return {
            "sources": [
                {"source": str(s.path), "rows": s.rows, "bad": s.bad, "sha256": s.sha256, "licence": "see the file"}
                for s in self.sources
            ],
            "bad_rows": [str(problem) for problem in self.problems],
        }


def read(
    *,
    dialogues: Sequence[Path] = (),
    pairs: Sequence[Path] = (),
    judged: Sequence[Path] = (),
    on_bad_rows: Literal["stop", "skip"] = "stop",
    required: Sequence[str] = (),
) -> Rows:
    """Files, or folders of *.jsonl; `required` are keys that every row must have besides those of its kind.

    Raises `BadRows`, or `FileNotFoundError` for a path that is not there.
    """
    found = Rows()
    found.dialogues = _read(dialogues, _dialogues, found, required)
    found.pairs = _read(pairs, _pairs, found, required)
    found.judged = _read(judged, _judged, found, required)
    if found.problems and on_bad_rows == "stop":
        raise BadRows(found.problems)
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(
    paths: Sequence[Path], parse: Callable[[dict[str, Any]], list[Row]], into: Rows, required: Sequence[str]
) -> list[Row]:
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for path in _files(paths):
        kept = bad = 0
        for number, line in enumerate(trainable(path).read_bytes().removesuffix(b"\n").split(b"\n"), 1):
            try:
                row = _load(line, required)
                identity = row["id"]
                trainable_row(identity, f"{path}:{number}")
                if identity in seen:
                    raise ValueError(f"id {identity!r} is also at {seen[identity]}")
                parsed = parse(row)
            except ValueError as error:
                into.problems.append(Problem(path, number, str(error)))
                bad += 1
                continue
            seen[identity] = f"{path.name}:{number}"
            rows += parsed
            kept += 1
        into.sources.append(Source(path, kept, bad, digest(path)))
    return rows


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.glob("*.jsonl"))
        elif path.is_file():
            yield path
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")


def _load(line: bytes, required: Sequence[str]) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise ValueError("an empty row")
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}") from None
    if not isinstance(row, dict):
        raise ValueError("not an object")
    if not isinstance(row.get("id"), str) or not row["id"]:
        raise ValueError("no id")
    for key in required:
        if key not in row:
            raise ValueError(f"no {key}")
    return row


def _dialogues(row: dict[str, Any]) -> list[Dialogue]:
    """One per phrasing of the first question (`asks`)."""
    messages = _messages(row.get("messages"), "messages", last="assistant")
    first = next(i for i, message in enumerate(messages) if message["role"] == "user")
    asks = _strings(row.get("asks", ()), "asks")
    made = []
    for ask in dict.fromkeys([messages[first]["content"], *asks]):
        asked = [*messages]
        asked[first] = {"role": "user", "content": ask}
        facts = _strings(row.get("facts", ()), "facts")
        made.append(Dialogue(row["id"], tuple(asked), _control(row), str(row.get("category", "")), tuple(facts)))
    return made


def _pairs(row: dict[str, Any]) -> list[Pair]:
    prompt = _prompt(row)
    chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
    if chosen == rejected:
        raise ValueError("chosen and rejected are equal")
    said = (str(row.get("category", "")), _control(row), str(row.get("why", "")))
    return [Pair(row["id"], prompt, chosen, rejected, *said)]


def _judged(row: dict[str, Any]) -> list[Judged]:
    label = row.get("label")
    if label not in ("good", "bad"):
        raise ValueError(f"label: {label!r} is neither good nor bad")
    reply = _text(row, "reply" if "reply" in row else "completion")
    return [Judged(row["id"], _prompt(row), reply, label == "good", str(row.get("category", "")), _control(row))]


def _prompt(row: dict[str, Any]) -> tuple[Message, ...]:
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    return _messages(prompt, "prompt", last="user")


def _messages(value: Any, key: str, last: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key}: no messages")
    found: list[Message] = []
    for at, message in enumerate(value):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            role = message.get("role") if isinstance(message, dict) else message
            raise ValueError(f"{key}[{at}]: role {role!r} is none of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            raise ValueError(f"{key}[{at}]: empty content")
        found.append({"role": message["role"], "content": message["content"].strip()})
    spoken = [message["role"] for message in found if message["role"] != "system"]
    if spoken != [("user", "assistant")[at % 2] for at in range(len(spoken))]:
        raise ValueError(f"{key}: turns do not alternate between user and assistant")
    if not spoken or spoken[-1] != last:
        raise ValueError(f"{key}: the last turn is not the {last}'s")
    if any(message["role"] == "system" for message in found[1:]):
        raise ValueError(f"{key}: a system message that is not the first")
    return tuple(found)


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0].get("content")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key}: empty or not a text")
    return value.strip()


def _strings(value: Any, key: str) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{key}: not a list of texts")
    return [text.strip() for text in value if text.strip()]


def _control(row: dict[str, Any]) -> str | None:
    control = row.get("control")
    if control is not None and control not in CONTROLS:
        raise ValueError(f"control: {control!r} is none of {', '.join(CONTROLS)}")
    return control


def by_row(rows: Iterable[Dialogue]) -> dict[str, list[Dialogue]]:
    """Dialogues by the row they are phrasings of, in order."""
    found: dict[str, list[Dialogue]] = {}
    for row in rows:
        found.setdefault(row.id, []).append(row)
    return found
