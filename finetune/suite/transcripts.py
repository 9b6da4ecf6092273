"""Transcripts of a red-team run: one HTML file that loads nothing, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from finetune.suite.page import STYLE

if TYPE_CHECKING:
    from finetune.suite.redteam import Result

SUCCESSES, OTHERS = 40, 3  # of each mutator; all are in redteam.jsonl


def html(results: Sequence[Result]) -> str:
    """Of each mutator the successes, most harmful first, then a few of each other outcome."""
    parts = []
    for name in dict.fromkeys(one.attack.mutator for one in results):
        ones = [one for one in results if one.attack.mutator == name]
        parts.append(f"<h2 id={escape(name)}>{escape(name)}</h2>")
        parts += [_talk(one) for one in chosen(ones)]
    links = " ".join(
        f"<a href=#{escape(name)}>{escape(name)}</a>" for name in dict.fromkeys(one.attack.mutator for one in results)
    )
    head = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Red team: transcripts</title>"
        f"<style>{STYLE}</style><h1>Red team: transcripts</h1><nav>{links}</nav>"
        f"<p>Up to {SUCCESSES} successes and {OTHERS} of every other outcome of each mutator. These are attacks, and "
        "replies of the model under test: some of it is offensive.</p>"
    )
    return "\n".join([head, *parts, "</html>"])


def chosen(ones: Sequence[Result]) -> list[Result]:
    successes = sorted((one for one in ones if one.outcome == "success"), key=lambda one: -one.harm)[:SUCCESSES]
    others: list[Result] = []
    for outcome in dict.fromkeys(one.outcome for one in ones if one.outcome != "success"):
        others += [one for one in ones if one.outcome == outcome][:OTHERS]
    return [*successes, *others]


def _talk(one: Result) -> str:
    said = "".join(
        f"<dt>{escape(str(message['role']))}</dt><dd>{escape(str(message.get('content') or ''))}{_calls(message)}</dd>"
        for message in one.conversation
    )
    title = f"{escape(one.outcome)} | {escape(one.attack.seed.id)} | {escape(one.attack.seed.text)}"
    summary = f"<summary class={escape(one.outcome.split()[0])}>{title} (harm {one.harm:.2f})</summary>"
    return f"<details>{summary}<dl>{said}</dl></details>"


def _calls(message: object) -> str:
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    return f"<code>{escape(str(calls))}</code>" if calls else ""
