"""The rows of a recipe, split and turned into ids: what the trainers are given.

The split goes by a hash of a row's id, so a row stays on its side as files grow. Nothing here is padded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from finetune.align import embedded, provoking, rows
from finetune.align.provoking import Exchange
from finetune.align.recipe import Recipe
from finetune.align.rows import Dialogue, Judged, Pair
from finetune.align.talk import Talk, dialogue
from finetune.hhh import augment

# A route that misses must do no harm: of what is to be refused, so much is asked for behind <|comply|>.
MISROUTED = 0.3
AnyRow = TypeVar("AnyRow")


@dataclass(frozen=True, slots=True)
class Material:
    """`train` and `dev` of each kind, and the provoking exchanges that may be trained on."""

    train: rows.Rows
    dev: rows.Rows
    exchanges: tuple[Exchange, ...]
    manifest: dict[str, Any]


def read(recipe: Recipe) -> Material:
    """What a recipe trains on, without what the run it starts from holds out.

    Raises `rows.BadRows`, or `FileNotFoundError` for a path that is not there and not optional.
    """
    data, seed = recipe.data, recipe.training.seed
    missing = [str(path) for path in (*data.dialogues, *data.pairs, *data.judged) if not path.exists()]

    def there(paths: Sequence[Path]) -> list[Path]:
        return [path for path in paths if path.exists() or not data.optional]

    found = rows.read(
        dialogues=there(data.dialogues),
        pairs=there(data.pairs),
        judged=there(data.judged),
        on_bad_rows=data.on_bad_rows,
    )
    exchanges = provoking.exchanges(data.shared, data.provoking, seed) if data.provoking else []
    train, dev = rows.Rows(), rows.Rows()
    unseen = embedded.unseen(Path(recipe.base))
    for kind in ("dialogues", "pairs", "judged"):
        sides: tuple[list[Any], list[Any]] = ([], [])
        for row in getattr(found, kind):
            sides[held(row, data.dev_share, unseen)].append(row)
        for side, part in zip((train, dev), sides, strict=True):
            setattr(side, kind, drawn(part, data.most, seed))
    train.pairs += derived(train.dialogues, data.derive_pairs, seed)
    manifest = {
        **found.manifest(),
        "missing": missing,
        "rows": {kind: len(getattr(train, kind)) for kind in ("dialogues", "pairs", "judged")},
        "dev_rows": {kind: len(getattr(dev, kind)) for kind in ("dialogues", "pairs", "judged")},
        "provoking": provoking.manifest(data.shared) if exchanges else [],
        "exchanges": len(exchanges),
    }
    return Material(train, dev, tuple(exchanges), manifest)


def held(row: Dialogue | Pair | Judged, share: float, unseen: frozenset[tuple[str, str]]) -> bool:
    """By what an earlier run held out, where there was one; else by a hash of the id."""
    if isinstance(row, Dialogue) and unseen:
        asked = next(message["content"] for message in row.messages if message["role"] == "user")
        return (row.id, asked) in unseen
    return random.Random(f"dev:{row.id}").random() < share


def drawn(found: list[AnyRow], most: int | None, seed: int) -> list[AnyRow]:
    if most is None or len(found) <= most:
        return found
    return random.Random(seed).sample(found, most)


def derived(found: Iterable[Dialogue], most: int, seed: int) -> list[Pair]:
    """Pairs of what is written: a refusal over compliance, an answer over a refusal of it, an answer over another's.

    In equal parts, so that neither refusing nor answering is what is learned.
    """
    if not most:
        return []
    draw = random.Random(f"{seed}:derived")
    single = [row for row in found if len(row.messages) == 2 and row.control]
    refused = [row for row in single if row.control == "refuse"]
    answered = [row for row in single if row.control != "refuse"]
    draw.shuffle(refused)
    draw.shuffle(answered)
    made = [_pair(row, provoking.compliance(row.prompt[-1]["content"], draw), "unsafe", draw) for row in refused]
    made = made[: most // 2]
    for row, other in zip(answered[: most - len(made)], reversed(answered), strict=False):
        if refused and draw.random() < 0.5:
            made.append(_pair(row, draw.choice(refused).answer, "preachy", draw))
        elif other.answer != row.answer:
            made.append(_pair(row, other.answer, "wrong", draw))
    draw.shuffle(made)
    return made


def _pair(row: Dialogue, rejected: str, why: str, draw: random.Random) -> Pair:
    control = "comply" if row.control == "refuse" and draw.random() < MISROUTED else row.control
    prompt = ({"role": "user", "content": augment.question(row.prompt[-1]["content"], draw)},)
    return Pair(row.id, prompt, row.answer, rejected, row.category, control, why)


def control_of(row: Pair | Judged | Dialogue, refuses: Callable[[str], bool]) -> str:
    """The control token of a row that names none: by its category, else by how the good reply reads."""
    if row.control:
        return row.control
    if row.category.startswith(("advise", "advice", "regulated_advice")):
        return "advise"
    if isinstance(row, Pair):
        return "refuse" if refuses(row.chosen) else "comply"
    if isinstance(row, Judged):
        return "refuse" if row.good and refuses(row.reply) else "comply"
    return "refuse" if refuses(row.answer) else "comply"


def dialogue_rows(
    talk: Talk, found: Iterable[Dialogue], limit: int, draw: random.Random | None = None
) -> list[dict[str, Any]]:
    """`input_ids` and `labels`, -100 where nothing is learned; dialogues without a learned token are left out.

    With `draw`, questions are changed a little, as `finetune.hhh` does it for the embedded model.
    """
    made = []
    for row in found:
        messages = [
            {**m, "content": augment.question(m["content"], draw)} if draw and m["role"] == "user" else m
            for m in row.messages
        ]
        ids, learned = dialogue(talk, messages, row.control or "comply", limit)
        if any(learned):
            labels = [token if keep else -100 for token, keep in zip(ids, learned, strict=True)]
            made.append({"input_ids": ids, "labels": labels})
    return made


def pair_rows(talk: Talk, found: Iterable[Pair], limit: int, refuses: Callable[[str], bool]) -> list[dict[str, Any]]:
    """`prompt_ids`, `chosen_ids`, `rejected_ids`: for DPO's collator. Prompts over half of `limit` are left out."""
    made = []
    for row in found:
        prompt = prompted(talk, row.prompt, control_of(row, refuses), limit)
        if prompt is None:
            continue
        room = limit - len(prompt)
        chosen, rejected = talk.answer(row.chosen)[:room], talk.answer(row.rejected)[:room]
        if chosen != rejected:
            made.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return made


def judged_rows(
    talk: Talk, found: Iterable[Judged], limit: int, refuses: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """`prompt_ids`, `completion_ids`, `label`: what KTO's collator takes."""
    made = []
    for row in found:
        prompt = prompted(talk, row.prompt, control_of(row, refuses), limit)
        if prompt is not None:
            reply = talk.answer(row.reply)[: limit - len(prompt)]
            made.append({"prompt_ids": prompt, "completion_ids": reply, "label": row.good})
    return made


def prompted(talk: Talk, messages: Sequence[rows.Message], control: str, limit: int) -> list[int] | None:
    """The prompt's ids, or None where it takes more than half of `limit`."""
    try:
        return talk.prompt(messages, control, limit // 2)
    except ValueError:
        return None
