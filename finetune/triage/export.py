"""From a trained model to the folder that is served: ONNX, int8 per channel, calibrated, with manifest and card."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from classifiers import shipped
from classifiers.labels import CATEGORIES, LABELS
from classifiers.triage import softmax
from finetune.triage import batches, data, points, recipe
from finetune.triage.card import card
from finetune.triage.model import TriageModel, base_folder
from finetune.triage.row import Row


def export(plan: recipe.Recipe, model: TriageModel, split: data.Split) -> Path:
    """Write the weights into `run_dir/weights`; `release` puts them in place.

    The temperature is fitted on one half of dev, for reports to use the other.
    """
    folder = plan.run_dir / "weights"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    float_path = plan.run_dir / "model.fp32.onnx"
    _to_onnx(model, float_path)
    # Already optimised graphs only: the advice to preprocess is for other quantisers.
    quantize_dynamic(float_path, folder / "model.onnx", per_channel=True, weight_type=QuantType.QInt8)
    base = base_folder(plan.model.base)
    frame = batches.framing(base, plan.model.max_tokens)
    ids = batches.encode(split.dev, frame)
    quantised = logits(folder / "model.onnx", ids)
    agreement = float((quantised.argmax(1) == logits(float_path, ids).argmax(1)).mean())
    temperature = _temperature(quantised, split.dev)
    labelled = [at for at, row in enumerate(split.dev) if row.label]
    truth = [str(split.dev[at].label) for at in labelled]
    scores = softmax(quantised[labelled] / numpy.float32(temperature)).astype(numpy.float64)
    _copy_tokenizer(base, folder)
    config = {
        "labels": LABELS,
        "categories": CATEGORIES,
        "temperature": round(temperature, 4),
        "window_tokens": frame.window_tokens,
        "stride_tokens": frame.stride_tokens,
        "max_windows": frame.max_windows,
        "begin_id": frame.begin,
        "end_id": frame.end,
        "int8_agreement": round(agreement, 4),
        "operating_points": {name: points.choose(truth, scores, rate) for name, rate in plan.operating_points.items()},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    shipped.seal(folder)
    return folder


def release(folder: Path, place: Path) -> Path:
    """Put finished weights in their place, by renames: who loads them meanwhile sees the old or the new."""
    new, old = place.with_name(f".new-{place.name}"), place.with_name(f".old-{place.name}")
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(folder, new)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    return place


def logits(path: Path, ids: list[list[int]]) -> NDArray[numpy.float32]:
    """The label head's logits, one text at a time, as serving computes them at batch 1."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    out = []
    for one in ids:
        tokens = numpy.array([one], numpy.int64)
        out.append(session.run(["label"], {"input_ids": tokens, "attention_mask": numpy.ones_like(tokens)})[0][0])
    return numpy.stack(out)


def calibrates(text: str) -> bool:
    """Whether a dev text belongs to the half that the temperature is fitted on."""
    return data.share(f"calibration:{text}") < 0.5


def _to_onnx(model: TriageModel, path: Path) -> None:
    example = (torch.ones(2, 9, dtype=torch.long), torch.ones(2, 9, dtype=torch.long))
    dynamic = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval().float(),
            example,
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["label", "category", "toxicity"],
            dynamic_axes={
                "input_ids": dynamic,
                "attention_mask": dynamic,
                "label": {0: "batch"},
                "category": {0: "batch"},
                "toxicity": {0: "batch"},
            },
            opset_version=17,
            dynamo=False,
        )


def _temperature(found: NDArray[numpy.float32], dev: list[Row]) -> float:
    """The one number that makes probabilities honest on dev: least cross-entropy (Guo et al. 2017)."""
    chosen = [at for at, row in enumerate(dev) if row.label and calibrates(row.text)]
    truth = numpy.array([LABELS.index(str(dev[at].label)) for at in chosen])
    best = (float("inf"), 1.0)
    for temperature in numpy.arange(0.5, 4.0, 0.02):
        scaled = found[chosen] / temperature
        log_sum = numpy.log(numpy.exp(scaled - scaled.max(1, keepdims=True)).sum(1)) + scaled.max(1)
        loss = float((log_sum - scaled[numpy.arange(len(truth)), truth]).mean())
        best = min(best, (loss, float(temperature)))
    return best[1]


def _copy_tokenizer(base: Path, folder: Path) -> None:
    copied = Tokenizer.from_file(str(base / "tokenizer.json"))
    copied.no_padding()
    copied.no_truncation()
    copied.save(str(folder / "tokenizer.json"), pretty=False)


def write_card(plan: recipe.Recipe, split: data.Split, report: Path) -> Path:
    """The model card, its figures from the report."""
    figures: dict[str, Any] = json.loads((report / "report.json").read_text())
    folder = plan.run_dir / "weights"
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    path = folder / "MODEL_CARD.md"
    path.write_text(card(plan, split, figures, config), encoding="utf-8")
    return path
