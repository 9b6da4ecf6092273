"""`hhh check`: every policy of a configuration, first its files, then its examples through the classifiers."""

from __future__ import annotations

import asyncio

from gateway.config import Config
from gateway.errors import ConfigError
from gateway.guard import nemo, policy
from gateway.guard.loader import Loader
from gateway.guard.rails import Guard
from gateway.keys.fit import fitting
from gateway.reload.expect import failures
from gateway.shadow.candidate import Candidate, candidate_folder


def check_policies(config: Config) -> list[str]:
    """A line for each policy, a candidate's too.

    Raises `ConfigError`: what is wrong, or all examples that do not hold, a line each.
    """
    folder = config.policies()
    names = sorted(path.parent.name for path in folder.glob("*/config.yml"))
    if config.policy not in names:
        raise ConfigError(f"{folder}/{config.policy}/config.yml: no such file")
    places = [folder / name for name in names]
    if config.shadow.policy is not None and candidate_folder(config) not in places:
        places.append(candidate_folder(config))
    lines, examples = [], 0
    for place in places:
        found = policy.load(place.parent, place.name)
        fast, colang = nemo.load(found.folder, found.rules.patterns)
        lanes = [
            f"{lane}: {', '.join(sum(flows.values(), ())) or '-'}"
            for lane, flows in (("fast", fast.flows), ("colang", colang.flows))
        ]
        lines.append(f"{place.name}@{found.version}  {'  '.join(lanes)}  examples: {len(found.rules.expect)}")
        examples += len(found.rules.expect)
    keys = fitting(config)
    if config.keys_file is not None:
        lines.append(f"{config.keys_file}  {keys} keys")
    wrong = asyncio.run(_wrong(config, names)) if examples else []
    if wrong:
        raise ConfigError("\n".join(wrong))
    return lines


async def _wrong(config: Config, names: list[str]) -> list[str]:
    """The examples that do not hold, those of a candidate by its own weights."""
    loader = Loader.of(config)
    candidate = Candidate.of(config, loader)
    try:
        found = [line for name in names for line in await _failures(loader.guard(name))]
        if candidate is not None:
            found += [f"{line} (candidate)" for line in await _failures(candidate.guard())]
        return found
    finally:
        loader.close()
        if candidate is not None:
            candidate.close()


async def _failures(guard: Guard) -> list[str]:
    try:
        return await failures(guard)
    finally:
        await guard.close()
