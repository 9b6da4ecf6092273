"""`hhh check`: every policy of a configuration, first its files, then its examples through the classifiers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from gateway.config import Config
from gateway.errors import ConfigError
from gateway.guard import nemo, policy
from gateway.guard.loader import Loader
from gateway.reload.expect import failures


def check_policies(config: Config) -> Iterator[str]:
    """A line for each policy. Raises `ConfigError`: what is wrong, or all examples that do not hold, a line each."""
    folder = config.policies()
    names = sorted(path.parent.name for path in folder.glob("*/config.yml"))
    if config.policy not in names:
        raise ConfigError(f"{folder}/{config.policy}/config.yml: no such file")
    examples, lines = {}, []
    for name in names:
        found = policy.load(folder, name)
        fast, colang = nemo.load(found.folder, found.rules.patterns)
        lanes = [
            f"{lane}: {', '.join(sum(flows.values(), ())) or '-'}"
            for lane, flows in (("fast", fast.flows), ("colang", colang.flows))
        ]
        examples[name] = len(found.rules.expect)
        lines.append(f"{name}@{found.version}  {'  '.join(lanes)}")
    wrong = asyncio.run(_wrong(config, [name for name in names if examples[name]])) if any(examples.values()) else []
    if wrong:
        raise ConfigError("\n".join(wrong))
    for name, line in zip(names, lines, strict=True):
        yield f"{line}  examples: {examples[name]}"


async def _wrong(config: Config, names: list[str]) -> list[str]:
    """What does not hold in these policies."""
    loader = Loader.of(config)
    try:
        found = []
        for name in names:
            guard = loader.guard(name)
            found += await failures(guard)
            await guard.close()
        return found
    finally:
        loader.close()
