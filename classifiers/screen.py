"""Tier 0 of triage: whether a message is so plainly harmless that the encoder need not read it. No torch, no ONNX.

A small convolution over word pieces, distilled from the encoder: embeddings (int8), one layer over three neighbouring
pieces, its highest and mean outputs, one weight each. It never says that something is harmful: what it does not clear
goes on to the encoder, and so does every text that does not look like those it was trained on (`plain`, and `score`
for one whose word pieces are unknown to it).

Does not catch: harm in everyday words that only the encoder understands. How much that is, is measured on held-out rows
and bounded in the model card beside the weights; it holds for messages of that kind, and for policies whose thresholds
are not below those in the card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray
from tokenizers import Tokenizer

from classifiers import shipped
from classifiers.framing import text_tokenizer

MOST_CHARACTERS = 900
# Of the pieces, those that go on with a word; 2 % to 15 % in English.
_MOST_INNER = 0.4
Floats = NDArray[numpy.float32]

# Latin letters of English, digits, the usual marks; a few that phones and word processors put in.
_PLAIN = re.compile("[ -~\\n\\r\\t\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u00a3\u20ac\u00e9]+")
_ODD = re.compile(
    r"\S{25}"  # encodings, addresses
    r"|[A-Za-z][0-9@$][A-Za-z]"  # h0w
    r"|(?:\b[A-Za-z]\b[\W_]+){3}[A-Za-z]\b"  # s p e l t
    r"|([^\w\s])\1{4}|[<>{}\[\]|\\`~^_]{2}"  # delimiters
)


def plain(text: str) -> bool:
    """Whether a text is short, has letters, and nothing in it looks disguised, encoded or foreign in script."""
    if not 0 < len(text) <= MOST_CHARACTERS or _PLAIN.fullmatch(text) is None or _ODD.search(text):
        return False
    return any(map(str.isalpha, text))


@dataclass(frozen=True, slots=True)
class Layers:
    """The network. `pieces` (vocabulary, size): embeddings; `kernel` (3 * size, filters): previous, this, next piece.

    `known` (vocabulary,): pieces that training saw often enough. `out` (2 * filters,): of the highest, of the mean.
    """

    pieces: NDArray[Any]
    known: NDArray[numpy.bool_]
    kernel: Floats
    shift: Floats
    out: Floats
    bias: float

    def __call__(self, texts: Sequence[Sequence[int]]) -> Floats:
        """(texts,): logits. No text may be empty."""
        size = self.pieces.shape[1]
        lengths = numpy.array([len(ids) for ids in texts])
        # An empty row before, between and after the texts, so that none sees its neighbour.
        starts = 1 + numpy.concatenate(([0], numpy.cumsum(lengths + 1)[:-1]))
        rows = numpy.zeros((int(lengths.sum()) + len(texts) + 1, size), numpy.float32)
        for start, ids in zip(starts.tolist(), texts, strict=True):
            rows[start : start + len(ids)] = self.pieces[ids]
        near = numpy.concatenate((rows[:-2], rows[1:-1], rows[2:]), axis=1)
        found = numpy.maximum(near @ self.kernel + self.shift, 0)
        cuts = numpy.stack((starts - 1, starts - 1 + lengths), axis=1).ravel()[:-1]
        highest = numpy.maximum.reduceat(found, cuts, axis=0)[::2]
        mean = numpy.add.reduceat(found, cuts, axis=0)[::2] / lengths[:, None]
        logits: Floats = numpy.concatenate((highest, mean), axis=1) @ self.out + self.bias
        return logits


class Screen:
    """The trained screen. A score under `threshold` clears a text; `encoder`: sha256 of the one it learnt from."""

    def __init__(self, tokenizer: Tokenizer, layers: Layers, config: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._layers = layers
        self._unknown_share = float(config["unknown_share"])
        self._inner = numpy.zeros(len(layers.pieces), bool)
        self._inner[[at for piece, at in tokenizer.get_vocab().items() if piece.startswith("##")]] = True
        self.threshold = float(config["threshold"])
        self.encoder = str(config["encoder"])

    @classmethod
    def load(cls, folder: Path | None = None) -> Screen:
        """From a weights folder (None: the shipped one). Raises `shipped.CorruptWeights`."""
        folder = shipped.verified(folder or shipped.SCREEN)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with numpy.load(folder / "weights.npz", allow_pickle=False) as stored:
            layers = Layers(
                stored["pieces"],
                numpy.unpackbits(stored["known"], count=len(stored["pieces"])).astype(bool),
                # The scale of the int8 embeddings is taken into the kernel.
                stored["kernel"].astype(numpy.float32) * numpy.tile(stored["scale"].astype(numpy.float32), 3)[:, None],
                stored["shift"].astype(numpy.float32),
                stored["out"].astype(numpy.float32),
                float(config["bias"]),
            )
        return cls(text_tokenizer(folder / "tokenizer.json"), layers, config)

    def score(self, texts: list[str]) -> list[float]:
        """Per text: how likely the encoder would flag it, 0..1; 1 for one that is put together from unknown words."""
        scores = [1.0] * len(texts)
        # One by one: a batch would go through the tokenizer's thread pool, which costs more than it saves.
        read = [self._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        kept = [at for at, ids in enumerate(read) if ids and self._reads(ids)]
        if kept:
            logits = self._layers([read[at] for at in kept])
            for at, logit in zip(kept, (1 / (1 + numpy.exp(-numpy.clip(logits, -30, 30)))).tolist(), strict=True):
                scores[at] = logit
        return scores

    def _reads(self, ids: list[int]) -> bool:
        """Whether the pieces are known, and few words had to be put together from them, as ciphers and typos are."""
        known, inner = self._layers.known[ids].mean(), self._inner[ids].mean()
        return bool(1 - known <= self._unknown_share and inner <= _MOST_INNER)
