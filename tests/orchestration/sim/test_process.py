"""A simulated process: its clock, and the effects of a pause and of its end on pending calls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from orchestration.sim_cluster import SimLoop, run_virtual
from orchestration.sim_cluster.process import Process

READING_S = 0.001


def tell(rate: float, story: Callable[[Process, list[Any]], Any]) -> list[Any]:
    """Return what a story notes about a process, and the errors that the process's calls raised."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        seen: list[Any] = []
        process = Process(loop, rate, lambda error: seen.append(type(error).__name__), lambda: READING_S)
        await story(process, seen)
        return seen

    return run_virtual(main)


@pytest.mark.parametrize("rate", [0.9, 1.0, 1.1, 1 / 3, 1.0000001])
def test_a_clock_never_rings_early(rate: float) -> None:
    """Otherwise it would fire again at the same time, forever."""
    rng = random.Random(1)

    async def story(process: Process, seen: list[Any]) -> None:
        for _ in range(500):
            when = process.now() + rng.uniform(0, 0.3)
            rang = asyncio.get_running_loop().create_future()
            process.call_at(when, lambda rang=rang: rang.set_result(process.now()), precise=True)
            now = await rang
            assert when <= now < when + 1e-9

    tell(rate, story)


def test_delays_are_of_its_own_clock() -> None:
    async def story(process: Process, seen: list[Any]) -> None:
        begin = asyncio.get_running_loop().time()
        process.call_later(1.0, lambda: seen.append(asyncio.get_running_loop().time() - begin))
        await asyncio.sleep(3.0)

    assert tell(2.0, story) == [pytest.approx(0.5)]


def test_what_is_due_while_it_stands_still_is_done_in_order_when_it_goes_on() -> None:
    async def story(process: Process, seen: list[Any]) -> None:
        process.call_later(1.0, seen.append, "timer")
        cancelled = process.call_later(1.0, seen.append, "cancelled")
        process.hold()
        process.hold()  # a stall within a pause
        process.run(seen.append, "mail")
        await asyncio.sleep(2.0)
        cancelled.cancel()
        process.release()
        await asyncio.sleep(1.0)
        assert seen == []
        process.release()
        await asyncio.sleep(0.0)
        assert seen == ["timer"], "what came is still in the kernel"
        process.run(seen.append, "more mail")
        await asyncio.sleep(READING_S)

    assert tell(1.0, story) == ["timer", "mail", "more mail"]


def test_a_process_that_is_stopped_while_it_reads_reads_on_when_it_goes_on() -> None:
    async def story(process: Process, seen: list[Any]) -> None:
        process.hold()
        process.run(seen.append, "mail")
        process.release()
        process.hold()
        await asyncio.sleep(1.0)
        assert seen == []
        process.release()
        await asyncio.sleep(READING_S)

    assert tell(1.0, story) == ["mail"]


def test_of_a_process_that_has_ended_nothing_is_called() -> None:
    async def story(process: Process, seen: list[Any]) -> None:
        process.call_soon(seen.append, "soon")
        process.call_later(1.0, seen.append, "later")
        process.hold()
        process.run(seen.append, "mail")
        process.end()
        process.release()
        process.run(seen.append, "more mail")
        await asyncio.sleep(2.0)

    assert tell(1.0, story) == []


def test_what_a_call_raises_is_told() -> None:
    async def story(process: Process, seen: list[Any]) -> None:
        process.call_soon(lambda: 1 / 0)
        await asyncio.sleep(1.0)

    assert tell(1.0, story) == ["ZeroDivisionError"]
