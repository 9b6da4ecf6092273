"""`hhh finetune ray`: a recipe on the workers of Ray Train; how many, and on what, is a file of its own.

Ray gives each worker its rank and a process group (gloo on CPUs, nccl on GPUs), as torchrun does; trainers go by those.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray
from pydantic import Field
from ray.train import LoggingConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer

from finetune.align.chain import start
from finetune.align.sweep import KINDS
from finetune.hhh.recipe import Part, parse


class Scale(Part):
    workers: int = Field(1, ge=1, description="Processes. `batch_rows` of a recipe is per process.")
    use_gpu: bool = Field(False, description="A GPU for each; without it they see none.")
    resources_per_worker: dict[str, float] | None = Field(
        None, description="In Ray's names, {CPU: 4}; else one CPU, or one GPU. A worker has as many threads as CPUs."
    )
    storage: Path = Field(Path("runs/ray"), description="Folder of Ray's own records; the run's is the recipe's.")
    address: str = Field("local", description="Of a running cluster; local: one on this machine, for this run only.")


def run(method: str, recipe: Path, scale: Path, resume: bool = False) -> Path:
    """Train by a recipe; returns the run's folder. Raises what the method raises without Ray, and `ValueError`."""
    if method not in KINDS:
        told = "a recipe without `base` is `train`, from scratch and in one process"
        raise ValueError(f"Ray Train runs {', '.join(KINDS)}, not {method} ({told})")
    folder = parse(recipe, KINDS[method]).folder
    chosen = parse(scale, Scale)
    scaling = ScalingConfig(
        num_workers=chosen.workers, use_gpu=chosen.use_gpu, resources_per_worker=chosen.resources_per_worker
    )
    # Ray's processes on this machine inherit these. The first is for torch, which Ray loads before `start` runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "1"  # workers without a GPU see none
    os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"  # it breaks libraries that read what they print
    ray.init(chosen.address, include_dashboard=False, logging_config=ray.LoggingConfig(log_level="ERROR"))
    try:
        if chosen.address == "local":
            _fits(scaling, scale)
        trainer = TorchTrainer(
            _work,
            train_loop_config={"at": os.getcwd(), "method": method, "recipe": recipe, "resume": resume},
            scaling_config=scaling,
            run_config=RunConfig(
                storage_path=str(chosen.storage.absolute()), logging_config=LoggingConfig(log_level="CRITICAL")
            ),
        )
        trainer.fit()
        return folder
    except WorkerGroupError as error:
        raise next(iter(error.worker_failures.values())) from error
    finally:
        ray.shutdown()


def _fits(scaling: ScalingConfig, scale: Path) -> None:
    """Ray waits for what is missing, since a cluster may grow. One machine does not."""
    there = ray.cluster_resources()
    for name, wanted in scaling.total_resources.items():
        if wanted > there.get(name, 0):
            raise ValueError(f"{scale}: the workers need {wanted:g} {name}, this machine has {there.get(name, 0):g}")


def _work(order: dict[str, Any]) -> None:
    """In each worker, which Ray starts in a folder of its own; recipes have paths relative to the caller's."""
    os.chdir(order["at"])
    start(order["method"], order["recipe"], order["resume"])
