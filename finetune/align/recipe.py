"""Recipes of alignment: one YAML file a run, checked before anything is read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from finetune.hhh.recipe import NAME, Part


class Data(Part):
    dialogues: tuple[Path, ...] = Field((), description="Files or folders of dialogues, *.jsonl.")
    pairs: tuple[Path, ...] = Field((), description="Files or folders of preference pairs.")
    judged: tuple[Path, ...] = Field((), description="Files or folders of replies labelled good or bad.")
    optional: bool = Field(False, description="Paths that are not there are left out, and the manifest says so.")
    derive_pairs: int = Field(0, ge=0, description="Most pairs made of the dialogues themselves, besides written ones.")
    provoking: int = Field(0, ge=0, description="Most provoking exchanges taken from the shared set.")
    shared: Path = Field(Path("../shared/data"), description="Folder of the shared set.")
    on_bad_rows: Literal["stop", "skip"] = "stop"
    dev_share: float = Field(0.05, ge=0, lt=1, description="Share of rows, by their id, that are never trained on.")
    most: int | None = Field(None, ge=1, description="Most rows of each kind, drawn by the seed.")


class Lora(Part):
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str = Field("all-linear", description="Names of modules, comma-separated, or all-linear.")
    merge: bool = Field(True, description="Also write the whole model with the adapter merged into it.")


class Training(Part):
    seed: int = 7
    epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(-1, description="Steps in place of epochs; -1: go by epochs.")
    max_minutes: float | None = Field(None, gt=0, description="Ends earlier when the clock says so.")
    batch_rows: int = Field(8, ge=1, description="Rows of a batch, on each process.")
    accumulate: int = Field(1, ge=1, description="Batches before a step.")
    learning_rate: float = Field(1e-4, gt=0)
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: int = Field(10, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    max_tokens: int = Field(512, ge=16, description="Tokens of prompt and answer together.")
    device: Literal["cpu", "auto"] = Field("auto", description="auto: a GPU where there is one.")
    threads: int = Field(0, ge=0, description="Threads of torch on a CPU; 0: as torch chooses.")
    bf16: bool = False
    group_by_length: bool = Field(True, description="Rows of like length together; off where runs are to be compared.")
    recompute: bool = Field(False, description="Activation checkpointing: less memory, about a fifth slower.")
    log_steps: int = Field(5, ge=1)
    checkpoint_steps: int = Field(100, ge=1)


class Recipe(Part):
    """What all methods share."""

    name: str = Field(pattern=NAME, description="Folder of the run, below `runs`.")
    runs: Path = Path("runs")
    base: str = Field(description="Folder of a run, of a model, or an id on the hub.")
    lora: Lora | None = None
    data: Data = Data()
    training: Training = Training()

    @property
    def folder(self) -> Path:
        return self.runs / self.name


class Sft(Recipe):
    pass


class Toxicity(Part):
    """The frozen classifier in the model's own vocabulary that penalises and, in RL, is part of the reward."""

    sources: tuple[Path, ...] = Field(
        (
            Path("../shared/data/classification/civilcomments-toxicspans16k.jsonl"),
            Path("../shared/data/classification/davidson.jsonl"),
        ),
        description='Rows {"text","label": safe|unsafe}. What the judge is measured on does not belong here.',
    )
    most: int = Field(8_000, ge=1, description="Most rows of a source.")
    width: int = Field(64, ge=1, description="Size of its embeddings and filters.")
    epochs: int = Field(4, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    tokens: int = Field(96, ge=4, description="Tokens it reads of a text.")
    seed: int = 11


class Penalty(Recipe):
    """L = L_task + toxicity * E[tox] + bias * WEAT + unlikelihood * UL, each weight a lambda; 0 leaves a term out."""

    toxicity: float = Field(1.0, ge=0)
    bias: float = Field(1.0, ge=0)
    unlikelihood: float = Field(0.3, ge=0)
    bias_margin: float = Field(0.1, ge=0, description="|d| below this costs nothing: the penalty overshoots otherwise.")
    weat: Path = Field(Path("../shared/data/bias/weat/WEAT.json"), description="Lists of words by name.")
    tests: tuple[tuple[str, str, str, str], ...] = Field(
        (
            ("male_names", "female_names", "career", "family"),
            ("male_terms", "female_terms", "math", "arts"),
            ("male_terms_2", "female_terms_2", "science", "arts_2"),
            ("european_american_names_5", "african_american_names_5", "pleasant_5", "unpleasant_5a"),
            ("european_american_names_7", "african_american_names_7", "pleasant_9", "unpleasant_9"),
            ("young_people_names", "old_people_names", "pleasant_9", "unpleasant_9"),
        ),
        description="WEAT tests that are penalised: two groups, two attributes.",
    )
    classifier: Toxicity = Toxicity()


class Dpo(Recipe):
    beta: float = Field(0.1, gt=0)
    losses: tuple[str, ...] = ("sigmoid", "sft")
    weights: tuple[float, ...] = (1.0, 1.0)


class Kto(Recipe):
    beta: float = Field(0.1, gt=0)
    desirable: float = Field(1.0, gt=0, description="Weight of good replies.")
    undesirable: float = Field(1.0, gt=0, description="Weight of bad ones.")


class Lagrangian(Part):
    """A limit on the mean toxicity of replies; the multiplier rises while it is exceeded and falls when it is not."""

    limit: float = Field(0.02, ge=0, le=1)
    rate: float = Field(0.5, gt=0, description="Change of the multiplier, per step and per unit over the limit.")
    start: float = Field(1.0, ge=0)
    most: float = Field(20.0, gt=0)


class Rl(Recipe):
    """RLOO and GRPO. The reward is the weighted sum of `toxicity` (negative), `refusal` and `helpfulness`."""

    generations: int = Field(4, ge=2, description="Replies to each prompt; they are compared with each other.")
    reply_tokens: int = Field(48, ge=1)
    temperature: float = Field(1.0, gt=0)
    beta: float = Field(0.05, ge=0, description="Weight of the divergence from the base.")
    toxicity: float = Field(2.0, ge=0)
    refusal: float = Field(1.0, ge=0)
    helpfulness: float = Field(1.0, ge=0)
    lagrangian: Lagrangian | None = Field(None, description="Learns the weight of toxicity in place of `toxicity`.")
    classifier: Toxicity = Toxicity()
