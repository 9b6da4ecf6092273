"""`hhh finetune constitution`: a model's own replies, criticised against principles, revised, and kept as rows.

After Bai et al. 2022 (Constitutional AI). Writes sft/rows.jsonl (revised and unobjectionable replies) and
pairs/rows.jsonl (the better of two replies, and a revision over its original), in the formats that the other methods
read, and transcripts.jsonl, which says who found what. Rows made by a machine are marked so. Read them before training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.progress import track

from classifiers.cascade import Cascade
from classifiers.refusal import RefusalDetector
from finetune.align import base, critic, data, generate, rows, talk
from finetune.align.critic import Constitution, Critic, Critique
from finetune.align.recipe import Recipe
from finetune.hhh.recipe import Part, parse


class CriticSettings(Part):
    kind: Literal["rules", "endpoint"] = "rules"
    base_url: str | None = Field(None, description="Of an OpenAI-compatible server, with /v1.")
    model: str | None = None
    api_key_env: str | None = Field(None, description="The name of a variable, never the key.")


class Settings(Recipe):
    constitution: Path = Path("finetune/constitution/finance.yml")
    critic: CriticSettings = CriticSettings()
    prompts: int = Field(200, ge=1, description="Most questions: of the dialogues, and provoking ones.")
    samples: int = Field(2, ge=1, description="Replies to each; the one with fewer violations is preferred.")
    rounds: int = Field(2, ge=1, description="Revisions of a reply until nothing is objected to.")
    temperature: float = Field(0.8, ge=0)
    reply_tokens: int = Field(96, ge=1)


@dataclass(frozen=True, slots=True)
class Question:
    id: str
    messages: tuple[rows.Message, ...]
    control: str

    @property
    def text(self) -> str:
        return self.messages[-1]["content"]


def run(path: Path, resume: bool = False) -> Path:
    """Write the rows of a recipe; returns the run's folder. Raises `RecipeError`, `BadRows`, `ValueError`."""
    chosen = parse(path, Settings)
    constitution = critic.read(chosen.constitution)
    material = data.read(chosen)
    folder = chosen.folder
    transcripts = folder / "transcripts.jsonl"
    if not resume:
        transcripts.unlink(missing_ok=True)
    (folder / "sft").mkdir(parents=True, exist_ok=True)
    (folder / "pairs").mkdir(exist_ok=True)
    done = _done(transcripts)
    asked = [question for question in questions(material, chosen) if question.id not in done]
    judge = _critic(chosen, constitution, material.train.dialogues)
    spoken = talk.load(base.folder(chosen.base))
    model = base.load(chosen.base, chosen.training)
    with transcripts.open("a", encoding="utf-8") as out:
        for start in track(range(0, len(asked), 16), description="constitution", disable=not asked):
            part = asked[start : start + 16]
            for row in _answered(part, model, spoken, chosen, judge):
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
    return _write(folder, chosen, material.manifest, constitution)


def questions(material: data.Material, chosen: Settings) -> list[Question]:
    """Half of them of the dialogues, half provoking where there are some."""
    refuses = RefusalDetector.load().refuses
    found = [Question(row.id, row.prompt, data.control_of(row, refuses)) for row in material.train.dialogues]
    found = list({question.id: question for question in found}.values())
    provoked = [
        Question(one.id, ({"role": "user", "content": one.prompt},), "refuse" if one.harmful else "comply")
        for one in material.exchanges
    ]
    provoked = provoked[: chosen.prompts // 2]
    return [*data.drawn(found, max(1, chosen.prompts - len(provoked)), chosen.training.seed), *provoked]


def _answered(
    part: Sequence[Question], model: Any, spoken: talk.Talk, chosen: Settings, judge: Critic
) -> list[dict[str, Any]]:
    limit = chosen.training.max_tokens - chosen.reply_tokens
    prompts = [(one, data.prompted(spoken, one.messages, one.control, 2 * limit)) for one in part]
    ready = [(one, ids) for one, ids in prompts if ids is not None]
    sampled = [
        generate.replies(
            model,
            spoken,
            [ids for _, ids in ready],
            max_tokens=chosen.reply_tokens,
            temperature=chosen.temperature,
            seed=chosen.training.seed + number,
        )
        for number in range(chosen.samples)
    ]
    return [
        transcript(question, [replies[at] for replies in sampled], judge, chosen.rounds)
        for at, (question, _) in enumerate(ready)
    ]


def transcript(question: Question, replies: Sequence[str], judge: Critic, rounds: int) -> dict[str, Any]:
    """What the critic found in each reply, and the revisions of the best."""
    found = [(reply, judge.criticise(question.text, reply)) for reply in dict.fromkeys(replies)]
    found.sort(key=lambda one: len(one[1]))
    best, wrong = found[0]
    steps: list[dict[str, Any]] = []
    for _ in range(rounds):
        if not wrong:
            break
        revised = judge.revise(question.text, best, wrong)
        if revised is None or revised == best:
            break
        steps.append({"reply": best, "violates": _told(wrong), "revision": revised})
        best, wrong = revised, judge.criticise(question.text, revised)
    return {
        "id": question.id,
        "messages": list(question.messages),
        "control": question.control,
        "critic": judge.name,
        "replies": [{"reply": reply, "violates": _told(critiques)} for reply, critiques in found],
        "revisions": steps,
        "final": best,
        "left": _told(wrong),
    }


def pairs(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Preferences of a transcript: its final reply over its worst sample, where they differ in what they violate."""
    worst = row["replies"][-1]
    if len(worst["violates"]) <= len(row["left"]) or not worst["reply"].strip() or worst["reply"] == row["final"]:
        return []
    reasons = [one["principle"] for one in worst["violates"]]
    return [
        {
            "id": f"constitution-{row['id']}",
            "prompt": row["messages"],
            "chosen": row["final"],
            "rejected": worst["reply"],
            "category": f"constitution.{reasons[0]}",
            "control": row["control"],
            "why": "evasive" if "informative" in reasons else "unsafe",
            "labelled_by": row["critic"],
        }
    ]


def _write(folder: Path, chosen: Settings, manifest: dict[str, Any], constitution: Constitution) -> Path:
    found = [json.loads(line) for line in (folder / "transcripts.jsonl").read_text(encoding="utf-8").splitlines()]
    good = [row for row in found if not row["left"] and row["final"].strip()]
    sft = [
        {
            "id": f"constitution-{row['id']}",
            "messages": [*row["messages"], {"role": "assistant", "content": row["final"]}],
            "control": row["control"],
            "category": "constitution."
            + (row["revisions"][0]["violates"][0]["principle"] if row["revisions"] else "kept"),
            "labelled_by": row["critic"],
        }
        for row in good
    ]
    preferred = [pair for row in found for pair in pairs(row)]
    for name, made in (("sft", sft), ("pairs", preferred)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
        (folder / name / "rows.jsonl").write_text(lines, encoding="utf-8")
    result = {
        "method": "constitution",
        "constitution": constitution.name,
        "questions": len(found),
        "violations": Counter(one["principle"] for row in found for one in row["replies"][0]["violates"]),
        "left_after_revision": Counter(one["principle"] for row in found for one in row["left"]),
        "sft_rows": len(sft),
        "pairs": len(preferred),
    }
    whole = {**manifest, "constitution_sha256": rows.digest(chosen.constitution)}
    for name, value in (("config", chosen.model_dump(mode="json")), ("manifest", whole), ("result", result)):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return folder


def _critic(chosen: Settings, constitution: Constitution, written: Sequence[rows.Dialogue]) -> Critic:
    settings = chosen.critic
    if settings.kind == "rules":
        return critic.RuleCritic(constitution, Cascade.load(), RefusalDetector.load(), written)
    if not settings.base_url or not settings.model:
        raise ValueError(f"{chosen.name}: critic - an endpoint needs base_url and model")
    return critic.EndpointCritic(constitution, settings.base_url, settings.model, settings.api_key_env)


def _told(found: Sequence[Critique]) -> list[dict[str, str]]:
    return [{"principle": one.principle.id, "said": one.said} for one in found]


def _done(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()}
