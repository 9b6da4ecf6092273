"""policy.yml: defaults, routes, words, guidance, fail modes, what is wrong said by file and key, versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.labels import LABELS
from gateway.errors import ConfigError
from gateway.guard import policy as policies
from gateway.guard.policy import DEFAULT_GUIDANCE, DEFAULT_POINTS, DEFAULT_REFUSAL, RISKS, ROUTES
from tests.gateway.guard.parts import CALM, policy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "rails" / "mine"
    path.mkdir(parents=True)
    (path / "config.yml").write_text("rails: {input: {flows: [regex check input, 'self check input $model=x']}}")
    return path


def load(folder: Path, text: str | None = None) -> policies.Policy:
    if text is not None:
        (folder / "policy.yml").write_text(text)
    return policies.load(folder.parent, folder.name)


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "{}"])
def test_config_yml_alone_is_complete(folder: Path, text: str | None) -> None:
    found = load(folder, text)
    rules = found.rules
    assert (found.name, found.folder) == ("mine", folder)
    assert (rules.mode, rules.on_block, rules.refusal_style) == ("enforce", "completion", "both")
    assert found.routes.keys() == set(RISKS)
    assert rules.operating_point == "balanced"
    assert rules.colang_routes == {"review"}
    assert rules.toxicity.input is None
    assert rules.toxicity.output is None
    assert (rules.streaming.window_tokens, rules.streaming.overlap_characters) == (24, 64)
    assert found.refusal("harmful.fraud") == DEFAULT_REFUSAL
    assert found.fail_mode("any") == "closed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "routes: {harmfull: {refuse: 1}}",
            "routes.harmfull - unknown label; known are regulated_advice, harmful, hate",
        ),
        ("routes: {benign: {refuse: 1}}", "routes.benign - unknown label"),
        ("routes: {harmful: {refuze: 1}}", "routes.harmful.refuze - Input should be 'allow', 'advise', 'review'"),
        ("routes: {harmful: {refuse: 1.5}}", "routes.harmful.refuse - Input should be less than or equal to 1"),
        ("routes: {harmful: {refuse: -1}}", "routes.harmful.refuse - Input should be greater than or equal to 0"),
        ("routes: {harmful: {refuse: .nan}}", "routes.harmful.refuse - "),
        ("routes: {harmful: {refuse: high}}", "routes.harmful.refuse - Input should be a valid number"),
        ("routes: [x]", "routes - Input should be a valid dictionary"),
        ("operating_point: lax", "operating_point - Input should be 'strict', 'balanced' or 'permissive'"),
        ("other_languages: block", "other_languages - Input should be 'allow', 'advise', 'review'"),
        ("mod: shadow", "mod - Extra inputs are not permitted"),
        ("mode: of", "mode - Input should be 'enforce' or 'shadow'"),
        ("on_block: 400", "on_block - Input should be 'completion' or 'error'"),
        ("refusal_style: all", "refusal_style - Input should be 'content', 'refusal' or 'both'"),
        ("refusals: {harmful.frauds: x}", "refusals.harmful.frauds - unknown category"),
        ("refusals: {harmful: ''}", "refusals.harmful - String should have at least 1 character"),
        ("guidance: {taxes: x}", "guidance.taxes - unknown category"),
        ("patterns: {p: ['(']}", "patterns.p.0 - is no regular expression: missing ), unterminated subpattern"),
        ("patterns: {p: x}", "patterns.p - Input should be a valid list"),
        ("toxicity: {output: 2}", "toxicity.output - Input should be less than or equal to 1"),
        ("toxicity: {outptu: 1}", "toxicity.outptu - Extra inputs are not permitted"),
        ("colang_routes: [reviews]", "colang_routes.0 - Input should be"),
        ("streaming: {window_tokens: 0}", "streaming.window_tokens - Input should be greater than or equal to 1"),
        ("streaming: {overlap: 1}", "streaming.overlap - Extra inputs are not permitted"),
        ("fail_modes: {default: ajar}", "fail_modes.default - Input should be 'closed' or 'open'"),
        (
            "fail_modes: {self chek input: open}",
            "fail_modes.self chek input - unknown rail; known are default, nemo, reg",
        ),
        ("rail_timeout_seconds: 0", "rail_timeout_seconds - Input should be greater than 0"),
        ("- a", "a mapping is expected at the top"),
        ("routes: [", "while parsing"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert str(caught.value).startswith(f"{folder}/policy.yml: {message}")
    assert "\n" not in str(caught.value)


def test_no_such_policy(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"/other/config.yml: no such file; a policy is a folder with NeMo's config"):
        policies.load(folder.parent, "other")


@pytest.mark.parametrize(
    "config", ["", "rails: x", "rails: {input: x}", "rails: {input: {flows: x}}", "rails: {input: }"]
)
def test_a_wrong_config_yml_is_left_to_nemo(folder: Path, config: str) -> None:
    (folder / "config.yml").write_text(config)
    load(folder, "fail_modes: {toxicity: open}")


def test_highest_threshold_reached_decides() -> None:
    found = policy(routes={"harmful": {"review": 0.4, "refuse": 0.7, "advise": 0.2}})
    reached = {score: found.route({"harmful": score})[0] for score in (0.1, 0.2, 0.39, 0.4, 0.69, 0.7, 1.0)}
    assert list(reached.values()) == ["allow", "advise", "advise", "review", "review", "refuse", "refuse"]


def test_thresholds_need_not_follow_strictness() -> None:
    """Sure of it: advise. Less sure: review."""
    found = policy(routes={"regulated_advice": {"advise": 0.5, "review": 0.3}})
    assert found.route({"regulated_advice": 0.6}) == ("advise", "regulated_advice")
    assert found.route({"regulated_advice": 0.4}) == ("review", "regulated_advice")


def test_of_equal_thresholds_the_stricter() -> None:
    found = policy(routes={"harmful": {"refuse": 0.5, "review": 0.5, "advise": 0.5}})
    assert found.route({"harmful": 0.5})[0] == "refuse"


def test_strictest_label_wins_then_the_surest() -> None:
    found = policy(routes={"harmful": {"refuse": 0.7}, "hate": {"refuse": 0.3}, "regulated_advice": {"advise": 0.1}})
    assert found.route({"regulated_advice": 0.6, "hate": 0.35, "harmful": 0.1}) == ("refuse", "hate")
    assert found.route({"hate": 0.35, "harmful": 0.75}) == ("refuse", "harmful")
    assert found.route({"regulated_advice": 0.6, "hate": 0.2}) == ("advise", "regulated_advice")


def test_nothing_reached() -> None:
    assert policy().route({}) == ("allow", "benign")
    assert policy().route({"benign": 0.6, "hate": 0.3}) == ("allow", "benign")
    assert policy(routes={"hate": {"allow": 0.1}}).route({"benign": 0.2, "hate": 0.8}) == ("allow", "hate")


def test_a_label_that_is_not_named_keeps_its_default() -> None:
    """To move one threshold must not switch the others off."""
    routes = policy(routes={"regulated_advice": {}}).routes
    assert routes["regulated_advice"] == {}
    for label in set(RISKS) - {"regulated_advice"}:
        assert routes[label] == {"refuse": DEFAULT_POINTS[label]["act"], "review": DEFAULT_POINTS[label]["doubt"]}


POINTS = {
    "strict": {label: {"act": 0.3, "doubt": 0.1} for label in RISKS},
    "balanced": {label: {"act": 0.6, "doubt": 0.2} for label in RISKS},
}


def test_the_operating_point_names_thresholds_that_come_with_the_weights(folder: Path) -> None:
    (folder / "policy.yml").write_text("operating_point: strict\nroutes: {hate: {review: 0.9}}")
    found = policies.load(folder.parent, folder.name, POINTS)
    assert found.routes["harmful"] == {"refuse": 0.3, "review": 0.1}
    assert found.routes["regulated_advice"] == {"advise": 0.3, "review": 0.1}
    assert found.routes["hate"] == {"review": 0.9}
    assert found.route({"harmful": 0.2}) == ("review", "harmful")
    (folder / "policy.yml").write_text("")
    assert policies.load(folder.parent, folder.name, POINTS).route({"harmful": 0.15}) == ("allow", "harmful")


def test_weights_without_points_leave_the_defaults(folder: Path) -> None:
    (folder / "policy.yml").write_text("operating_point: permissive")
    found = policies.load(folder.parent, folder.name, POINTS)
    assert found.routes["hate"] == {"refuse": DEFAULT_POINTS["hate"]["act"], "review": DEFAULT_POINTS["hate"]["doubt"]}


SCORES = st.dictionaries(st.sampled_from(LABELS), st.floats(0, 1))
TABLE = st.dictionaries(st.sampled_from(RISKS), st.dictionaries(st.sampled_from(ROUTES), st.floats(0, 1)))


@CALM
@given(TABLE, SCORES)
def test_route_by_its_definition(table: dict[str, Any], scores: dict[str, float]) -> None:
    found = policy(routes=table)
    strictest = 0
    for label, score in scores.items():
        reached = [(least, ROUTES.index(route)) for route, least in found.routes.get(label, {}).items()]
        reached = [pair for pair in reached if pair[0] <= score]
        strictest = max(strictest, max(reached)[1] if reached else 0)
    route, label = found.route(scores)
    assert route == ROUTES[strictest]
    assert label in scores or label == "benign"


def test_words_from_the_most_specific() -> None:
    found = policy(refusals={"harmful.fraud": "fraud", "harmful": "harm", "default": "any", "rail": "rail"})
    assert found.refusal("harmful.fraud") == "fraud"
    assert found.refusal("harmful.drugs") == "harm"
    assert found.refusal("hate.slur") == "any"
    assert found.refusal("rail") == "rail"
    assert policy(refusals={"harmful": "harm"}).refusal("hate") == DEFAULT_REFUSAL


def test_guidance_by_route() -> None:
    found = policy(guidance={"regulated_advice.tax": "tax", "regulated_advice": "advice"})
    assert found.guidance("advise", "regulated_advice.tax") == "tax"
    assert found.guidance("advise", "regulated_advice.credit") == "advice"
    assert found.guidance("advise", "harmful") == DEFAULT_GUIDANCE
    assert policy(guidance={"default": "d"}).guidance("advise", "harmful") == "d"
    assert found.guidance("review", "regulated_advice.tax") == "tax"
    assert found.guidance("review", "harmful") is None
    assert policy(guidance={"default": "d"}).guidance("review", "harmful") is None
    assert found.guidance("allow", "regulated_advice.tax") is None
    assert found.guidance("refuse", "regulated_advice.tax") is None


def test_fail_modes(folder: Path) -> None:
    found = load(folder, "fail_modes: {default: open, triage: closed, self check input: closed}")
    assert found.fail_mode("triage") == "closed"
    assert found.fail_mode("self check input") == "closed"
    assert found.fail_mode("regex check input") == "open"


def test_version_changes_with_any_file_and_only_then(folder: Path) -> None:
    seen = [policies.version(folder)]
    assert seen[0].startswith("sha256:")
    assert len(seen[0]) == 23

    def changed() -> bool:
        seen.append(policies.version(folder))
        return seen[-1] not in seen[:-1]

    (folder / "flows.co").write_text("a")
    assert changed()
    (folder / "flows.co").write_text("b")
    assert changed()
    (folder / "prompts").mkdir()
    assert not changed()
    (folder / "prompts" / "x.yml").write_text("")
    assert changed()
    (folder / "prompts" / "x.yml").rename(folder / "prompts" / "y.yml")
    assert changed()
    (folder / "flows.co").touch()
    (folder / ".hidden").write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("x")
    assert not changed()
    (folder / "prompts" / "y.yml").unlink()
    (folder / "flows.co").write_text("a")
    assert policies.version(folder) == seen[1]


def test_version_of_a_mounted_config_map(folder: Path) -> None:
    """Kubernetes mounts links into a folder whose name changes with every mount."""

    def mount(name: str, content: str) -> str:
        (folder / name).mkdir()
        (folder / name / "policy.yml").write_text(content)
        (folder / "policy.yml").unlink(missing_ok=True)
        (folder / "policy.yml").symlink_to(folder / name / "policy.yml")
        return policies.version(folder)

    first = mount("..2026_01_01", "mode: shadow")
    assert mount("..2026_01_02", "mode: shadow") == first
    assert mount("..2026_01_03", "mode: enforce") != first
