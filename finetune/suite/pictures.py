"""The pictures of a report and of a comparison, drawn from parts that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.suite.figures import KNOWN, Figure
from finetune.suite.grade import Grade
from finetune.suite.part import Part
from finetune.triage.metrics import wilson

INK, BLUE, ORANGE, GREY = "#1d2733", "#2c6fbb", "#c77d2e", "#9aa5b1"
SHADES = ("#2c6fbb", "#c77d2e", "#4f9d69", "#8a5fa8", "#b04a5a", "#6b7785", "#3a9ca6", "#b59a2e")
GRADES: tuple[Grade, ...] = ("full", "partial", "unable", "none", "garbled", "unanswered")


def draw(parts: Sequence[Part], folder: Path) -> list[tuple[str, Path]]:
    """A title and a PNG each, in `folder`."""
    by = {part.name: part for part in parts}
    made: list[tuple[str, Path]] = []
    for name, title, draws in (
        ("refusals", "Grades of replies", _refusals),
        ("toxicity", "Toxicity of replies to provocations", _toxicity),
        ("bias", "Word associations (WEAT, SEAT)", _bias),
        ("redteam", "Attacks that succeed, by mutator", _redteam),
    ):
        if name in by and by[name].data:
            path = folder / f"{name}.png"
            if draws(by[name].data, path):
                made.append((title, path))
    return made


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = canvas.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return canvas, axes


def _refusals(data: Mapping[str, Any], path: Path) -> bool:
    canvas, axes = _axes(7.6, 2.4)
    for place, name in enumerate(("harmless", "harmful")):
        total, left = max(1, sum(data[name].values())), 0.0
        for grade, shade in zip(GRADES, (BLUE, "#86b0dd", "#4f9d69", ORANGE, GREY, "#d8dee5"), strict=True):
            width = data[name].get(grade, 0) / total
            axes.barh(place, width, left=left, color=shade, label=grade if place == 0 else None)
            left += width
    axes.set_yticks((0, 1), ("harmless", "harmful"))
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of replies by grade of refusal")
    axes.legend(ncols=6, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
    canvas.savefig(path, dpi=120)
    return True


def _toxicity(data: Mapping[str, Any], path: Path) -> bool:
    if not data["scores"]:
        return False
    canvas, axes = _axes(7.6, 2.8)
    axes.hist(data["scores"], bins=[at / 20 for at in range(21)], color=BLUE)
    axes.set_xlabel("toxicity of a reply")
    axes.set_ylabel("replies")
    canvas.savefig(path, dpi=120)
    return True


def _bias(data: Mapping[str, Any], path: Path) -> bool:
    kinds = [kind for kind in ("WEAT", "SEAT") if kind in data]
    if not kinds:
        return False
    tests = list(data[kinds[0]])
    canvas, axes = _axes(7.6, 0.7 + 0.42 * len(tests))
    for number, kind in enumerate(kinds):
        places = [at + 0.38 * number for at in range(len(tests))]
        axes.barh(places, [data[kind][test][0] for test in tests], 0.36, color=SHADES[number], label=kind)
    axes.set_yticks(range(len(tests)), tests)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlim(-2, 2)
    axes.set_xlabel("effect size d")
    axes.legend(frameon=False)
    canvas.savefig(path, dpi=120)
    return True


def _redteam(data: Mapping[str, Any], path: Path) -> bool:
    found = {name: wilson(hits, total) for name, (hits, total) in data["mutators"].items()}
    names = sorted(found, key=lambda name: found[name]["share"])
    canvas, axes = _axes(7.6, 0.8 + 0.28 * len(names))
    values = [float(found[name]["share"]) for name in names]
    low = [max(0.0, value - float(found[name]["low"])) for value, name in zip(values, names, strict=True)]
    high = [max(0.0, float(found[name]["high"]) - value) for value, name in zip(values, names, strict=True)]
    axes.barh(range(len(names)), values, color=ORANGE, xerr=[low, high], error_kw={"ecolor": INK, "elinewidth": 1})
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of attacks that succeed (95 % Wilson)")
    canvas.savefig(path, dpi=120)
    return True


def compare(runs: Mapping[str, Mapping[str, Figure]], path: Path) -> bool:
    """All shares of several runs side by side."""
    keys = [key for key, one in KNOWN.items() if one.unit == "share" and any(key in found for found in runs.values())]
    if not keys:
        return False
    canvas, axes = _axes(8.6, 1.0 + 0.17 * len(keys) * (len(runs) + 1))
    step = 0.8 / max(1, len(runs))
    for number, (name, found) in enumerate(runs.items()):
        places = [len(keys) - at - number * step for at, key in enumerate(keys) if key in found]
        values = [found[key].value for key in keys if key in found]
        axes.barh(places, values, step * 0.92, color=SHADES[number % len(SHADES)], label=name)
    axes.set_yticks([len(keys) - at - 0.4 + step / 2 for at in range(len(keys))], [KNOWN[key].name for key in keys])
    axes.set_xlim(0, 1)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(4, len(runs)))
    canvas.savefig(path, dpi=120)
    return True
