"""From public sets and our own rows to a training and a dev split.

Dev is never seen in training: whole public sources, and a share of each author's rows, taken by pair, so that a pair's
halves stay together. Public rows are read where they lie; nothing of them is written into the repository.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from classifiers.message import Kind
from classifiers.text import normalise
from finetune.suite.held_out import trainable, trainable_row
from finetune.triage import sources
from finetune.triage.recipe import Data
from finetune.triage.row import Row
from gateway.forms.texts import earlier_turns

# What a dialogue's category says about regulated advice; a prefix that is not here leaves the category open.
_ADVICE = {
    "investing": "investment", "debt": "credit", "cards": "credit", "mortgage": "credit", "loans": "credit",
    "insurance": "insurance", "tax": "tax", "pension": "pension", "property": "real_estate",
}  # fmt: skip
# What a refused dialogue asks for; the most specific key counts, and a category without one is not used.
_REFUSED = {
    "account": "harmful.cybercrime", "account.elder": "harmful.fraud", "account.dormant": "harmful.theft",
    "account.delivery": "harmful.theft", "account.limits": "harmful.fraud", "account.partner": "harmful.theft",
    "business": "harmful.unethical", "discrimination": "hate.discrimination", "discrimination.age": "hate.stereotype",
    "discrimination.gender": "hate.stereotype", "discrimination.poverty": "hate.stereotype",
    "discrimination.stereotypes": "hate.stereotype", "distress": "self_harm.ideation",
    "distress.scammed": "self_harm.intent", "fraud": "harmful.fraud", "goods.counterfeit": "harmful.fraud",
    "goods.illegal": "harmful.drugs", "goods.medicine": "harmful.drugs", "goods.weapons": "harmful.weapons",
    "goods": "harmful.theft", "harassment": "harmful.harassment", "harassment.group": "hate.dehumanise",
    "harm": "harmful.fraud", "harm.kyc": "harmful.money_laundering", "harm.laundering": "harmful.money_laundering",
    "identity": "harmful.fraud", "insurance.fraud": "harmful.fraud", "investing.harm": "harmful.market_manipulation",
    "laundering": "harmful.money_laundering", "regulation.launder": "harmful.money_laundering",
    "lending": "harmful.unethical", "lending.discrimination": "hate.discrimination",
    "market": "harmful.market_manipulation", "privacy": "harmful.privacy", "rules.ignore": "prompt_injection.override",
    "rules.persona": "prompt_injection.persona", "rules.reveal": "prompt_injection.extraction",
    "scams": "harmful.fraud", "tax": "harmful.fraud", "theft": "harmful.theft", "violence": "harmful.violence",
}  # fmt: skip
_TURN = re.compile(r"Human: (.*?)(?=\n\nAssistant:|$)", re.DOTALL)
# Sets of tasks: what one of them asks is harmless from a user, and an order when a document says it.
_ORDERS = ("self-instruct-seeds", "fuzzyai-benign")
# Dialogues whose questions contrast in frightening words; they count twice.
_CONTRASTING = ("dialogues-refuse", "dialogues-nearmiss")


@dataclass(frozen=True, slots=True)
class Split:
    """`manifest` lists every file: rows, rows used, sha256, split."""

    train: list[Row]
    dev: list[Row]
    manifest: list[dict[str, Any]]


def read_jsonl(path: Path, to_train: bool = True) -> Iterator[dict[str, Any]]:
    """The rows of a file. Raises `HeldOut` for one of the evaluation suite, unless it is not read `to_train`."""
    with (trainable(path) if to_train else path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                row = json.loads(line)
                if to_train and isinstance(row, dict):
                    trainable_row(row.get("id"), f"{path}:{number}")
                yield row


def share(key: str) -> float:
    """A stable number in [0, 1) for a key."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


def build(data: Data, seed: int) -> Split:
    """Both splits, in a fixed order for a seed; texts that are in dev are dropped from training."""
    train: list[Row] = []
    dev: list[Row] = []
    manifest: list[dict[str, Any]] = []
    labels = {public: _labels(file) for file, public in data.labels.items()}
    for name, settings in data.sources.items():
        path = data.public_dir / f"{name}.jsonl"
        rows = list(_public(path, labels.pop(path, {}), sources.RULES[name]))
        taken = _capped(rows, settings.cap, random.Random(f"{seed}:{name}"))
        (dev if settings.held_out else train).extend(taken)
        manifest.append(_entry(path, len(rows), len(taken), "dev" if settings.held_out else "train"))
    own: list[Row] = []
    for path, known in labels.items():  # sets without a rule of their own
        rows = list(_public(path, known, lambda _: None))
        held_out = [row for row in rows if share(f"{seed}:{row.text}") < data.held_out_share]
        dev += held_out
        own += [row for row in rows if row not in held_out]
        manifest.append(_entry(path, len(rows), len(rows), f"{len(held_out)} rows dev, rest train; labelled by hand"))
    for path in data.dev_only:
        unseen = [row for _, row in _authored(path)]
        dev += unseen
        manifest.append(_entry(path, len(unseen), len(unseen), "dev"))
    for path in [*data.authored, *data.dialogues]:
        read = _dialogues if path in data.dialogues else _authored
        held: list[Row] = []
        kept: list[Row] = []
        for key, row in read(path):
            hold = path not in data.train_only and share(f"{seed}:{key}") < data.held_out_share
            (held if hold else kept).append(row)
        own += kept
        dev += held
        manifest.append(_entry(path, len(kept) + len(held), len(kept) + len(held), f"{len(held)} rows dev, rest train"))
    rng = random.Random(seed)
    pool = own + train
    train += _composed(pool, data.composed, rng) + _followed(pool, data.composed, rng)
    orders = [row["text"] for path in data.orders for row in read_jsonl(path)]
    train += _planted(pool, orders, data.planted, rng)
    train += _repeated(own, data.authored_repeat, rng)
    seen = {_key(row) for row in dev}
    return Split([row for row in train if _key(row) not in seen], _unique(dev), manifest)


def _capped(rows: list[Row], cap: int, rng: random.Random) -> list[Row]:
    """At most `cap` rows, labels in turn, so that a cap does not starve the rarer label of a source."""
    by_label: dict[Any, list[Row]] = {}
    for row in _unique(rows):
        by_label.setdefault((row.label, row.toxicity), []).append(row)
    for group in by_label.values():
        rng.shuffle(group)
    taken: list[Row] = []
    while len(taken) < cap and any(by_label.values()):
        for group in by_label.values():
            if group and len(taken) < cap:
                taken.append(group.pop())
    return taken


def _public(path: Path, labels: dict[str, dict[str, Any]], rule: sources.Rule) -> Iterator[Row]:
    """The rows of a public file: as labelled by hand, else as the rule has them.

    Left out: what the rule leaves out, and what the one who labelled it found too unclear to call.
    """
    for source in read_jsonl(path):
        said = public_text(source)
        known = labels.get(text_hash(said)) if said else None
        if said is None or known is None:
            row = rule(source)
        elif known["label"] is None:
            row = None
        else:
            calm = 0.0 if known["label"] in ("benign", "regulated_advice") else None
            row = Row(said, known["label"], _refined(known), calm, source.get("source") or path.stem)
        if row is not None:
            yield row


def public_text(row: dict[str, Any]) -> str | None:
    """A message: `text`, or the first turn of a conversation."""
    return next(iter(user_turns(row)), None)


def user_turns(row: dict[str, Any]) -> list[str]:
    """A message; or the user's turns of a dialogue, with other wordings of its question, or of a preference pair."""
    if "text" in row:
        return [str(row["text"])]
    if "messages" in row:
        return [one["content"] for one in row["messages"] if one["role"] == "user"] + list(row.get("asks", ()))
    return [turn.strip() for turn in _TURN.findall(row["chosen"])]


def text_hash(text: str) -> str:
    """How files of labels name a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _labels(path: Path) -> dict[str, dict[str, Any]]:
    return {row["sha256"]: row for row in read_jsonl(path)}


def _refined(row: dict[str, Any]) -> str:
    """A row's category as the classifier knows it: those of harmless rows are for their authors."""
    return "benign" if row["label"] == "benign" else str(row["category"])


def _authored(path: Path) -> Iterator[tuple[str, Row]]:
    for row in read_jsonl(path):
        calm = 0.0 if row["label"] in ("benign", "regulated_advice") else None
        source = f"{row['suite']}-{path.stem}" if "suite" in row else f"authored-{path.stem}"
        text, before, kind = turn(row)
        known = Row(text, row["label"], _refined(row), calm, source, before, kind)
        yield row.get("pair_id") or row["id"], known


def turn(row: dict[str, Any]) -> tuple[str, str, Kind]:
    """The last turn of a row, what the user said before it, and whether a tool or the user says it."""
    if "messages" not in row:
        return row["text"], row.get("before", ""), row.get("kind", "user")
    messages = row["messages"]
    text: str = messages[-1]["content"]
    if messages[-1]["role"] == "tool":
        return text, "", "tool"
    return text, earlier_turns(messages, range(len(messages) - 1, len(messages))), "user"


def _dialogues(path: Path) -> Iterator[tuple[str, Row]]:
    """User messages and asks. A refused one is used only where its category says what it is.

    Of a longer dialogue that is not complied with only the last turn is what `control` is about, so it is left out.
    """
    source = f"dialogues-{path.stem}"
    for row in read_jsonl(path):
        if row["control"] != "comply" and len(row["messages"]) > 2:
            continue
        if row["control"] == "comply":
            label: str = "benign"
            category: str | None = "benign"
        elif row["control"] == "advise":
            known = "crypto" if "crypto" in row["category"] else _ADVICE.get(row["category"].split(".")[0])
            label, category = "regulated_advice", known and f"regulated_advice.{known}"
        else:
            category = _REFUSED.get(row["category"]) or _REFUSED.get(row["category"].split(".")[0])
            if category is None:
                continue
            label = category.split(".")[0]
        calm = 0.0 if label in ("benign", "regulated_advice") else None
        said = [message["content"] for message in row["messages"] if message["role"] == "user"]
        for text in [said[0], *row["asks"]]:
            yield row["id"], Row(text, label, category, calm, source)
        for at, text in enumerate(said[1:], start=1):
            before = "\n".join(said[max(0, at - 2) : at])
            yield row["id"], Row(text, label, category, calm, source, before=before)


def _repeated(rows: list[Row], times: int, rng: random.Random) -> list[Row]:
    """Authored rows `times` over; copies after the first typed as people type: no capitals, no final mark."""
    out = list(rows)
    for copy in range(times - 1):
        for row in rows:
            if (row.source.startswith("authored") and row.kind == "user") or (copy == 0 and row.source in _CONTRASTING):
                out.append(replace(row, text=_retyped(row.text, rng)))
    return out


def _retyped(text: str, rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.2:
        return text.lower()
    if roll < 0.35:
        return text.lower().rstrip(".?! ")
    if roll < 0.5:
        return text.rstrip(".?! ")
    if roll < 0.6:
        return f"{rng.choice(('Hi, ', 'hello. ', 'Hey ', 'Please: ', 'quick question: ', 'So, '))}{text}"
    if roll < 0.7:
        return f"{text} {rng.choice(('Thanks!', 'thank you', 'please', 'Any help is welcome.', '??'))}"
    return text


def _composed(rows: list[Row], count: int, rng: random.Random) -> list[Row]:
    """A row between harmless ones, as in a long message or a document; the same number all harmless."""
    rows = [row for row in rows if row.kind == "user" and not row.before]
    harmless = [row for row in rows if row.label == "benign" and 30 < len(row.text) < 400]
    payloads = [row for row in rows if row.label not in (None, "benign") and len(row.text) < 300]
    by_label: dict[str, list[Row]] = {}
    for row in payloads:
        by_label.setdefault(str(row.label), []).append(row)
    if not harmless or not by_label:
        return []
    made: list[Row] = []
    for _ in range(count):
        payload = rng.choice(by_label[rng.choice(sorted(by_label))])
        for core in (payload, rng.choice(harmless)):
            around = [row.text for row in rng.choices(harmless, k=rng.choice((1, 1, 2, 3)))]
            around.insert(rng.randrange(len(around) + 1), core.text)
            text = rng.choice((" ", "\n", "\n\n")).join(around)
            made.append(Row(text, core.label, core.category, core.toxicity, f"composed-{core.label}"))
    return made


def _followed(rows: list[Row], count: int, rng: random.Random) -> list[Row]:
    """A row as the turn after harmless ones, which changes nothing; and a harmless row after one that was refused."""
    harmless = [row for row in rows if row.label == "benign" and row.kind == "user" and 20 < len(row.text) < 240]
    refused = [row for row in rows if row.label not in (None, "benign") and row.kind == "user" and len(row.text) < 240]
    alone = [row for row in [*harmless, *refused] if not row.before]
    whole = [row for row in harmless if not row.before and len(row.text.split()) > 6]
    if not refused or not whole:
        return []
    made = []
    for _ in range(count):
        row = rng.choice(alone)
        before = "\n".join(one.text for one in rng.choices(harmless, k=rng.choice((1, 2))))
        made.append(replace(row, before=before, source=f"followed-{row.label}"))
        made.append(replace(rng.choice(whole), before=rng.choice(refused).text, source="followed-benign"))
    return made


def _planted(rows: list[Row], orders: list[str], count: int, rng: random.Random) -> list[Row]:
    """A plain order in what a tool returned; the same number of documents with a sentence that orders nothing."""
    documents = [row for row in rows if row.label == "benign" and row.kind == "tool"]
    comments = [row.text for row in rows if row.label == "benign" and row.source.startswith("civil")]
    asked = [row.text for row in rows if row.label == "benign" and row.source in _ORDERS and len(row.text) < 160]
    orders = [*orders, *rng.sample(asked, min(len(asked), len(orders)))]
    if not documents or not orders or not comments:
        return []
    made: list[Row] = []
    for _ in range(count):
        document = rng.choice([rng.choice(documents).text, rng.choice(comments)])
        planted = _inserted(document, rng.choice(orders), rng)
        made.append(Row(planted, "prompt_injection", "prompt_injection.indirect", None, "planted-order", kind="tool"))
        calm = _inserted(rng.choice(documents).text, rng.choice(comments)[:160], rng)
        made.append(Row(calm, "benign", "benign", None, "planted-nothing", kind="tool"))
    return made


def _inserted(document: str, sentence: str, rng: random.Random) -> str:
    """A sentence before, after or between the sentences or lines of a document."""
    parts = re.split(r"(?<=[.!?\n])\s*", document)
    at = rng.choice((0, len(parts), rng.randrange(len(parts) + 1)))
    return rng.choice((" ", "\n")).join(part for part in (*parts[:at], sentence, *parts[at:]) if part)


def _key(row: Row) -> str:
    return "\0".join((row.kind, normalise(row.before).lower(), normalise(row.text).lower()))


def _unique(rows: list[Row]) -> list[Row]:
    return list({_key(row): row for row in rows}.values())


def _entry(path: Path, rows: int, used: int, split: str) -> dict[str, Any]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"file": path.name, "usable_rows": rows, "used_rows": used, "split": split, "sha256": digest}
