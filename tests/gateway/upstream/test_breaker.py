"""The circuit breaker, on a clock of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge

from gateway.errors import UpstreamUnavailable
from gateway.upstream.breaker import CLOSED, HALF_OPEN, OPEN, Breaker


class Bench:
    """A breaker that opens after three failures for ten seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.registry = CollectorRegistry()
        gauge = Gauge("state", "", registry=self.registry)
        self.breaker = Breaker(3, 10, gauge, lambda: self.now)

    @property
    def state(self) -> float | None:
        return self.registry.get_sample_value("state")

    def admitted(self) -> bool:
        try:
            self.breaker.admit()
        except UpstreamUnavailable:
            return False
        return True

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.admit()
            self.breaker.failed()


def test_opens_after_failures_in_a_row() -> None:
    bench = Bench()
    bench.fail(2)
    assert bench.state == CLOSED
    bench.breaker.admit()
    bench.breaker.succeeded()
    bench.fail(2)
    assert bench.state == CLOSED
    bench.fail()
    assert bench.state == OPEN
    assert bench.breaker.open
    assert not bench.admitted()


def test_one_may_try_after_a_while() -> None:
    bench = Bench()
    bench.fail(3)
    bench.now += 9.9
    assert not bench.admitted()
    bench.now += 0.1
    assert not bench.breaker.open
    assert bench.admitted()
    assert bench.state == HALF_OPEN
    assert not bench.admitted()
    bench.breaker.succeeded()
    assert bench.state == CLOSED
    assert bench.admitted()
    assert bench.admitted()


def test_opens_again_when_the_trial_fails() -> None:
    bench = Bench()
    bench.fail(3)
    bench.now += 10
    bench.fail()
    assert bench.state == OPEN
    assert not bench.admitted()
    bench.now += 10
    assert bench.admitted()


def test_a_trial_that_was_abandoned_lets_the_next_one_try() -> None:
    bench = Bench()
    bench.fail(3)
    bench.now += 10
    assert bench.admitted()
    bench.breaker.abandoned()
    assert bench.admitted()
    bench.breaker.succeeded()
    assert bench.state == CLOSED


def test_abandoned_says_nothing_while_closed() -> None:
    bench = Bench()
    bench.fail(2)
    bench.breaker.admit()
    bench.breaker.abandoned()
    assert bench.state == CLOSED
    bench.fail()
    assert bench.state == OPEN


@pytest.mark.parametrize("first", ["succeeded", "failed", "abandoned"])
def test_calls_from_before_it_opened_end_late(first: str) -> None:
    bench = Bench()
    for _ in range(5):
        bench.breaker.admit()
    for _ in range(3):
        bench.breaker.failed()
    getattr(bench.breaker, first)()
    assert bench.state == (CLOSED if first == "succeeded" else OPEN)


@given(st.lists(st.sampled_from(["call", "succeeded", "failed", "abandoned", "wait"]), max_size=60))
def test_it_is_never_shut_for_ever(steps: list[str]) -> None:
    """Whatever happened, once all calls have ended and the time is over, one may try, and its success closes it."""
    bench = Bench()
    calls = 0
    for step in steps:
        if step == "wait":
            bench.now += 4
        elif step == "call":
            calls += bench.admitted()
        elif calls:
            calls -= 1
            getattr(bench.breaker, step)()
    for _ in range(calls):
        bench.breaker.abandoned()
    bench.now += 10
    assert not bench.breaker.open
    assert bench.admitted()
    bench.breaker.succeeded()
    assert bench.state == CLOSED
    assert bench.admitted()
