"""Our byte-level BPE: trained on the run's own texts, saved with a chat template for transformers users.

Digits stand alone (sums), quotes and dashes become ASCII, and every text gets a leading space, so that a word is the
same token at the start of a message as within it. `gateway.upstream.layout` is what training and serving use; the
template is for tools that read a tokenizer's folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from gateway.upstream.layout import BOS, END, PAD, SPECIALS

PLAIN = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": " - "}

TEMPLATE = """\
{%- set ns = namespace(system='') -%}
{%- for m in messages if m.role in ('system', 'developer') and m.content -%}
{%- set ns.system = ns.system + ('\\n\\n' if ns.system else '') + m.content -%}
{%- endfor -%}
<|bos|>{% if ns.system %}<|system|>{{ ns.system }}<|end|>{% endif %}
{%- for m in messages if m.role not in ('system', 'developer') -%}
{%- if m.role == 'assistant' -%}
<|assistant|><|{{ control if control is defined and loop.last else 'comply' }}|>
{%- generation -%}{{ m.content }}<|end|>{%- endgeneration -%}
{%- else -%}
<|user|>{{ m.content }}<|end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|><|{{ control if control is defined else 'comply' }}|>{%- endif -%}
"""


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer with at most `vocabulary` entries, the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            *(normalizers.Replace(fancy, plain) for fancy, plain in PLAIN.items()),
            normalizers.Prepend(" "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def save(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write `tokenizer.json`, and transformers' own files with the chat template."""
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    wrapped: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=END, pad_token=PAD, model_max_length=context
    )
    wrapped.chat_template = TEMPLATE
    wrapped.save_pretrained(str(folder))
