"""A run of the embedded model's training, end to end on a tiny model: resume, and the export."""

import json
from pathlib import Path

import pytest
import yaml

from finetune.hhh import train

STEPS = 10


def recipe(folder: Path, runs: str, steps: int = STEPS) -> Path:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    rows = [
        {
            "id": f"t-{i}",
            "control": ("comply", "advise", "refuse")[i % 3],
            "category": "a.b",
            "messages": [
                {"role": "user", "content": f"What is number {i}?"},
                {"role": "assistant", "content": f"Number {i} is a number that comes after {i - 1}."},
            ],
            "asks": [f"number {i} meaning", f"explain the number {i}"],
        }
        for i in range(60)
    ]
    (data / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / f"{runs}.yaml"
    value = {
        "name": "tiny",
        "runs": str(folder / runs),
        "data": {"authored": str(data), "shared": str(folder / "none")},
        "model": {"vocabulary": 330, "hidden": 32, "layers": 2, "heads": 2, "feedforward": 64, "context": 96},
        "training": {
            "max_steps": steps,
            "max_minutes": 60,
            "pretrain_share": 0.4,
            "batch_tokens": 512,
            "warmup_steps": 2,
            "threads": 1,
        },
    }
    path.write_text(yaml.safe_dump(value))
    return path


def losses(folder: Path) -> list[tuple[str, int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["phase"], row["step"], row["loss"]) for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train.run(recipe(tmp_path_factory.mktemp("whole"), "runs"))


def test_a_run_leaves_its_record(whole: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["sources"][0]["rows"] == 60
    assert len(manifest["sources"][0]["sha256"]) == 64
    assert "gsm8k" in manifest["missing"]
    result = json.loads((whole / "result.json").read_text())
    assert result["step"] == STEPS
    assert set(result["dev_loss"]) == {"dev_rows", "dev_asks"}
    assert {phase for phase, _, _ in losses(whole)} == {"pretrain", "dialogues"}
    assert (whole / "model" / "tokenizer.json").is_file()


@pytest.mark.parametrize("stop", [2, 6])
def test_a_resumed_run_gives_the_same_losses(tmp_path: Path, whole: Path, stop: int) -> None:
    path = recipe(tmp_path, "runs")
    chosen = train.recipe.read(path)
    first = train.Run(chosen, resume=False)
    done = 0
    while done < stop:
        for _ in first._epoch():
            done += 1
            if done == stop:
                first.save()
                break
    for _ in zip(range(2), first._epoch(), strict=False):  # went on, and died before the next checkpoint
        pass
    assert losses(train.run(path, resume=True)) == losses(whole)


def test_resuming_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        train.run(recipe(tmp_path, "runs"), resume=True)
