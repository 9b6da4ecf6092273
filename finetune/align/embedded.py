"""What makes a run on the embedded model exportable: the files that `finetune.hhh.export` reads, carried along.

They come from the run that trained it first (`finetune.hhh.train`); losses and recall are measured anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from finetune.hhh import corpus, measure, recipe, tokenizer, train
from gateway.upstream.layout import Layout


def carry(folder: Path, before: Path, manifest: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
    """`outcome` with what the card needs of the runs before; writes recipe.json, tokenizer/ and manifest.json.

    A base that was no such run leaves the outcome as it is.
    """
    if not (before / "recipe.json").is_file() or not (before / "result.json").is_file():
        return outcome
    earlier = _read(before / "result.json")
    shutil.copyfile(before / "recipe.json", folder / "recipe.json")
    shutil.copytree(before / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    stage = {"name": folder.name, "method": outcome["method"], "steps": outcome["steps"], "seconds": outcome["seconds"]}
    merged = json.dumps(train.sources(manifest, before), indent=2)
    (folder / "manifest.json").write_text(merged + "\n", encoding="utf-8")
    return {
        **earlier,
        **outcome,
        "seconds": round(earlier["seconds"] + outcome["seconds"], 1),
        "step": earlier["step"] + outcome["steps"],
        "stages": [*train.stages(earlier, before.name), stage],
        **figures(folder),
    }


def unseen(before: Path) -> frozenset[tuple[str, str]]:
    """Row and first question of what the embedded model behind `before` was never trained on, so must not be now."""
    if not (before / "recipe.json").is_file():
        return frozenset()
    _, found = _dialogues(before)
    return frozenset((row.row, row.question) for row in (*found.dev_rows, *found.dev_asks))


def figures(folder: Path) -> dict[str, Any]:
    """Dev losses and recall of the embedded model in a run's folder."""
    from transformers import LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(str(folder / "model"), attn_implementation="eager")
    chosen, found = _dialogues(folder)
    layout = Layout(tokenizer.load(folder / "tokenizer" / "tokenizer.json"))
    return measure.figures(model, layout, found, chosen.model.context)


def _dialogues(folder: Path) -> tuple[recipe.Recipe, corpus.Corpus]:
    """The recipe of a run, and of its corpus the dialogues only, which is all that is looked at here."""
    chosen = recipe.Recipe.model_validate_json((folder / "recipe.json").read_text(encoding="utf-8"))
    only = chosen.data.model_copy(update={"helpers": (), "provoking": 0})
    return chosen, corpus.read(only, chosen.training.seed)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
