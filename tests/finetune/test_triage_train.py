"""A tiny encoder through fit, resume, export and evaluation."""

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from classifiers.labels import LABELS  # noqa: E402
from classifiers.message import Message  # noqa: E402
from classifiers.triage import Triage  # noqa: E402
from finetune.triage import batches, data, evaluate, export, train  # noqa: E402
from finetune.triage.recipe import Data, Model, Recipe, Training  # noqa: E402
from finetune.triage.row import Row  # noqa: E402
from tests.finetune.encoders import tiny  # noqa: E402

WORDS = {
    "benign": ["weather", "garden", "recipe", "train", "music"],
    "regulated_advice": ["pension", "mortgage", "shares", "savings", "insurer"],
    "harmful": ["launder", "bomb", "forge", "poison", "smuggle"],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    words = ["please", "my", "about", "[", "]", "sep", *(word for words in WORDS.values() for word in words)]
    return tiny(tmp_path_factory.mktemp("base"), words)


@pytest.fixture
def rows():
    out = []
    for label, words in WORDS.items():
        for first in words:
            for second in words:
                out.append(Row(f"please {first} my {second}", label, None, float(label == "harmful"), "own"))
    return out


def _plan(base, run_dir, **training):
    settings = {"epochs": 6, "batch_size": 15, "learning_rate": 3e-3, "checkpoint_steps": 100, **training}
    return Recipe(
        name="tiny",
        run_dir=run_dir,
        weights_dir=run_dir / "shipped",
        data=Data(public_dir=run_dir, sources={}, authored=[]),
        model=Model(base=base, max_tokens=32),
        training=Training(**settings),
    )


def test_resuming_gives_what_one_run_gives(base, rows, tmp_path):
    whole, parts = _plan(base, tmp_path / "whole"), _plan(base, tmp_path / "parts")
    for plan in (whole, parts):
        plan.run_dir.mkdir()
    one = train.fit(whole, rows, resume=False, stop_at=12)
    train.fit(parts, rows, resume=False, stop_at=5)
    two = train.fit(parts, rows, resume=True, stop_at=12)
    for name, tensor in one.state_dict().items():
        assert torch.allclose(tensor, two.state_dict()[name], atol=1e-6), name
    logs = [(plan.run_dir / "loss.csv").read_text().splitlines() for plan in (whole, parts)]
    assert [line.split(",")[:2] for line in logs[0]] == [line.split(",")[:2] for line in logs[1]]


def test_what_is_trained_is_served_and_measured(base, rows, tmp_path):
    plan = _plan(base, tmp_path)
    model = train.fit(plan, rows, resume=False)
    export.export(plan, model, data.Split(rows, rows, []))
    plan.weights_dir.mkdir()
    (plan.weights_dir / "stale").write_text("of an older run")
    folder = export.release(plan.run_dir / "weights", plan.weights_dir)
    assert folder == plan.weights_dir
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.onnx",
        "tokenizer.json",
    ]
    triage = Triage.load(folder, threads=1)
    said = ("please garden my music", "please bomb my poison", "please shares my pension")
    found = triage.score([Message(text) for text in said])
    assert [one.label for one in found] == ["benign", "harmful", "regulated_advice"]
    assert found[1].toxicity > found[0].toxicity

    labelled = tmp_path / "dev.jsonl"
    labelled.write_text("".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in rows))
    evaluate.run(labelled, tmp_path / "report", folder)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["rows"] == 75
    assert report["flagged"]["recall"]["share"] > 0.9
    assert (tmp_path / "report" / "confusion.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "report" / "report.html").read_text()
    assert "data:image/png" in page
    assert "http" not in page


def test_an_unknown_label_is_named(tmp_path):
    labelled = tmp_path / "dev.jsonl"
    labelled.write_text('{"text": "a", "label": "benign"}\n{"text": "b", "label": "harmfull"}\n')
    with pytest.raises(ValueError, match="row 2: label 'harmfull'"):
        evaluate.run(labelled, tmp_path / "report", None)


def test_control_tokens_in_a_text_are_split(base):
    frame = batches.framing(base, 32)
    ids = batches.encode([Row("my [SEP] garden", "benign", None, None, "own")], frame)[0]
    assert ids.count(3) == 1  # the closing one only


def test_every_row_is_in_one_batch_an_epoch():
    lengths = [n % 17 for n in range(103)]
    found = batches.order(lengths, 8, seed=1, epoch=0)
    assert sorted(n for batch in found for n in batch) == list(range(103))
    assert found == batches.order(lengths, 8, seed=1, epoch=0)
    assert found != batches.order(lengths, 8, seed=1, epoch=1)


def test_labels_are_those_of_the_classifier():
    assert LABELS[0] == "benign"
