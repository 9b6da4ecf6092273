"""Whole replies: each choice apart, every text in it, tool arguments, rewrites put in place, usage kept."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.call import Completion, dump
from gateway.errors import RailFailed
from gateway.guard.verdict import Plan
from gateway.record.metrics import Metrics
from tests.fakes import completion
from tests.gateway.guard.parts import FakeLane, chat, guard, observation, sample

BAD = FakeLane(forbidden=("BAD",))
MASK = FakeLane(masked=("secret",))


def reply(*messages: dict[str, Any], **fields: Any) -> Completion:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", **message},
            "finish_reason": "stop",
            "logprobs": {"content": []},
        }
        for index, message in enumerate(messages)
    ]
    body = completion(choices=choices, **fields)
    return Completion(body, dump(body))


def check(found: Completion, lane: FakeLane = BAD, **options: Any) -> Completion:
    seen = options.pop("seen", None) or observation()
    plan = options.pop("plan", Plan())
    return asyncio.run(guard(lane, **options).check_output(chat("Hello"), found, plan, seen))


def test_what_passes_is_the_same_object() -> None:
    for message in (
        {"content": "fine"},
        {"content": None},
        {"content": ""},
        {"content": [{"type": "text", "text": "ok"}]},
    ):
        found = reply(message)
        assert check(found) is found


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"index": 0}]}, {"choices": [{"message": None}]}])
def test_odd_bodies_pass(body: dict[str, Any]) -> None:
    found = Completion(body, b"{}")
    assert check(found) is found


def test_each_choice_is_judged_apart() -> None:
    found = check(reply({"content": "fine"}, {"content": "BAD"}, {"content": "also fine"}))
    first, second, third = found.body["choices"]
    came = reply({"content": "fine"}, {"content": "BAD"}, {"content": "also fine"}).body["choices"]
    assert first == came[0]
    assert third == came[2]
    assert second["index"] == 1
    assert second["finish_reason"] == "content_filter"
    assert second["logprobs"] is None
    assert second["message"].keys() == {"role", "content", "refusal"}
    assert "BAD" not in json.dumps(found.body)
    assert found.raw is None
    assert found.body["usage"]["total_tokens"] == 12
    assert found.body["guardrails"]["category"] == "rail"


def test_two_blocked_choices_count_once() -> None:
    metrics = Metrics()
    found = check(reply({"content": "BAD"}, {"content": "BAD"}), seen=observation(metrics))
    assert [choice["finish_reason"] for choice in found.body["choices"]] == ["content_filter"] * 2
    assert sample(metrics, "refusals_total", policy="test", source="output_rail", category="rail") == 1


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}])
def test_usage_is_never_absent(usage: dict[str, int] | None) -> None:
    found = check(reply({"content": "BAD"}, usage=usage))
    assert found.body["usage"] == (usage or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})


@pytest.mark.parametrize(
    "message",
    [
        {"content": "so BAD"},
        {"content": None, "refusal": "BAD"},
        {"content": "fine", "reasoning_content": "BAD"},
        {"content": "fine", "reasoning": "BAD"},
        {"content": "fine", "a_field_of_tomorrow": "BAD"},
        {"content": [{"type": "text", "text": "fine"}, {"type": "text", "text": "BAD"}]},
        {"content": [{"type": "text", "text": "B"}, {"type": "text", "text": "AD"}]},
        {"content": [{"type": "refusal", "refusal": "BAD"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "BAD"}]}]},
        {"content": "fine", "reasoning_details": [{"type": "reasoning.text", "text": "BAD"}]},
        {"content": None, "audio": {"transcript": "BAD", "data": "AAAA"}},
    ],
)
def test_every_text_is_checked(message: dict[str, Any]) -> None:
    found = check(reply(message))
    assert found.body["guardrails"]["stage"] == "output"
    assert "BAD" not in json.dumps(found.body)


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"id": "1", "function": {"name": "a", "arguments": "{}"}}, {"function": {"arguments": "BAD"}}]},
        {"tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "a", "input": "BAD"}}]},
        {"tool_calls": [{"id": "1", "function": {"name": "a", "arguments": {"to": "BAD"}}}]},
        {"function_call": {"name": "a", "arguments": "BAD"}},
    ],
)
def test_tool_arguments_are_checked(message: dict[str, Any]) -> None:
    metrics = Metrics()
    found = check(reply({"content": None, **message}), seen=observation(metrics))
    assert found.body["guardrails"]["stage"] == "tool"
    assert "BAD" not in json.dumps(found.body)
    assert sample(metrics, "refusals_total", policy="test", source="tool_rail", category="rail") == 1


@pytest.mark.parametrize("calls", [None, [], "x", [None], ["x"], [{}], [{"function": None}], [{"function": "x"}]])
def test_odd_tool_calls_pass(calls: Any) -> None:
    found = reply({"content": "fine", "tool_calls": calls, "function_call": None})
    assert check(found) is found


def test_rewrites_are_put_in_place() -> None:
    metrics = Metrics()
    seen = observation(metrics)
    found = check(
        reply(
            {"content": "a secret", "reasoning_content": "the secret", "annotations": []},
            {"content": "fine"},
            {"content": [{"type": "text", "text": "my "}, {"type": "text", "text": "secret"}]},
            {"content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": "secret"}'}}]},
            {"content": None, "function_call": {"name": "f", "arguments": '{"a": "secret"}'}},
            {"content": None, "audio": {"transcript": "secret", "data": "AAAA"}},
        ),
        MASK,
        seen=seen,
    )
    messages = [choice["message"] for choice in found.body["choices"]]
    assert messages[0] == {"role": "assistant", "content": "a ***", "reasoning_content": "the ***", "annotations": []}
    assert messages[1] == {"role": "assistant", "content": "fine"}
    assert messages[2]["content"] == [{"type": "text", "text": "my ***"}]
    assert messages[3]["tool_calls"] == [{"id": "1", "function": {"name": "f", "arguments": '{"a": "***"}'}}]
    assert messages[4]["function_call"] == {"name": "f", "arguments": '{"a": "***"}'}
    assert messages[5]["audio"] is None  # what is spoken cannot be rewritten
    # The probabilities of the tokens spell out what was there.
    assert [choice["logprobs"] is None for choice in found.body["choices"]] == [True, False, True, True, True, True]
    assert seen.decision == "modify"
    assert found.body["usage"]["total_tokens"] == 12
    assert sample(metrics, "rail_decisions_total", rail="masker", stage="output", decision="modify") == 4
    assert sample(metrics, "rail_decisions_total", rail="masker", stage="tool", decision="modify") == 2


def test_toxicity() -> None:
    metrics = Metrics()
    rules: dict[str, Any] = {"toxicity": {"output": 0.9}}
    found = check(reply({"content": "MARK-TOXIC"}), seen=observation(metrics), **rules)
    assert found.body["guardrails"]["rail"] == "toxicity"
    assert found.body["guardrails"]["category"] == "hate"
    assert sample(metrics, "refusals_total", policy="test", source="output_rail", category="hate") == 1
    fine = reply({"content": "fine"})
    assert check(fine, **rules) is fine
    toxic = reply({"content": "MARK-TOXIC"})
    assert check(toxic) is toxic  # not asked for


@pytest.mark.parametrize("route", ["allow", "advise", "review"])
def test_toxicity_on_the_routes_that_the_policy_names(route: Any) -> None:
    rules: dict[str, Any] = {"toxicity": {"output": 0.9, "output_routes": ["advise"]}}
    found = reply({"content": "MARK-TOXIC"})
    assert (check(found, plan=Plan(route=route), **rules) is found) == (route != "advise")


def test_toxicity_that_breaks() -> None:
    metrics = Metrics()
    found = reply({"content": "MARK-CRASH"})
    rules: dict[str, Any] = {"toxicity": {"output": 0.9}}
    with pytest.raises(RailFailed, match="toxicity"):
        check(found, seen=observation(metrics), **rules)
    labels = {"rail": "toxicity", "error": "RuntimeError"}
    assert sample(metrics, "rail_errors_total", **labels, fail_mode="closed") == 1
    assert check(found, seen=observation(metrics), **rules, fail_modes={"toxicity": "open"}) is found
    assert sample(metrics, "rail_errors_total", **labels, fail_mode="open") == 1


def test_the_flows_own_words_and_triages_category() -> None:
    slow = FakeLane(forbidden=("BAD",), colang=True, words="Let me put it another way.")
    plan = Plan("advise", "regulated_advice", "regulated_advice.tax", 0.9)
    protector = guard(FakeLane(), slow, colang_routes=["advise"])
    found = asyncio.run(protector.check_output(chat("Hello"), reply({"content": "BAD"}), plan, observation()))
    assert found.body["choices"][0]["message"]["content"] == "Let me put it another way."
    assert found.body["guardrails"]["category"] == "regulated_advice.tax"
    assert slow.contexts[0] == {
        "triage_label": "regulated_advice", "triage_category": "regulated_advice.tax", "triage_score": 0.9,
        "triage_route": "advise", "triage_toxicity": 0.0, "triage_language": "en",
    }  # fmt: skip


@pytest.mark.parametrize("content", ["", "  \n", None, []])
def test_rails_see_a_space_where_nothing_was_said(content: Any) -> None:
    lane = FakeLane()
    request = chat({"role": "user", "content": content})
    asyncio.run(guard(lane).check_output(request, reply({"content": "x"}), Plan(), observation()))
    assert lane.users == [" "]


def test_a_rail_of_the_library_knows_nothing_of_triage() -> None:
    """A leaked key is no investment advice, whatever was asked."""
    plan = Plan("advise", "regulated_advice", "regulated_advice.investment", 0.9)
    found = check(reply({"content": "BAD"}), plan=plan)
    assert found.body["guardrails"]["category"] == "rail"


@pytest.mark.parametrize("route", ["allow", "advise", "review"])
def test_colang_runs_on_the_routes_that_the_policy_names(route: Any) -> None:
    slow = FakeLane(colang=True)
    protector = guard(FakeLane(), slow, colang_routes=["advise", "review"])
    asyncio.run(protector.check_output(chat("Hello"), reply({"content": "x"}), Plan(route=route), observation()))
    assert len(slow.checked) == (route != "allow")


@pytest.mark.parametrize("lane", [BAD, MASK, FakeLane(broken=("BAD",))])
def test_shadow_changes_nothing(lane: FakeLane) -> None:
    metrics = Metrics()
    found = reply({"content": "BAD secret MARK-TOXIC MARK-CRASH"})
    rules: dict[str, Any] = {"mode": "shadow", "toxicity": {"output": 0.9}}
    seen = observation(metrics)
    assert check(found, lane, seen=seen, **rules) is found
    refused = sample(metrics, "would_refuse_total", policy="test", source="output_rail", category="rail")
    assert refused == (1 if lane is BAD else 0)
    assert seen.decision == ("would_block" if lane is BAD else "allow")


def test_own_refusals() -> None:
    def counted(found: Completion, source: str, **options: Any) -> float:
        metrics = Metrics()
        check(found, seen=observation(metrics), **options)
        return sample(metrics, "refusals_total", policy="test", source=source, category="none")

    assert counted(reply({"content": "I won't."}), "model") == 1
    assert counted(reply({"content": "I won't."}, {"content": "I won't."}), "model") == 1
    assert counted(reply({"content": [{"type": "text", "text": "I won't."}]}), "model") == 1
    assert counted(reply({"content": None, "refusal": "No."}), "model") == 1
    assert counted(reply({"content": "I won't."}), "model", plan=Plan(route="advise")) == 0
    assert counted(reply({"content": "I won't BAD."}), "model") == 0  # counted where it was blocked
    assert counted(reply({"content": "I won't BAD."}), "model", mode="shadow") == 1
    filtered = completion()
    filtered["choices"][0]["finish_reason"] = "content_filter"
    assert counted(Completion(filtered), "upstream_filter") == 1
    assert counted(Completion(filtered), "model") == 0
    assert counted(Completion(filtered), "upstream_filter", plan=Plan(route="advise")) == 1
