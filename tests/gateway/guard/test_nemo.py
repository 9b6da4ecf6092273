"""A folder into two lanes: what goes where, and everything that is wrong with it said before the first request."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.guard import nemo
from gateway.guard.lane import Lane
from tests.conftest import ROOT

REGEX = "config: {regex_detection: {input: {patterns: [zzz]}, output: {patterns: [zzz]}}}"
Load = Callable[..., tuple[Lane, Lane]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a policy's folder with these files; `flows_co` is `flows.co`."""

    def build(patterns: Mapping[str, list[str]] | None = None, **files: str) -> tuple[Lane, Lane]:
        folder = tmp_path / "pol"
        folder.mkdir()
        for name, text in files.items():
            stem, _, ending = name.rpartition("_")
            (folder / f"{stem}.{ending}").write_text(text)
        return nemo.load(folder, patterns or {})

    return build


def test_library_flows_compile_and_own_flows_do_not(load: Load) -> None:
    fast, slow = load(
        config_yml=f"rails:\n  {REGEX}\n"
        "  input: {flows: [regex check input, a]}\n  output: {flows: [b, regex check output]}",
        flows_co="define subflow a\n  stop\n",
        more_co="define subflow b\n  stop\n",
    )
    assert fast.flows == {"input": ("regex check input",), "output": ("regex check output",)}
    assert slow.flows == {"input": ("a",), "output": ("b",)}
    assert not fast.colang
    assert slow.colang


def test_own_flow_replaces_the_librarys(load: Load) -> None:
    fast, slow = load(
        config_yml=f"rails: {{input: {{flows: [regex check input]}}, {REGEX}}}",
        flows_co="define subflow regex check input\n  stop\n",
    )
    assert fast.flows["input"] == ()
    assert slow.flows["input"] == ("regex check input",)


@pytest.mark.parametrize(
    "config", ["", "models: []", "rails: {}", "rails:", "colang_version: '1.0'", "colang_version: 1.0"]
)
def test_folder_without_rails(load: Load, config: str) -> None:
    fast, slow = load(config_yml=config)
    assert fast.flows == slow.flows == {"input": (), "output": ()}


FLOW = "rails: {input: {flows: [a]}}"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config_yml": "rails: ["}, "config.yml: while parsing"),
        ({"config_yml": "- a"}, "config.yml: a mapping is expected"),
        ({"config_yml": "rails: x"}, "config.yml: rails - a mapping is expected"),
        ({"config_yml": "rails: {input: [a]}"}, "config.yml: rails.input - a mapping is expected"),
        ({"config_yml": "raisl: {}"}, "config.yml: raisl - unknown key; known are actions_server_url"),
        ({"config_yml": "rails: {inputs: {flows: []}}"}, "config.yml: rails.inputs - unknown key; known are actions"),
        ({"config_yml": "rails: {output: {flow: []}}"}, "config.yml: rails.output.flow - unknown key; known are flows"),
        ({"config_yml": "rails: {input: {flows: x}}"}, "config.yml: rails.input.flows - "),
        ({"config_yml": "colang_version: 2.x"}, "config.yml: colang_version - only 1.0"),
        ({"config_yml": "colang_version: '2.x'", "main_co": "flow main\n  user said x\n"}, "only 1.0 is supported"),
        ({"config_yml": "rails: {retrieval: {flows: [x]}}"}, "rails.retrieval.flows - this gateway runs input and"),
        ({"config_yml": "rails: {dialog: {flows: [x]}}"}, "config.yml: rails.dialog.flows - "),
        ({"config_yml": "rails: {tool_output: {flows: [x]}}"}, "config.yml: rails.tool_output.flows - "),
        ({"config_yml": "import_paths: [x]"}, "config.yml: import_paths - a policy is one folder"),
        ({"config_yml": FLOW}, "config.yml: The provided input rail flow `a` does not exist"),
        ({"config_yml": "rails: {output: {flows: [a]}}"}, "config.yml: The provided output rail flow `a`"),
        (
            {"config_yml": "rails: {input: {flows: [self check input]}}"},
            "config.yml: Value error, Missing a `self_check",
        ),
        (
            {"config_yml": f"rails: {{{REGEX.replace('zzz', '(')}}}"},
            "config.yml: rails.config.regex_detection.input - ",
        ),
        ({"config_yml": "rails: {input: {flows: [mask sensitive data on input]}}"}, "needs presidio-analyzer"),
        ({"config_yml": "", "prompts_yml": "prompts: 5"}, "prompts.yml: prompts - a list is expected"),
        ({"config_yml": "", "prompts_yml": "prompts: [{task: x}]"}, "prompts.yml: prompts.0 - "),
        ({"config_yml": "", "prompts_yml": "["}, "prompts.yml: while parsing"),
        ({"config_yml": FLOW, "flows_co": "define subflow a\n  x (\n"}, "flows.co: Error parsing line 2"),
        (
            {"config_yml": FLOW, "a_co": "define subflow a\n  stop\n", "b_co": "define define\n\tx"},
            "b.co: Error parsing",
        ),
        ({"config_yml": FLOW, "flows_co": "define subflow a\n  execute x\n"}, "flows.co:2: a - there is no action `x`"),
        ({"config_yml": FLOW, "flows_co": "define subflow a\n  do x\n"}, "flows.co:2: a - there is no flow `x`"),
        ({"config_yml": FLOW, "flows_co": "define subflow a\n  bot x\n"}, "flows.co:2: a - there is no `define bot x`"),
        ({"config_yml": FLOW, "flows_co": 'define subflow a\n  bot "x"\n'}, "flows.co:2: a - words in place"),
        (
            {"config_yml": FLOW, "flows_co": 'define subflow a\n  $x = execute matches(pattern="p", text="t")\n'},
            "flows.co:2: a - policy.yml names no pattern `p`",
        ),
        ({"config_yml": FLOW, "flows_co": "define flow a\n  user ask\n  bot x\n"}, "flows.co: user - dialog"),
        ({"config_yml": FLOW, "flows_co": 'define user ask\n  "x"\n'}, "flows.co: user - dialog"),
    ],
)
def test_what_is_wrong_is_said(load: Load, files: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**files)
    said = str(caught.value)
    assert message in said
    assert "/pol/" in said
    assert "\n" not in said
    assert "pydantic.dev" not in said


def test_file_that_is_no_text(load: Load, tmp_path: Path) -> None:
    load(config_yml="")
    (tmp_path / "pol" / "flows.co").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"flows\.co"):
        nemo.load(tmp_path / "pol", {})


def test_prompts_of_both_files(load: Load) -> None:
    prompt = "prompts: [{task: self_check_input, content: 'Block {{ user_input }}?'}]"
    model = "models: [{type: main, engine: openai, model: m, parameters: {api_key: k}}]"
    fast, _ = load(config_yml=f"{model}\nrails: {{input: {{flows: [self check input]}}}}", prompts_yml=prompt)
    assert fast.flows["input"] == ("self check input",)


STRAY = "raise SystemExit('stray Python ran')"
PROBE = """
import sys
from pathlib import Path
from gateway.guard import nemo
fast, slow = nemo.load(Path(sys.argv[1]), {})
assert slow.flows["input"] == ("a",)
assert "torch" not in sys.modules
assert "transformers" not in sys.modules
print("loaded")
"""


@pytest.mark.parametrize("where", ["policy folder", "working directory"])
def test_python_that_lies_about_does_not_run(tmp_path: Path, where: str) -> None:
    folder, here = tmp_path / "pol", tmp_path / "cwd"
    for path in (folder, here):
        path.mkdir()
    stray = folder if where == "policy folder" else here
    (stray / "actions").mkdir()
    for name in ("actions.py", "config.py", "actions/more.py"):
        (stray / name).write_text(STRAY)
    (folder / "config.yml").write_text(FLOW)
    (folder / "flows.co").write_text("define subflow a\n  stop\n")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder)],
        cwd=here,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "loaded\n", done.stderr


def test_nothing_is_left_behind(load: Load) -> None:
    before = threading.active_count()
    load(config_yml=FLOW, flows_co="define subflow a\n  stop\n")
    assert threading.active_count() == before
