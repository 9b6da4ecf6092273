"""Bias: word associations, BBQ, and what changes when only the name of a group changes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from finetune.suite import association, bbq, rows
from finetune.suite.association import Effect
from finetune.suite.bench import Bench
from finetune.suite.figures import Figure, mean, plain, share
from finetune.suite.likelihood import Floats, Likelihood
from finetune.suite.part import Example, Part, Table, known

NO = ("full", "partial")


async def measure(bench: Bench) -> Part:
    """What a server or a missing data set does not allow is left out, and the notes say so."""
    figures: list[Figure | None] = []
    tables: list[Table] = []
    notes: list[str] = []
    data: dict[str, object] = {}
    lists = bench.options.shared / "bias" / "weat" / "WEAT.json"
    if bench.likelihood is None:
        notes.append("WEAT and SEAT need the weights: not measured of a server.")
    elif not lists.is_file():
        notes.append("No word lists for WEAT (bias/weat/WEAT.json of the shared data set).")
    else:
        for kind, found in _associations(bench.likelihood, bench).items():
            if found is None:
                notes.append(f"{kind} needs sentence vectors, which the ONNX file does not give.")
                continue
            social = [abs(one.effect) for one in found if one.social]
            figures.append(plain(f"bias.{kind.lower()}", statistics.fmean(social), len(social)))
            tables.append(_effects(kind, found))
            data[kind] = {one.test: [one.effect, one.p] for one in found}
    folder = bench.options.shared / "bias" / "bbq"
    items = bbq.read(folder, bench.options.bbq_rows, bench.options.seed) if folder.is_dir() else []
    if items:
        answers: Sequence[int | None]
        if bench.likelihood is not None:
            answers = bbq.by_likelihood(items, bench.likelihood)
            how = "by the log-probability a token of each option"
        else:
            answers = await bbq.by_asking(items, bench)
            how = f"by asking for a letter; {sum(one is None for one in answers)} replies named none"
        figures += bbq.figures(items, answers, bench.options.seed)
        notes.append(f"BBQ: {len(items)} rows ({', '.join(sorted({item.category for item in items}))}), {how}.")
    else:
        notes.append("No BBQ (bias/bbq of the shared data set).")
    swapped, table, examples = await _swaps(bench)
    return Part("bias", known(*figures, *swapped), [*tables, table], examples, notes, data)


def _associations(likelihood: Likelihood, bench: Bench) -> dict[str, list[Effect] | None]:
    lists, seed = bench.options.shared / "bias" / "weat" / "WEAT.json", bench.options.seed
    if likelihood.sentences(["This is a test."]) is None:
        return {"WEAT": association.effects(lists, likelihood.words, seed), "SEAT": None}

    def vectors(words: Sequence[str]) -> Floats:
        found = likelihood.sentences(association.in_sentences(words))
        assert found is not None
        return found

    return {
        "WEAT": association.effects(lists, likelihood.words, seed),
        "SEAT": association.effects(lists, vectors, seed),
    }


def _effects(kind: str, found: Sequence[Effect]) -> Table:
    body = [[one.test, f"{one.effect:+.2f}", f"{one.p:.3f}", "yes" if one.social else "no"] for one in found]
    return Table(f"{kind}: effect sizes", ["groups: attributes", "d", "p (two-sided)", "in the mean"], body)


async def _swaps(bench: Bench) -> tuple[list[Figure | None], Table, list[Example]]:
    """Pairs of prompts that differ in one word. Replies are greedy, so nothing else differs."""
    pairs = bench.some(rows.prompts("swaps"), "swaps")
    texts = [row.text.replace("{}", word) for row in pairs for word in row.more["words"]]
    replies = await bench.ask(texts, "bias: swaps")
    judged = [one.toxicity for one in bench.judge.toxicity([reply.text for reply in replies])]
    refused = [bench.grader.refusal(reply) in NO for reply in replies]
    gaps = [abs(judged[at] - judged[at + 1]) for at in range(0, len(judged), 2)]
    flips = [refused[at] != refused[at + 1] for at in range(0, len(refused), 2)]
    figures = [
        mean("bias.swap_toxicity", gaps, bench.options.seed),
        share("bias.swap_refusal", sum(flips), len(flips)),
    ]
    likely: list[float] = []
    if bench.likelihood is not None:
        means = [one.mean for one in bench.likelihood.texts(texts)]
        likely = [means[at] - means[at + 1] for at in range(0, len(means), 2)]
        figures.append(mean("bias.swap_likelihood", [abs(one) for one in likely], bench.options.seed))
    body = []
    for axis in sorted({row.category for row in pairs}):
        at = [number for number, row in enumerate(pairs) if row.category == axis]
        signed = f"{statistics.fmean(likely[one] for one in at):+.3f}" if likely else "-"
        gap = f"{statistics.fmean(gaps[one] for one in at):.3f}"
        body.append([axis, str(len(at)), gap, str(sum(flips[one] for one in at)), signed])
    examples = [
        Example(
            pairs[at].id,
            f"{texts[2 * at]}\n{texts[2 * at + 1]}",
            f"{replies[2 * at].text}\n---\n{replies[2 * at + 1].text}",
            f"toxicity differs by {gaps[at]:.2f}{', one refused' if flips[at] else ''}",
        )
        for at in sorted(range(len(pairs)), key=lambda one: (-flips[one], -gaps[one]))[:12]
    ]
    head = ["axis", "pairs", "toxicity, mean change", "refusals that change", "likelihood, first less second"]
    return figures, Table("Swapped group words", head, body), examples
