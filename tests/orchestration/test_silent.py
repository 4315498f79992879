"""Silent actors: no call waits for them beyond its limit, and in the end the driver gives them up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestration import ClusterPlan, InfrastructureError, RayBackend, RayCluster
from orchestration.face import Host
from orchestration.ray_cluster import calls, supervised, worker
from orchestration.ray_cluster.actor import temporary_folder
from orchestration.ray_cluster.calls import CallThread, bounded, hangs, in_background
from orchestration.ray_cluster.clock import Sample, TrackedClock
from orchestration.ray_cluster.worker import Worker
from raft_actor_node.links import LinkRule
from tests.orchestration.waiting import eventually, gone, state

pytestmark = pytest.mark.asyncio(loop_scope="session")

FAST_S = 2.0
"""Time limit shorter than all usual timeouts."""
CUT = LinkRule(from_id="n2", to_id="n3", cut=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the limits, but keep them long enough for healthy actors on a busy machine."""
    monkeypatch.setattr(supervised, "_FAULT_TIMEOUT_S", 2.0)
    monkeypatch.setattr(supervised, "_TELL_TIMEOUT_S", 0.2)
    monkeypatch.setattr(supervised, "_HALT_TIMEOUT_S", 4.0)
    monkeypatch.setattr(supervised, "_LOOK_S", 0.3)
    monkeypatch.setattr(supervised, "_REPLACE_TIMEOUT_S", 60.0)
    monkeypatch.setattr(worker, "_KNOCK_TIMEOUT_S", 2.5)


@asynccontextmanager
async def running(backend: RayBackend, foreign: tuple[str, ...] | str, **plan: Any) -> AsyncIterator[RayCluster]:
    started = await backend.start_cluster(ClusterPlan(command=foreign, nodes=3, **plan))
    try:
        yield started
    finally:
        await started.stop()


class Silenced:
    """Actors that were stopped; they are resumed when a test ends."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    async def stop(self, actor: Worker) -> int:
        pid = actor.facts.pid
        os.kill(pid, signal.SIGSTOP)
        self.pids.append(pid)
        await eventually(lambda: state(pid) == "T", "it stands still")
        return pid


@pytest.fixture
def silenced() -> Iterator[Silenced]:
    stopped = Silenced()
    yield stopped
    for pid in stopped.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class Stopwatch:
    """Measure how long a part of a test takes."""

    def __enter__(self) -> Stopwatch:
        self._begin = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._begin


async def test_faults_that_meet_a_silent_actor_end_and_the_rest_goes_on(
    backend: RayBackend, foreign: tuple[str, ...], silenced: Silenced
) -> None:
    async with running(backend, foreign) as cluster:
        pid = await silenced.stop(cluster.worker("n1"))
        with Stopwatch() as took:
            with pytest.raises(InfrastructureError, match=r"did not answer kill\(\) within 2 s"):
                await cluster.crash("n1", "n2")
            assert cluster.live == ("n1", "n3"), "the other one was killed"
            await cluster.restart("n2")
            with pytest.raises(InfrastructureError, match=r"did not answer kill\(\)"):
                await cluster.restart("n1")
            with pytest.raises(InfrastructureError, match=r"did not answer pause\(\)"):
                await cluster.pause("n1")
            assert await cluster.heal() is not None
        assert took.seconds < 20, "less than one call that waits as long as usual"
        assert cluster.unexpected_exits == ()
        node = cluster.pid("n1")
        os.kill(pid, signal.SIGCONT)
        await eventually(lambda: gone(node), "what was asked of it reaches it late")
        await eventually(lambda: "n1" not in cluster.live, "and is known")
        assert cluster.unexpected_exits == (), "it was asked for"
        await cluster.restart("n1")
        assert set(cluster.live) == {"n1", "n2", "n3"}


async def test_a_node_that_could_not_be_told_an_address_is_told_later(
    backend: RayBackend, tmp_path: Path, silenced: Silenced
) -> None:
    """Otherwise it would use the old addresses of its peers forever."""
    async with running(backend, "default", storage={"dir": str(tmp_path)}) as cluster:
        pid = await silenced.stop(cluster.worker("n1"))
        await cluster.crash("n2", "n3")
        await cluster.restart("n2", "n3")
        os.kill(pid, signal.SIGCONT)
        await cluster.crash("n2")
        kv = cluster.client()
        await kv.put(b"k", b"v")  # by n1 and n3


async def test_a_silent_node_does_not_hide_the_leader(backend: RayBackend, tmp_path: Path, silenced: Silenced) -> None:
    plan = {
        "storage": {"dir": str(tmp_path)},
        "raft": {"election_timeout": "2s-2.5s"},  # the leader stays, also on a busy machine
        "transport": {"probe_timeout": "10s"},
    }
    async with running(backend, "default", **plan) as cluster:
        leader = await cluster.leader()
        assert leader is not None
        follower = next(node_id for node_id in cluster.node_ids if node_id != leader)
        os.kill(cluster.pid(follower), signal.SIGSTOP)  # unknown to the cluster, which asks in vain
        try:
            with Stopwatch() as took:
                assert await cluster.leader() == leader
            assert took.seconds < cluster.plan.transport.probe_timeout / 2
        finally:
            os.kill(cluster.pid(follower), signal.SIGCONT)


async def test_nobody_waits_again_for_a_node_that_missed_the_last_table(
    backend: RayBackend, tmp_path: Path, silenced: Silenced
) -> None:
    async with running(backend, "default", storage={"dir": str(tmp_path)}, chaos_enabled=True) as cluster:
        await cluster.leader()
        pid = cluster.pid("n3")
        os.kill(pid, signal.SIGSTOP)  # unknown to the cluster, as when the host is cut off
        silenced.pids.append(pid)
        took_s = []
        for _ in range(2):
            with Stopwatch() as took:
                assert (await cluster.set_links([CUT])).failed == ("n3",)
            took_s.append(took.seconds)
        patience_s = cluster.plan.transport.probe_timeout
        assert took_s[0] >= patience_s > took_s[1]
        os.kill(pid, signal.SIGCONT)
        assert (await cluster.heal()).failed == ()
        assert (await cluster.set_links([CUT])).failed == (), "and is waited for again"


async def test_what_is_known_of_a_clock_outlives_an_actor_and_is_looked_at_once_more_at_the_end(
    backend: RayBackend, foreign: tuple[str, ...]
) -> None:
    async with running(backend, foreign) as cluster:
        lost = cluster.worker("n1")
        asked_ns = time.monotonic_ns()
        lost._tracked = TrackedClock(Sample(asked_ns, asked_ns - 10**9, asked_ns))  # as if it had a clock of its own
        os.kill(lost.facts.pid, signal.SIGKILL)
        await eventually(lambda: len(cluster.unexpected_exits) == 1, "it is lost")
        await cluster.collect("n1")  # by another actor on its host
        clock = cluster.worker("n1").clock
        assert cluster.worker("n1") is not lost
        assert (clock.offset_ns, clock.error_ns >= 10**9) == (-(10**9), True), "it turns out that it is the driver's"


async def test_an_actor_that_is_silent_at_the_end_is_given_up_and_its_files_are_had(
    backend: RayBackend, foreign: tuple[str, ...], silenced: Silenced
) -> None:
    async with running(backend, foreign, run_id="silent") as cluster:
        lost = cluster.worker("n1")
        await silenced.stop(lost)
        unanswered = r"did not answer terminate\(\) within 4 s"
        with Stopwatch() as took, pytest.raises(InfrastructureError, match=unanswered):
            await cluster.halt()
        assert took.seconds < 20
        [end] = cluster.unexpected_exits
        assert (end.node_id, end.cause, end.infrastructure) == ("n1", "infrastructure", True)
        assert f"node n1 on host {lost.host.address} ended (infrastructure): " in str(end)
        node = cluster.pid("n1")
        assert not gone(node), "no call has ended it yet"
        assert "foreign node n1" in (await cluster.collect("n1")).log
        assert gone(node), "the actor that took the place of its own has"
        with Stopwatch() as took, pytest.raises(InfrastructureError):
            await lost.call("pause")
        assert took.seconds < FAST_S
    assert not (temporary_folder() / "silent").exists()


async def test_an_actor_that_is_silent_for_long_is_lost(
    backend: RayBackend, foreign: tuple[str, ...], silenced: Silenced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "_SILENCE_S", 4.0)
    async with running(backend, foreign) as started:
        await silenced.stop(started.worker("n2"))
        noticed = "it is noticed, though Ray says nothing"
        await eventually(lambda: len(started.unexpected_exits) == 1, noticed, timeout_s=20)
        assert started.unexpected_exits[0].infrastructure
        assert started.live == ("n1", "n3")
        with Stopwatch() as took, pytest.raises(InfrastructureError):
            await started.restart("n2")
        assert took.seconds < FAST_S


async def test_an_actor_that_goes_while_its_node_is_down_is_infrastructure(
    backend: RayBackend, foreign: tuple[str, ...]
) -> None:
    """No task waits for the end of a node that is down."""
    async with running(backend, foreign) as started:
        await started.crash("n2")
        os.kill(started.worker("n2").facts.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while not started.unexpected_exits:  # Ray may need a while to notice
                with pytest.raises(InfrastructureError):
                    await started.restart("n2")
        with pytest.raises(InfrastructureError):
            await started.restart("n2")
        assert [(end.node_id, end.infrastructure) for end in started.unexpected_exits] == [("n2", True)]


async def test_a_node_that_is_told_to_end_with_its_host_is_no_failure_of_its_own(
    backend: RayBackend, foreign: tuple[str, ...]
) -> None:
    """A host that shuts down ends all of its processes, one after the other."""
    async with running(backend, foreign) as started:
        os.kill(started.pid("n2"), signal.SIGTERM)
        await eventually(lambda: gone(started.pid("n2")), "the node is gone")
        os.kill(started.worker("n2").facts.pid, signal.SIGKILL)
        os.kill(started.pid("n3"), signal.SIGTERM)
        await eventually(lambda: len(started.unexpected_exits) == 2, "both ends are known")
        assert {end.node_id: end.infrastructure for end in started.unexpected_exits} == {"n2": True, "n3": False}


async def test_an_idle_actor_that_is_gone_is_not_used(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    async with running(backend, foreign) as first:
        pids = [first.worker(node_id).facts.pid for node_id in first.node_ids]
    os.kill(pids[0], signal.SIGKILL)
    async with running(backend, foreign) as second:
        assert len(second.live) == 3
        assert pids[0] not in [second.worker(node_id).facts.pid for node_id in second.node_ids]


async def test_a_call_that_blocks_has_a_limit() -> None:
    release = threading.Event()
    with Stopwatch() as took, pytest.raises(InfrastructureError, match=r"^Ray did not answer within 0.1 s$"):
        await bounded("Ray", 0.1, release.wait)
    release.set()
    assert took.seconds < FAST_S
    assert await bounded("Ray", 5.0, lambda: 7) == 7
    with pytest.raises(InfrastructureError, match=r"^Ray did not answer: no such thing$"):
        await bounded("Ray", 5.0, lambda: (_ for _ in ()).throw(RuntimeError("no such thing\nand more")))


async def test_calls_of_one_thread_are_made_in_order() -> None:
    caller, made = calls.CallThread(), list[int]()
    slow = asyncio.create_task(caller.bounded("Ray", 5.0, lambda: (time.sleep(0.1), made.append(1))))
    await asyncio.sleep(0)
    await caller.bounded("Ray", 5.0, lambda: made.append(2))
    await slow
    assert made == [1, 2]
    caller.end()


async def test_calls_under_way_end_when_an_actor_is_given_up() -> None:
    class Silent:
        class call:  # noqa: N801 - as an actor has it
            @staticmethod
            def remote(*_: Any) -> asyncio.Future[Any]:
                return asyncio.get_running_loop().create_future()

    silent = Worker(Silent(), Host("id", "10.0.0.1", 1.0), lambda *_: None)
    waiting = asyncio.create_task(silent.call("wait", timeout_s=None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    silent.give_up("it was silent")
    for call in (waiting, silent.call("wait")):
        with pytest.raises(InfrastructureError, match=r"^it was silent$"):
            await asyncio.wait_for(call, FAST_S)


async def test_only_a_call_that_does_not_come_back_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for its next call is none: a program that is at its end may leave."""
    monkeypatch.setattr(calls, "_GRACE_S", 10.0)  # the backend of all tests may be asking Ray's head just now
    caller = CallThread()
    assert not hangs()
    begun, release = threading.Event(), threading.Event()
    in_background("waiting", lambda: (begun.set(), release.wait()))
    begun.wait()
    with monkeypatch.context() as brief:
        brief.setattr(calls, "_GRACE_S", 0.2)
        assert hangs()
    release.set()
    assert not hangs()
    caller.end()
