"""python benchmarks/triage.py [--rounds 5] [--json FILE]

What a message costs in triage: milliseconds for the screen (tier 0), the encoder (tier 1) and the cascade of both, one
thread, one message at a time, in one run and in turns. Messages are the benign first turns of the authored dialogues;
most of them were trained on, so for the share that ends at tier 0 see the model card, which measures held-out ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from classifiers.cascade import Cascade
from classifiers.screen import Screen, plain
from classifiers.text import normalise
from classifiers.triage import Triage

DIALOGUES = Path(__file__).resolve().parent.parent / "finetune" / "data" / "authored" / "dialogues"


def messages() -> list[str]:
    """First turns of the dialogues that the assistant goes along with."""
    rows = [json.loads(line) for path in sorted(DIALOGUES.glob("*.jsonl")) for line in path.open(encoding="utf-8")]
    return [row["messages"][0]["content"] for row in rows if row["control"] == "comply"]


def milliseconds(judge: Callable[[str], object], texts: list[str]) -> float:
    began = time.perf_counter()
    for text in texts:
        judge(text)
    return (time.perf_counter() - began) / len(texts) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    screen, encoder, cascade = Screen.load(), Triage.load(threads=1), Cascade.load(threads=1)
    texts = messages()
    texts = texts[:: max(1, len(texts) // chosen.messages)]
    hundred = "I moved to a new flat last month and would like to know how I can change the address on my account."
    judges: dict[str, Callable[[str], object]] = {
        "screen": lambda text: plain(text) and screen.score([normalise(text)]),
        "screen, 100 characters": lambda _: plain(hundred) and screen.score([normalise(hundred)]),
        "encoder": lambda text: encoder.score([text]),
        "cascade": lambda text: cascade.score([text]),
    }
    taken: dict[str, list[float]] = {name: [] for name in judges}
    for _ in range(chosen.rounds):
        for name, judge in judges.items():
            taken[name].append(milliseconds(judge, texts))
    found = {name: statistics.median(times) for name, times in taken.items()}
    tiers = [judged.tier for text in texts for judged in cascade.score([text])]
    cleared = tiers.count("screen") / len(tiers)
    ratio = statistics.median(one / two for one, two in zip(taken["cascade"], taken["encoder"], strict=True))
    for name, value in found.items():
        print(f"{name:24} {value:7.3f} ms a message (fastest round {min(taken[name]):.3f})")
    print(f"cascade / encoder        {ratio:7.3f}   ended at tier 0: {cleared:.1%} of {len(texts)}")
    if chosen.json:
        chosen.json.write_text(json.dumps({"ms": found, "ratio": ratio, "tier0": cleared, "rounds": taken}, indent=1))


if __name__ == "__main__":
    main()
