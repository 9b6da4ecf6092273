"""What the design promises of the code as a whole: who imports whom, and that an import does nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("gateway", "classifiers", "finetune")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_import_contracts() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# Imports each module in turn, and says what our own code did at that: files opened for writing, sockets, processes
# started, the environment read. What a library does when it is imported counts only where `strict` is set.
SPY = """
import importlib, json, os, sys, sysconfig

root, strict, modules = sys.argv[1], sys.argv[2] == "strict", sys.argv[3:]
stdlib = sysconfig.get_paths()["stdlib"]
done, busy = [], False

def ours(frame):
    # The innermost frame that is neither the standard library's nor this probe's.
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith("<") and not (path.startswith(stdlib) and "site-packages" not in path):
            return path.startswith(root) and "site-packages" not in path
        frame = frame.f_back
    return False

def note(what, frame):
    if strict or ours(frame):
        done.append(f"{module}: {what}")

def writes(mode, flags):
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

def watch(event, arguments):
    global busy
    if busy:
        return
    busy = True
    try:
        frame = sys._getframe(1)
        if event == "open" and writes(*arguments[1:]) and arguments[0] != os.devnull:
            note(f"opens {arguments[0]} for writing", frame)
        elif event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"):
            note(f"{event} {arguments[1:]}", frame)
        elif event in ("subprocess.Popen", "os.system", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            note(f"{event} {arguments[:1]}", frame)
    finally:
        busy = False

class Environment(type(os.environ)):
    def __getitem__(self, key):
        if ours(sys._getframe(1)):
            done.append(f"{module}: reads {key} from the environment")
        return super().__getitem__(key)

module = ""
os.environ.__class__ = Environment
sys.addaudithook(watch)
missing = []
for module in modules:
    try:
        importlib.import_module(module)
    except ImportError as error:
        if (error.name or "").split(".")[0] in ("gateway", "classifiers", "finetune"):
            raise
        missing.append(f"{module}: {error}")  # an extra that is not installed
print(json.dumps({"done": done, "missing": missing, "loaded": sorted({n.split(".")[0] for n in sys.modules})}))
"""


def imported(paths: list[Path], how: str, root: Path = ROOT) -> dict[str, list[str]]:
    names = [path.relative_to(root).as_posix() for path in paths]
    modules = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names]
    done = subprocess.run(
        [sys.executable, "-B", "-c", SPY, str(root), how, *modules],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("how", ["strict", "own"])
def test_the_spy_sees(tmp_path: Path, how: str) -> None:
    (tmp_path / "innocent.py").write_text("import os, socket\nopen(__file__).close()\nx = os.sep\n")
    (tmp_path / "guilty.py").write_text(
        "import os, pathlib, socket\n"
        "pathlib.Path('left.txt').write_text('x')\n"
        "os.environ.get('HOME'); os.getenv('PATH')\n"
        "socket.socket().connect_ex(('127.0.0.1', 1))\n"
    )
    assert imported([tmp_path / "innocent.py"], how, tmp_path)["done"] == []
    found = imported([tmp_path / "guilty.py"], how, tmp_path)["done"]
    assert [line.split()[1] for line in found] == ["opens", "reads", "reads", "socket.connect"]


def test_importing_what_serves_does_nothing() -> None:
    """And loads neither torch nor transformers, nor NeMo, which is loaded with the first policy."""
    serving = [path for path in SOURCES if path.parts[-2] != "finetune" and "finetune" not in path.parts]
    serving = [path for path in serving if name(path) != "gateway/upstream/local.py"]
    found = imported(serving, "strict")
    assert found["done"] == []
    assert found["missing"] == []
    assert "gateway" in found["loaded"]
    assert not {"torch", "transformers", "nemoguardrails", "finetune"} & set(found["loaded"])


def test_importing_what_trains_does_nothing() -> None:
    training = [path for path in SOURCES if "finetune" in path.parts] + [ROOT / "gateway/upstream/local.py"]
    assert imported(training, "own")["done"] == []


def test_only_config_reads_the_environment() -> None:
    """`nemo.py` sets a variable for NeMo before importing it; nothing else touches any."""
    found = []
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] == "finetune" or name(path) == "gateway/config.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
                found.append((name(path), node.lineno))
    assert [where for where, _ in found] == ["gateway/guard/nemo.py"]
    line = (ROOT / "gateway/guard/nemo.py").read_text().splitlines()[found[0][1] - 1]
    assert line.strip() == 'os.environ["NEMO_GUARDRAILS_NO_USAGE_STATS"] = "1"'


def test_no_global() -> None:
    found = [name(path) for path in SOURCES for node in ast.walk(tree(path)) if isinstance(node, ast.Global)]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    silent = [name(path) for path in SOURCES if tree(path).body and not ast.get_docstring(tree(path))]
    assert silent == []


def test_names_say_something() -> None:
    assert not {path.stem for path in SOURCES} & {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


@pytest.mark.parametrize("package", PACKAGES)
def test_sizes(package: str) -> None:
    files = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == package]
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > 500} == {}
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for path in files
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    assert lengths[int(len(lengths) * 0.9)] <= 35
    assert sorted(lines.values())[len(lines) // 2] <= 150


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git checkout")
    return [ROOT / path for path in done.stdout.split("\0") if path and (ROOT / path).is_file()]


def test_no_path_of_one_machine() -> None:
    paths = [f"/{folder}/".encode() for folder in ("work", "root", "home/user")]
    found = [name(path) for path in tracked() if any(part in path.read_bytes() for part in paths)]
    assert found == []


def test_tests_have_a_size_too() -> None:
    long = {
        name(path): count
        for path in tracked()
        if path.suffix == ".py" and (count := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert long == {}
