"""Replies of a model to prompts of ids, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from finetune.align.talk import Talk


@torch.inference_mode()
def replies(
    model: Any,
    talk: Talk,
    prompts: Sequence[list[int]],
    *,
    max_tokens: int = 128,
    temperature: float = 0.0,
    batch_rows: int = 16,
    seed: int = 0,
) -> list[str]:
    """One reply to each prompt, in order; greedy at temperature 0. The same seed gives the same replies."""
    model.eval()
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    made = [""] * len(prompts)
    pad = talk.tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_rows):
            rows = order[start : start + batch_rows]
            width = max(len(prompts[at]) for at in rows)
            ids = torch.tensor([[pad] * (width - len(prompts[at])) + prompts[at] for at in rows])
            mask = torch.tensor([[0] * (width - len(prompts[at])) + [1] * len(prompts[at]) for at in rows])
            sampling = (
                {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
            )
            out = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_tokens,
                eos_token_id=talk.end,
                pad_token_id=pad,
                **sampling,
            )
            for at, row in zip(rows, out[:, width:].tolist(), strict=True):
                made[at] = talk.decode(row[: row.index(talk.end)] if talk.end in row else row)
    return made
