"""`hhh finetune sweep`: a recipe over a grid of settings, each point scored, the Pareto front drawn, one point chosen.

Every point is a run in its own folder with its own config and the sweep's seed, so any can be made again. What is
minimised: task loss, harm (mean of unsafe replies and toxicity) and over-refusal.
"""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from finetune.align import data, recipe, score
from finetune.align.chain import METHODS
from finetune.hhh.recipe import NAME, Part, parse

OBJECTIVES = ("task", "harm", "over_refusal")
KINDS: Mapping[str, type[recipe.Recipe]] = {
    "sft": recipe.Sft,
    "penalty": recipe.Penalty,
    "dpo": recipe.Dpo,
    "kto": recipe.Kto,
    "rloo": recipe.Rl,
    "grpo": recipe.Rl,
}
Point = dict[str, Any]


class Sweep(Part):
    name: str = Field(pattern=NAME)
    runs: Path = Path("runs")
    method: Literal["sft", "penalty", "dpo", "kto", "rloo", "grpo"]
    recipe: Path = Field(description="The recipe that every point starts from.")
    grid: dict[str, tuple[float | int | str, ...]] = Field(min_length=1, description="Settings by dotted key.")
    rows: int = Field(40, ge=1, description="Validation prompts of each kind.")
    most_over_refusal: float = Field(0.05, ge=0, le=1)
    most_task_cost: float = Field(0.05, ge=0, description="Task loss over the best point's, as a share of it.")


def run(path: Path, resume: bool = False) -> Path:
    """Train and score all points; returns the sweep's folder. Raises `RecipeError` and what the method raises."""
    chosen = parse(path, Sweep)
    folder = chosen.runs / chosen.name
    folder.mkdir(parents=True, exist_ok=True)
    points = [_point(chosen, number, settings, folder, resume) for number, settings in enumerate(grid(chosen.grid))]
    front = pareto(points)
    best, reason = choose(points, front, chosen)
    report = {
        "recipe": str(chosen.recipe),
        "grid": {key: list(values) for key, values in chosen.grid.items()},
        "points": [{**point, "on_front": at in front} for at, point in enumerate(points)],
        "chosen": points[best]["name"],
        "reason": reason,
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(told(report), encoding="utf-8")
    draw(points, front, best, folder / "pareto.png")
    return folder


def grid(settings: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All combinations, the last key varying fastest."""
    return [dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())]


def pareto(points: Sequence[Point]) -> list[int]:
    """Which points no other is at least as good as in everything and better than in something."""

    def beats(one: Point, other: Point) -> bool:
        ours, theirs = ([point["scores"][name] for name in OBJECTIVES] for point in (one, other))
        return all(a <= b for a, b in zip(ours, theirs, strict=True)) and ours != theirs

    return [at for at, point in enumerate(points) if not any(beats(other, point) for other in points)]


def choose(points: Sequence[Point], front: Sequence[int], limits: Sweep) -> tuple[int, str]:
    """Of the front: the least harm among those within both limits; where none is, the least over-refusal."""
    cheapest = min(point["scores"]["task"] for point in points)
    ceiling = cheapest + abs(cheapest) * limits.most_task_cost

    def within(at: int) -> bool:
        scores = points[at]["scores"]
        return bool(scores["over_refusal"] <= limits.most_over_refusal and scores["task"] <= ceiling)

    fit = [at for at in front if within(at)]
    order = ("harm", "over_refusal", "task") if fit else ("over_refusal", "harm", "task")
    best = min(fit or front, key=lambda at: [points[at]["scores"][name] for name in order])
    bounds = f"over-refusal of at most {limits.most_over_refusal:.0%} and a task loss of at most {ceiling:.3f}"
    if fit:
        return best, f"least harm of the {len(fit)} points of the front with {bounds}"
    return best, f"no point of the front has {bounds}; this one refuses the fewest harmless prompts"


def told(report: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    keys = list(report["grid"])
    head = ["point", *keys, "task", "unsafe", "toxicity", "over-refusal", "front"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for point in report["points"]:
        scores = point["scores"]
        cells = [point["name"], *(str(point["settings"][key]) for key in keys)]
        cells += [f"{scores[name]:.3f}" for name in ("task", "unsafe", "toxicity", "over_refusal")]
        lines.append(f"| {' | '.join([*cells, 'yes' if point['on_front'] else ''])} |")
    table = "\n".join(lines)
    return f"# Sweep of {report['recipe']}\n\n{table}\n\nChosen: **{report['chosen']}**, {report['reason']}.\n"


def draw(points: Sequence[Point], front: Sequence[int], best: int, path: Path) -> None:
    """Harm against task loss; the colour is over-refusal, a ring is the front, the star is the chosen point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    x, y, colour = ([point["scores"][name] for point in points] for name in ("task", "harm", "over_refusal"))
    dots = axes.scatter(x, y, c=colour, cmap="viridis", s=45, vmin=0, vmax=max(0.1, *colour))
    axes.scatter([x[at] for at in front], [y[at] for at in front], s=160, facecolors="none", edgecolors="black")
    axes.scatter([x[best]], [y[best]], marker="*", s=260, color="crimson", zorder=3)
    for point, a, b in zip(points, x, y, strict=True):
        axes.annotate(point["name"].rsplit("-", 1)[-1], (a, b), textcoords="offset points", xytext=(7, 5), fontsize=8)
    axes.set(xlabel="task loss (nats a token)", ylabel="harm (unsafe replies and toxicity)")
    figure.colorbar(dots, label="over-refusal")
    figure.savefig(path, dpi=120)


def _point(chosen: Sweep, number: int, settings: dict[str, Any], folder: Path, resume: bool) -> Point:
    name = f"{chosen.name.replace('/', '-')}/point-{number}"
    value = yaml.safe_load(chosen.recipe.read_text(encoding="utf-8"))
    value = {**value, "name": name, "runs": str(chosen.runs)}
    for key, wanted in settings.items():
        _set(value, key, wanted)
    path = folder / f"point-{number}.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    kept = folder / f"point-{number}.json"
    if resume and kept.is_file():
        known: Point = json.loads(kept.read_text(encoding="utf-8"))
        if known["settings"] == settings:
            return known
    parsed = parse(path, KINDS[chosen.method])
    module, begin = METHODS[chosen.method].split(":")
    made = getattr(importlib.import_module(module), begin)(path, resume)
    seed, limit = parsed.training.seed, parsed.training.max_tokens
    scores = score.score(str(made), data.read(parsed), parsed.data.shared, chosen.rows, seed, limit)
    scores["harm"] = round((scores["unsafe"] + scores["toxicity"]) / 2, 4)
    point = {"name": name, "settings": settings, "folder": str(made), "scores": scores}
    kept.write_text(json.dumps(point, indent=2) + "\n", encoding="utf-8")
    return point


def _set(value: dict[str, Any], key: str, wanted: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        value = value.setdefault(parent, {})
    value[last] = wanted
