"""The driver's side of an actor, without an actor."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError, RayActorError

from orchestration.errors import InfrastructureError
from orchestration.face import HostClock
from orchestration.ray_cluster.actor import clock_id
from orchestration.ray_cluster.worker import Worker

AHEAD_NS = 10**12


class Actor:
    """An actor on another host, whose clock is ahead and can be moved."""

    def __init__(self, identity: str) -> None:
        self.facts = SimpleNamespace(remote=lambda: self._answer(("host", 1, 1, identity)))
        self.now_ns = SimpleNamespace(remote=lambda: self._answer(None))
        self.create = SimpleNamespace(remote=lambda *_: self._answer(()))
        self.ahead_ns = AHEAD_NS

    async def _answer(self, value: Any) -> Any:
        await asyncio.sleep(0)
        answer = time.monotonic_ns() + self.ahead_ns if value is None else value
        await asyncio.sleep(0)
        return answer


async def test_clocks_are_compared_for_each_object_and_again_when_asked() -> None:
    actor = Actor("another clock")
    under_test = Worker(actor, SimpleNamespace(address="a"), lambda *_: None)  # type: ignore[arg-type]
    await under_test.connect(1.0)
    await under_test.create(dict)
    at_first = under_test.clock
    assert abs(at_first.offset_ns - AHEAD_NS) <= at_first.error_ns < 10**9
    actor.ahead_ns += 10**9
    assert await under_test.compare_clocks() == under_test.clock
    assert under_test.clock.offset_ns == at_first.offset_ns, "what was put on the driver's clock before stays right"
    for ahead_ns in (AHEAD_NS, AHEAD_NS + 10**9):
        assert abs(under_test.clock.offset_ns - ahead_ns) <= under_test.clock.error_ns
    replacement = Worker(actor, SimpleNamespace(address="a"), lambda *_: None)  # type: ignore[arg-type]
    replacement.keep_clock(under_test)
    assert replacement.clock == under_test.clock
    await under_test.create(dict)
    assert under_test.clock.error_ns < 10**9 // 2, "what was before is of no interest any more"


async def test_there_is_no_error_between_those_who_read_one_clock() -> None:
    under_test = Worker(Actor(clock_id()), SimpleNamespace(address="a"), lambda *_: None)  # type: ignore[arg-type]
    await under_test.connect(1.0)
    await under_test.create(dict)
    assert await under_test.compare_clocks() == under_test.clock == HostClock(0, 0)


def worker(answer: asyncio.Future[Any]) -> Worker:
    actor = SimpleNamespace(call=SimpleNamespace(remote=lambda *_: answer))
    host = SimpleNamespace(address="10.0.0.1")
    return Worker(actor, host, lambda *_: None)  # type: ignore[arg-type]


async def test_a_cancellation_that_comes_together_with_the_answer_is_not_lost() -> None:
    """Otherwise a watcher that keeps asking would never end, nor would the cell that waits for it."""
    answer = asyncio.get_running_loop().create_future()
    call = asyncio.create_task(worker(answer).call("snapshot"))
    await asyncio.sleep(0)
    answer.set_result(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_knock_asks_on_until_it_is_known_whether_the_actor_is_gone() -> None:
    """If Ray's head learns of a death late, its first answer is that the actor is unreachable."""
    errors = [ActorUnavailableError("who knows", bytes(16)), RayActorError()]

    async def fail() -> None:
        raise errors.pop(0)

    under_test = Worker(  # type: ignore[arg-type]
        SimpleNamespace(now_ns=SimpleNamespace(remote=fail)), SimpleNamespace(address="10.0.0.1"), lambda *_: None
    )
    with pytest.raises(InfrastructureError, match="is gone"):
        await under_test.knock()
    assert errors == []
    assert under_test.lost is not None


async def test_no_answer_in_time_is_an_error_of_the_infrastructure() -> None:
    answer = asyncio.get_running_loop().create_future()
    with pytest.raises(
        InfrastructureError, match=r"the actor on 10\.0\.0\.1 did not answer snapshot\(\) within 0\.01 s"
    ):
        await worker(answer).call("snapshot", timeout_s=0.01)
