"""The model card of the screen, written from the recipe and the measured figures."""

from __future__ import annotations

from typing import Any

from classifiers.screen import MOST_CHARACTERS
from finetune.screen.data import Split
from finetune.triage.page import percent
from finetune.triage.recipe import Screen

_ABOUT = """# Screen: model card

Tier 0 of triage: clears messages that are plainly harmless, so that the encoder need not read them. A convolution over
three neighbouring word pieces (embeddings of {size}, {filters} filters, highest and mean, one logit), distilled from
the encoder with the sha256 `{encoder}`; it is used before no other one. English.

- A text is cleared when its score is under {threshold:.5f}. The score is no calibrated probability.
- Never cleared: more than {characters} characters; characters other than those of plain English text; runs of 25
  characters without a space; digits within words; words spelt out; more than {unknown:.0%} word pieces that training
  hardly saw, or many words that are none (ciphers, typing errors).
- "Flagged" means that the encoder gives one of these or more: {flags}, toxicity {toxicity}.
  Lower is no threshold at which a shipped policy acts. A policy with lower ones is not covered by what follows.
- Learnt from {train} texts with the encoder's scores (those of triage's recipe with their labels, and texts of the same
  public training sources without). Measured on triage's dev split, which neither was trained on.

## Missed
The threshold was chosen on dev, so that at most {share:.1%} of the flagged texts there is cleared. Upper end: one-sided
95 % interval (Clopper-Pearson); exact for a threshold chosen so, for messages like dev's. Size and training length were
chosen with a look at dev, which the interval knows nothing of.

| of dev's texts | cleared | share | upper end |
| --- | --- | --- | --- |
| flagged by the encoder | {missed}
| flagged, and harmful by their label | {harmful}
| harmful by their label, flagged or not | {all_harmful}

{mistakes}

## Cleared, of benign texts
| dev source | cleared |
| --- | --- |
{cleared}

## What it does not do
- Find harm. It knows words and pairs and triples of them; what only a whole sentence tells is the encoder's.
- Toxicity and categories: a cleared text has none. Replies of a model were not among the texts it was measured on.
- Hold its bound against someone who searches for words that it clears.

Data, licences and checksums: as in the card of triage. Beside those rows, unlabelled: {more}.
"""


def card(plan: Screen, split: Split, found: dict[str, Any]) -> str:
    """The card's text. `found` is what `measure` gives."""
    return _ABOUT.format(
        size=plan.size,
        filters=plan.filters,
        encoder=split.encoder[:16],
        threshold=found["threshold"],
        characters=MOST_CHARACTERS,
        unknown=plan.unknown_share,
        flags=", ".join(f"{label} {least}" for label, least in split.flags.items()),
        toxicity=plan.toxicity,
        train=len(split.train),
        share=plan.missed_share,
        missed=_missed(found["missed"]),
        harmful=_missed(found["missed_harmful"]),
        all_harmful=_missed(found["cleared_harmful"]),
        mistakes="\n".join(
            f"- missed: {one['text'][:160]!r} ({one['source']}, {one['label']}; encoder {one['risk']:.2f})"
            for one in found["mistakes"]
        ),
        cleared="\n".join(f"| {source} | {percent(one)} |" for source, one in found["cleared"].items()),
        more=", ".join(f"{path.name} {most}" for path, most in plan.more.items()) or "none",
    )


def _missed(one: dict[str, Any]) -> str:
    return f"{one['misses']} of {one['total']} | {one['share']:.2%} | {one['upper']:.2%} |"
