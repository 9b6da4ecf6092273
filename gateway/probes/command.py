"""`hhh probes run`: in process, or by a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from gateway.errors import ConfigError
from gateway.guard.rails import Guard
from gateway.probes.result import OBSERVED, as_json
from gateway.probes.runner import Prober
from gateway.probes.suites import Probe
from gateway.record.metrics import Metrics


def run_here(probes: tuple[Probe, ...], guard: Guard, weights: str) -> Mapping[str, Any]:
    """All probes through a guard of this process; nothing is recorded."""

    async def run() -> Mapping[str, Any]:
        await guard.warm()
        try:
            return as_json(await Prober(probes, lambda: guard, Metrics(), weights).run())
        finally:
            await guard.close()

    return asyncio.run(run())


def run_there(base_url: str, key: str | None) -> Mapping[str, Any]:
    """A running gateway's probes, now; it counts and records them. Raises `ConfigError` where it does not answer."""
    address = f"{base_url.rstrip('/').removesuffix('/v1')}/v1/probes"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"--base-url: {base_url} is no address such as http://127.0.0.1:8000")
    try:
        with urlopen(Request(address, b"", headers, method="POST"), timeout=600) as reply:
            found: Mapping[str, Any] = json.load(reply)
    except HTTPError as error:
        raise ConfigError(f"{address}: {error.code} {error.read(500).decode('utf-8', 'replace')}") from None
    except (URLError, OSError, ValueError) as error:
        raise ConfigError(f"{address}: {error}") from None
    return found


def table(run: Mapping[str, Any]) -> str:
    """The matrix and what is wrong, as text."""
    lines = [f"{run['policy']['name']}@{run['policy']['version']}  triage {run['weights'] or '-'}", ""]
    lines.append(f"{'suite':14}" + "".join(f"{name:>14}" for name in OBSERVED))
    for suite, counts in run["matrix"].items():
        lines.append(f"{suite:14}" + "".join(f"{counts[name]:>14}" for name in OBSERVED))
    wrong = [one for one in run["results"] if one["expected"] != one["observed"]]
    if wrong:
        lines += ["", f"{'expected':10}{'observed':14}{'judged':32}message"]
        for one in wrong:
            judged = f"{one['category']} {one['score']:.2f}"
            lines.append(f"{one['expected']:10}{one['observed']:14}{judged:32}{one['text'][:90]}")
    lines += ["", f"harmless probes refused: {run['wrong_refusal_share']:.1%}"]
    return "\n".join(lines)
