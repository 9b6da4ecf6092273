"""The one adapter to NeMo Guardrails; nothing else imports it.

A policy's `config.yml` names flows. Those that the compiled engine (IORails) can run form the fast lane, which runs
always (about 0.05 ms each); the others, Colang flows included, form the Colang lane (LLMRails, 6 to 9 ms), which runs
on the routes that the policy names. What is not covered: dialog, retrieval and generation rails. Generation is ours.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gateway.config import read_yaml
from gateway.errors import ConfigError

Direction = Literal["input", "output"]

# What NeMo says when an action failed, and when a flow refuses without words of its own.
_BROKEN = "I'm sorry, an internal error has occurred."
_WORDLESS = "I'm sorry, I can't respond to that."

_NO_CONTEXT: Mapping[str, object] = {
    "triage_label": "benign",
    "triage_category": "benign",
    "triage_score": 0.0,
    "triage_route": "review",
    "triage_toxicity": 0.0,
}


class RailError(Exception):
    """A rail raised, timed out, or could not say. `rail` names it."""

    def __init__(self, rail: str, error: str) -> None:
        super().__init__(f"{rail}: {error}")
        self.rail = rail
        self.error = error


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one lane: `content` is the flow's own words on a block (or None), the new text on a modify."""

    decision: Literal["pass", "modify", "block"]
    rail: str = ""
    content: str | None = None


class Lane:
    """One NeMo engine and the flows that it runs in each direction."""

    def __init__(self, engine: Any, flows: Mapping[Direction, tuple[str, ...]], colang: bool) -> None:
        self._engine = engine
        self.flows = flows
        self.colang = colang

    async def check(
        self, direction: Direction, user: str, reply: str | None, context: Mapping[str, object], timeout_seconds: float
    ) -> Check:
        """Run this lane's rails on one user text (and the reply to it). Raises `RailError`."""
        flows = self.flows[direction]
        if not flows:
            return Check("pass")
        messages = [{"role": "user", "content": user}]
        if reply is not None:
            messages.append({"role": "assistant", "content": reply})
        run = self._run_colang if self.colang else self._run_compiled
        try:
            async with asyncio.timeout(timeout_seconds):
                check = await run(direction, messages, context)
        except RailError:
            raise
        except TimeoutError:
            raise RailError(flows[0] if len(flows) == 1 else "nemo", "timeout") from None
        except Exception as error:  # the seam between a rail and us: whatever it raises is its failure
            raise RailError(flows[0] if len(flows) == 1 else "nemo", type(error).__name__) from error
        if check.content == _BROKEN:
            raise RailError(check.rail or "nemo", "action_failed")
        if check.decision == "block" and check.content == _WORDLESS:
            return Check("block", check.rail)
        return check

    async def warm(self) -> None:
        """Run each direction once: the first Colang check parses and caches for most of a second."""
        for direction in self.flows:
            with suppress(RailError):
                await self.check(direction, "Hello", "Hello" if direction == "output" else None, _NO_CONTEXT, 60)

    async def _run_compiled(
        self, direction: Direction, messages: list[dict[str, str]], context: Mapping[str, object]
    ) -> Check:
        from nemoguardrails.rails.llm.options import RailType

        result = await self._engine.check_async(messages, rail_types=[RailType(direction)])
        return _outcome(result.status.value, result.rail or "", result.content)

    async def _run_colang(
        self, direction: Direction, messages: list[dict[str, str]], context: Mapping[str, object]
    ) -> Check:
        response = await self._engine.generate_async(
            messages=[{"role": "context", "content": dict(context)}, *messages],
            options={"rails": [direction], "log": {"activated_rails": True}},
            state={},  # without it NeMo keeps every conversation in memory
        )
        content = str(response.response[-1]["content"])
        stopped = next((rail.name for rail in response.log.activated_rails if rail.stop), None)
        if stopped is not None:
            return Check("block", stopped, content)
        if content == _BROKEN:
            ran = [rail.name for rail in response.log.activated_rails]
            raise RailError(ran[-1] if ran else "nemo", "action_failed")
        if content != messages[-1]["content"]:
            return Check("modify", self.flows[direction][0], content)
        return Check("pass")


def _outcome(status: str, rail: str, content: str) -> Check:
    if status == "blocked":
        return Check("block", rail, content)
    if status == "modified":
        return Check("modify", rail, content)
    return Check("pass")


def load(folder: Path, patterns: Mapping[str, list[str]]) -> tuple[Lane, Lane]:
    """The fast lane and the Colang lane of a policy's folder. Raises `ConfigError` that names the file."""
    os.environ["NEMO_GUARDRAILS_NO_USAGE_STATS"] = "1"
    from nemoguardrails import LLMRails, RailsConfig
    from nemoguardrails.guardrails.iorails import IORails
    from nemoguardrails.rails.llm.options import RailType  # noqa: F401  imported now, not at the first request

    logging.getLogger("nemoguardrails").setLevel(logging.CRITICAL)  # failures reach us as outcomes
    try:
        config = RailsConfig.from_content(**_content(folder))
    except Exception as error:  # its own, pydantic's, yaml's and the Colang parser's
        raise ConfigError(f"{folder}/config.yml: {' '.join(str(error).split())[:500]}") from error
    _refuse_unguarded(config, folder)

    compiled: dict[Direction, tuple[str, ...]] = {}
    colang: dict[Direction, tuple[str, ...]] = {}
    directions: tuple[Direction, ...] = ("input", "output")
    for direction in directions:
        flows = tuple(getattr(config.rails, direction).flows)
        compiled[direction] = tuple(flow for flow in flows if not _needs_colang(IORails, config, direction, flow))
        colang[direction] = tuple(flow for flow in flows if flow not in compiled[direction])

    try:
        fast = IORails(_only(config, compiled)) if any(compiled.values()) else None
        slow = LLMRails(_only(config, colang)) if any(colang.values()) else None
    except Exception as error:  # a flow that does not exist, a model that cannot be made
        raise ConfigError(f"{folder}/config.yml: {' '.join(str(error).split())[:500]}") from error
    if slow is not None:
        slow.register_action(_matcher(patterns), "matches")
        slow.register_action(_words, "words")
    return Lane(fast, compiled, colang=False), Lane(slow, colang, colang=True)


def _content(folder: Path) -> dict[str, Any]:
    """NeMo's files of a policy: all Colang joined, `config.yml` with the prompts of `prompts.yml`.

    Read here, and not by NeMo from the folder, because NeMo would take policy.yml for its own, and would run any
    Python that lies there.
    """
    config = read_yaml(folder / "config.yml")
    prompts = read_yaml(folder / "prompts.yml").get("prompts") if (folder / "prompts.yml").exists() else None
    if prompts:
        config["prompts"] = [*config.get("prompts", []), *prompts]
    colang = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.co")))
    return {"colang_content": colang, "config": config}


def _refuse_unguarded(config: Any, folder: Path) -> None:
    """Rails that we do not run must not look as if they did."""
    if config.colang_version != "1.0":
        raise ConfigError(f"{folder}/config.yml: colang_version - only 1.0 is supported")
    for family in ("retrieval", "dialog", "tool_input", "tool_output"):
        flows = getattr(getattr(config.rails, family, None), "flows", None)
        if flows:
            raise ConfigError(f"{folder}/config.yml: rails.{family}.flows - this gateway runs input and output rails")


def _only(config: Any, flows: Mapping[Direction, tuple[str, ...]]) -> Any:
    """The same configuration with these flows alone."""
    rails = config.rails.model_copy(
        update={
            direction: getattr(config.rails, direction).model_copy(update={"flows": list(names)})
            for direction, names in flows.items()
        }
    )
    return config.model_copy(update={"rails": rails})


def _needs_colang(engine: Any, config: Any, direction: Direction, flow: str) -> bool:
    other: Direction = "output" if direction == "input" else "input"
    alone: dict[Direction, tuple[str, ...]] = {direction: (flow,), other: ()}
    return engine.unsupported_reason(_only(config, alone)) is not None


def _matcher(patterns: Mapping[str, list[str]]) -> Any:
    """The action `matches(pattern, text)`: whether any regular expression of that name is found in the text."""
    compiled = {name: [re.compile(pattern) for pattern in found] for name, found in patterns.items()}

    async def matches(pattern: str, text: str) -> bool:
        return any(expression.search(text or "") for expression in compiled[pattern])

    return matches


async def _words(text: str) -> int:
    """The action `words(text)`: how many words a text has."""
    return len((text or "").split())
