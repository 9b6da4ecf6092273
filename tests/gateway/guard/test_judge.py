"""The judge: what arrives together goes together, verdicts are remembered, one waiter's trouble is no other's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence

import pytest

from classifiers.message import Judgement, Message
from gateway.guard.judge import Judge


class Slow:
    """Waits for `gate` in each batch; breaks at a text `crash`, says too little at `short`, no number at `nan`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.batches: list[list[str]] = []

    def score(self, messages: Sequence[Message]) -> list[Judgement]:
        texts = [message.text for message in messages]
        self.batches.append(list(texts))
        self.begun.set()
        assert self.gate.wait(5)
        if "crash" in texts:
            raise RuntimeError("broke")
        found = [Judgement(text, "benign", {"benign": float("nan") if text == "nan" else 1.0}, 0.0) for text in texts]
        return found[:-1] if "short" in texts else found


@pytest.fixture
def slow() -> Iterator[Slow]:
    classifier = Slow()
    yield classifier
    classifier.gate.set()


Test = Callable[[Judge], Awaitable[None]]


def run(slow: Slow, test: Test, max_batch: int = 4, memory: int = 3) -> None:
    async def main() -> None:
        judge = Judge(slow, max_batch=max_batch, memory=memory)
        try:
            async with asyncio.timeout(5):
                await test(judge)
        finally:
            slow.gate.set()
            judge.close()

    asyncio.run(main())


async def begun(slow: Slow) -> None:
    """Until the classifier is at work on the first text."""
    assert await asyncio.to_thread(slow.begun.wait, 5)


def test_those_that_arrive_while_a_batch_runs_form_the_next(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        first = asyncio.create_task(judge.score(Message("0")))
        await begun(slow)
        rest = [asyncio.create_task(judge.score(Message(str(number)))) for number in range(1, 8)]
        await asyncio.sleep(0.01)
        slow.gate.set()
        assert (await first).label == "0"
        assert [judgement.label for judgement in await asyncio.gather(*rest)] == [str(n) for n in range(1, 8)]
        assert slow.batches == [["0"], ["1", "2", "3", "4"], ["5", "6", "7"]]

    run(slow, test)


def test_the_loop_goes_on_meanwhile(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        task = asyncio.create_task(judge.score(Message("a")))
        await begun(slow)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        slow.gate.set()
        await task

    run(slow, test)


def test_the_second_time_is_remembered(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        slow.gate.set()
        assert await judge.score(Message("a")) is await judge.score(Message("a"))
        assert slow.batches == [["a"]]

    run(slow, test)


def test_memory_is_bounded_and_forgets_the_least_used(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        slow.gate.set()
        for text in ("a", "b", "c", "a", "d", "a", "b"):
            await judge.score(Message(text))
        assert [batch[0] for batch in slow.batches] == ["a", "b", "c", "d", "b"]
        assert len(judge._remembered) == 3
        assert {len(key) for key in judge._remembered} == {16}  # digests: the texts themselves are not kept

    run(slow, test)


def test_the_same_words_elsewhere_are_another_message(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        slow.gate.set()
        for message in (Message("a"), Message("a", "before"), Message("a", kind="tool"), Message("a", "before")):
            await judge.score(message)
        assert len(slow.batches) == 3

    run(slow, test)


def test_no_memory(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        slow.gate.set()
        for _ in range(2):
            await judge.score(Message("a"))
        assert len(slow.batches) == 2
        assert not judge._remembered

    run(slow, test, memory=0)


def test_what_is_not_worth_remembering_is_not(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        slow.gate.set()
        await judge.score(Message("user"))
        for number in range(10):
            await judge.score_reply(f"part {number} of a reply")
        await judge.score(Message("user"))
        assert len(slow.batches) == 11

    run(slow, test)


@pytest.mark.parametrize("bad", ["crash", "short"])
def test_a_failure_reaches_all_who_wait_and_the_next_batch_works(slow: Slow, bad: str) -> None:
    async def test(judge: Judge) -> None:
        first = asyncio.create_task(judge.score(Message("0")))
        await begun(slow)
        failing = [asyncio.create_task(judge.score(Message(text))) for text in ("a", bad)]
        await asyncio.sleep(0.01)
        slow.gate.set()
        await first
        found = await asyncio.gather(*failing, return_exceptions=True)
        assert [type(error) for error in found] == [RuntimeError if bad == "crash" else ValueError] * 2
        assert (await judge.score(Message("a"))).label == "a"

    run(slow, test)


def test_no_number_is_a_failure_of_that_text_alone(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        slow.gate.set()
        found = await asyncio.gather(judge.score(Message("nan")), judge.score(Message("b")), return_exceptions=True)
        assert isinstance(found[0], ValueError)
        assert isinstance(found[1], Judgement)

    run(slow, test)


def test_who_gives_up_harms_no_other(slow: Slow) -> None:
    """Before its batch began: it is not scored. While it runs: the others have their verdicts."""

    async def test(judge: Judge) -> None:
        first = asyncio.create_task(judge.score(Message("running")))
        other = asyncio.create_task(judge.score(Message("with it")))
        await begun(slow)
        waiting = [asyncio.create_task(judge.score(Message(text))) for text in ("gives up", "stays")]
        await asyncio.sleep(0.01)
        first.cancel()
        waiting[0].cancel()
        await asyncio.sleep(0.01)
        slow.gate.set()
        assert (await other).label == "with it"
        assert (await waiting[1]).label == "stays"
        assert slow.batches == [["running", "with it"], ["stays"]]
        assert first.cancelled()
        assert waiting[0].cancelled()

    run(slow, test)


def test_when_all_give_up_nothing_is_scored(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        first = asyncio.create_task(judge.score(Message("a")))
        await begun(slow)
        second = asyncio.create_task(judge.score(Message("b")))
        await asyncio.sleep(0.01)
        second.cancel()
        slow.gate.set()
        await first
        assert (await judge.score(Message("c"))).label == "c"
        assert slow.batches == [["a"], ["c"]]

    run(slow, test)


def test_a_timeout_of_one_is_not_the_others(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        async def hasty() -> None:
            async with asyncio.timeout(0.02):
                await judge.score(Message("a"))

        patient = asyncio.create_task(judge.score(Message("a")))
        with pytest.raises(TimeoutError):
            await hasty()
        slow.gate.set()
        assert (await patient).label == "a"

    run(slow, test)


def test_odd_text(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        slow.gate.set()
        for text in ("", "\ud800", "\0", "x" * 1_000_000):
            await judge.score(Message(text))

    run(slow, test)


def test_closed(slow: Slow) -> None:
    async def test(judge: Judge) -> None:
        judge.close()
        with pytest.raises(RuntimeError):
            await judge.score(Message("a"))

    run(slow, test)


async def test_the_screen_is_asked_of_messages_alone(slow: Slow) -> None:
    harmless = Judgement("benign", "benign", {"benign": 1.0}, 0.0, tier="screen")
    judge = Judge(slow, max_batch=4, memory=10, screen=lambda message: harmless if "plain" in message.text else None)
    slow.gate.set()
    assert (await judge.score(Message("a plain message"))).tier == "screen"
    assert slow.batches == []
    await judge.score(Message("an odd message"))
    await judge.score_reply("a plain reply")
    assert slow.batches == [["an odd message"], ["a plain reply"]]
    judge.close()
