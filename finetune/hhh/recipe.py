"""The recipe of a training run: one YAML file, checked before anything is read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

NAME = r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)?$"


class RecipeError(ValueError):
    """The recipe is wrong. `str()` names the file and the key."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Part):
    authored: Path = Field(Path("finetune/data/authored/dialogues"), description="Folder of dialogues, *.jsonl.")
    shared: Path = Field(Path("../shared/data"), description="Folder of the shared set; trained without if absent.")
    policies: Path = Field(Path("rails"), description="Folder of policies, whose guidance the model is to have seen.")
    helpers: tuple[str, ...] = Field(
        ("banking77", "clinc150", "hwu64", "gsm8k", "tatqa-questions", "self-instruct-seeds", "mtbench-vicuna"),
        description="Files of shared/classification whose benign texts help in pre-training.",
    )
    helper_rows: int = Field(4_000, ge=0, description="Most rows taken from one helper file.")
    provoking: int = Field(
        0,
        ge=0,
        description="Most toxic texts, and most provoking exchanges, to pre-train on: a base to be aligned.",
    )
    dev_rows: float = Field(0.04, ge=0, lt=1, description="Share of rows held out with all their phrasings.")
    dev_asks: float = Field(0.1, ge=0, lt=1, description="Share of training rows of which one phrasing is held out.")


class Model(Part):
    vocabulary: int = Field(4_096, ge=300)
    hidden: int = Field(384, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(6, ge=1)
    feedforward: int = Field(1_024, ge=8)
    context: int = Field(512, ge=32, description="Tokens of prompt and answer together.")


class Training(Part):
    seed: int = 7
    max_minutes: float = Field(45, gt=0, description="Wall-clock budget; the schedule ends with it.")
    max_steps: int = Field(1_000_000, ge=1, description="Steps at most; the schedule ends with whichever is first.")
    pretrain_share: float = Field(0.08, ge=0, le=1, description="Share of the schedule spent on plain text.")
    batch_tokens: int = Field(2_048, ge=32, description="Tokens in a padded batch.")
    opening_weight: float = Field(
        4.0, ge=1, description="What an answer's first tokens count in the loss: they decide which answer it becomes."
    )
    shortened: float = Field(0.9, ge=0, le=1, description="Share of dialogues cut soon after their answer's beginning.")
    shortened_at_last: float = Field(0.3, ge=0, le=1, description="The same, in the last part of the schedule.")
    whole_share: float = Field(0.3, ge=0, le=1, description="How long that last part is, as a share of the schedule.")
    times: dict[Literal["comply", "advise", "refuse"], Annotated[float, Field(ge=0)]] = Field(
        {}, description="How often an epoch sees the dialogues of each control token; 1 where not named."
    )
    learning_rate: float = Field(1.5e-3, gt=0)
    final_rate: float = Field(0.02, ge=0, le=1, description="The last learning rate, as a share of the first.")
    warmup_steps: int = Field(60, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    threads: int = Field(2, ge=1)
    bf16: bool = True
    evaluate_minutes: float = Field(6, gt=0)
    checkpoint_minutes: float = Field(4, gt=0)


class Recipe(Part):
    name: str = Field("hhh-embedded", pattern=NAME)
    runs: Path = Path("runs")
    start: Path | None = Field(None, description="Folder of a run whose tokenizer and weights to start from.")
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()


AnyPart = TypeVar("AnyPart", bound=Part)


def parse(path: Path, kind: type[AnyPart]) -> AnyPart:
    """What `path` says, as `kind`; raises `RecipeError`, which names the file and the key."""
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"{path}: {'.'.join(map(str, first['loc'])) or 'recipe'} - {first['msg']}") from None


def read(path: Path) -> Recipe:
    """The recipe in `path`; raises `RecipeError`."""
    return parse(path, Recipe)
