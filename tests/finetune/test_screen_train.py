"""The screen's data, threshold and training, on a handful of words."""

import json

import numpy
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from tokenizers.models import WordPiece  # noqa: E402
from tokenizers.pre_tokenizers import Whitespace  # noqa: E402

from classifiers import shipped  # noqa: E402
from classifiers.framing import text_tokenizer  # noqa: E402
from classifiers.message import Judgement  # noqa: E402
from classifiers.screen import Screen  # noqa: E402
from finetune.screen import data, measure, model, train  # noqa: E402
from finetune.screen.data import Example  # noqa: E402
from finetune.triage.recipe import Screen as Settings  # noqa: E402
from finetune.triage.row import Row  # noqa: E402

WORDS = ["please", "tell", "me", "about", "weather", "garden", "music", "launder", "poison", "smuggle"]


def example(text, risk, flagged=None, label=None, source="own"):
    return Example(Row(text, label, label, None, source), risk, 0.0, risk >= 0.4 if flagged is None else flagged)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    found = Tokenizer(WordPiece({word: at for at, word in enumerate(["[UNK]", *WORDS])}, unk_token="[UNK]"))
    found.pre_tokenizer = Whitespace()
    found.save(str(path))
    return path


@pytest.fixture
def plan(tmp_path):
    torch.manual_seed(0)
    save_file({"embeddings.word_embeddings.weight": torch.randn(len(WORDS) + 1, 12)}, tmp_path / "model.safetensors")
    return Settings(
        weights_dir=tmp_path / "weights",
        size=8,
        filters=8,
        epochs=40,
        batch_size=8,
        learning_rate=4e-2,
    )


@pytest.fixture
def examples():
    harmless = [f"please tell me about {one} {two}" for one in WORDS[4:7] for two in WORDS[4:7]]
    harmful = [f"please tell me about {one} {two}" for one in WORDS[7:] for two in WORDS[4:7]]
    return [example(text, 0.01) for text in harmless] + [example(text, 0.9) for text in harmful]


def test_it_learns_and_is_served_as_it_was_trained(plan, examples, tokenizer, tmp_path):
    ids = train.encode(examples, tokenizer)
    trained = train.fit(plan, tmp_path, examples, ids)
    with torch.no_grad():
        expected = torch.sigmoid(trained(*model.collate(ids))).numpy()
    folder = tmp_path / "screen"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    known = numpy.ones(len(WORDS) + 1, bool)
    known[0] = False
    with (folder / "weights.npz").open("wb") as out:
        numpy.savez(out, allow_pickle=False, **model.pack(trained, known))
    config = {"bias": float(trained.out.bias.detach()[0]), "unknown_share": 0.1, "threshold": 0.5, "encoder": "0"}
    (folder / "config.json").write_text(json.dumps(config))
    shipped.seal(folder)
    screen = Screen.load(folder)
    assert train.served_scores(screen, examples) == pytest.approx(expected, abs=0.03)
    assert [bool(one >= 0.5) for one in expected] == [one.flagged for one in examples]
    assert screen.score(["please tell me xyz"]) == [1.0]
    assert text_tokenizer(tokenizer).encode("tell me").ids == [2, 3]


def test_the_target_is_what_is_flagged_by_either_and_else_how_near_it_is():
    assert train.target(example("a", 0.9)) == 1.0
    assert train.target(example("a", 0.01, label="harmful")) == 1.0
    assert train.target(example("a", 0.2)) == 0.2


def test_the_threshold_lets_the_allowed_share_through_and_no_more():
    dev = [example("a", 0.9, label="harmful") for _ in range(1000)] + [example("b", 0.0, label="benign")] * 500
    scores = numpy.concatenate([numpy.linspace(0.1, 1, 1000), numpy.full(500, 0.05)])
    threshold = measure.choose(scores, dev, 0.002)
    found = measure.measure(scores, dev, threshold)
    assert found["missed"]["misses"] == 2
    assert found["missed"]["upper"] == pytest.approx(0.00628, abs=1e-4)
    assert found["cleared"]["own"]["share"] == 1.0
    assert len(found["mistakes"]) == 2


def test_the_bound_without_a_miss_is_the_rule_of_three():
    assert measure.upper(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert measure.upper(5, 5) == 1.0


def test_unlabelled_texts_are_the_users_turns_and_capped(plan, tmp_path):
    chats = tmp_path / "chats.jsonl"
    turns = [f"\n\nHuman: question {number}\nmore?\n\nAssistant: no\n\nHuman: why" for number in range(5)]
    chats.write_text("".join(json.dumps({"chosen": turn}) + "\n" for turn in turns))
    found = list(data._unlabelled(plan.model_copy(update={"more": {chats: 9}})))
    assert sorted(row.text for row in found) == [*(f"question {number}\nmore?" for number in range(5)), "why"]
    assert all(row.label is None for row in found)
    assert len(list(data._unlabelled(plan.model_copy(update={"more": {chats: 3}})))) == 3


def test_a_second_run_does_not_ask_the_encoder_again(monkeypatch, tmp_path):
    class Teacher:
        asked = 0

        def score(self, messages):
            Teacher.asked += len(messages)
            return [Judgement("benign", "benign", {"benign": 0.9, "harmful": 0.1}, 0.2) for _ in messages]

    monkeypatch.setattr(data.Triage, "load", lambda *_, **__: Teacher())
    rows = [Row(text, None, None, None, "own") for text in ("a", "b", "a")]
    first = data._scores(rows, tmp_path, tmp_path / "kept.jsonl")
    assert data._scores(rows, tmp_path, tmp_path / "kept.jsonl") == first
    assert Teacher.asked == 2


def test_a_turn_is_learnt_from_with_the_worse_of_both_readings(monkeypatch, tmp_path):
    class Teacher:
        def score(self, messages):
            risks = [0.9 if message.before else 0.1 for message in messages]
            return [Judgement("benign", "benign", {"benign": 1 - one, "harmful": one}, 0.0) for one in risks]

    monkeypatch.setattr(data.Triage, "load", lambda *_, **__: Teacher())
    row = Row("and now the rest", None, None, None, "own", before="a lock, a door")
    said = data._scores([row], tmp_path, tmp_path / "kept.jsonl")
    assert data._example(row, said, {"harmful": 0.5}, 0.5).flagged
    assert data.shown(row) == "a lock, a door and now the rest"
