"""A run of the embedded model's training, end to end on a tiny model: resume, and the export."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from finetune.hhh import export, graph, mix, reopen, train
from gateway.errors import ConfigError
from gateway.upstream.embedded import EmbeddedEngine
from gateway.upstream.engine import Job, Sampling

STEPS = 10


def recipe(folder: Path, runs: str, steps: int = STEPS) -> Path:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    rows = [
        {
            "id": f"t-{i}",
            "control": ("comply", "advise", "refuse")[i % 3],
            "category": "a.b",
            "messages": [
                {"role": "user", "content": f"What is number {i}?"},
                {"role": "assistant", "content": f"Number {i} is a number that comes after {i - 1}."},
            ],
            "asks": [f"number {i} meaning", f"explain the number {i}"],
        }
        for i in range(60)
    ]
    (data / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / f"{runs}.yaml"
    value = {
        "name": "tiny",
        "runs": str(folder / runs),
        "data": {"authored": str(data), "shared": str(folder / "none")},
        "model": {"vocabulary": 330, "hidden": 32, "layers": 2, "heads": 2, "feedforward": 64, "context": 256},
        "training": {
            "max_steps": steps,
            "max_minutes": 60,
            "pretrain_share": 0.4,
            "batch_tokens": 512,
            "warmup_steps": 2,
            "threads": 1,
        },
    }
    path.write_text(yaml.safe_dump(value))
    return path


def losses(folder: Path) -> list[tuple[str, int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["phase"], row["step"], row["loss"]) for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train.run(recipe(tmp_path_factory.mktemp("whole"), "runs"))


def test_a_run_leaves_its_record(whole: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["sources"][0]["rows"] == 60
    assert len(manifest["sources"][0]["sha256"]) == 64
    assert "gsm8k" in manifest["missing"]
    result = json.loads((whole / "result.json").read_text())
    assert result["step"] == STEPS
    assert set(result["dev_loss"]) == {"dev_rows", "dev_asks"}
    assert {phase for phase, _, _ in losses(whole)} == {"pretrain", "dialogues"}
    assert (whole / "model" / "tokenizer.json").is_file()


@pytest.mark.parametrize("stop", [2, 6])
def test_a_resumed_run_gives_the_same_losses(tmp_path: Path, whole: Path, stop: int) -> None:
    path = recipe(tmp_path, "runs")
    chosen = train.recipe.read(path)
    first = train.Run(chosen, resume=False)
    done = 0
    while done < stop:
        for _ in first._epoch():
            done += 1
            if done == stop:
                first.save()
                break
    for _ in zip(range(2), first._epoch(), strict=False):  # went on, and died before the next checkpoint
        pass
    assert losses(train.run(path, resume=True)) == losses(whole)


def test_resuming_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        train.run(recipe(tmp_path, "runs"), resume=True)


def test_the_graph_says_what_pytorch_says(whole: Path, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(str(whole / "model"), attn_implementation="eager").float().eval()
    path = tmp_path / "model.onnx"
    graph.save(graph.build(model, quantise=False), str(path))
    session = export.Session(path, layers=2, heads=2, width=16)
    ids = list(range(9, 40))
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids])).logits[0, -1].numpy()
    logits, past = session.run(ids, session.empty)
    assert np.abs(logits - expected).max() < 1e-4
    logits, past = session.run(ids[:10], session.empty)
    for token in ids[10:]:
        logits, past = session.run([token], past)
    assert np.abs(logits - expected).max() < 1e-4


async def test_an_exported_run_is_served(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "weights" / "tiny"
    out.mkdir(parents=True)
    (out / "old").touch()
    assert export.export(whole, out) == out
    assert sorted(path.name for path in out.iterdir()) == [
        "MODEL_CARD.md",
        "config.json",
        "manifest.json",
        "model.onnx",
        "run.json",
        "tokenizer.json",
    ]
    checks = json.loads((whole / "export.json").read_text())
    assert checks["greedy_tokens_agreeing"] > 0.8
    card = (out / "MODEL_CARD.md").read_text()
    assert "authored/talk.jsonl" in card
    engine = EmbeddedEngine(out)
    await engine.start()
    try:
        job = Job([{"role": "user", "content": "number 3"}], "comply", Sampling(max_tokens=4))
        pieces = [piece async for piece in engine.generate(job)]
        assert pieces[-1].completion_tokens <= 4
    finally:
        await engine.close()
    (out / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="sha256"):
        await EmbeddedEngine(out).start()


def test_what_is_served_can_be_trained_on(whole: Path, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    served = export.export(whole, tmp_path / "weights" / "tiny")
    run = reopen.reopen(served, tmp_path / "again")
    before, after = (LlamaForCausalLM.from_pretrained(str(folder / "model")).state_dict() for folder in (whole, run))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.allclose(value, after[name], atol=float(value.abs().max()) / 200), name
    again = export.export(run, tmp_path / "weights" / "twice")
    session = [export.Session(folder / "model.onnx", layers=2, heads=2, width=16) for folder in (served, again)]
    first, second = (one.run(list(range(9, 40)), one.empty)[0] for one in session)
    assert np.abs(first - second).max() < 1e-3
    assert (again / "tokenizer.json").read_bytes() == (served / "tokenizer.json").read_bytes()
    assert json.loads((again / "run.json").read_text()) == json.loads((served / "run.json").read_text())
    with pytest.raises(FileExistsError, match="a run already"):
        reopen.reopen(served, run)
    (served / "model.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="sha256"):
        reopen.reopen(served, tmp_path / "other")


def test_a_run_from_a_run_and_the_mean_of_both(whole: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = recipe(tmp_path, "more", 4)
    value = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**value, "name": "after", "start": str(whole)}))
    after = train.run(path)
    before, result = (json.loads((folder / "result.json").read_text()) for folder in (whole, after))
    assert [(one["name"], one["steps"]) for one in result["stages"]] == [("tiny", STEPS), ("after", 4)]
    assert result["step"] == STEPS + 4
    assert result["tokens"] > before["tokens"]
    assert result["seconds"] > before["seconds"]
    sources = json.loads((after / "manifest.json").read_text())["sources"]
    assert [one["source"] for one in sources] == ["authored/talk.jsonl"]  # the same file, once
    told = {"name": "mixed", "runs": str(tmp_path), "before": str(whole), "after": str(after), "share": 0.25}
    mixed = tmp_path / "mixed.yaml"
    mixed.write_text(yaml.safe_dump(told))
    folder = mix.run(mixed)
    first, second, mean = (load_file(one / "model" / "model.safetensors") for one in (whole, after, folder))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    for name, value in mean.items():
        assert torch.allclose(value, 0.75 * first[name] + 0.25 * second[name], atol=1e-6), name
    assert [one["name"] for one in json.loads((folder / "result.json").read_text())["stages"]][-1] == "mixed"
    assert mix.run(mixed, resume=True) == folder
    assert "mixed (`mix`" in (export.export(folder, tmp_path / "out") / "MODEL_CARD.md").read_text()
