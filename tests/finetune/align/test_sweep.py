"""The sweep: grid, Pareto front, choice, and a run of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.align import sweep
from tests.finetune.align import tiny
from tests.finetune.align.test_methods import command

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def point(task: float, harm: float, over_refusal: float) -> dict[str, Any]:
    return {"name": f"s/point-{task}", "scores": {"task": task, "harm": harm, "over_refusal": over_refusal}}


def settings(**more: Any) -> sweep.Sweep:
    return sweep.Sweep.model_validate({"name": "s", "method": "dpo", "recipe": "r", "grid": {"beta": [1]}, **more})


def test_the_grid_is_every_combination() -> None:
    assert sweep.grid({"a": (1, 2), "b": (3, 4)}) == [
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]


def test_the_front_and_the_choice() -> None:
    points = [
        point(2.0, 0.5, 0.0),
        point(2.05, 0.1, 0.02),
        point(2.06, 0.2, 0.03),
        point(2.5, 0.0, 0.0),
        point(2.0, 0.5, 0.0),
    ]
    front = sweep.pareto(points)
    assert front == [0, 1, 3, 4]
    best, reason = sweep.choose(points, front, settings())
    assert best == 1
    assert "least harm of the 3 points" in reason
    best, reason = sweep.choose([point(2.0, 0.1, 0.4), point(2.0, 0.4, 0.2)], [0, 1], settings())
    assert best == 1
    assert "no point of the front" in reason


@pytest.mark.slow
def test_a_sweep_is_drawn_and_justified(tmp_path: Path) -> None:
    tiny.dialogues(tmp_path)
    base = tiny.embedded(tmp_path / "base")
    start = tiny.write(tmp_path, "point", base, data={"dev_share": 0.4}, training={"max_steps": 2})
    path = tmp_path / "sweep.yaml"
    value = {
        "name": "swept",
        "runs": str(tmp_path / "runs"),
        "method": "sft",
        "recipe": str(start),
        "grid": {"training.learning_rate": [1e-5, 1e-2]},
        "rows": 3,
    }
    path.write_text(yaml.safe_dump(value))
    folder = command("sweep", path)
    report = json.loads((folder / "report.json").read_text())
    slow, fast = report["points"]
    assert fast["scores"]["task"] < slow["scores"]["task"]
    assert report["chosen"] in (slow["name"], fast["name"])
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert report["reason"] in (folder / "report.md").read_text()
    before = (folder / "point-0.json").stat().st_mtime_ns
    command("sweep", path, "--resume")
    assert (folder / "point-0.json").stat().st_mtime_ns == before
