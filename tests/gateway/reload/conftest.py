"""A small policy in a folder that tests edit while a gateway serves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

CONFIG = """models: []
rails:
  config: {regex_detection: {input: {patterns: [NEVER]}, output: {patterns: [NEVER]}}}
  input: {flows: [regex check input, stop word]}
  output: {flows: [regex check output]}
"""
FLOWS = """define bot say no
  "flow %s"

define subflow stop word
  $found = execute matches(pattern="stop", text=$user_message)
  if $found
    bot say no
    stop
"""
POLICY = """refusals: {{default: "words {0}"}}
colang_routes: [allow, advise, review]
rail_timeout_seconds: 30
patterns: {{stop: [STOP]}}
{1}
expect:
  - {{message: "Hello", decision: allow}}
  - {{message: "MARK-HARM", decision: refuse, category: harmful.fraud}}
  - {{tool: "MARK-INJECT", decision: refuse, category: prompt_injection, rail: triage}}
  - {{message: "STOP", decision: refuse, rail: stop word}}
  - {{reply: "NEVER", decision: refuse, rail: regex check output}}
"""


def write(folder: Path, mark: str, more: str = "") -> None:
    """The policy whose words are `mark`, in both of its files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(CONFIG)
    (folder / "flows.co").write_text(FLOWS % mark)
    (folder / "policy.yml").write_text(POLICY.format(mark, more))


@pytest.fixture
def rails(tmp_path: Path) -> Path:
    """A folder with the policy `own`."""
    write(tmp_path / "rails" / "own", "one")
    return tmp_path / "rails"


Start = Callable[..., httpx.Client]


@pytest.fixture
def watching(gateway: Start, rails: Path) -> Start:
    """A gateway that serves `own` and watches its folder."""

    def start(**flags: Any) -> httpx.Client:
        reload = {"watch": "notify", "poll_seconds": 30, "quiet_seconds": 0.05, **flags.pop("reload", {})}
        return gateway(rails_dir=rails, policy="own", reload=reload, **flags)

    return start


def ask(client: httpx.Client, text: str = "MARK-HARM", **more: Any) -> str:
    """What the client is told."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def told(client: httpx.Client) -> dict[str, Any]:
    """What /readyz says of the policy."""
    found: dict[str, Any] = client.get("/readyz?verbose").json()["policies"]["own"]
    return found
