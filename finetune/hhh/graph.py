"""A Llama's weights as an ONNX graph with an explicit KV cache, built node by node.

Built rather than traced: about a dozen nodes a layer (ONNX Runtime's fused attention, rotary embedding and norms),
and matrices in 8 bits, quantised by block of inputs. Activations are quantised row by row at run time, so a
chat's logits do not depend on what else is in its batch. Covers our shape only: full attention, tied embeddings,
no biases.

Inputs: input_ids [B,S] int64; attention_mask [B,P+S] int32, 0 on the left padding; position_ids [B,S] int64;
past.{i}.key and .value [B,heads,P,width] float32, where P may be 0.
Outputs: logits [B,vocabulary] of the last position; present.{i}.key and .value [B,heads,P+S,width].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

BLOCKS = (128, 64, 32, 16)
MICROSOFT = "com.microsoft"


class Graph:
    """Nodes and weights as they are added."""

    def __init__(self, quantise: bool) -> None:
        self.quantise = quantise
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, value: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, kind: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def multiply(self, x: str, name: str, matrix: NDArray[np.float32]) -> str:
        """x [..., K] times the transpose of `matrix` [N, K]."""
        if not self.quantise:
            return self.node("MatMul", [x, self.weight(f"{name}.weight", matrix.T)], [name])
        packed, scales, size = blocks(matrix)
        inputs = [x, self.weight(f"{name}.packed", packed), self.weight(f"{name}.scales", scales)]
        n, k = matrix.shape
        return self.node("MatMulNBits", inputs, [name], MICROSOFT, K=k, N=n, bits=8, block_size=size, accuracy_level=4)

    def normalise(self, x: str, name: str, weight: NDArray[np.float32], epsilon: float) -> str:
        inputs = [x, self.weight(f"{name}.weight", weight)]
        return self.node("SimplifiedLayerNormalization", inputs, [name], axis=-1, epsilon=epsilon, stash_type=1)


def blocks(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32], int]:
    """`matrix` [N, K] in 8 bits around 128, [N, K/size, size], its scales [N * K/size], and the size of a block."""
    n, k = matrix.shape
    size = next((size for size in BLOCKS if k % size == 0), 0)
    if not size:
        raise ValueError(f"{k} inputs are not a multiple of {BLOCKS[-1]}")
    grouped = matrix.reshape(n, k // size, size)
    scales = np.maximum(np.abs(grouped).max(axis=2, keepdims=True) / 127, 1e-12)
    packed = np.clip(np.rint(grouped / scales) + 128, 0, 255).astype(np.uint8)
    return packed, scales.astype(np.float32).reshape(-1), size


def build(model: Any, quantise: bool) -> Any:
    """The `onnx.ModelProto` of a `LlamaForCausalLM`."""
    config = model.config
    weights = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}
    heads, layers = int(config.num_attention_heads), int(config.num_hidden_layers)
    if config.num_key_value_heads != heads:
        raise ValueError("grouped keys and values are not covered")
    width = int(config.hidden_size) // heads
    graph = Graph(quantise)
    embedding = weights["model.embed_tokens.weight"]
    if quantise:
        half = graph.weight("embedding.weight", embedding.astype(np.float16))
        row = graph.node("Gather", [half, "input_ids"], ["embedding.half"])
        x = graph.node("Cast", [row], ["embedding"], to=TensorProto.FLOAT)
    else:
        x = graph.node("Gather", [graph.weight("embedding.weight", embedding), "input_ids"], ["embedding"])
    cosine, sine = rotary(int(config.max_position_embeddings), width, theta(config))
    graph.weight("rotary.cos", cosine)
    graph.weight("rotary.sin", sine)
    for i in range(layers):
        x = layer(graph, x, i, weights, heads, float(config.rms_norm_eps))
    x = graph.normalise(x, "norm", weights["model.norm.weight"], float(config.rms_norm_eps))
    last = graph.weight("last", np.array(-1, dtype=np.int64))
    x = graph.node("Gather", [x, last], ["norm.last"], axis=1)
    graph.multiply(x, "logits", embedding)
    return package(graph, layers, heads, width, embedding.shape[0])


def layer(graph: Graph, x: str, i: int, weights: dict[str, Any], heads: int, epsilon: float) -> str:
    own = {
        name.removeprefix(f"model.layers.{i}."): value
        for name, value in weights.items()
        if name.startswith(f"model.layers.{i}.")
    }
    at = f"layer.{i}"
    normed = graph.normalise(x, f"{at}.before", own["input_layernorm.weight"], epsilon)
    joined = np.concatenate([own[f"self_attn.{part}_proj.weight"] for part in "qkv"])
    graph.multiply(normed, f"{at}.qkv", joined)
    query, key, value = f"{at}.query", f"{at}.key", f"{at}.value"
    graph.node("Split", [f"{at}.qkv"], [query, key, value], axis=-1, num_outputs=3)
    for part in (query, key):
        inputs = [part, "position_ids", "rotary.cos", "rotary.sin"]
        graph.node("RotaryEmbedding", inputs, [f"{part}.turned"], MICROSOFT, num_heads=heads)
    graph.node(
        "MultiHeadAttention",
        [
            f"{query}.turned",
            f"{key}.turned",
            value,
            "",
            "attention_mask",
            "",
            f"past.{i}.key",
            f"past.{i}.value",
        ],
        [f"{at}.attention", f"present.{i}.key", f"present.{i}.value"],
        MICROSOFT,
        num_heads=heads,
        unidirectional=1,
    )
    out = graph.multiply(f"{at}.attention", f"{at}.out", own["self_attn.o_proj.weight"])
    x = graph.node("Add", [x, out], [f"{at}.middle"])
    normed = graph.normalise(x, f"{at}.after", own["post_attention_layernorm.weight"], epsilon)
    joined = np.concatenate([own["mlp.gate_proj.weight"], own["mlp.up_proj.weight"]])
    graph.multiply(normed, f"{at}.gate_up", joined)
    graph.node("Split", [f"{at}.gate_up"], [f"{at}.gate", f"{at}.up"], axis=-1, num_outputs=2)
    silu = graph.node("QuickGelu", [f"{at}.gate"], [f"{at}.silu"], MICROSOFT, alpha=1.0)
    hidden = graph.node("Mul", [silu, f"{at}.up"], [f"{at}.hidden"])
    down = graph.multiply(hidden, f"{at}.down", own["mlp.down_proj.weight"])
    return graph.node("Add", [x, down], [f"{at}.end"])


def theta(config: Any) -> float:
    parameters = getattr(config, "rope_parameters", None) or {}
    return float(parameters.get("rope_theta", getattr(config, "rope_theta", None) or 10_000.0))


def rotary(context: int, width: int, base: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines, [context, width / 2] each."""
    frequency = 1.0 / base ** (np.arange(0, width, 2, dtype=np.float64) / width)
    angles = np.outer(np.arange(context), frequency)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def package(graph: Graph, layers: int, heads: int, width: int, vocabulary: int) -> Any:
    def tensor(name: str, kind: int, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    cache = [(f"{i}.{part}") for i in range(layers) for part in ("key", "value")]
    inputs = [
        tensor("input_ids", TensorProto.INT64, ["batch", "length"]),
        tensor("attention_mask", TensorProto.INT32, ["batch", "total"]),
        tensor("position_ids", TensorProto.INT64, ["batch", "length"]),
        *(tensor(f"past.{name}", TensorProto.FLOAT, ["batch", heads, "past", width]) for name in cache),
    ]
    outputs = [
        tensor("logits", TensorProto.FLOAT, ["batch", vocabulary]),
        *(tensor(f"present.{name}", TensorProto.FLOAT, ["batch", heads, "total", width]) for name in cache),
    ]
    body = helper.make_graph(graph.nodes, "hhh-embedded", inputs, outputs, graph.weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(body, opset_imports=opsets, ir_version=9, producer_name="hhh-gateway")


def save(model: Any, path: str) -> None:
    onnx.save(model, path)
