"""Tasks on a real Ray: results as they complete, a bounded number at a time, and each task is ended."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.ray_cluster import tasks
from orchestration.ray_cluster.tasks import TaskOutcome, run_tasks
from tests.ray_head import private_ray


async def test_tasks_on_ray() -> None:
    async with private_ray():
        await _every_item_has_an_outcome()
        await _one_that_takes_too_long_is_ended()
        await _what_is_left_is_ended()


async def test_all_tasks_are_ended_even_where_one_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task is cancelled whatever Ray raises for another one, and this program waits for none of them."""
    loop = asyncio.get_running_loop()
    started, ended = list[object](), list[object]()

    def start(function: object, item: object) -> object:
        started.append(loop.create_future())
        return started[-1]

    class Ray:
        def remote(self, **_: object) -> Any:
            return lambda function: SimpleNamespace(remote=start)

        def cancel(self, reference: object, **_: object) -> None:
            ended.append(reference)
            if len(ended) == 1:
                raise RuntimeError("the connection is closed")

    monkeypatch.setattr(tasks, "ray", Ray())
    before = asyncio.all_tasks()
    outcomes = run_tasks(math.sqrt, [1.0, 2.0, 3.0], at_a_time=3, timeout_s=60)
    waits = asyncio.ensure_future(anext(outcomes))
    async with asyncio.timeout(10):
        while len(started) < 3:  # noqa: ASYNC110 - by threads
            await asyncio.sleep(0.01)
    waits.cancel()
    await asyncio.wait({waits})
    async with asyncio.timeout(10):
        while len(ended) < 3:  # noqa: ASYNC110 - by threads
            await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


async def _every_item_has_an_outcome() -> None:
    outcomes = [outcome async for outcome in run_tasks(math.sqrt, [4.0, -1.0, 9.0], at_a_time=2, timeout_s=60)]
    assert sorted(outcomes, key=lambda outcome: outcome.item) == [
        TaskOutcome(-1.0, None, "ValueError: math domain error"),
        TaskOutcome(4.0, 2.0),
        TaskOutcome(9.0, 3.0),
    ]


async def _one_that_takes_too_long_is_ended() -> None:
    begin = time.monotonic()
    outcomes = [outcome async for outcome in run_tasks(time.sleep, [100], at_a_time=1, timeout_s=3)]
    assert outcomes == [TaskOutcome(100, None, "no result within 3 s")]
    assert time.monotonic() - begin < 30


async def _what_is_left_is_ended() -> None:
    """Leaving the iteration early leaves no task behind, so later work need not wait."""
    items = [0.0, *[100.0] * 20]
    async with contextlib.aclosing(run_tasks(time.sleep, items, at_a_time=4, timeout_s=200)) as outcomes:
        assert (await anext(outcomes)).error is None
    async with asyncio.timeout(60):
        more = [outcome async for outcome in run_tasks(math.sqrt, [1.0] * 8, at_a_time=8, timeout_s=50)]
    assert [outcome.result for outcome in more] == [1.0] * 8
