"""The model card of an exported run, from the run's own records. Figures are read, never written by hand.

What a person has to say about a run goes into `notes.md` in its folder, and from there into the card.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEXT = """\
# hhh-embedded

The model that hhh-gateway carries inside itself, so that `hhh serve` answers with no network, no GPU and no other
server. {millions:.2f} million parameters, trained from scratch on a CPU in {minutes:.0f} minutes. It is a
**demonstration**: it shows the gateway at work and answers simple finance questions it was taught. Point `upstream`
at a real model for production.

## What it is for
Trying the gateway, its tests and its demos, in English. General questions about money in plain words, small talk, and
the three manners that the policy's route asks for by a control token: `<|comply|>` answer, `<|advise|>` inform without
recommending, `<|refuse|>` decline politely. The route is triage's decision, not the model's: by itself it
cannot tell what to refuse.

## Limits
- It knows the answers it was taught ({rows:,} written dialogues) and little else. A question outside them often gets
  the answer to a similar one, fluent and wrong. It cannot look anything up.
- A known answer to a new phrasing came out in {recalled:.0%} of {recalled_rows} held-out phrasings (at least half of
  the words shared with the written answer); for held-out topics in {unknown:.0%} of {unknown_rows}.
- {context} tokens of context, short answers. Sums only where they are small. It calls no tools, writes no code, and
  does not follow system messages.
- English only, from one small group of authors.

## Architecture
Llama: {layers} layers, hidden size {hidden}, {heads} heads, feed-forward {feedforward}, tied embeddings, byte-level BPE
with {vocabulary:,} entries. Served as ONNX with a KV cache, matrices in 8 bits by block, {megabytes:.1f} MB. Special
tokens in a user's text are text.

## Training
| | |
|---|---|
| steps, tokens seen | {steps:,}, {tokens:,} (of them {learned:,} with a loss) |
| schedule | {plain}dialogues with the loss on the assistant's tokens only{cut} |
| optimizer | AdamW, peak rate {rate}, cosine, bf16 autocast, batches of {batch:,} tokens |
| loss on held-out phrasings of known answers | {dev_asks:.3f} nats a token, given the answer's beginning: low \
even where the model by itself would have begun another answer |
| loss on held-out topics | {dev_rows:.3f} nats a token |
| recipe | `finetune/recipes/{name}.yaml`, seed {seed} |

{stages}{notes}
| source | rows | licence | sha256 |
|---|---|---|---|
{sources}

Held out: {dev_rows_count} dialogues of rows that were not trained on, {dev_asks_count} phrasings of rows that were.
The exchanged frames of questions can by chance produce a held-out phrasing.
Files of the shared set gave unlabelled texts; its attribution file names their authors: banking77 (Casanueva et al.
2020), clinc150 (Larson et al. 2019), hwu64 (Liu et al. 2019), gsm8k (OpenAI), TAT-QA (Zhu et al. 2021), self-instruct
seeds (Wang et al.), MT-bench and Vicuna questions (LMSYS); texts were cut, shuffled and deduplicated.

## Evaluation
The suite of `docs/evaluation.md`, which says what each figure means; written here by `hhh eval compare`.

<!-- hhh eval: stages -->
<!-- end hhh eval -->

## The 8-bit file against PyTorch in fp32
{prompts} prompts: largest difference of a logit {largest_logit_difference} (their standard deviation is
{spread_of_logits}), greedy tokens agreeing {greedy_tokens_agreeing:.2%}, whole replies identical
{greedy_replies_identical} of {prompts}.

## Replies, as they came (greedy), good and bad
{replies}
"""


def write(
    run: Path, config: dict[str, Any], checks: dict[str, Any], replies: Sequence[tuple[str, str, str]], size: int
) -> str:
    """The card in Markdown. `replies` are (control, question, reply); `size` the bytes of model.onnx."""
    result, manifest, recipe = (json.loads((run / f"{n}.json").read_text()) for n in ("result", "manifest", "recipe"))
    written = run / "notes.md"
    notes = f"{written.read_text(encoding='utf-8').strip()}\n" if written.is_file() else ""
    recall, model, training = result["recall"], recipe["model"], recipe["training"]
    return TEXT.format(
        **checks,
        notes=notes,
        name=recipe["name"],
        stages=_stages(result.get("stages", ()), recipe["name"]),
        millions=config["parameters"] / 1e6,
        minutes=result["seconds"] / 60,
        rows=manifest["rows_in_training"],
        recalled=recall["dev_asks"]["recalled"] or 0,
        recalled_rows=recall["dev_asks"]["rows"],
        unknown=recall["dev_rows"]["recalled"] or 0,
        unknown_rows=recall["dev_rows"]["rows"],
        context=config["context"],
        layers=config["layers"],
        heads=config["heads"],
        hidden=model["hidden"],
        feedforward=model["feedforward"],
        vocabulary=config["vocabulary"],
        megabytes=size / 1e6,
        steps=result["step"],
        tokens=result["tokens"],
        learned=result["learned"],
        plain=f"{training['pretrain_share']:.0%} plain text, then " if training["pretrain_share"] else "",
        cut=_cut(training),
        rate=training["learning_rate"],
        batch=training["batch_tokens"],
        dev_asks=result["dev_loss"]["dev_asks"],
        dev_rows=result["dev_loss"]["dev_rows"],
        seed=training["seed"],
        sources="\n".join(
            f"| {s['source']} | {s['rows']:,} | {s['licence']} | `{s['sha256'][:16]}...` |" for s in manifest["sources"]
        ),
        dev_rows_count=manifest["dialogues"]["dev_rows"],
        dev_asks_count=manifest["dialogues"]["dev_asks"],
        replies="\n".join(f"- `{control}` **{question}** {reply}" for control, question, reply in replies),
    )


def _cut(training: dict[str, Any]) -> str:
    """How many answers were cut short, where any were."""
    first, last, share = (training[name] for name in ("shortened", "shortened_at_last", "whole_share"))
    if not first and not last:
        return ""
    return (
        f"; {first:.0%} of them ({last:.0%} in the last {share:.0%}) are cut soon after the answer's beginning, and in "
        "half of those some of it is hidden, so that the question has to be read"
    )


def _stages(stages: Sequence[dict[str, Any]], recipe: str) -> str:
    """One line of what was done after the training above; nothing where nothing was."""
    if not stages:
        return ""
    told = [
        f"{one['name']} (`{one['method']}`, {one['steps']:,} steps, {one['seconds'] / 60:.0f} min)" for one in stages
    ]
    spoiled = " The base was spoiled on purpose, to be aligned." if stages[0]["name"] == "base" else ""
    listed = f"Trained in stages, each from the one before: {', '.join(told)}."
    return f"{listed} Steps and minutes above are of all; the schedule is that of `{recipe}`.{spoiled}\n\n"
