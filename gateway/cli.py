"""The `hhh` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import __version__, offline
from gateway.errors import ConfigError
from gateway.offline import Recipe
from gateway.terminal import extra, fail

main = typer.Typer(no_args_is_help=True, add_completion=False, help="An OpenAI-compatible guardrail gateway.")
triage = typer.Typer(no_args_is_help=True, help="Score and evaluate the triage classifier.")
main.add_typer(triage, name="triage")
audit = typer.Typer(no_args_is_help=True, help="What was refused, and what of it was wrong.")
probes = typer.Typer(no_args_is_help=True, help="Standing probes: messages whose right treatment is known.")
shadow = typer.Typer(no_args_is_help=True, help="A candidate tried beside the live policy.")
main.add_typer(shadow, name="shadow")
main.add_typer(offline.finetune, name="finetune")
main.add_typer(offline.evaluation, name="eval")
main.add_typer(audit, name="audit")
main.add_typer(probes, name="probes")
keys = typer.Typer(no_args_is_help=True, help="Client keys: who may call, and how much.")
main.add_typer(keys, name="keys")

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The YAML file with the settings.")]
Days = Annotated[float, typer.Option(min=0, help="How far back to look.")]
KeysFile = Annotated[Path | None, typer.Option("--file", help="The file of keys [default: the setting keys_file].")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"hhh-gateway {__version__}")
        raise typer.Exit


@main.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


@main.command()
def serve(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to bind [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind [default: 8000].")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that serve [default: 1].")] = None,
) -> None:
    """Serve the gateway."""
    loaded = _load(config, host=host, port=port, workers=workers)
    if loaded.workers > 1:
        from gateway.workers import supervise

        raise typer.Exit(supervise(loaded))
    from gateway.server import run

    run(loaded)


@main.command()
def check(config: ConfigFile = None) -> None:
    """Validate the configuration and every policy, and run its examples; exit 2 and say what is wrong."""
    from gateway.check import check_policies

    try:
        typer.echo("\n".join(check_policies(_load(config))))
    except ConfigError as error:
        fail(str(error))


@triage.command()
def score(
    input: Annotated[Path, typer.Option(exists=True, help='Rows {"id","text"} or {"id","messages"}.')],
    output: Annotated[Path, typer.Option(help="Where the scored rows go.")],
    policy: Annotated[str | None, typer.Option(help="The policy whose routes decide.")] = None,
    explain: Annotated[int, typer.Option(min=0, help="Show this many words that moved the score, per row.")] = 0,
    config: ConfigFile = None,
) -> None:
    """Score rows as the gateway would: label, scores, route and decision per row."""
    from gateway.scoring import score_rows

    loaded = _load(config, policy=policy)
    try:
        rows = [json.loads(line) for line in input.read_text(encoding="utf-8").splitlines() if line.strip()]
        with output.open("w", encoding="utf-8") as out:
            for row in score_rows(loaded, rows, explain):
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    except (ValueError, ConfigError) as error:
        fail(f"{input}: {error}")


@triage.command("eval")
def evaluate(
    data: Annotated[Path, typer.Option(exists=True, help='Labelled rows {"text","label"}.')],
    report: Annotated[Path, typer.Option(help="Folder for the report.")],
    weights: Annotated[Path | None, typer.Option(help="A folder of weights; default: the shipped ones.")] = None,
    false_positive_rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Choose thresholds that flag this share of the harmless rows.")
    ] = None,
) -> None:
    """Confusion matrix, recall and false-positive rate with intervals, curves and operating points: HTML, JSON, PNG."""
    with extra("finetune"):
        from finetune.triage.evaluate import run

    try:
        run(data, report, weights, false_positive_rate)
    except ValueError as error:
        fail(str(error))
    typer.echo(f"{report}/report.html")
    if false_positive_rate is not None:
        typer.echo(f"{report}/routes.yml")


@triage.command()
def noise(recipe: Recipe, report: Annotated[Path, typer.Option(help="Folder for what is found.")]) -> None:
    """Find training rows whose labels the rest of the data speaks against."""
    with extra("finetune"):
        from finetune.triage.noise import run

    typer.echo(run(recipe, report))


@audit.command("report")
def audit_report(
    report: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")],
    days: Days = 30,
    config: ConfigFile = None,
) -> None:
    """Confusion matrices of feedback and probes, refusals over time, trigger words, what the last change did."""
    from gateway.report.run import write_report

    _reported(write_report, config, report, days)


@audit.command("export")
def audit_export(
    output: Annotated[Path, typer.Option(help="Where the rows go, one JSON object a line.")],
    days: Days = 30,
    config: ConfigFile = None,
) -> None:
    """Messages reported as wrongly refused or missed, as rows for `hhh finetune triage`. Read them before training."""
    from gateway.report.run import write_export

    try:
        rows, textless = write_export(_load(config), output, days)
    except ConfigError as error:
        fail(str(error))
    typer.echo(f"{rows} rows in {output}; read them before they train anything")
    if textless:
        typer.echo(f"{textless} reports are of messages without a text (audit.text: none)", err=True)


@shadow.command("report")
def shadow_report(
    report: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")],
    days: Days = 30,
    config: ConfigFile = None,
) -> None:
    """What would change: requests decided otherwise, and the confusion matrices of feedback and probes for both."""
    from gateway.report.shadow import write_shadow_report

    _reported(write_shadow_report, config, report, days)


@probes.command("run")
def probes_run(
    base_url: Annotated[str | None, typer.Option(help="A running gateway; default: in this process.")] = None,
    key_env: Annotated[str | None, typer.Option(help="The name of the variable with a key of that gateway.")] = None,
    report: Annotated[Path | None, typer.Option(help="A JSON file for all results.")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit 1 when more of the harmless probes are refused.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run the probes now: how each suite was treated, and what was wrong."""
    from gateway.config import secret
    from gateway.probes.command import run_here, run_there, table

    try:
        if base_url is not None:
            run = run_there(base_url, secret(key_env) if key_env else None)
        else:
            from gateway.app import triage_version
            from gateway.guard.loader import Loader
            from gateway.probes import suites

            loaded = _load(config)
            run = run_here(
                suites.load(loaded.probes.folder), Loader.of(loaded).guard(loaded.policy), triage_version(loaded)
            )
    except ConfigError as error:
        fail(str(error))
    typer.echo(table(run))
    if report is not None:
        report.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if budget is not None and run["wrong_refusal_share"] > budget:
        typer.echo(f"over the budget of {budget:.1%}", err=True)
        raise typer.Exit(1)


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What records and metrics call it.")],
    role: Annotated[str | None, typer.Option(help="client or admin [default: client].")] = None,
    policy: Annotated[str | None, typer.Option(help="Its policy [default: the gateway's].")] = None,
    on_block: Annotated[str | None, typer.Option(help="completion or error [default: the policy's].")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Default: no limit.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Default: no limit.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Requests at once; default: no limit.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model it may use, `gpt-*` say; default: all.")] = None,
    expires: Annotated[str | None, typer.Option(help="A date, or an age such as 90d; default: never.")] = None,
    file: KeysFile = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Make a key, and show it: this once. What is kept of it is a hash."""
    from gateway.keys import command

    try:
        entry, secret = command.create(
            _keys_file(file, config),
            name,
            role=role,
            policy=policy,
            on_block=on_block,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            concurrent=concurrent,
            models=tuple(model) if model else None,
            expires=command.moment(expires),
        )
    except (ConfigError, OSError) as error:
        fail(str(error))
    typer.echo(json.dumps({"key": secret, "id": entry.id, "name": entry.name}) if as_json else secret)
    if not as_json:
        typer.echo(f"Key {entry.name} ({entry.id}). Keep it now: it cannot be shown again.", err=True)


@keys.command("list")
def keys_list(file: KeysFile = None, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """All keys, and what each may do."""
    from rich.console import Console

    from gateway.keys import command

    try:
        rows = command.listed(_keys_file(file, config))
    except ConfigError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps({"keys": rows}))
    else:
        Console().print(command.table(rows))


@keys.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(help="Its name or its id.")], file: KeysFile = None, config: ConfigFile = None
) -> None:
    """Refuse a key from its next request on."""
    from gateway.keys import command

    try:
        entry = command.revoke(_keys_file(file, config), key)
    except (ConfigError, OSError) as error:
        fail(str(error))
    typer.echo(f"{entry.name} ({entry.id}) is revoked")


def _keys_file(file: Path | None, config: Path | None) -> Path:
    found: Path | None = file or _load(config).keys_file
    if found is None:
        fail("no file of keys: name one with --file, or in the setting keys_file")
    return found


def _load(path: Path | None, **flags: Any) -> Any:
    from gateway.config import load

    try:
        return load(path, **flags)
    except ConfigError as error:
        fail(str(error))


def _reported(write: Callable[[Any, Path, float], Any], config: Path | None, report: Path, days: float) -> None:
    try:
        write(_load(config), report, days)
    except ConfigError as error:
        fail(str(error))
    typer.echo(f"{report}/report.html")


if __name__ == "__main__":
    main()
