"""A policy's folder into its two lanes: the one place that builds NeMo Guardrails' engines. `lane.py` runs them.

Flows of the library that the compiled engine can run form the fast lane, which runs always; the others, those written
in the folder's Colang included, form the Colang lane, which runs on the routes that the policy names. All that can be
known to be wrong in a folder is found here, and not at the first request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.config import read_yaml
from gateway.errors import ConfigError
from gateway.guard.lane import ColangLane, CompiledLane, Direction, Lane, rail_name
from gateway.guard.reach import reach

_DIRECTIONS: tuple[Direction, ...] = ("input", "output")

# How NeMo says that a rail of its library lacks a package.
_NOT_INSTALLED = "the environment does not have"


def load(folder: Path, patterns: Mapping[str, list[str]]) -> tuple[Lane, Lane]:
    """The fast lane and the Colang lane of a policy's folder. Raises `ConfigError` that names the file."""
    os.environ["NEMO_GUARDRAILS_NO_USAGE_STATS"] = "1"
    from nemoguardrails import LLMRails, RailsConfig
    from nemoguardrails.guardrails.iorails import IORails

    logging.getLogger("nemoguardrails").setLevel(logging.CRITICAL)  # its errors carry user text; we see outcomes
    _run_no_stray_python()
    content = _read_config(folder)
    parsed = _parse_colang(folder)
    flows = {path: file.get("flows", []) for path, file in parsed.items()}
    try:
        config = RailsConfig.from_content(colang_content="\n\n".join(_text(path) for path in parsed), config=content)
        own = {flow.get("id") for flow in config.flows}
        compiled, colang = _split(IORails, config, own)
        fast = IORails(_only(config, compiled)) if any(compiled.values()) else None
        # Its Colang runtime never returns from parallel rails when only one side is run; they take milliseconds.
        slow = _apart(lambda: LLMRails(_only(config, colang, parallel=False))) if any(colang.values()) else None
    except Exception as error:
        raise ConfigError(f"{folder}/config.yml: {_line(error)}") from error
    if slow is not None:
        slow.register_action(_matcher(patterns), "matches")
        slow.register_action(_words, "words")
        for path, found in flows.items():
            _check_flows(path, found, slow, patterns)
    looked_for = [pattern for found in patterns.values() for pattern in found]
    return CompiledLane(fast, compiled, reach(_expressions(config))), ColangLane(slow, colang, reach(looked_for))


def _expressions(config: Any) -> list[str]:
    """What the library's rail of regular expressions looks for in replies."""
    detection = getattr(config.rails.config, "regex_detection", None)
    output = getattr(detection, "output", None)
    return [pattern for pattern in getattr(output, "patterns", None) or [] if isinstance(pattern, str)]


def _read_config(folder: Path) -> dict[str, Any]:
    """`config.yml` with the prompts of `prompts.yml`, checked for what NeMo would pass over in silence.

    Read here, and not by NeMo from the folder, because NeMo would take policy.yml for its own, and would run any
    Python that lies there.
    """
    from nemoguardrails import RailsConfig
    from nemoguardrails.rails.llm.config import InputRails, OutputRails, Rails

    path = folder / "config.yml"
    config = {"models": [], **_without_blanks(read_yaml(path))}
    rails = config["rails"] = _without_blanks(config.get("rails", {}))
    for key, value, model in (
        ("", config, RailsConfig),
        ("rails.", rails, Rails),
        ("rails.input.", isinstance(rails, dict) and rails.get("input"), InputRails),
        ("rails.output.", isinstance(rails, dict) and rails.get("output"), OutputRails),
    ):
        _refuse_unknown(path, key, value, model.model_fields)
    _refuse_unguarded(path, config, rails)
    config["colang_version"] = "1.0"
    config["prompts"] = [*config.get("prompts", []), *_read_prompts(folder / "prompts.yml")]
    return config


def _without_blanks(value: Any) -> Any:
    """A mapping without the keys that have no value; anything else as it is."""
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def _read_prompts(path: Path) -> list[Any]:
    from nemoguardrails.rails.llm.config import TaskPrompt

    prompts = (read_yaml(path).get("prompts") if path.exists() else None) or []
    if not isinstance(prompts, list):
        raise ConfigError(f"{path}: prompts - a list is expected")
    for number, prompt in enumerate(prompts):
        try:
            TaskPrompt.model_validate(prompt)
        except ValueError as error:
            raise ConfigError(f"{path}: prompts.{number} - {_line(error)}") from None
    return prompts


def _refuse_unknown(path: Path, prefix: str, value: Any, known: Collection[str]) -> None:
    """NeMo takes no notice of a key that it does not know, and the rail behind a slip of the pen would be off."""
    if value and not isinstance(value, dict):
        raise ConfigError(f"{path}: {prefix.rstrip('.')} - a mapping is expected")
    for key in value or {}:
        if key not in known:
            raise ConfigError(f"{path}: {prefix}{key} - unknown key; known are {', '.join(sorted(known))}")


def _refuse_unguarded(path: Path, config: Mapping[str, Any], rails: Mapping[str, Any]) -> None:
    """Rails that we do not run must not look as if they did, and nothing beside the folder is read."""
    if str(config.get("colang_version", "1.0")) != "1.0":
        raise ConfigError(f"{path}: colang_version - only 1.0 is supported")
    if config.get("import_paths"):
        raise ConfigError(f"{path}: import_paths - a policy is one folder; nothing is imported")
    for family in ("retrieval", "dialog", "tool_input", "tool_output"):
        if (rails.get(family) or {}).get("flows"):
            raise ConfigError(f"{path}: rails.{family}.flows - this gateway runs input and output rails")


def _parse_colang(folder: Path) -> dict[Path, Any]:
    """Each Colang file, parsed by itself, so that an error names the file and its line."""
    from nemoguardrails.colang import parse_colang_file

    parsed = {}
    for path in sorted(folder.glob("*.co")):
        try:
            parsed[path] = parse_colang_file(path.name, content=_text(path), version="1.0")
        except Exception as error:
            raise ConfigError(f"{path}: {_line(error)}") from error
        flows = parsed[path].get("flows", [])
        asks = any(element["_type"] == "UserIntent" for flow in flows for element in flow["elements"])
        if asks or parsed[path].get("user_messages"):
            raise ConfigError(f"{path}: user - dialog flows do not run; this gateway runs input and output rails")
    return parsed


def _split(
    engine: Any, config: Any, own: Collection[str | None]
) -> tuple[dict[Direction, tuple[str, ...]], dict[Direction, tuple[str, ...]]]:
    """The flows for the compiled engine, and those for Colang: a flow of the folder's own replaces the library's."""
    compiled: dict[Direction, tuple[str, ...]] = {}
    colang: dict[Direction, tuple[str, ...]] = {}
    for direction in _DIRECTIONS:
        flows = tuple(getattr(config.rails, direction).flows)
        compiled[direction] = tuple(
            flow for flow in flows if rail_name(flow) not in own and _compiles(engine, config, direction, flow)
        )
        colang[direction] = tuple(flow for flow in flows if flow not in compiled[direction])
    return compiled, colang


def _compiles(engine: Any, config: Any, direction: Direction, flow: str) -> bool:
    other: Direction = "output" if direction == "input" else "input"
    alone: dict[Direction, tuple[str, ...]] = {direction: (flow,), other: ()}
    reason = engine.unsupported_reason(_only(config, alone))
    if reason is not None and _NOT_INSTALLED in reason:  # it would fail at every request
        raise ValueError(reason)
    return reason is None


def _only(config: Any, flows: Mapping[Direction, tuple[str, ...]], **changes: Any) -> Any:
    """The same configuration with these flows alone."""
    rails = config.rails.model_copy(
        update={
            direction: getattr(config.rails, direction).model_copy(update={"flows": list(names), **changes})
            for direction, names in flows.items()
        }
    )
    return config.model_copy(update={"rails": rails, "flows": list(config.flows)})


def _apart(build: Callable[[], Any]) -> Any:
    """On a thread with an event loop of its own: NeMo makes a loop where it finds none, and never closes it."""

    def run() -> Any:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            return build()
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    with ThreadPoolExecutor(1, thread_name_prefix="nemo") as pool:
        return pool.submit(run).result()


def _check_flows(path: Path, flows: list[dict[str, Any]], engine: Any, patterns: Collection[str]) -> None:
    """What a flow says, does and executes must exist: NeMo would find out in the middle of a request."""
    known = {flow["id"] for flow in engine.config.flows}
    for flow in flows:
        for element in flow["elements"]:
            wrong = _wrong(element, engine, known, patterns)
            if wrong:
                line = (element.get("_source_mapping") or {}).get("line_number", "")
                raise ConfigError(f"{path}:{line}: {flow['id']} - {wrong}")


def _wrong(element: Mapping[str, Any], engine: Any, flows: Collection[str], patterns: Collection[str]) -> str | None:
    if element["_type"] == "flow" and element["flow_name"] not in flows and not element["flow_name"].startswith("$"):
        return f"there is no flow `{element['flow_name']}`"
    if element["_type"] != "run_action":
        return None
    action, parameters = element["action_name"], element["action_params"]
    if action == "utter":
        value = parameters["value"]
        if not isinstance(value, str):
            return "words in place are not supported; write `define bot <name>`"
        if value != "stop" and value not in engine.config.bot_messages:
            return f"there is no `define bot {value}`"
    elif not engine.runtime.action_dispatcher.has_registered(action):
        return f"there is no action `{action}`"
    elif action == "matches":
        pattern = parameters.get("pattern")
        if not isinstance(pattern, str) or (pattern not in patterns and not pattern.startswith("$")):
            return f"policy.yml names no pattern `{pattern}`"
    return None


def _run_no_stray_python() -> None:
    """NeMo runs an `actions.py` or `actions/` of the working directory; here it loads no actions but its own."""
    import nemoguardrails
    from nemoguardrails.actions.action_dispatcher import ActionDispatcher

    package = Path(nemoguardrails.__file__).resolve().parent
    load_any = ActionDispatcher.load_actions_from_path
    if load_any.__module__ == __name__:
        return

    def load_own(self: Any, path: Path) -> None:
        if Path(path).resolve().is_relative_to(package):
            load_any(self, path)

    ActionDispatcher.load_actions_from_path = load_own


def _matcher(patterns: Mapping[str, list[str]]) -> Any:
    """The action `matches(pattern, text)`: whether any regular expression of that name is found in the text."""
    compiled = {name: [re.compile(pattern) for pattern in found] for name, found in patterns.items()}

    async def matches(pattern: str, text: str) -> bool:
        return any(expression.search(text or "") for expression in compiled[pattern])

    return matches


async def _words(text: str) -> int:
    """The action `words(text)`: how many words a text has."""
    return len((text or "").split())


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _line(error: Exception) -> str:
    """What is wrong, in one line; of pydantic's report the first error with its key."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        return f"{key} - {first['msg']}" if key else first["msg"]
    return " ".join(str(error).split())[:500] or type(error).__name__
