"""The terms of the penalised loss: their values and, by finite differences, their gradients."""

from pathlib import Path

import pytest
import torch

from finetune.align import penalty, recipe, toxic, weat
from tests.finetune.align import tiny

IGNORED = penalty.IGNORED


@pytest.fixture
def classifier() -> toxic.SoftClassifier:
    torch.manual_seed(1)
    return toxic.SoftClassifier(vocabulary=7, width=4).double().requires_grad_(False)


def test_the_gradient_of_expected_toxicity(classifier: toxic.SoftClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # in double precision, or differences say little
    torch.manual_seed(2)
    logits = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    learned = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]).bool()
    assert torch.autograd.gradcheck(lambda x: penalty.expected_toxicity(x, learned, classifier, 3), (logits,))


def test_the_gradient_of_unlikelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.manual_seed(2)
    logits = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, IGNORED, 3], [IGNORED, IGNORED, 6]])
    assert torch.autograd.gradcheck(lambda x: penalty.unlikelihood(x, targets), (logits,))
    kept = targets != IGNORED
    chance = torch.softmax(logits, dim=-1)[kept].gather(1, targets[kept][:, None])
    assert float(penalty.unlikelihood(logits, targets).detach()) == pytest.approx(
        float(-(1 - chance).log().mean().detach())
    )


def test_the_gradient_of_the_effect_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.manual_seed(3)
    table = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    test: weat.Test = (((0,), (1, 2)), ((3,), (4,)), ((5,), (6,)), ((7,), (8,)))
    assert torch.autograd.gradcheck(lambda x: weat.penalty(x, [test], 0.01), (table,))


def test_the_effect_size_is_caliskans() -> None:
    # X lies on A and Y on B: associations 1, 1, -1, -1, whose deviation (n - 1) is 1.1547.
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    test: weat.Test = (((0,), (0,)), ((1,), (1,)), ((0,),), ((1,),))
    assert float(weat.effect(table, test)) == pytest.approx(2 / 1.1547, abs=1e-3)
    swapped: weat.Test = (test[1], test[0], test[2], test[3])
    assert float(weat.effect(table, swapped)) == pytest.approx(-2 / 1.1547, abs=1e-3)
    assert float(weat.penalty(table, [test], 2.0)) == 0.0


def test_soft_and_hard_reading_agree(classifier: toxic.SoftClassifier) -> None:
    ids = torch.tensor([[1, 4, 2]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    soft = torch.nn.functional.one_hot(ids, 7).double()
    assert torch.allclose(classifier.soft(soft, mask), classifier.hard(ids, mask))


def test_the_classifier_learns_insults(tmp_path: Path) -> None:
    settings = recipe.Toxicity(sources=(tiny.toxicity(tmp_path),), width=8, epochs=20, learning_rate=1e-2)
    words: dict[str, int] = {}
    trained = toxic.train(settings, lambda text: [words.setdefault(word, len(words)) for word in text.split()], 400)
    assert trained.auc > 0.95
    toxicity, calm, nothing = trained.score(["you stupid idiot", "a basket of many shares", ""])
    assert toxicity > 0.5 > calm
    assert nothing == 0.0
    assert not any(parameter.requires_grad for parameter in trained.model.parameters())
