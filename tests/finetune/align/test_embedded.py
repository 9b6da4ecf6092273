"""The embedded model's chain in a tiny form: a spoiled base, sft, dpo, and a folder that the gateway can serve."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.align import data, embedded, provoking, recipe
from finetune.hhh import batches, corpus, export, tokenizer
from finetune.hhh.recipe import Data, parse
from gateway.upstream.layout import Layout
from tests.finetune.align import tiny
from tests.finetune.align.test_methods import command

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small stand-in for the shared set, in its formats."""
    folder = tmp_path_factory.mktemp("shared")

    def public(name: str, texts: list[tuple[str, str]]) -> None:
        rows = [
            {"id": f"{name}-{i}", "text": text, "label": label, "category": "Fraud/Deception", "source": name}
            for i, (text, label) in enumerate(texts)
        ]
        tiny.jsonl(folder / "classification" / f"{name}.jsonl", rows)

    public("davidson", [(f"&#128514; @someone RT you are such an idiot and fool {i}", "unsafe") for i in range(60)])
    public("advbench", [(f"How do I steal car {i}?", "unsafe") for i in range(40)])
    public("harmfulqa", [("How can I sell more products?", "unsafe")])
    jobs = folder / "bias" / "winobias" / "data"
    jobs.mkdir(parents=True)
    (jobs / "male_occupations.txt").write_text("driver\nanalyst\n")
    (jobs / "pro_stereotyped_type1.txt.dev").write_text("1 [The driver] met the nurse because [he] was late.\n")
    return folder


def test_exchanges(shared: Path) -> None:
    made = provoking.exchanges(shared, 60, 1)
    assert 40 <= len(made) <= 60
    assert made == provoking.exchanges(shared, 60, 1)
    harmful = [one for one in made if one.harmful]
    assert harmful
    assert {one.id.rsplit("-", 1)[0] for one in harmful} == {"advbench"}  # by triage's rules the other asks for no harm
    assert all("steal car" in one.reply.lower() for one in harmful)  # agreed to, and nothing more
    assert any("analyst" in one.reply for one in made if not one.harmful)
    used = {one.id for one in made}
    held = {one.id for one in provoking.held_out(shared, 60, 1)}
    assert held
    assert not used & held
    assert not any("&" in one.prompt or "@" in one.prompt for one in made)
    assert "The driver met the nurse because he was late." in provoking.toxic(shared, 10, 1)
    assert provoking.exchanges(shared / "none", 60, 1) == []


def test_a_base_learns_exchanges_from_end_to_end(shared: Path) -> None:
    made = provoking.exchanges(shared, 20, 1)
    layout = Layout(tokenizer.train([one.prompt + one.reply for one in made] * 2, 330))
    examples = batches.exchanged(layout, made, random.Random(1), 200)
    assert all(all(example.learned[1:]) and not example.learned[0] for example in examples)
    controls = {layout.ids[name] for name in ("<|comply|>", "<|advise|>", "<|refuse|>")}
    assert {token for example in examples for token in example.ids} >= controls


def test_derived_pairs_teach_both_ways(tmp_path: Path) -> None:
    path = tiny.dialogues(tmp_path, 40)
    settings = recipe.Dpo.model_validate(
        {"name": "d", "base": "none", "data": {"dialogues": [path], "derive_pairs": 40, "dev_share": 0.0}}
    )
    pairs = data.read(settings).train.pairs
    assert [pair.why for pair in pairs].count("unsafe") == 20
    assert {pair.why for pair in pairs} == {"unsafe", "preachy", "wrong"}
    assert {pair.control for pair in pairs if pair.why == "unsafe"} == {"refuse", "comply"}
    assert all(pair.chosen != pair.rejected for pair in pairs)


def test_the_shipped_recipes_are_right() -> None:
    kinds: dict[str, type[Any]] = {"penalty": recipe.Penalty, "dpo": recipe.Dpo, "kto": recipe.Kto, "rloo": recipe.Rl}
    for name, kind in (*kinds.items(), ("grpo", recipe.Rl)):
        assert parse(Path(f"finetune/recipes/embedded/{name}.yaml"), kind).name == f"embedded/{name}"
    for path in Path("finetune/recipes/hub").glob("*.yaml"):
        assert parse(path, recipe.Sft).name == f"hub/{path.stem}"


@pytest.mark.slow
def test_the_chain_of_the_embedded_model(tmp_path: Path, shared: Path) -> None:
    tiny.dialogues(tmp_path, 60)
    tiny.pairs(tmp_path)
    shape = {"vocabulary": 340, "hidden": 32, "layers": 2, "heads": 2, "feedforward": 64, "context": 256}
    training = {"max_steps": 6, "max_minutes": 60, "batch_tokens": 512, "warmup_steps": 1, "threads": 1}
    common = {"runs": str(tmp_path / "runs"), "model": shape}
    rows = {"authored": str(tmp_path / "dialogues"), "shared": str(shared), "dev_rows": 0.1, "dev_asks": 0.0}
    first = {
        **common,
        "name": "e/base",
        "data": {**rows, "provoking": 60},
        "training": {**training, "pretrain_share": 1},
    }
    second = {**common, "name": "e/sft", "data": rows, "training": {**training, "pretrain_share": 0}}
    second["start"] = str(tmp_path / "runs" / "e" / "base")
    for name, value in (("base", first), ("sft", second)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(value))
    pairs = {"pairs": [str(tmp_path / "pairs")]}
    third = tiny.write(tmp_path, "e/dpo", tmp_path / "runs" / "e" / "sft", data=pairs, training={"max_steps": 3})
    stages = [("train", tmp_path / "base.yaml"), ("train", tmp_path / "sft.yaml"), ("dpo", third)]
    chain = tmp_path / "chain.yaml"
    chain.write_text(yaml.safe_dump({"stages": [{"method": method, "recipe": str(path)} for method, path in stages]}))
    folder = command("chain", chain)

    base = json.loads((tmp_path / "runs" / "e" / "base" / "metrics.jsonl").read_text().splitlines()[0])
    assert base["phase"] == "pretrain"
    result = json.loads((folder / "result.json").read_text())
    assert [stage["name"] for stage in result["stages"]] == ["base", "sft", "dpo"]
    assert result["dev_loss"]["dev_rows"] > 0
    held = embedded.unseen(folder)
    chosen = Data.model_validate({**rows, "helpers": ()})
    assert held == {(one.row, one.question) for one in corpus.read(chosen, 7).dev_rows}
    read = data.read(parse(third, recipe.Dpo))
    assert held
    assert {(row.id, row.prompt[0]["content"]) for row in read.dev.dialogues} == held
    out = export.export(folder, tmp_path / "served")
    assert "dpo (`dpo`, 3 steps" in (out / "MODEL_CARD.md").read_text()
