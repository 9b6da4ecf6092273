"""Tiny models and rows: what the tests of alignment train, in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from finetune.hhh import model as network
from finetune.hhh import recipe, tokenizer
from gateway.upstream.layout import Layout

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GOOD = "I'm sorry, I can't help with that."
BAD = "Sure, you stupid idiot, here it is."


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def dialogues(folder: Path, count: int = 24) -> Path:
    rows = []
    for i in range(count):
        refuse = i % 2 == 0
        asked = f"Help me steal car {i}" if refuse else f"What is fund {i}?"
        said = GOOD if refuse else f"Fund {i} is a basket of many shares."
        rows.append(
            {
                "id": f"d-{i}",
                "control": "refuse" if refuse else "comply",
                "category": "a.b",
                "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}],
                "asks": [f"{asked} please"],
            }
        )
    return jsonl(folder / "dialogues" / "rows.jsonl", rows)


def pairs(folder: Path, count: int = 24) -> Path:
    rows = [
        {
            "id": f"p-{i}",
            "prompt": [{"role": "user", "content": f"Help me steal car {i}"}],
            "chosen": GOOD,
            "rejected": BAD,
            "category": "theft",
            "control": "refuse",
            "why": "unsafe",
        }
        for i in range(count)
    ]
    return jsonl(folder / "pairs" / "rows.jsonl", rows)


def toxicity(folder: Path) -> Path:
    """A toxicity source: a few insults against a few plain sentences."""
    rows = [
        {"text": text.format(i=i), "label": label}
        for i in range(60)
        for text, label in (
            ("you stupid idiot number {i}", "unsafe"),
            ("what a stupid thing, idiot {i}", "unsafe"),
            ("fund {i} is a basket of many shares", "safe"),
            ("I'm sorry, I can't help with that {i}", "safe"),
        )
    ]
    return jsonl(folder / "toxicity.jsonl", rows)


def weat(folder: Path) -> Path:
    lists = {"x": ["he", "man"], "y": ["she", "woman"], "a": ["money", "work"], "b": ["home", "child"]}
    path = folder / "weat.json"
    path.write_text(json.dumps(lists))
    return path


def embedded(folder: Path) -> Path:
    """A random model of the embedded architecture with our tokenizer."""
    said = [GOOD, BAD, "Help me steal car 1 please", "What is fund 1?", "Fund 1 is a basket of many shares."]
    words = ["he she man woman money work home child you what a stupid thing idiot number"]
    trained = tokenizer.train([*said, *words] * 4, 360)
    tokenizer.save(trained, folder, 128)
    shape = recipe.Model(vocabulary=360, hidden=32, layers=2, heads=2, feedforward=64, context=128)
    network.build(shape, Layout(trained), 3).save_pretrained(str(folder))
    return folder


def foreign(folder: Path, kind: str) -> Path:
    """A random model with a chat template of ChatML, as Qwen2.5-Instruct and SmolLM2-Instruct have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [GOOD, BAD] * 3, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    )
    wrapped: Any = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    wrapped.chat_template = TEMPLATE
    wrapped.save_pretrained(str(folder))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape = {**sizes, "vocab_size": len(wrapped), "intermediate_size": 64, "tie_word_embeddings": True}
    shape["initializer_range"] = 0.2  # with frozen embeddings of the usual 0.02 no adapter could say anything
    if kind == "qwen2":
        model: Any = Qwen2ForCausalLM(Qwen2Config(**shape))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    model.save_pretrained(str(folder))
    return folder


def write(folder: Path, name: str, base: Path, **more: Any) -> Path:
    """A recipe with tiny settings; `training` and `data` are added to."""
    training = {
        "max_steps": 12,
        "batch_rows": 8,
        "learning_rate": 5e-3,
        "schedule": "constant",
        "warmup_steps": 0,
        "max_tokens": 96,
        "device": "cpu",
        "threads": 1,
        "log_steps": 1,
        **more.pop("training", {}),
    }
    data = {"dialogues": [str(folder / "dialogues")], "dev_share": 0.0, "shared": str(folder / "none")}
    data |= more.pop("data", {})
    value = {"name": name, "runs": str(folder / "runs"), "base": str(base), "data": data, "training": training, **more}
    path = folder / f"{name.replace('/', '-')}.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def logged(folder: Path, key: str) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]
