"""python -m finetune.hhh.export --run runs/embedded/rloo [--out gateway/upstream/weights/hhh-embedded]

A finished run as the folder that the gateway serves: model.onnx (8 bits), tokenizer.json, config.json, run.json (the
run's records), manifest.json with their sha256, MODEL_CARD.md. Checks the file against PyTorch on held-out questions
before it is put in place.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from classifiers import shipped
from finetune.hhh import card, corpus, graph, measure, recipe, tokenizer
from gateway.upstream.embedded import SHIPPED
from gateway.upstream.layout import END, Layout

CHECKED = 60
RECORDS = ("recipe", "manifest", "result")  # of a run, kept in run.json for `finetune.hhh.reopen`


class Session:
    """The exported graph behind `logits` and `greedy`, one prompt at a time."""

    def __init__(self, path: Path, layers: int, heads: int, width: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.cache = [f"{i}.{part}" for i in range(layers) for part in ("key", "value")]
        self.empty = [np.zeros((1, heads, 0, width), dtype=np.float32)] * len(self.cache)

    def run(self, ids: list[int], past: list[Any]) -> tuple[NDArray[np.float32], list[Any]]:
        before = past[0].shape[2]
        feeds: dict[str, Any] = {
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, before + len(ids)), dtype=np.int32),
            "position_ids": np.arange(before, before + len(ids))[None],
        }
        feeds.update((f"past.{name}", value) for name, value in zip(self.cache, past, strict=True))
        logits, *present = self.session.run(None, feeds)
        return logits[0], present

    def greedy(self, prompt: list[int], end: int, most: int) -> tuple[list[int], NDArray[np.float32]]:
        """The reply's ids without `end`, and the logits after the prompt."""
        logits, past = self.run(prompt, self.empty)
        first, reply = logits, list[int]()
        while (token := int(logits.argmax())) != end and len(reply) < most:
            reply.append(token)
            logits, past = self.run([token], past)
        return reply, first


@torch.inference_mode()
def compare(model: Any, session: Session, layout: Layout, prompts: list[list[int]], most: int) -> dict[str, Any]:
    """int8 on ONNX Runtime against fp32 in PyTorch: logits after the prompts, and whole greedy replies."""
    gap, spread, same, tokens, agreed = 0.0, [], 0, 0, 0
    began, made = time.perf_counter(), 0
    ours = []
    for prompt in prompts:
        ours.append(session.greedy(prompt, layout.ids[END], most))
        made += len(ours[-1][0]) + 1
    seconds = time.perf_counter() - began
    for prompt, (reply, first) in zip(prompts, ours, strict=True):
        ids = torch.tensor([[*prompt, *reply]])
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 :].float()
        gap = max(gap, float(np.abs(logits[0].numpy() - first).max()))
        spread.append(float(logits[0].std()))
        expected = logits.argmax(dim=1).tolist()
        ended = [layout.ids[END]] if len(reply) < most else []
        found = [*reply, *ended]
        agreed += sum(a == b for a, b in zip(found, expected, strict=False))
        tokens += len(found)
        same += found == expected[: len(found)]
    return {
        "prompts": len(prompts),
        "largest_logit_difference": round(gap, 4),
        "spread_of_logits": round(float(np.mean(spread)), 4),
        "greedy_tokens_agreeing": round(agreed / tokens, 5),
        "greedy_replies_identical": same,
        "tokens_per_second_batch_1_one_thread": round(made / seconds),
    }


def export(run: Path, out: Path = SHIPPED) -> Path:
    """Write and check the folder; it replaces `out` only when all is well. Returns `out`."""
    from transformers import LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(str(run / "model"), attn_implementation="eager").float().eval()
    chosen = recipe.Recipe.model_validate_json((run / "recipe.json").read_text(encoding="utf-8"))
    layout = Layout(tokenizer.load(run / "tokenizer" / "tokenizer.json"))
    config: dict[str, Any] = {
        "model_type": "hhh-embedded",
        "context": chosen.model.context,
        "layers": chosen.model.layers,
        "heads": chosen.model.heads,
        "head_width": chosen.model.hidden // chosen.model.heads,
        "vocabulary": int(model.config.vocab_size),
        "parameters": int(sum(p.numel() for p in model.parameters())),
        "temperature": 0.0,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        fresh = Path(name) / out.name
        fresh.mkdir()
        graph.save(graph.build(model, quantise=True), str(fresh / "model.onnx"))
        shutil.copyfile(run / "tokenizer" / "tokenizer.json", fresh / "tokenizer.json")
        (fresh / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        session = Session(fresh / "model.onnx", config["layers"], config["heads"], config["head_width"])
        found = corpus.read(chosen.data, chosen.training.seed)
        rows = [*found.dev_asks[: CHECKED // 2], *(d for d in found.dev_rows if d.ask == 0)][:CHECKED]
        limit = chosen.model.context // 2
        prompts = [layout.prompt([{"role": "user", "content": r.question}], r.control, limit) for r in rows]
        checks = compare(model, session, layout, prompts, limit)
        records = {name: json.loads((run / f"{name}.json").read_text(encoding="utf-8")) for name in RECORDS}
        (fresh / "run.json").write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        digests = json.loads(shipped.seal(fresh).read_text(encoding="utf-8"))["files"]
        replies = [
            (control, text, layout.tokenizer.decode(session.greedy(prompt, layout.ids[END], limit)[0]))
            for text, control in measure.SAMPLES
            if (prompt := layout.prompt([{"role": "user", "content": text}], control, limit))
        ]
        size = (fresh / "model.onnx").stat().st_size
        (fresh / "MODEL_CARD.md").write_text(card.write(run, config, checks, replies, size), encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        fresh.replace(out)
    (run / "export.json").write_text(json.dumps({**checks, "files": digests}, indent=2) + "\n", encoding="utf-8")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Export a run of the embedded model.")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    options = parser.parse_args()
    out = export(options.run, options.out)
    print(out, (options.run / "export.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
