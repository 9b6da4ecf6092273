"""Replies that refuse and replies that answer.

Refusals: our own, those of our dialogues, and TRIDENT's safe replies that open by refusing (about a quarter).
Answers: our near misses, all other dialogue replies, and questions and sums as plain text. Left out as neither:
TRIDENT's other replies, which explain, comfort given to someone in despair, and calm words to anger. Replies of kind
`advise` decline a recommendation but inform, so they count as answers: what the metric shall show is a user sent away
with nothing.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from finetune.triage.data import read_jsonl, share

_OPENS = re.compile(
    r"^(i'm sorry, but (i|we) (can|am)|i('m| am)? ?(cannot|can't|unable to|must (refuse|decline)))", re.I
)


# Help offered to someone in despair, and calm words to someone who is angry: neither.
NEITHER = ("distress", "violence.threat")


class Recipe(BaseModel):
    """`finetune/recipes/refusal.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    weights_dir: Path
    run_dir: Path
    seed: int = 7
    size: int = Field(65536, description="Hash buckets, a power of 2; a byte each in the file.")
    inverse_penalty: float = Field(30.0, gt=0, description="Logistic regression's C.")
    held_out_share: float = Field(0.2, gt=0, lt=1)
    replies: Path
    replies_weight: float = Field(3.0, gt=0, description="How much one of our own replies counts.")
    dialogues: list[Path]
    pairs: list[Path] = Field(
        [], description="Preference pairs whose unsafe side goes along: answers, on the same topics."
    )
    unsafe_weight: float = Field(3.0, gt=0, description="How much one of those counts.")
    sft: list[Path]
    sft_cap: int = Field(150, ge=0, description="Most TRIDENT refusals: nearly all open with the same eight words.")
    questions: dict[Path, int] = {}


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    refusal: bool
    source: str
    weight: float = 1.0


def build(recipe: Recipe) -> tuple[list[Reply], list[Reply], list[dict[str, Any]]]:
    """Training replies, dev replies (a share of each source, by text), and the manifest of files."""
    rng = random.Random(recipe.seed)
    found: list[Reply] = []
    for row in read_jsonl(recipe.replies):
        found.append(Reply(row["text"], row["label"] == "refusal", "authored-replies", recipe.replies_weight))
    for path in recipe.dialogues:
        for row in read_jsonl(path):
            if row["category"].startswith(NEITHER):
                continue
            # The control token says what the last reply is; one before it may be either.
            text = row["messages"][-1]["content"]
            found.append(Reply(text, row["control"] == "refuse", f"dialogues-{row['control']}"))
    for path in recipe.pairs:
        for row in read_jsonl(path):
            if row.get("why") == "unsafe":
                found.append(Reply(row["rejected"], False, "unsafe", recipe.unsafe_weight))
    trident = [row["safe_reply"] for path in recipe.sft for row in read_jsonl(path)]
    refusing = sorted({text for text in trident if _OPENS.match(text)})
    found += [Reply(text, True, "trident") for text in rng.sample(refusing, min(recipe.sft_cap, len(refusing)))]
    for path, count in recipe.questions.items():
        texts = sorted({row["text"] for row in read_jsonl(path)})
        found += [Reply(text, False, path.stem) for text in rng.sample(texts, min(count, len(texts)))]
    files = [recipe.replies, *recipe.dialogues, *recipe.pairs, *recipe.sft, *recipe.questions]
    manifest = [{"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in files]
    unique = list({reply.text: reply for reply in found}.values())
    held = [reply for reply in unique if share(reply.text) < recipe.held_out_share]
    return [reply for reply in unique if share(reply.text) >= recipe.held_out_share], held, manifest
