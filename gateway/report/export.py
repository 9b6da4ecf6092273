"""What was reported wrong, as rows to train on: the format of `finetune/data/authored/triage`.

For a human to read before it trains anything: whoever may send feedback could otherwise teach the classifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from classifiers.labels import CATEGORIES, LABELS, label_of

# Where nobody said which category of a label a missed harm is.
_COMMON: Mapping[str, str] = {
    "regulated_advice": "regulated_advice.investment",
    "harmful": "harmful.unethical",
    "hate": "hate.stereotype",
    "self_harm": "self_harm.ideation",
    "prompt_injection": "prompt_injection.override",
}


def exported(opinions: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows `{"id", "text", "label", "category", "pair_id", "author_note", "key"}`, each text once, the last word on it.

    What has no text (`audit.text: none`) is left out. `pair_id` is empty: nobody wrote a counterpart. `key` is
    the client key that the message came with, so that no key can teach much by itself.
    """
    by_text = {row["text"]: row for row in opinions if row["text"]}
    for row in by_text.values():
        if row["verdict"] == "correct":
            continue
        label, category, guessed = _truth(row)
        judged = f"{row['category']} {row['score']:.2f}"
        note = "; ".join(part for part in (row["verdict"], f"judged {judged}", guessed, row["note"]) if part)
        yield {
            "id": f"feedback-{row['id']}",
            "text": row["text"],
            "label": label,
            "category": category,
            "pair_id": "",
            "author_note": note,
            "key": row["key"],
        }


def _truth(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Label, category, and whether it is a guess: what was given, else the likeliest that was passed by."""
    said = row["said"]
    if row["verdict"] == "wrong_refusal" and said in ("", "benign"):
        return "benign", "benign.general", ""
    if said:
        label = label_of(said)
        return label, said if said in CATEGORIES else _COMMON[label], ""
    scores: Mapping[str, float] = row["scores"]
    label = max(LABELS[1:], key=lambda name: scores.get(name, 0.0))
    fitting = row["category"] if label_of(row["category"]) == label and row["category"] in CATEGORIES else ""
    return label, fitting or _COMMON[label], "label guessed"
