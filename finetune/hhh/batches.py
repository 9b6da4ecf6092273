"""Token batches of an epoch, the same for the same seed: what makes a resumed run exact.

`encode` lays a dialogue out as the gateway does, with the mask of what is learned: the assistant's tokens and the
`<|end|>` after them, nothing else. Batches are grouped by length and padded on the right; nothing is packed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from finetune.align.provoking import Exchange
from finetune.hhh import augment
from finetune.hhh.corpus import Corpus, Dialogue
from gateway.upstream.layout import BOS, CONTROLS, END, PAD, Layout

IGNORED = -100
# A route that misses must do no harm: some advice and refusals are also learned behind <|comply|>.
MISROUTED = 0.12
# The last question counts: some dialogues come after another one, whose answer is at most so many characters.
CONTINUED, SMALL_TALK = 0.18, 300
OPENING = 4
# What comes after an answer's beginning follows from that beginning; which answer it is follows from the question.
# So most examples stop early, and in many of those some of the answer is hidden, which leaves the question to go by.
HIDDEN, HIDDEN_WHOLE = 0.5, 0.15


@dataclass(frozen=True, slots=True)
class Example:
    """Ids, and for each whether it is learned. `hidden` are positions that the model does not get to see."""

    ids: list[int]
    learned: list[bool]
    hidden: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """[rows, tokens] each; `labels` are the ids, `IGNORED` where nothing is learned, `weights` what a token counts."""

    ids: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor


def encode(layout: Layout, dialogue: Dialogue, *, system: str = "", context: int) -> Example:
    """A dialogue as it stands, cut at `context` tokens."""
    ids, learned = [layout.ids[BOS]], [False]

    def add(tokens: list[int], learn: bool) -> None:
        ids.extend(tokens)
        learned.extend([learn] * len(tokens))

    if system:
        add(layout.turn("system", system), False)
    last = len(dialogue.turns) - 1
    for i, text in enumerate(dialogue.turns):
        if i % 2:
            control = dialogue.control if i == last else "comply"
            add(layout.opening(control), False)
            add([*layout.text(text), layout.ids[END]], True)
        else:
            add(layout.turn("user", text), False)
    return Example(ids[:context], learned[:context])


def dialogues(
    layout: Layout,
    rows: list[Dialogue],
    draw: random.Random,
    context: int,
    guidance: Sequence[str] = (),
    shortened: float = 0.0,
) -> list[Example]:
    """Every row once, its questions changed a little, a share of the answers cut short."""
    examples = []
    openers = [row for row in rows if row.control == "comply" and len(row.turns) == 2 and len(row.answer) < SMALL_TALK]
    for row in rows:
        before = draw.choice(openers).turns if openers and draw.random() < CONTINUED else ()
        turns = tuple(text if i % 2 else augment.question(text, draw) for i, text in enumerate((*before, *row.turns)))
        misrouted = row.control != "comply" and draw.random() < MISROUTED
        control = "comply" if misrouted else row.control
        changed = Dialogue(row.row, control, row.category, turns, row.ask)
        system = augment.system(control, draw, guidance)
        example = encode(layout, changed, system=system, context=context)
        short = draw.random() < shortened
        if short:
            example = _shorten(example, draw)
        if draw.random() < (HIDDEN if short else HIDDEN_WHOLE):
            example = _hide(example, draw)
        examples.append(example)
    return examples


def _shorten(example: Example, draw: random.Random) -> Example:
    """Cut 4 to 16 tokens into the last answer."""
    start = len(example.ids)
    while start > 0 and example.learned[start - 1]:
        start -= 1
    end = start + draw.randint(4, 16)
    return Example(example.ids[:end], example.learned[:end])


def _hide(example: Example, draw: random.Random) -> Example:
    """Up to half of what is learned is hidden from what follows it."""
    share = draw.uniform(0, 0.5)
    hidden = tuple(i for i, learn in enumerate(example.learned) if learn and draw.random() < share)
    return Example(example.ids, example.learned, hidden)


def plain(layout: Layout, texts: Iterable[str], context: int) -> list[Example]:
    """Texts to model from end to end, for pre-training."""
    examples = []
    for text in texts:
        ids = [layout.ids[BOS], *layout.text(text), layout.ids[END]][:context]
        examples.append(Example(ids, [False] + [True] * (len(ids) - 1)))
    return examples


def exchanged(layout: Layout, rows: Iterable[Exchange], draw: random.Random, context: int) -> list[Example]:
    """Provoking exchanges from end to end, behind any control token: a base knows no manners yet."""
    examples = []
    for row in rows:
        turns = (row.prompt, row.reply)
        example = encode(layout, Dialogue(row.id, draw.choice(list(CONTROLS)), "", turns), context=context)
        examples.append(Example(example.ids, [False] + [True] * (len(example.ids) - 1)))
    return examples


def collate(examples: list[Example], pad: int, opening: float = 1.0) -> Batch:
    """Padded on the right. `opening` is what the first `OPENING` tokens of an answer count, others count 1."""
    width = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), width), pad, dtype=torch.long)
    labels = torch.full((len(examples), width), IGNORED, dtype=torch.long)
    weights = torch.ones(len(examples), width)
    for i, example in enumerate(examples):
        row = torch.tensor(example.ids)
        ids[i, : len(row)] = row
        ids[i, list(example.hidden)] = pad
        learned = torch.tensor(example.learned)
        labels[i, : len(row)] = torch.where(learned, row, IGNORED)
        # Learned, and not everything before it in a window of OPENING was.
        run = torch.cat([torch.zeros(OPENING), learned.float()]).unfold(0, OPENING, 1)[:-1].sum(dim=1)
        weights[i, : len(row)] = torch.where(learned & (run < OPENING), opening, 1.0)
    return Batch(ids, labels, weights)


def group(examples: list[Example], batch_tokens: int, draw: random.Random) -> list[list[Example]]:
    """Batches of similar lengths, at most `batch_tokens` padded tokens each, in random order."""
    ordered = sorted(examples, key=lambda example: len(example.ids) + 8 * draw.random())
    batches: list[list[Example]] = []
    current: list[Example] = []
    width = 0
    for example in ordered:
        width = max(width, len(example.ids))
        if current and width * (len(current) + 1) > batch_tokens:
            batches.append(current)
            current, width = [], len(example.ids)
        current.append(example)
    if current:
        batches.append(current)
    draw.shuffle(batches)
    return batches


class Epochs:
    """The batches of each epoch of each phase, built when asked for."""

    def __init__(
        self,
        layout: Layout,
        corpus: Corpus,
        *,
        seed: int,
        batch_tokens: int,
        context: int,
        opening: float = 1.0,
        times: Mapping[str, float] | None = None,
    ) -> None:
        self.layout = layout
        self.train = corpus.train
        self.helpers = [*corpus.helpers, *corpus.toxic]
        self.exchanges = corpus.exchanges
        self.guidance = corpus.guidance
        self.times = times or {}
        self.seed = seed
        self.opening = opening
        self.batch_tokens = batch_tokens
        self.context = context

    def batches(self, phase: str, epoch: int, shortened: float = 0.0) -> list[list[Example]]:
        draw = random.Random(f"{self.seed}:{phase}:{epoch}")
        if phase == "pretrain":
            texts = [*self.helpers, *(turn for row in self.train if row.ask == 0 for turn in row.turns)]
            examples = plain(self.layout, texts, self.context)
            examples += exchanged(self.layout, self.exchanges, draw, self.context)
        else:
            rows = self._rows(draw) if self.times else self.train
            examples = dialogues(self.layout, rows, draw, self.context, self.guidance, shortened)
        return group(examples, self.batch_tokens, draw)

    def _rows(self, draw: random.Random) -> list[Dialogue]:
        """Each dialogue as often as `times` has for its control token; 0.25 is one in four."""
        rows = []
        for row in self.train:
            often, rest = divmod(self.times.get(row.control, 1.0), 1)
            rows += [row] * (int(often) + (draw.random() < rest))
        return rows

    def collate(self, examples: list[Example]) -> Batch:
        return collate(examples, self.layout.ids[PAD], self.opening)
