"""Rows to learn from: what is read, and that every bad row is named by file and line."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.align import rows

USER = {"role": "user", "content": "Hi"}
SAID = {"role": "assistant", "content": "Hello."}
DIALOGUE: dict[str, Any] = {"id": "a", "messages": [USER, SAID], "control": "comply", "asks": ["hey", "Hi"]}
PAIR: dict[str, Any] = {
    "id": "p",
    "prompt": [USER],
    "chosen": "Yes.",
    "rejected": "No.",
    "category": "x",
    "why": "rude",
}
JUDGED: dict[str, Any] = {"id": "j", "prompt": "Hi", "reply": "Hello.", "label": "good"}


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def test_good_rows(tmp_path: Path) -> None:
    for name, row in (("d", DIALOGUE), ("p", PAIR), ("j", JUDGED)):
        write(tmp_path / f"{name}.jsonl", [json.dumps(row).encode()])
    found = rows.read(dialogues=[tmp_path / "d.jsonl"], pairs=[tmp_path / "p.jsonl"], judged=[tmp_path / "j.jsonl"])
    assert [row.prompt[-1]["content"] for row in found.dialogues] == ["Hi", "hey"]
    assert (found.pairs[0].chosen, found.pairs[0].why) == ("Yes.", "rude")
    assert found.judged[0].good
    assert [len(source["sha256"]) for source in found.manifest()["sources"]] == [64] * 3


BAD: list[tuple[str, bytes, str]] = [
    ("dialogues", b"", "an empty row"),
    ("dialogues", b"   ", "an empty row"),
    ("dialogues", b'{"id": "x", "messages": [\xff]}', "not UTF-8 at byte 25"),
    ("dialogues", b"{", "not JSON"),
    ("dialogues", b"[]", "not an object"),
    ("dialogues", b"{}", "no id"),
    ("dialogues", json.dumps(DIALOGUE).encode(), "id 'a' is also at rows.jsonl:1"),
    ("dialogues", json.dumps({**DIALOGUE, "id": "b", "messages": []}).encode(), "no messages"),
    ("dialogues", json.dumps({**DIALOGUE, "id": "b", "messages": [SAID, USER]}).encode(), "alternate"),
    ("dialogues", json.dumps({**DIALOGUE, "id": "b", "messages": [USER]}).encode(), "last turn is not the assistant"),
    (
        "dialogues",
        json.dumps({**DIALOGUE, "id": "b", "messages": [{**USER, "role": "human"}, SAID]}).encode(),
        "'human'",
    ),
    (
        "dialogues",
        json.dumps({**DIALOGUE, "id": "b", "messages": [USER, {**SAID, "content": " "}]}).encode(),
        "empty con",
    ),
    ("dialogues", json.dumps({**DIALOGUE, "id": "b", "control": "obey"}).encode(), "'obey' is none of"),
    ("pairs", json.dumps({**PAIR, "id": "b", "rejected": "Yes. "}).encode(), "chosen and rejected are equal"),
    ("pairs", json.dumps({**PAIR, "id": "b", "chosen": ""}).encode(), "chosen: empty"),
    ("pairs", json.dumps({**PAIR, "id": "b", "prompt": [USER, SAID]}).encode(), "last turn is not the user"),
    ("judged", json.dumps({**JUDGED, "id": "b", "label": "fine"}).encode(), "neither good nor bad"),
]


@pytest.mark.parametrize(("kind", "line", "said"), BAD)
def test_a_bad_row_is_named(tmp_path: Path, kind: str, line: bytes, said: str) -> None:
    first = {"dialogues": DIALOGUE, "pairs": PAIR, "judged": JUDGED}[kind]
    path = write(tmp_path / "rows.jsonl", [json.dumps(first).encode(), line])
    paths: Any = {kind: [path]}
    with pytest.raises(rows.BadRows, match="1 bad rows") as raised:
        rows.read(**paths)
    assert f"{path}:2: " in str(raised.value)
    assert said in str(raised.value)
    found = rows.read(**paths, on_bad_rows="skip")
    assert found.sources[0].rows == found.sources[0].bad == 1


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        rows.read(dialogues=[tmp_path / "nowhere"])
