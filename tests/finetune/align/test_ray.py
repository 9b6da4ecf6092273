"""Ray Train: two workers on a CPU give the losses of one process, and say what is wrong as one process does."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import main
from tests.conftest import ROOT
from tests.finetune.align import tiny

# Of libraries that call each other's deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
SCALES = ROOT / "finetune" / "recipes" / "ray"


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with rows and a base; recipes name them by relative paths."""
    monkeypatch.chdir(tmp_path)
    tiny.dialogues(Path())
    tiny.embedded(Path("base"))
    return tmp_path


def test_two_workers_give_the_losses_of_one_process(ground: Path) -> None:
    settings = {"max_steps": 4, "learning_rate": 1e-3, "group_by_length": False}
    alone = tiny.write(Path(), "alone", Path("base"), training={**settings, "batch_rows": 8})
    both = tiny.write(Path(), "both", Path("base"), training={**settings, "batch_rows": 4})
    assert CliRunner().invoke(main, ["finetune", "sft", "--recipe", str(alone)]).exit_code == 0
    # In a process of its own: Ray starts and ends processes, and has handlers for signals.
    environment = {**os.environ, "HOME": str(ground), "CUDA_VISIBLE_DEVICES": ""}
    call = ["finetune", "ray", "--method", "sft", "--recipe", str(both), "--scale", str(SCALES / "cpu2.yaml")]
    start = [sys.executable, "-m", "gateway.cli", *call]
    done = subprocess.run(start, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = Path(done.stdout.strip().splitlines()[-1])
    assert folder == Path("runs/both")
    assert tiny.logged(folder, "loss") == pytest.approx(tiny.logged(Path("runs/alone"), "loss"), abs=2e-5)
    assert (folder / "result.json").is_file()


def test_what_a_worker_says_is_told_as_without_ray(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the same pickling; two real workers are started above."""
    from finetune.align import ray_train

    def fit(trainer: Any) -> None:
        with pytest.raises(ValueError, match="bad rows") as met:
            trainer.train_loop_per_worker(trainer.train_loop_config)
        raise pickle.loads(pickle.dumps(ray_train.WorkerGroupError("a traceback", {0: met.value})))

    monkeypatch.setattr(ray_train.ray, "init", lambda *_, **__: None)
    monkeypatch.setattr(ray_train.ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray_train.TorchTrainer, "fit", fit)
    tiny.jsonl(Path("bad/rows.jsonl"), [{"id": "x", "messages": []}])
    recipe = tiny.write(Path(), "bad", Path("base"), data={"dialogues": ["bad"]})
    without = CliRunner().invoke(main, ["finetune", "sft", "--recipe", str(recipe)])
    call = ["--method", "sft", "--recipe", str(recipe), "--scale", str(SCALES / "cpu2.yaml")]
    done = CliRunner().invoke(main, ["finetune", "ray", *call])
    assert (done.exit_code, done.stderr) == (2, without.stderr)
    assert "bad/rows.jsonl:1: messages: no messages" in done.stderr


@pytest.mark.parametrize(
    ("method", "recipe", "scale", "told"),
    [
        ("sft", "{name: x, base: x, batch: 8}", "", "recipe.yaml: batch - Extra inputs are not permitted"),
        ("sft", "{name: x, base: x}", "workers: 0", "scale.yaml: workers - Input should be greater than or equal to 1"),
        ("sft", "{name: x, base: x}", "gpus: 8", "scale.yaml: gpus - Extra inputs are not permitted"),
        ("sft", "name: scratch", "workers: 2", "not train (a recipe without `base` is `train`"),
        ("sweep", "base: x", "workers: 2", "Ray Train runs sft, penalty, dpo, kto, rloo, grpo, not sweep"),
    ],
)
def test_what_cannot_run_is_told_before_ray_starts(
    tmp_path: Path, method: str, recipe: str, scale: str, told: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe)
    (tmp_path / "scale.yaml").write_text(scale)
    call = ["--recipe", str(tmp_path / "recipe.yaml"), "--scale", str(tmp_path / "scale.yaml")]
    done = CliRunner().invoke(main, ["finetune", "ray", "--method", method, *call])
    assert done.exit_code == 2
    assert told in done.stderr


def test_more_workers_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.align import ray_train
    from finetune.align.ray_train import ScalingConfig

    monkeypatch.setattr(ray_train.ray, "cluster_resources", lambda: {"CPU": 4.0})
    ray_train._fits(ScalingConfig(num_workers=4), Path("s.yaml"))
    with pytest.raises(ValueError, match=r"s\.yaml: the workers need 5 CPU, this machine has 4"):
        ray_train._fits(ScalingConfig(num_workers=5), Path("s.yaml"))
    with pytest.raises(ValueError, match=r"s\.yaml: the workers need 1 GPU, this machine has 0"):
        ray_train._fits(ScalingConfig(num_workers=1, use_gpu=True), Path("s.yaml"))


def test_the_shipped_scales_are_scales() -> None:
    from finetune.align.ray_train import Scale
    from finetune.hhh.recipe import parse

    found = {path.stem: parse(path, Scale) for path in SCALES.glob("*.yaml")}
    assert {name: (scale.workers, scale.use_gpu, scale.address) for name, scale in found.items()} == {
        "cpu1": (1, False, "local"),
        "cpu2": (2, False, "local"),
        "gpu1": (1, True, "local"),
        "gpu8": (8, True, "local"),
        "nodes": (16, True, "auto"),
    }
