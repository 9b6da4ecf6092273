"""The recipe of a repair: one YAML file, checked before anything is read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class RecipeError(ValueError):
    """The message names the file and the key."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scored(_Part):
    rows: Path = Field(description='Labelled rows {"id","text","label"}, as they went into `hhh triage score`.')
    scores: Path = Field(description="What it wrote about them; joined by id.")


class Records(_Part):
    """Where the wrong refusals are known from; at least one source."""

    exported: list[Path] = Field(default=[], description="Files of `hhh audit export`.")
    scored: list[Scored] = Field(default=[], description="An evaluation of triage.")
    evaluated: list[Path] = Field(default=[], description="report.json of `hhh eval refusals`: the model's refusals.")


class Triggers(_Part):
    most: int = Field(25, ge=1, description="Triggers that contrast rows are sought for.")
    fall: float = Field(
        0.05, ge=0, description="A trigger's least mean fall of the score where it is left out, and one refusal turned."
    )
    texts: int = Field(40, ge=1, description="Wrongly refused texts that each candidate is left out of, at most.")


class Contrast(_Part):
    per_trigger: int = Field(40, ge=1, description="Most rows around a trigger on each side, harmless and harmful.")
    least: int = Field(3, ge=0, description="With fewer written rows than this on a side, templates fill up to it.")


class Reports(_Part):
    """The guard: whoever may report could otherwise teach the classifier that harm is harmless."""

    per_key: int = Field(20, ge=0, description="Most reports that count of one client key.")
    share: float = Field(0.2, ge=0, le=1, description="Most reports, as a share of the contrast rows.")
    companions: int = Field(2, ge=1, description="Written rows of the other side that each report must bring along.")


class Triage(_Part):
    recipe: Path = Field(description="The recipe that the classifier was trained by.")
    weights: Path | None = Field(None, description="What is to be repaired; null: the recipe's weights_dir.")
    mode: Literal["quick", "full"] = Field("quick", description="Go on from the checkpoint, or train from the base.")
    start: Path | None = Field(None, description="Checkpoint for quick; null: the one in the recipe's run_dir.")
    rehearse: int = Field(3_000, ge=0, description="Rows of the recipe's own that a quick run sees again.")
    distrust: bool = Field(False, description="Leave out what the recipe's own data says about the triggers.")
    training: dict[str, Any] = Field(default={}, description="What is other than in the recipe's `training`.")
    margin: float = Field(
        0.01, ge=0, description="How far harmful recall on calibration rows is to be over what it was."
    )


class Model(_Part):
    method: Literal["dpo", "kto"] = "dpo"
    recipe: Path = Field(description="A recipe of `hhh finetune dpo` or `kto`; its pairs are replaced by ours.")
    dialogues: list[Path] = Field(description="Authored dialogues: the answers and refusals that pairs are made of.")
    most: int = Field(400, ge=2, description="Most pairs; half are harmless questions, half harmful.")
    limit: int | None = Field(None, ge=1, description="At most so many rows of each set of the suite.")


class Verdict(_Part):
    """When repaired weights may go where they are served from."""

    wrong: float = Field(0.5, gt=0, le=1, description="Most of the wrong refusals that may be left.")
    harmful: float = Field(0.01, ge=0, description="How far the share of harmful messages refused may fall.")


class Recipe(_Part):
    name: str
    run_dir: Path
    weights_dir: Path | None = Field(None, description="Where repaired weights go, if the verdict lets them.")
    seed: int = 7
    records: Records
    pool: list[Path] = Field(description="Authored rows with label and pair_id: files, or folders of them.")
    measure: list[Path] = Field(description="Labelled rows that nothing is trained on: before and after.")
    policy: str = "finance"
    rails_dir: Path = Path("rails")
    triggers: Triggers = Triggers()
    contrast: Contrast = Contrast()
    reports: Reports = Reports()
    triage: Triage
    model: Model | None = None
    verdict: Verdict = Verdict()


def read(path: Path) -> Recipe:
    """Raises `RecipeError`. Relative paths are as seen from the work folder."""
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"{path}: {'.'.join(map(str, first['loc'])) or 'recipe'} - {first['msg']}") from None
