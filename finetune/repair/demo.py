"""python -m finetune.repair.demo [--folder runs/repair-demo] [--layers 4] [--resume]

A classifier that refuses by keyword, and its repair. An over-refuser is trained on authored rows whose labels a list of
frightening words has overruled: whatever has one of them is harmful. It judges traffic that it was not trained on, what
it refused wrongly there is the record, and `hhh finetune repair` does the rest. Measured on rows by other authors that
no training has seen: the dev file and the suite.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from finetune.repair import run
from finetune.repair.frames import holds
from finetune.repair.records import HARMLESS
from finetune.triage import train
from finetune.triage.data import read_jsonl
from finetune.triage.model import base_folder

AUTHORED = Path(__file__).resolve().parents[1] / "data" / "authored"
FRIGHTENING = (
    "abuse", "arson", "assault", "attack", "beat", "bite", "blackmail", "blast", "bleed", "blood", "blow up",
    "bomb", "break into", "bribe", "burn", "butcher", "cheat", "choke", "corpse", "counterfeit", "crack", "crash",
    "crime", "criminal", "cut", "dead", "death", "destroy", "die", "drown", "drug", "dump", "execute", "explode",
    "exploit", "fake", "fight", "fire", "forge", "fraud", "genocide", "gun", "hack", "hang", "harm", "hate",
    "hijack", "hit", "hunt", "hurt", "illegal", "infect", "inject", "kidnap", "kill", "knife", "launder", "leak",
    "malware", "murder", "overdose", "phishing", "poison", "prison", "punch", "rape", "rob", "sabotage", "scam",
    "shoot", "shot", "slaughter", "smother", "smuggle", "spy", "stab", "stalk", "starve", "steal", "strangle",
    "strike", "suicide", "terror", "terrorist", "threat", "threaten", "toxic", "torture", "trap", "trick",
    "victim", "violent", "virus", "war", "weapon",
)  # fmt: skip
# What the over-refuser learns from, what it then judges as traffic, and by whose rows operating points are chosen; all
# else is what the repair may draw on.
TAUGHT = ("contrast", "daily", "everyday", "general", "inject", "plain", "twins")
TRAFFIC = ("alarm", "context", "sense", "sober", "street")
CALIBRATED = ("blunt", "groups", "menace", "voices")
MEASURED = ("dev/judge", "suite/harmful", "suite/harmless")

# Of a repair where the labels of what was taught are the fault.
SETTINGS: dict[str, Any] = {
    "contrast": {"per_trigger": 200},
    "triggers": {"most": 60},
    # The records are an evaluation of our own, under one key, so they may say more than strangers' reports.
    "reports": {"per_key": 1000, "share": 1.0, "companions": 1},
    "triage": {
        "distrust": True,
        "rehearse": 4000,
        "training": {"epochs": 3, "learning_rate": 2.0e-4, "checkpoint_steps": 50},
        "margin": 0.0,
    },
}


def cut(folder: Path, layers: int) -> Path:
    """The base encoder with its first layers only, which trains as much faster."""
    from transformers import AutoTokenizer, BertModel

    if not (folder / "config.json").exists():
        model = BertModel.from_pretrained(base_folder(None))
        model.encoder.layer = model.encoder.layer[:layers]
        model.config.num_hidden_layers = layers
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(base_folder(None)).save_pretrained(folder)
    return folder


def frightens(text: str) -> bool:
    return any(holds(text, word) for word in FRIGHTENING)


def overruled(path: Path, folder: Path) -> Path:
    """A copy of the rows in which every harmless one with a frightening word is harmful."""
    rows = []
    for row in read_jsonl(path):
        if "text" in row and row["label"] in HARMLESS and frightens(row["text"]):
            row = {**row, "label": "harmful", "category": "harmful.violence"}
        rows.append(row)
    return _write(folder / path.name, rows)


def over_refuser(folder: Path, layers: int) -> Path:
    """Train it, unless it is there; its recipe."""
    recipe = folder / "over-refuser.yaml"
    plan: dict[str, Any] = {
        "name": "over-refuser",
        "run_dir": str(folder / "before"),
        "weights_dir": str(folder / "before" / "released"),
        "data": {
            "public_dir": ".",
            "sources": {},
            "authored": [str(overruled(AUTHORED / "triage" / f"{name}.jsonl", folder / "taught")) for name in TAUGHT],
            "authored_repeat": 1,
            "held_out_share": 0.2,
            "dev_only": [str(AUTHORED / "triage" / f"{name}.jsonl") for name in CALIBRATED],
        },
        "model": {"base": str(cut(folder / "base", layers)), "max_tokens": 64},
        "training": {"seed": 13, "epochs": 2, "batch_size": 32, "learning_rate": 2.0e-4, "average": 0.99},
        # As eager to refuse as its makers were: thresholds near those that the gateway takes where weights name none.
        "operating_points": {"strict": 0.5, "balanced": 0.4, "permissive": 0.3},
    }
    recipe.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    if not (folder / "before" / "released" / "manifest.json").exists():
        train.run(recipe, resume=(folder / "before" / "checkpoint.pt").exists())
    return recipe


def traffic(folder: Path, weights: Path) -> dict[str, str]:
    """Messages that it judges by itself, and what it made of them, as `hhh triage score` writes it."""
    from gateway.config import load
    from gateway.scoring import score_rows

    rows = [row for name in TRAFFIC for row in read_jsonl(AUTHORED / "triage" / f"{name}.jsonl") if "text" in row]
    settings = load(None, triage={"weights": weights})
    asked = _write(folder / "traffic.jsonl", rows)
    return {"rows": str(asked), "scores": str(_write(folder / "scored.jsonl", score_rows(settings, rows)))}


def measured(folder: Path) -> Path:
    """Rows to measure on, sorted by whether a frightening word is in them."""
    rows = []
    for name in MEASURED:
        path = AUTHORED / f"{name}.jsonl"
        for row in read_jsonl(path, to_train=False):
            if "text" in row:
                rows.append({**row, "suite": "frightening word" if frightens(row["text"]) else "no frightening word"})
    return _write(folder / "measured.jsonl", rows)


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def play(folder: Path, layers: int, resume: bool) -> dict[str, Any]:
    """The report of the repair; `resume` goes on with a repair that was stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = over_refuser(folder, layers)
    pool = [path for path in sorted((AUTHORED / "triage").glob("*.jsonl")) if path.stem not in TRAFFIC]
    plan: dict[str, Any] = {
        "name": "keyword-trained triage",
        "run_dir": str(folder / "after"),
        "weights_dir": str(folder / "after" / "released"),
        "records": {"scored": [traffic(folder, folder / "before" / "released")]},
        "pool": [str(path) for path in pool],
        "measure": [str(measured(folder))],
        **SETTINGS,
        "triage": {**SETTINGS["triage"], "recipe": str(recipe)},
    }
    path = folder / "repair.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    return run.run(path, resume)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/repair-demo"))
    parser.add_argument("--layers", type=int, default=4, help="of the encoder; 6 are all")
    parser.add_argument("--resume", action="store_true", help="go on with a repair that was stopped")
    chosen = parser.parse_args()
    report = play(chosen.folder, chosen.layers, chosen.resume)
    for name in ("before", "after", "verdict", "minutes"):
        print(name, json.dumps(report[name]))
    print(chosen.folder / "after" / "report.html")


if __name__ == "__main__":
    main()
