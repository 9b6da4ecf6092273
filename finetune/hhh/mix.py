"""`mix`: the mean of the weights of a run and of one that started from it (WiSE-FT, Wortsman et al. 2022).

Training on one kind of dialogue brings that and costs the rest; on the line between the two runs much of both is kept,
for no training at all. A few seconds; the folder is a run's folder like others.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pydantic import Field
from safetensors.torch import load_file, save_file

from finetune.hhh.recipe import NAME, Part, parse
from finetune.hhh.train import stages

COPIED = ("model", "tokenizer", "recipe.json", "manifest.json", "result.json")


class Recipe(Part):
    name: str = Field(pattern=NAME)
    runs: Path = Path("runs")
    before: Path = Field(description="Folder of a run.")
    after: Path = Field(description="Folder of a run that started from it.")
    share: float = Field(0.5, gt=0, lt=1, description="Weight of `after` in the mean.")


def run(path: Path, resume: bool = False) -> Path:
    """The folder of the mean. Raises `RecipeError`, `FileNotFoundError`, and `ValueError` where shapes differ."""
    recipe = parse(path, Recipe)
    folder = recipe.runs / recipe.name
    if resume and (folder / "result.json").is_file():
        return folder
    first, second = (load_file(one / "model" / "model.safetensors") for one in (recipe.before, recipe.after))
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        raise ValueError(f"{recipe.before} and {recipe.after} have other shapes")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COPIED:
        source = recipe.after / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    mean = {name: ((1 - recipe.share) * first[name] + recipe.share * second[name]).contiguous() for name in first}
    save_file(mean, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    _measure(folder, recipe.after.name)
    return folder


def _measure(folder: Path, after: str) -> None:
    """The result's figures anew, and one more stage."""
    from finetune.align import embedded

    path = folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    told = [*stages(result, after), {"name": folder.name, "method": "mix", "steps": 0, "seconds": 0.0}]
    path.write_text(
        json.dumps({**result, "stages": told, **embedded.figures(folder)}, indent=2) + "\n", encoding="utf-8"
    )
