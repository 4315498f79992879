"""The driver's end of an actor, without an actor."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import InfrastructureError
from orchestration.ray_cluster.actor import clock_id
from orchestration.ray_cluster.worker import Clock, Worker

AHEAD_NS = 10**12
OFFSETS = st.integers(-(2**60), 2**60)


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=5),
    OFFSETS,
    st.integers(-(10**9), 10**9),
    st.floats(0, 1),
)
def test_the_bound_holds_whatever_the_ways_take_and_however_the_clock_drifts(
    before: list[tuple[int, int]], after: list[tuple[int, int]], offset_ns: int, drift_ns: int, when: float
) -> None:
    """Each pair: how long a question was on its way, and its answer."""

    def sample(there_ns: int, back_ns: int, offset_ns: int) -> Clock:
        host_ns = there_ns + offset_ns  # the driver asks at 0
        return Clock.within(host_ns - there_ns - back_ns, host_ns)

    first = min((sample(*ways, offset_ns) for ways in before), key=lambda clock: clock.error_ns)
    last = min((sample(*ways, offset_ns + drift_ns) for ways in after), key=lambda clock: clock.error_ns)
    known = first.until(last)
    for true_ns in (offset_ns, offset_ns + drift_ns, offset_ns + int(when * drift_ns)):
        assert abs(known.offset_ns - true_ns) <= known.error_ns
    assert known.error_ns <= first.error_ns + last.error_ns + abs(drift_ns) + 1, "and is no wider than it must be"
    assert known.to_driver(offset_ns) == offset_ns - known.offset_ns


class Actor:
    """An actor on another host, whose clock is ahead, and gains."""

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
    assert under_test.clock.error_ns >= 10**9 // 2
    for ahead_ns in (AHEAD_NS, AHEAD_NS + 10**9):
        assert abs(under_test.clock.offset_ns - ahead_ns) <= under_test.clock.error_ns
    await under_test.create(dict)
    assert under_test.clock.error_ns < 10**9 // 2, "what was before is of no interest any more"


async def test_what_is_measured_meanwhile_widens_the_bound_only_where_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two measurements of a busy host nobody knows more than before, and at the end one must."""
    under_test = Worker(Actor("another clock"), SimpleNamespace(address="a"), lambda *_: None)  # type: ignore[arg-type]
    measured = [Clock(100, 5), Clock(103, 5), Clock(103, 50), Clock(100, 8), Clock(90, 3), Clock(0, 200)]

    async def measure() -> Clock:
        return measured.pop(0)

    monkeypatch.setattr(under_test, "_measured", measure)
    await under_test.create(dict)
    for low_ns, high_ns in ((95, 108), (95, 108), (95, 108), (87, 108)):
        clock = await under_test.compare_clocks(meanwhile=True)
        assert (clock.offset_ns - clock.error_ns, clock.offset_ns + clock.error_ns) == pytest.approx(
            (low_ns, high_ns), abs=1
        )
    assert await under_test.compare_clocks() == Clock(0, 200), "the last one counts, whatever it says"


async def test_there_is_no_error_between_those_who_read_one_clock() -> None:
    under_test = Worker(Actor(clock_id()), SimpleNamespace(address="a"), lambda *_: None)  # type: ignore[arg-type]
    await under_test.connect(1.0)
    await under_test.create(dict)
    assert await under_test.compare_clocks() == under_test.clock == Clock(0, 0)


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
