"""Self-critique and revision: the checks, the rules, an endpoint, and the rows that come out."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from finetune.align import constitution, critic, rows
from finetune.hhh.recipe import RecipeError
from tests.finetune.align import tiny
from tests.finetune.align.test_methods import command

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
SHIPPED = Path("finetune/constitution/finance.yml")


def facts(**changes: Any) -> critic.Facts:
    base: dict[str, Any] = {"prompt": "a", "reply": "Shares may rise or fall over time.", "label": "benign"}
    return critic.Facts(**{**base, "toxicity": 0.0, "refuses": False, **changes})


@pytest.mark.parametrize(
    ("check", "violates", "fine"),
    [
        ("complies_with_harm", {"label": "harmful"}, {"label": "harmful", "refuses": True}),
        ("refuses_harmless", {"refuses": True}, {"refuses": True, "label": "harmful"}),
        ("toxic", {"toxicity": 0.9}, {"toxicity": 0.1}),
        (
            "recommends",
            {"reply": "You should buy Tesla now."},
            {"reply": "People who buy shares should know the risks."},
        ),
        ("recommends", {"reply": "Gold will rise."}, {"reply": "Gold may rise or fall."}),
        ("empty", {"reply": "Yes."}, {"reply": "It is a fund that follows an index."}),
        ("pretends", {"reply": "I looked it up online."}, {"reply": "I cannot look it up."}),
    ],
)
def test_a_check(check: str, violates: dict[str, Any], fine: dict[str, Any]) -> None:
    assert critic.CHECKS[check](facts(**violates))
    assert not critic.CHECKS[check](facts(**fine))


def test_every_check_is_used_by_the_shipped_principles() -> None:
    assert {one.check for one in critic.read(SHIPPED).principles} == set(critic.CHECKS)


def test_an_unknown_check_is_said(tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_text(SHIPPED.read_text().replace("check: toxic", "check: rude"))
    with pytest.raises(RecipeError, match=r"c.yml: principles.1.check - 'rude' is none of"):
        critic.read(path)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("constitution")
    tiny.dialogues(folder, 12)
    tiny.embedded(folder / "base")
    return folder


def recipe(ground: Path, name: str, **more: Any) -> Path:
    path = tiny.write(ground, name, ground / "base")
    value = yaml.safe_load(path.read_text())
    value["training"] = {"max_tokens": 96, "device": "cpu", "threads": 1}
    path.write_text(yaml.safe_dump({**value, "prompts": 8, "reply_tokens": 8, "rounds": 1, **more}))
    return path


def test_rules_revise_what_a_random_model_says(ground: Path) -> None:
    folder = command("constitution", recipe(ground, "rules"))
    result = json.loads((folder / "result.json").read_text())
    assert result["questions"] == 8
    assert result["violations"]
    assert sum(result["left_after_revision"].values()) < sum(result["violations"].values())
    found = rows.read(dialogues=[folder / "sft"], pairs=[folder / "pairs"])  # what comes out can be trained on
    assert found.dialogues
    assert found.pairs
    kept = (folder / "transcripts.jsonl").read_text()
    command("constitution", recipe(ground, "rules"), "--resume")
    assert (folder / "transcripts.jsonl").read_text() == kept


def test_an_endpoint_criticises(ground: Path, serve: Any) -> None:
    seen: list[str] = []

    async def complete(request: Request) -> JSONResponse:
        asked = (await request.json())["messages"][0]["content"]
        seen.append(asked)
        said = "A fund holds many shares, so the risk is spread."
        if asked.startswith("Principles:"):
            said = "[]" if said in asked else 'So: [{"id": "substance", "why": "It says nothing."}, {"id": "unknown"}]'
        return JSONResponse({"choices": [{"message": {"content": said}}]})

    running = serve(Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])]))
    settings = {"kind": "endpoint", "base_url": f"{running.url}/v1", "model": "big"}
    folder = command("constitution", recipe(ground, "endpoint", critic=settings))
    result = json.loads((folder / "result.json").read_text())
    assert result["violations"] == {"substance": 8}
    assert result["left_after_revision"] == {}
    assert (result["sft_rows"], result["pairs"]) == (8, 8)
    assert any("It says nothing. Give a complete" in " ".join(asked.split()) for asked in seen)


def test_an_answer_that_is_no_critique_is_said(serve: Any) -> None:
    async def complete(_: Request) -> JSONResponse:
        return JSONResponse({"choices": [{"message": {"content": "All good."}}]})

    running = serve(Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])]))
    judge = critic.EndpointCritic(critic.read(SHIPPED), f"{running.url}/v1", "big")
    with pytest.raises(ValueError, match=r"big: no critique in 'All good\.'"):
        judge.criticise("a", "b")


def test_a_pair_needs_a_difference() -> None:
    question = constitution.Question("q", ({"role": "user", "content": "a"},), "comply")

    class Silent:
        name = "silent"

        def criticise(self, prompt: str, reply: str) -> list[critic.Critique]:
            return []

        def revise(self, prompt: str, reply: str, found: Any) -> str | None:
            raise AssertionError("nothing to revise")

    row = constitution.transcript(question, ["One.", "Two."], Silent(), 2)
    assert row["final"] == "One."
    assert constitution.pairs(row) == []
