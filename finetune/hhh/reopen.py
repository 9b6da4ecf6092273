"""python -m finetune.hhh.reopen --run runs/embedded/reopened [--served gateway/upstream/weights/hhh-embedded]

A run's folder from what is served, so that training goes on where the shipped model stands: run folders are not kept,
the served one is. The inverse of `finetune.hhh.export` up to the 8 bits: matrices come back as they were rounded.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.hhh import model as network
from finetune.hhh import recipe, tokenizer
from finetune.hhh.export import RECORDS
from gateway.upstream.embedded import SHIPPED, verify
from gateway.upstream.layout import Layout


def reopen(served: Path, run: Path) -> Path:
    """Write `run`; returns it. Raises `ConfigError` where `served` is no model of ours, `FileExistsError` for a run."""
    if (run / "model").exists():
        raise FileExistsError(f"{run}: there is a run already")
    verify(served)
    told = json.loads((served / "run.json").read_text(encoding="utf-8"))
    chosen = recipe.Recipe.model_validate(told["recipe"])
    layout = Layout(tokenizer.load(served / "tokenizer.json"))
    model = network.build(chosen.model, layout, chosen.training.seed)
    model.load_state_dict(weights(served / "model.onnx", chosen.model.layers), strict=False)
    tokenizer.save(tokenizer.load(served / "tokenizer.json"), run / "tokenizer", chosen.model.context)
    model.save_pretrained(str(run / "model"))
    shutil.copytree(run / "tokenizer", run / "model", dirs_exist_ok=True)
    for name in RECORDS:
        (run / f"{name}.json").write_text(json.dumps(told[name], indent=2) + "\n", encoding="utf-8")
    return run


def weights(path: Path, layers: int) -> dict[str, torch.Tensor]:
    """The state of a `LlamaForCausalLM` from a graph of `finetune.hhh.graph`, fp32."""
    import onnx
    from onnx import numpy_helper

    loaded = onnx.load(str(path)).graph
    stored: dict[str, NDArray[Any]] = {one.name: numpy_helper.to_array(one) for one in loaded.initializer}

    def matrix(name: str) -> NDArray[np.float32]:
        packed, scales = stored[f"{name}.packed"], stored[f"{name}.scales"]
        steps = packed.astype(np.float32) - 128
        whole: NDArray[np.float32] = (steps * scales.reshape(*packed.shape[:2], 1)).reshape(packed.shape[0], -1)
        return whole

    embedding = stored["embedding.weight"].astype(np.float32)
    found = {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": embedding,
        "model.norm.weight": stored["norm.weight"],
    }
    for i in range(layers):
        ours, theirs = f"layer.{i}", f"model.layers.{i}"
        found[f"{theirs}.input_layernorm.weight"] = stored[f"{ours}.before.weight"]
        found[f"{theirs}.post_attention_layernorm.weight"] = stored[f"{ours}.after.weight"]
        for part, value in zip("qkv", np.split(matrix(f"{ours}.qkv"), 3), strict=True):
            found[f"{theirs}.self_attn.{part}_proj.weight"] = value
        found[f"{theirs}.self_attn.o_proj.weight"] = matrix(f"{ours}.out")
        gate, up = np.split(matrix(f"{ours}.gate_up"), 2)
        found[f"{theirs}.mlp.gate_proj.weight"], found[f"{theirs}.mlp.up_proj.weight"] = gate, up
        found[f"{theirs}.mlp.down_proj.weight"] = matrix(f"{ours}.down")
    return {name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a run's folder of the served model.")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--served", type=Path, default=SHIPPED)
    options = parser.parse_args()
    print(reopen(options.served, options.run))


if __name__ == "__main__":
    main()
