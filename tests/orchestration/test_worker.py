"""The driver's end of an actor, without an actor."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.errors import InfrastructureError
from orchestration.ray_cluster.worker import Worker


def worker(answer: asyncio.Future[Any]) -> Worker:
    actor = SimpleNamespace(call=SimpleNamespace(remote=lambda *_: answer))
    host = SimpleNamespace(address="10.0.0.1")
    return Worker(actor, host, lambda *_: None)  # type: ignore[arg-type]


async def test_a_cancellation_that_comes_together_with_the_answer_is_not_lost() -> None:
    """A watcher that asks again and again would otherwise never end, and the cell that waits for its end neither."""
    answer = asyncio.get_running_loop().create_future()
    call = asyncio.create_task(worker(answer).call("snapshot"))
    await asyncio.sleep(0)
    answer.set_result(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_no_answer_in_time_is_an_error_of_the_infrastructure() -> None:
    answer = asyncio.get_running_loop().create_future()
    with pytest.raises(
        InfrastructureError, match=r"the actor on 10\.0\.0\.1 did not answer snapshot\(\) within 0\.01 s"
    ):
        await worker(answer).call("snapshot", timeout_s=0.01)
