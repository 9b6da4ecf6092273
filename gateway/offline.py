"""`hhh finetune` and `hhh eval`: what needs the extra `finetune`, and is imported only when a command runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.errors import ConfigError
from gateway.terminal import extra, fail

finetune = typer.Typer(no_args_is_help=True, help="Train what the gateway serves (needs the extra finetune).")
evaluation = typer.Typer(no_args_is_help=True, help="Evaluate a model or a running gateway (needs the extra finetune).")

Recipe = Annotated[Path, typer.Option("--recipe", exists=True, help="The YAML recipe of the run.")]
Resume = Annotated[bool, typer.Option(help="Go on where it stopped.")]


@finetune.command("triage")
def finetune_triage(recipe: Recipe, resume: Resume = False) -> None:
    """Train the triage classifier, export and evaluate it, and distil its first tier."""
    with extra("finetune"):
        from finetune.triage.train import StaleCheckpoint, run

    try:
        typer.echo(run(recipe, resume))
    except StaleCheckpoint as error:
        fail(str(error))


@finetune.command("refusal")
def finetune_refusal(recipe: Recipe) -> None:
    """Train the refusal detector."""
    with extra("finetune"):
        from finetune.refusal.train import run

    typer.echo(run(recipe))


@finetune.command("sft")
def finetune_sft(recipe: Recipe, resume: Resume = False) -> None:
    """Train on dialogues: the embedded model from scratch, or an existing model where the recipe names a `base`."""
    _align(recipe, resume, _sft(recipe))


def _method(name: str, says: str) -> None:
    """One command per method that a recipe alone describes: they differ in nothing else."""

    @finetune.command(name, help=says)
    def train(recipe: Recipe, resume: Resume = False) -> None:
        _align(recipe, resume, name)


for _name, _says in (
    ("penalty", "Train on dialogues with a loss that penalises toxicity, bias and known-bad replies."),
    ("dpo", "Train on preference pairs."),
    ("kto", "Train on replies labelled good or bad."),
    ("rloo", "Train on a reward, each reply compared with the others to its prompt."),
    ("grpo", "Train on a reward, advantages in units of their deviation within a prompt's replies."),
    ("constitution", "Have a model's replies criticised and revised by principles: rows for sft, pairs for dpo."),
    ("sweep", "Train a recipe over a grid of settings, score each point, draw the Pareto front and choose."),
):
    _method(_name, _says)


@finetune.command("chain")
def finetune_chain(
    recipe: Recipe,
    resume: Resume = False,
    only: Annotated[str | None, typer.Option(help="One stage, by the name of its recipe's file.")] = None,
) -> None:
    """Run stages one after another, each from the run before."""
    _align(recipe, resume, "chain", only=only)


@finetune.command("ray")
def finetune_ray(
    recipe: Recipe,
    method: Annotated[str, typer.Option(help="sft, penalty, dpo, kto, rloo or grpo.")],
    scale: Annotated[Path, typer.Option(exists=True, help="A YAML file of workers, finetune/recipes/ray/cpu2.yaml.")],
    resume: Resume = False,
) -> None:
    """Run a method's recipe on the workers of Ray Train (needs the extra ray)."""
    with extra("ray"):
        from finetune.align.ray_train import run

        try:
            typer.echo(run(_sft(recipe) if method == "sft" else method, recipe, scale, resume))
        except (ValueError, OSError) as error:
            fail(str(error))


@finetune.command("repair")
def finetune_repair(recipe: Recipe, resume: Resume = False) -> None:
    """From wrong refusals to a better classifier: triggers, contrast rows, training, the matrix before and after."""
    with extra("finetune"):
        from finetune.repair.run import run

    try:
        report = run(recipe, resume)
    except (ValueError, OSError) as error:
        fail(str(error))
    before, after, verdict = report["before"], report["after"], report["verdict"]
    for name, key in (("harmless refused", "wrong"), ("harmful refused", "harmful")):
        typer.echo(f"{name}: {before[key]['share']:.1%} before, {after[key]['share']:.1%} after")
    typer.echo(report.get("released", "passed" if verdict["passed"] else "not released"))
    if not verdict["passed"]:
        raise typer.Exit(1)


def _sft(recipe: Path) -> str:
    return "sft" if b"base:" in recipe.read_bytes() else "train"


def _align(recipe: Path, resume: bool, method: str, **more: Any) -> None:
    with extra("finetune"):
        from finetune.align.chain import start

        try:
            typer.echo(start(method, recipe, resume, **more))
        except (ValueError, OSError) as error:
            fail(str(error))


class Control(StrEnum):
    triage = "triage"
    none = "none"


def _part(part: str, says: str) -> None:
    """One command per part of the suite: they differ in nothing else."""

    @evaluation.command(part, help=says)
    def measure(
        report: Annotated[Path, typer.Option(help="Folder for report.html, report.json and the answers.")],
        model: Annotated[str | None, typer.Option(help="A folder or hub id; of a server: its model's name.")] = None,
        base_url: Annotated[str | None, typer.Option(help="A server or a running gateway, up to /v1.")] = None,
        api_key_env: Annotated[str | None, typer.Option(help="The name of the variable with its key.")] = None,
        control: Annotated[Control, typer.Option(help="Set the control token as triage routes.")] = Control.none,
        limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows of each set.")] = None,
        samples: Annotated[int, typer.Option(min=1, help="Replies per provoking prompt.")] = 4,
        seed: Annotated[int, typer.Option(help="For sampling, and for which rows are taken.")] = 0,
        max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply.")] = 256,
        concurrency: Annotated[int, typer.Option(min=1, help="Conversations at once.")] = 16,
        threads: Annotated[int, typer.Option(min=0, help="Of a model in this process; 0: all but one.")] = 0,
        mutator: Annotated[list[str] | None, typer.Option(help="Red team: only this one; may be repeated.")] = None,
        judge: Annotated[Path | None, typer.Option(help="Other triage weights as the judge of toxicity.")] = None,
        shared: Annotated[Path, typer.Option(help="The shared data set (WEAT, BBQ).")] = Path("../shared/data"),
        recipe: Annotated[Path, typer.Option(help="Whose held-out dialogues give perplexity.")] = Path(
            "finetune/recipes/embedded/sft.yaml"
        ),
        fresh: Annotated[bool, typer.Option(help="Forget the answers of an earlier run.")] = False,
    ) -> None:
        with extra("finetune"):
            from finetune.suite.bench import Options
            from finetune.suite.rows import BadRows
            from finetune.suite.run import Order, run

        from gateway.config import secret

        options = Options(
            seed=seed,
            limit=limit,
            samples=samples,
            max_tokens=max_tokens,
            control=control.value,
            shared=shared,
            recipe=recipe,
            mutators=tuple(mutator or ()),
        )
        try:
            key = secret(api_key_env) if api_key_env else None
            run(Order(part, report, model, base_url, key, options, concurrency, threads, judge, fresh))
        except (ConfigError, BadRows, ValueError) as error:
            fail(str(error))
        typer.echo(f"{report}/report.html")


for _name, _says in (
    ("refusals", "Harm refused, harmless answered, advice declined while informing."),
    ("toxicity", "Toxicity of replies to prompts that provoke."),
    ("bias", "WEAT, SEAT, BBQ, and what a swapped group word changes."),
    ("task", "Perplexity on held-out dialogues, key facts in finance answers."),
    ("honesty", "Says what it is, admits what it does not know."),
    ("redteam", "Every harmful seed by every mutator; transcripts."),
    ("all", "All parts but the red team, which takes longest."),
):
    _part(_name, _says)


@evaluation.command("compare")
def evaluation_compare(
    reports: Annotated[list[Path], typer.Argument(help="Folders of reports; changes are against the first.")],
    report: Annotated[Path, typer.Option(help="Folder for compare.md, .html, .json and .png.")],
    name: Annotated[list[str] | None, typer.Option(help="The runs' names in the table, in order; repeat it.")] = None,
    into: Annotated[Path | None, typer.Option(help="A Markdown file that shall hold the table.")] = None,
    marker: Annotated[str, typer.Option(help="Between which of its markers.")] = "stages",
) -> None:
    """Several reports side by side; with --into, the table also goes into a document."""
    with extra("finetune"):
        from finetune.suite import compare

    try:
        table = compare.run(reports, report, name or ())
        if into is not None:
            compare.insert(into, marker, table)
    except (OSError, ValueError) as error:
        fail(str(error))
    typer.echo(table)
