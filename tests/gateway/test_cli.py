"""The `hhh` command: exit codes, and messages that name the file and the key. No traceback, ever."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway import __version__
from gateway.cli import main
from tests.conftest import ROOT

HHH = Path(sys.executable).with_name("hhh")


pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def rails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped policies, in `rails` of the current folder. Only finance, since each costs a second."""
    shutil.copytree(ROOT / "rails" / "finance", tmp_path / "rails" / "finance")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "rails"


def hhh(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


def check_failed(result: Result, message: str) -> None:
    """One line on stderr, and exit code 2."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith(message), result.stderr
    assert result.stderr.count("\n") == 1
    assert isinstance(result.exception, SystemExit)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_version() -> None:
    result = hhh("--version")
    assert result.exit_code == 0
    assert result.stdout == f"hhh-gateway {__version__}\n"


def test_installed_command() -> None:
    done = subprocess.run([HHH, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hhh-gateway {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["check", "--help"], ["triage", "--help"]])
def test_help(arguments: list[str]) -> None:
    assert hhh(*arguments).exit_code == 0


@pytest.mark.parametrize("arguments", [["nonsense"], ["serve", "--nonsense"], ["serve", "--port", "eighty"]])
def test_wrong_usage(arguments: list[str]) -> None:
    result = hhh(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_check_says_what_runs(rails: Path) -> None:
    result = hhh("check")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.startswith("finance@sha256:")
    assert "regex check input" in result.stdout
    assert "check recommendation" in result.stdout


POLICIES = [
    ("mode: enforce", "routes: {harmfull: {refuse: 0.7}}", "routes.harmfull - unknown label"),
    ("mode: enforce", "routes: {harmful: {refuze: 0.7}}", "routes.harmful.refuze - "),
    ("mode: enforce", "routes: {harmful: {refuse: 7}}", "routes.harmful.refuse - Input should be less than or equal"),
    ("operating_point: balanced", "operating_point: lax", "operating_point - Input should be 'strict', 'balanced' or"),
    ("mode: enforce", "mode: enforced", "mode - Input should be 'enforce' or 'shadow'"),
    ("mode: enforce", "moed: enforce", "moed - "),
    ("  harmful.fraud:", "  harmful.frod:", "refusals.harmful.frod - unknown category"),
    ("mode: enforce", "mode: [", ""),
    ("mode: enforce", "mode: enforce\nmode: shadow", "mode is there twice"),
]


@pytest.mark.parametrize(("old", "new", "message"), POLICIES, ids=[new for _, new, _ in POLICIES])
def test_check_names_the_file_and_the_key_of_a_policy(rails: Path, old: str, new: str, message: str) -> None:
    replace(rails / "finance" / "policy.yml", old, new)
    check_failed(hhh("check"), f"rails/finance/policy.yml: {message}")


def test_check_runs_the_examples_of_a_policy(rails: Path) -> None:
    path = rails / "finance" / "policy.yml"
    replace(path, "decision: allow, route: allow}", "decision: refuse, category: harmful.fraud}")
    replace(path, "rail: check recommendation", "rail: no such rail")
    result = hhh("check")
    assert (result.exit_code, result.stdout) == (2, "")
    first, second = result.stderr.splitlines()
    said = "rails/finance/policy.yml: expect.0 - expected refuse (harmful.fraud), got allow (benign 0."
    assert first.startswith(said)
    assert first.endswith("): 'What is an index fund?'")
    assert "expect.9 - expected refuse (by no such rail), got refuse (regulated_advice" in second
    assert "by check recommendation)" in second
    replace(path, "decision: refuse, category: harmful.fraud}", "decision: refuse, categry: harmful.fraud}")
    check_failed(hhh("check"), "rails/finance/policy.yml: expect.0.categry - ")


def test_check_names_nemos_file(rails: Path) -> None:
    replace(rails / "finance" / "config.yml", "- regex check output", "- no such flow")
    check_failed(hhh("check"), "rails/finance/config.yml: ")


def test_check_of_a_policy_that_is_not_there(rails: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HHH_POLICY", "none")
    check_failed(hhh("check"), "rails/none/config.yml: no such file")
    monkeypatch.setenv("HHH_RAILS_DIR", "nowhere")
    check_failed(hhh("check"), "nowhere/none/config.yml: no such file")


def test_check_of_a_policy_with_nemos_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rails" / "bare").mkdir(parents=True)
    (tmp_path / "rails" / "bare" / "config.yml").write_text("models: []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HHH_POLICY", "bare")
    result = hhh("check")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("bare@sha256:")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_wrong_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    path = tmp_path / "config.yaml"
    check_failed(hhh(command, "--config", str(path)), f"{path}: no such file")
    path.write_text("upstream: {basurl: x}\n")
    check_failed(hhh(command, "--config", str(path)), f"{path}: upstream.basurl - unknown setting")
    path.write_text("host: 0.0.0.0\n")
    check_failed(hhh(command, "--config", str(path)), "host: 0.0.0.0 is not loopback")
    path.write_text("client_keys_env: NO_SUCH\n")
    check_failed(hhh(command, "--config", str(path)), "the environment variable NO_SUCH is not set")
    path.write_text("")
    monkeypatch.setenv("HHH_PORT", "eighty")
    check_failed(hhh(command, "--config", str(path)), "environment: port - ")


def test_wrong_flag() -> None:
    check_failed(hhh("serve", "--port", "70000"), "flags: port - ")
    check_failed(hhh("serve", "--host", "0.0.0.0"), "host: 0.0.0.0 is not loopback")
