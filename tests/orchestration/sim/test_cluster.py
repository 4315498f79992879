"""The simulated cluster: incarnations, disks, clocks, faults, and the interface for sweeps and chaos."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orchestration import ClusterPlan
from orchestration.errors import NodeFailed
from orchestration.sim_cluster import Parts, Silent, SimCluster, SimSettings, run_virtual
from raft_actor_node.client_engine import OK
from raft_actor_node.config import ClientSettings, RaftSettings, StorageSettings
from raft_actor_node.core import AppendEntries, Effects, Event, Persist, RaftNode, RequestVoteReply
from raft_actor_node.core.invariants import Snapshot
from raft_actor_node.errors import InvariantViolated, OperationError, OperationUnknown
from raft_actor_node.kv.store import Store
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import DiskFault, NodeFaults
from raft_actor_node.pb import inspection_pb2
from raft_actor_node.runtime.wal import Wal
from raft_actor_node.units import Range
from tests.orchestration.sim.runs import MONKEY, ROUGH, simulate

T = TypeVar("T")


def story(
    tell: Callable[[SimCluster], Coroutine[Any, Any, T]],
    settings: SimSettings | None = None,
    *,
    plan: ClusterPlan | None = None,
    seed: int = 1,
    **options: Any,
) -> T:
    """Run a test's coroutine on a started cluster of three nodes; return its result."""

    async def main() -> T:
        cluster = SimCluster(plan or ClusterPlan(nodes=3), settings, seed, **options)
        await cluster.start()
        try:
            return await tell(cluster)
        finally:
            await cluster.stop()

    return run_virtual(main)


async def leader_of(cluster: SimCluster) -> str:
    async with asyncio.timeout(30.0):
        while (leader := await cluster.leader()) is None:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.01)
    return leader


async def put_many(cluster: SimCluster) -> None:
    kv = cluster.client()
    for i in range(20):
        await kv.put(b"k", b"%d" % i)


async def converged(cluster: SimCluster) -> list[bytes]:
    """Return the state hashes of all nodes once they have applied the same index."""
    async with asyncio.timeout(30.0):
        while len({node.store and node.store.last_applied for node in cluster.nodes.values()}) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return [node.store.state_hash() for node in cluster.nodes.values() if node.store is not None]


# ------------------------------------------------------------------------------ incarnations


def test_what_was_acknowledged_survives_crashes_of_all() -> None:
    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client()
        await kv.put(b"k", b"v")
        await cluster.crash(*cluster.node_ids)
        assert cluster.live == ()
        assert await cluster.leader() is None
        await cluster.restart(*cluster.node_ids)
        assert await kv.get(b"k") == b"v"
        assert [node.lives for node in cluster.nodes.values()] == [2, 2, 2]
        assert [(end.cause, end.exit_code) for end in cluster.exits] == [("crash", -9)] * 3
        assert cluster.unexpected_exits == ()

    story(tell)


@pytest.mark.parametrize("seed", range(20))
def test_a_power_loss_of_all_takes_nothing_that_was_acknowledged(seed: int) -> None:
    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client()
        writes = [asyncio.ensure_future(kv.put(b"k%d" % i, b"v")) for i in range(20)]
        await asyncio.sleep(0.002 + 0.001 * seed)
        acknowledged = [i for i, write in enumerate(writes) if write.done()]
        await cluster.power_loss(*cluster.node_ids)
        await cluster.restart(*cluster.node_ids)
        await asyncio.wait(writes)
        for i in acknowledged:
            assert await kv.get(b"k%d" % i) == b"v"

    story(tell, SimSettings(fsync=Range(0.001, 0.010)), seed=seed)


def test_without_fsync_a_power_loss_takes_what_was_acknowledged() -> None:
    """The control experiment: the checks must notice the loss."""

    async def tell(cluster: SimCluster) -> bool:
        kv = cluster.client()
        await kv.put(b"k", b"v")
        await cluster.power_loss(*cluster.node_ids)
        try:
            await cluster.restart(*cluster.node_ids)
        except NodeFailed:
            return True
        return await kv.get(b"k") != b"v"

    plan = ClusterPlan(nodes=3, storage=StorageSettings(fsync="off"))
    assert sum(story(tell, plan=plan, seed=seed) for seed in range(10)) >= 3


def test_with_unsynced_lost_a_crash_is_a_power_loss() -> None:
    async def tell(cluster: SimCluster) -> None:
        await cluster.crash("n1")
        assert "power lost" in (await cluster.collect("n1")).log

    story(tell, plan=ClusterPlan(nodes=3, storage=StorageSettings(unsynced="lost")))


def test_a_paused_leader_is_replaced_and_its_mail_waits() -> None:
    async def tell(cluster: SimCluster) -> None:
        old = await leader_of(cluster)
        core = cluster.nodes[old].core
        assert core is not None
        await cluster.pause(old)
        term, last = core.current_term, core.log.last_index
        kv = cluster.client()
        await kv.put(b"k", b"v")
        assert await cluster.leader() != old
        assert (core.current_term, core.log.last_index) == (term, last), "it did nothing"
        assert await cluster.status(old) is None
        await cluster.resume(old)
        await converged(cluster)
        assert core.current_term > term
        assert cluster.nodes[old].core is core, "the same life"

    story(tell)


def test_what_is_told_twice_is_done_once() -> None:
    async def tell(cluster: SimCluster) -> None:
        assert (await cluster.resume("n1")).first_ns == 0, "it was not paused"
        assert (await cluster.restart("n1")).first_ns == 0, "it runs"
        await asyncio.gather(cluster.crash("n1"), cluster.crash("n1"))
        await asyncio.gather(cluster.restart("n1"), cluster.restart("n1"))
        assert cluster.nodes["n1"].lives == 2
        now_ns = round(asyncio.get_running_loop().time() * 1e9)
        assert await cluster.pause("n1", "n2") == (now_ns, now_ns, ())
        await cluster.crash("n2")
        assert (await cluster.pause("n2")).failed == ("n2",)

    story(tell)


def test_a_node_that_is_stopped_answers_first_and_leaves_with_0() -> None:
    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client()
        await kv.put(b"warm", b"up")
        leader = await leader_of(cluster)
        writes = [asyncio.ensure_future(kv.append(b"k", b"x")) for _ in range(5)]
        await asyncio.sleep(0.004)
        await cluster.nodes[leader].halt()
        assert [(end.node_id, end.cause, end.exit_code) for end in cluster.exits] == [(leader, "stop", 0)]
        assert sorted(await asyncio.gather(*writes)) == [1, 2, 3, 4, 5]
        await cluster.restart(leader)
        assert len(set(await converged(cluster))) == 1

    story(tell)


def test_a_restart_that_is_given_up_can_be_tried_again() -> None:
    async def tell(cluster: SimCluster) -> None:
        await cluster.crash("n1")
        attempt = asyncio.ensure_future(cluster.restart("n1"))
        await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.wait([attempt])
        assert cluster.live == ("n2", "n3")
        await cluster.restart("n1")
        assert cluster.live == ("n1", "n2", "n3")

    story(tell)


def test_a_message_of_before_reaches_a_later_life() -> None:
    """A network may deliver a message of an earlier incarnation, and the core must tolerate it."""

    class Lives(Silent):
        def __init__(self) -> None:
            self.began: dict[str, float] = {}
            self.late = 0

        def started(self, node: RaftNode, now: float) -> None:
            self.began[node.node_id] = now

        def sent(self, message: Any, now: float) -> None:
            sent[id(message)] = now, message  # keeps the message, so its id stays unique

        def delivered(self, message: Any, now: float) -> None:
            self.late += sent[id(message)][0] < self.began[message.to_id]

    sent: dict[int, tuple[float, Any]] = {}
    watch = Lives()

    async def tell(cluster: SimCluster) -> None:
        for _ in range(5):
            leader = await leader_of(cluster)
            await cluster.crash(leader)
            await cluster.restart(leader)
            await asyncio.sleep(1.0)
        assert cluster.violations == []

    story(tell, SimSettings(replay=0.2), observer=watch)
    assert watch.late > 0


# ------------------------------------------------------------------------------ disks


@pytest.mark.parametrize(
    ("fault", "code"), [("fail_writes", errno.ENOSPC), ("fail_writes", errno.EIO), ("fail_syncs", errno.EIO)]
)
def test_a_node_whose_disk_fails_ends_and_promises_nothing(fault: str, code: int) -> None:
    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client()
        await kv.put(b"k", b"1")
        leader = await leader_of(cluster)
        setattr(cluster.nodes[leader].disk, fault, code)
        await kv.put(b"k", b"2")
        assert [(end.node_id, end.cause, end.exit_code) for end in cluster.unexpected_exits] == [(leader, "exit", 6)]
        assert cluster.violations == [], "a disk may fail"
        with_fault = cluster.nodes[leader].disk
        setattr(with_fault, fault, None)
        await cluster.restart(leader)
        assert await kv.get(b"k") == b"2"
        assert len(set(await converged(cluster))) == 1

    story(tell)


def test_a_slow_disk_takes_as_long_as_the_plan_says() -> None:
    async def tell(cluster: SimCluster) -> float:
        kv = cluster.client()
        await kv.put(b"k", b"1")
        begin_s = asyncio.get_running_loop().time()
        await kv.put(b"k", b"2")
        return asyncio.get_running_loop().time() - begin_s

    slow = ClusterPlan(nodes=3, storage=StorageSettings(fsync_latency=0.04))
    assert story(tell) < 0.02
    assert story(tell, plan=slow) > 0.04


def test_a_disk_error_that_the_node_made_up_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """No disk has failed: a node that exits with the code of a broken disk has a bug."""

    def fails(wal: Wal, fd: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    async def tell(cluster: SimCluster) -> None:
        cluster.nodes["n1"].disk.fail_syncs = errno.EIO
        await put_many(cluster)
        cluster.nodes["n1"].disk.fail_syncs = None
        await cluster.restart("n1")
        assert cluster.violations == [], "a disk may fail"
        monkeypatch.setattr(Wal, "_sync", fails)
        with pytest.raises(OperationError):
            await put_many(cluster)
        assert {end.exit_code for end in cluster.unexpected_exits} == {6}
        assert len(cluster.violations) == len(cluster.unexpected_exits) - 1 > 0
        monkeypatch.undo()

    story(tell)


def test_a_directory_that_is_locked_is_a_violation() -> None:
    """The previous incarnation has ended, and its lock with it."""

    async def tell(cluster: SimCluster) -> None:
        await cluster.crash("n1")
        disk = cluster.nodes["n1"].disk
        disk.lock(Path(cluster.nodes["n1"].config.storage.dir) / "n1")
        with pytest.raises(NodeFailed):
            await cluster.restart("n1")
        assert [violation.node_id for violation in cluster.violations] == ["n1"]

    story(tell)


def test_a_disk_that_fails_at_the_end_is_an_exit_of_its_own() -> None:
    async def tell(cluster: SimCluster) -> None:
        cluster.nodes["n1"].disk.fail_syncs = errno.EIO
        await cluster.halt()
        ends = {end.node_id: (end.cause, end.exit_code) for end in cluster.exits}
        assert ends == {"n1": ("exit", 6), "n2": ("stop", 0), "n3": ("stop", 0)}
        assert cluster.violations == []

    story(tell)


def test_a_full_disk_ends_the_node() -> None:
    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client()
        with pytest.raises(OperationUnknown):  # all disks are full at about the same time
            for i in range(60):
                await kv.put(b"%d" % i, bytes(1000))
        assert {end.exit_code for end in cluster.unexpected_exits} == {6}
        assert cluster.violations == []

    story(tell, SimSettings(disk_capacity=40_000))


def test_disks_that_fail_by_chance_are_repaired_by_a_restart() -> None:
    async def repair(cluster: SimCluster) -> None:
        while True:
            down = [node_id for node_id, node in cluster.nodes.items() if node.state == "down"]
            with contextlib.suppress(NodeFailed):
                await cluster.restart(*down)
            await asyncio.sleep(0.5)

    async def tell(cluster: SimCluster) -> None:
        repairs = asyncio.ensure_future(repair(cluster))
        kv = cluster.client()
        for i in range(40):
            await kv.append(b"k", b"%d," % i)
        cluster.settings = SimSettings()
        assert await kv.get(b"k") == b"".join(b"%d," % i for i in range(40))
        assert {end.exit_code for end in cluster.unexpected_exits} == {6}
        assert cluster.violations == []
        repairs.cancel()

    story(tell, SimSettings(disk_failure=0.03))


def test_a_damaged_log_is_refused_and_noted() -> None:
    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client()
        for i in range(5):
            await kv.put(b"k", b"%d" % i)
        await cluster.crash("n1")
        disk = cluster.nodes["n1"].disk
        path, content = next((p, c) for p, c in disk.contents().items() if p.name.startswith("segment"))
        disk.put(path, content[:200] + b"?" + content[201:])
        with pytest.raises(NodeFailed) as caught:
            await cluster.restart("n1")
        assert caught.value.node_exit_code == 5
        assert [end.exit_code for end in cluster.unexpected_exits] == [5]
        assert [violation.node_id for violation in cluster.violations] == ["n1"]

    story(tell)


# ------------------------------------------------------------------------------ clocks, stalls


def test_clocks_of_different_speed() -> None:
    async def tell(cluster: SimCluster) -> None:
        rates = [node.rate for node in cluster.nodes.values()]
        assert len(set(rates)) == 3
        assert all(0.5 <= rate <= 2.0 for rate in rates)
        begin = asyncio.get_running_loop().time()
        clocks = {node_id: node.life.process.now() for node_id, node in cluster.nodes.items() if node.life}
        await asyncio.sleep(10.0)
        passed = asyncio.get_running_loop().time() - begin
        for node_id, node in cluster.nodes.items():
            assert node.life is not None
            assert node.life.process.now() - clocks[node_id] == pytest.approx(passed * node.rate)

    story(tell, SimSettings(clock_rate=(0.5, 2.0)))


def test_a_start_may_be_interrupted_at_any_call_and_the_next_one_finds_all() -> None:
    async def tell(cluster: SimCluster) -> int:
        kv = cluster.client()
        for i in range(10):
            await kv.put(b"k%d" % i, b"v")
        cluster.settings = SimSettings(boot_crash=0.5, power_loss=0.5)
        for _ in range(40):
            await cluster.crash("n1")
            while cluster.nodes["n1"].state == "down":
                with contextlib.suppress(NodeFailed):
                    await cluster.restart("n1")
        cluster.settings = SimSettings()
        assert len(set(await converged(cluster))) == 1
        assert cluster.violations == []
        assert {end.exit_code for end in cluster.exits} == {-9}
        return len(cluster.exits)

    assert story(tell) > 50, "of these 40 are the crashes"


def test_a_node_that_steps_without_end_is_ended() -> None:
    """Even without another observer: otherwise virtual time would never advance again."""

    class Restless(RaftNode):
        def next_deadline(self) -> float:
            return self._now if self.node_id == "n1" else super().next_deadline()

    async def tell(cluster: SimCluster) -> None:
        assert await leader_of(cluster) != "n1"
        (violation,) = cluster.violations
        assert "n1 steps without end" in str(violation)

    story(tell, parts=Parts(node=Restless))


@pytest.mark.parametrize("power", [False, True])
def test_clients_hear_of_the_end_of_a_process_and_not_of_a_host_without_power(power: bool) -> None:
    """A pending request ends by the client's deadline, a connection attempt by its timeout.

    When the host is back, it does not know its old connections.
    """

    async def tell(cluster: SimCluster) -> None:
        loop = asyncio.get_running_loop()
        leader = await leader_of(cluster)
        kv = cluster.client(settings=ClientSettings(rpc_timeout=0.5, retry_budget=0.0), follow=False)
        await kv.put(b"k", b"1")
        await (cluster.power_loss(leader) if power else cluster.crash(leader))
        begin_s = loop.time()
        with pytest.raises(OperationError) as caught:
            await kv.put(b"k", b"2")
        waited_s = loop.time() - begin_s
        assert (waited_s > 0.49) == power, caught.value
        await cluster.restart(leader)
        assert cluster.violations == []

    story(tell)


def test_a_status_tells_time_by_the_clocks_of_the_simulation() -> None:
    """The silence of a peer is measured by the node's clock, the time of the status by the recording's."""

    async def tell(cluster: SimCluster) -> None:
        leader = await leader_of(cluster)
        await asyncio.sleep(1.0)
        deaf = next(node_id for node_id in cluster.node_ids if node_id != leader)
        await cluster.pause(deaf)
        await asyncio.sleep(0.5)
        status = await cluster.status(leader)
        silent_ms = {peer.node_id: peer.silent_ms / cluster.nodes[leader].rate for peer in status.peers}
        assert silent_ms.pop(deaf) == pytest.approx(500, abs=60)
        assert 0 <= min(silent_ms.values()) < 60
        assert status.now_ns == cluster.loop.now_ns()

    story(tell, SimSettings(clock_rate=(0.5, 0.9)))


def test_stalls_begin_and_end_with_the_settings() -> None:
    """New settings apply to running incarnations: stalls begin, and after the end of the stalls none is pending."""

    async def tell(cluster: SimCluster) -> list[bool]:
        def stalls() -> set[str]:
            return {line.split("|")[1].strip() for line in cluster.log if "stalls for" in line}

        await asyncio.sleep(3.0)
        before = stalls()
        cluster.settings = SimSettings(stalls_per_s=2.0, stall=Range(0.01, 0.02))
        await asyncio.sleep(5.0)
        among = stalls()
        cluster.settings = SimSettings()
        lines = len(cluster.log)
        await asyncio.sleep(5.0)
        late = [line for line in cluster.log[lines:] if "stalls for" in line]
        return [before == set(), among == set(cluster.node_ids), late == []]

    assert story(tell, story=True) == [True, True, True]


def test_stalls_are_felt_and_measured() -> None:
    async def tell(cluster: SimCluster) -> None:
        await asyncio.sleep(20.0)
        lags = [lag for node_id in cluster.node_ids for lag in (await cluster.samples(node_id)).loop_lag_us]
        assert len(lags) == pytest.approx(60, abs=30)
        assert all(100_000 <= lag <= 400_000 for lag in lags)

    story(tell, SimSettings(stalls_per_s=1.0, stall=Range(0.1, 0.4)))


# ------------------------------------------------------------------------------ links


def test_a_cut_holds_at_both_ends_and_outlives_a_restart() -> None:
    async def tell(cluster: SimCluster) -> None:
        leader = await leader_of(cluster)
        lonely = next(node_id for node_id in cluster.node_ids if node_id != leader)
        cut = [LinkRule(from_id=lonely, to_id="*", cut=True), LinkRule(from_id="*", to_id=lonely, cut=True)]
        await cluster.set_links(cut)
        await cluster.crash(lonely)
        await cluster.restart(lonely)
        kv = cluster.client()
        await kv.put(b"k", b"v")
        await asyncio.sleep(2.0)
        node = cluster.nodes[lonely]
        assert node.store is not None
        assert node.store.get(b"k") is None
        await cluster.heal()
        await converged(cluster)
        assert node.store.get(b"k") == b"v"

    story(tell)


def test_messages_wait_for_bandwidth() -> None:
    """At 16 KiB/s, 8 KiB take half a second to a follower, and later messages arrive after them."""

    async def tell(cluster: SimCluster) -> None:
        leader = await leader_of(cluster)
        kv = cluster.client()
        await kv.put(b"k", b"v")
        await cluster.set_links([LinkRule(from_id=leader, to_id="*", bytes_per_s=16 * 1024)])
        begin = cluster.loop.time()
        await kv.put(b"k", bytes(8 * 1024))
        assert 0.5 < cluster.loop.time() - begin < 0.6
        begin = cluster.loop.time()
        await asyncio.gather(*(kv.put(b"k%d" % i, bytes(8 * 1024)) for i in range(2)))
        assert 1.0 < cluster.loop.time() - begin < 1.2
        status = await cluster.status(leader)
        assert status is not None
        assert status.counters.messages_delayed > 0
        await cluster.heal()
        begin = cluster.loop.time()
        await kv.put(b"k", bytes(8 * 1024))
        assert cluster.loop.time() - begin < 0.1
        assert await cluster.leader() == leader

    calm = RaftSettings(election_timeout=Range(4.0, 5.0), heartbeat_interval=0.5, rpc_timeout=3.0)
    story(tell, plan=ClusterPlan(nodes=3, raft=calm))


class Entries(Silent):
    """Counts the messages with a large payload, by receiver."""

    def __init__(self) -> None:
        self.large: Counter[str] = Counter()

    def sent(self, message: Any, now: float) -> None:
        if isinstance(message, AppendEntries) and any(len(each) > 10**5 for each in message.entry_payloads):
            self.large[message.to_id] += 1


def ballots(cluster: SimCluster) -> list[int]:
    """Return the number of elections and pre-votes that each node began."""
    cores = [node.core for node in cluster.nodes.values()]
    return [core.counters.elections_started + core.counters.pre_votes_started for core in cores if core is not None]


@pytest.mark.parametrize("rate", [10**6, 250_000, 50_000])
def test_a_large_entry_crosses_a_slow_link_once_and_without_an_election(rate: int) -> None:
    """1 MB takes up to 20 s, with election timeouts of 150 to 300 ms."""
    watch = Entries()

    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client(settings=ClientSettings(rpc_timeout=60.0, retry_budget=60.0))
        await kv.put(b"k", b"v")
        before = ballots(cluster)
        await cluster.set_links([LinkRule(from_id="*", to_id="*", bytes_per_s=rate)])
        begin = cluster.loop.time()
        await kv.put(b"large", bytes(10**6))
        assert 1.0 < (cluster.loop.time() - begin) * rate / 10**6 < 1.05
        await converged(cluster)
        assert ballots(cluster) == before
        assert list(watch.large.values()) == [1, 1]

    story(tell, observer=watch)


@pytest.mark.parametrize(("rate", "every_s"), [(250_000, 0.2), (500_000, 0.05)])
def test_a_large_entry_crosses_a_slow_link_beside_small_writes(rate: int, every_s: float) -> None:
    """New entries make the batch of the next attempt longer, but the transfer must not start again because of that."""
    watch = Entries()

    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client(settings=ClientSettings(rpc_timeout=60.0, retry_budget=60.0))
        await kv.put(b"k", b"v")
        before = ballots(cluster)
        await cluster.set_links([LinkRule(from_id="*", to_id="*", bytes_per_s=rate)])
        begin = cluster.loop.time()
        large = asyncio.ensure_future(kv.put(b"large", bytes(10**6)))
        small = []
        while not large.done():
            assert (cluster.loop.time() - begin) * rate / 10**6 < 2.0
            small.append(asyncio.ensure_future(kv.put(b"small", b"v")))
            await asyncio.sleep(every_s)
        await asyncio.gather(*small)
        await converged(cluster)
        assert ballots(cluster) == before
        # At most once more: the leader may have retried before the first answer came.
        assert max(watch.large.values()) <= 2

    story(tell, observer=watch)


def test_many_entries_cross_a_slow_link_without_an_election() -> None:
    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client(settings=ClientSettings(rpc_timeout=60.0, retry_budget=60.0))
        await kv.put(b"k", b"v")
        before = ballots(cluster)
        await cluster.set_links([LinkRule(from_id="*", to_id="*", bytes_per_s=10**6)])
        await asyncio.gather(*(kv.put(b"k%d" % i, bytes(1000)) for i in range(1000)))
        await converged(cluster)
        assert ballots(cluster) == before

    story(tell)


def test_heartbeats_that_the_link_cannot_take_are_replaced_and_do_not_queue() -> None:
    """At 100 B/s a heartbeat takes longer than the heartbeat interval; after 20 s the link still brings recent ones."""

    class Ages(Silent):
        def __init__(self) -> None:
            self.sequence: dict[str, int] = {}
            self.behind: list[int] = []

        def stepped(self, node: RaftNode, before: Snapshot, events: Any, effects: Effects, now: float) -> None:
            for message in effects.messages:
                if isinstance(message, AppendEntries):
                    self.sequence[message.to_id] = message.sequence

        def delivered(self, message: Any, now: float) -> None:
            if isinstance(message, AppendEntries):
                self.behind.append(self.sequence[message.to_id] - message.sequence)

    watch = Ages()

    async def tell(cluster: SimCluster) -> None:
        leader = await leader_of(cluster)
        await cluster.set_links([LinkRule(from_id=leader, to_id="*", bytes_per_s=100)])
        watch.behind.clear()
        await asyncio.sleep(20.0)
        assert await cluster.leader() == leader
        assert 40 < len(watch.behind) < 400, "fewer than were made"
        assert max(watch.behind) < 50, "none is older than what it waited for"

    calm = RaftSettings(election_timeout=Range(4.0, 5.0), heartbeat_interval=0.05, rpc_timeout=3.0)
    story(tell, plan=ClusterPlan(nodes=3, raft=calm), observer=watch)


def test_late_copies_are_messages_of_earlier_terms() -> None:
    """Late copies change nothing: nothing is undone, and nothing is applied twice."""

    class Late(Silent):
        def __init__(self) -> None:
            self.term = self.count = 0

        def delivered(self, message: Any, now: float) -> None:
            self.count += message.term < self.term
            self.term = max(self.term, message.term)

    watch = Late()

    async def tell(cluster: SimCluster) -> None:
        await cluster.set_links([LinkRule(from_id="*", to_id="*", duplicate=0.5, late_ms=5000)])
        kv = cluster.client()
        for i in range(5):
            assert await kv.append(b"log", b"x") == i + 1
            leader = await leader_of(cluster)
            await cluster.pause(leader)  # a late copy that is due during the pause leaves when the leader resumes
            await kv.append(b"other", b"y")
            await cluster.resume(leader)
        statuses = [await cluster.status(node_id) for node_id in cluster.node_ids]
        assert all(status and status.counters.messages_duplicated for status in statuses)
        await cluster.heal()
        await asyncio.sleep(6.0)
        assert len(set(await converged(cluster))) == 1
        assert await kv.get(b"log") == b"x" * 5
        assert cluster.violations == []

    story(tell, observer=watch)
    assert watch.term > 3
    assert watch.count > 20, "many came in a later term"


# ------------------------------------------------------------------------------ violations are reported


class _Boastful(RaftNode):
    """Acknowledges before its disk is synced."""

    def _send(self, message: Any, durable_index: int = 0) -> None:
        self._effects.messages.append(message)


class _Forgetful(Store):
    """Fails at the third command."""

    def apply(self, first_index: int, terms: Any, payloads: Any, budget: int = 1 << 62) -> Any:
        if first_index >= 3:
            raise RuntimeError("a bug")
        return super().apply(first_index, terms, payloads, budget)


class _Votes(Silent):
    """Checks that every vote is on the disk of its node before it leaves."""

    def __init__(self) -> None:
        self.durable: dict[str, str | None] = {}

    def synced(self, node_id: str, persist: Persist, now: float) -> None:
        if persist.hard_state is not None:
            self.durable[node_id] = persist.hard_state.voted_for

    def stepped(self, node: RaftNode, before: Snapshot, events: Any, effects: Effects, now: float) -> None:
        for message in effects.messages:
            voted = isinstance(message, RequestVoteReply) and message.vote_granted and not message.pre_vote
            if voted and self.durable.get(node.node_id) != message.to_id:
                raise InvariantViolated("a vote left before it was durable")


def test_a_rule_that_an_observer_finds_broken_ends_the_node_and_is_told() -> None:
    async def tell(cluster: SimCluster) -> None:
        await asyncio.sleep(5.0)
        assert {type(violation.error) for violation in cluster.violations} == {InvariantViolated}
        assert {(end.cause, end.exit_code) for end in cluster.unexpected_exits} == {("exit", 7)}

    story(tell, observer=_Votes(), parts=Parts(node=_Boastful), plan=ClusterPlan(nodes=3, leader_timeout_s=2))


def test_a_good_node_breaks_no_such_rule() -> None:
    async def tell(cluster: SimCluster) -> None:
        assert await cluster.leader() is not None
        assert cluster.violations == []

    story(tell, observer=_Votes())


def test_a_bug_in_any_part_is_told() -> None:
    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client()
        write = asyncio.ensure_future(kv.put(b"k", b"v"))
        await asyncio.sleep(2.0)
        write.cancel()
        assert "a bug" in str(cluster.violations[0])

    story(tell, parts=Parts(store=_Forgetful))


class _Hasty(Store):
    """Counts one applied entry more than it was given."""

    def apply(self, first_index: int, terms: Any, payloads: Any, budget: int = 1 << 62) -> Any:
        results = super().apply(first_index, terms, payloads, budget)
        self.last_applied += 1
        return results


def test_a_state_that_is_ahead_of_what_is_committed_stops_its_node() -> None:
    """As in real runs, this needs no observer."""

    async def tell(cluster: SimCluster) -> None:
        await asyncio.sleep(1.0)
        assert {end.exit_code for end in cluster.unexpected_exits} == {InvariantViolated.exit_code}
        assert "last_applied" in str(cluster.violations[0])

    story(tell, parts=Parts(store=_Hasty), plan=ClusterPlan(nodes=3, leader_timeout_s=2))


def test_a_bug_outside_of_the_nodes_is_told() -> None:
    async def tell(cluster: SimCluster) -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.1)
        assert [violation.node_id for violation in cluster.violations] == ["simulation"]

    story(tell)


def test_events_are_in_the_order_of_the_contract() -> None:
    """A node starts before its first step; a step comes before its effects; a sync comes before the promise."""

    class Order(Silent):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def started(self, node: RaftNode, now: float) -> None:
            assert node.snapshot().role == 0
            self.seen.append(f"started {node.node_id}")

        def stepped(self, node: RaftNode, before: Snapshot, events: Any, effects: Effects, now: float) -> None:
            assert all(isinstance(event, Event) for event in events)
            self.seen.append(f"stepped {node.node_id}")

        def applied(self, node_id: str, first_index: int, results: Any, store: Store, now: float) -> None:
            assert store.last_applied == first_index - 1 + len(results)
            self.seen.append(f"applied {node_id}")

        def answered(self, node_id: str, read_index: int, last_applied: int, now: float) -> None:
            assert read_index <= last_applied
            self.seen.append("answered")

        def crashed(self, node_id: str, now: float) -> None:
            self.seen.append(f"crashed {node_id}")

    watch = Order()

    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client()
        await kv.put(b"k", b"v")
        await kv.get(b"k")
        await cluster.crash("n1")

    story(tell, observer=watch)
    for node_id in ("n1", "n2", "n3"):
        assert watch.seen.index(f"started {node_id}") < watch.seen.index(f"stepped {node_id}")
        assert watch.seen.index(f"stepped {node_id}") < watch.seen.index(f"applied {node_id}")
    assert "answered" in watch.seen
    assert watch.seen.count("crashed n1") == 1


# ------------------------------------------------------------------------------ what sweeps read


def test_its_traces_have_the_form_of_trace_files_and_its_status_that_of_a_node() -> None:
    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client()
        await kv.put(b"k", b"v")
        leader = await leader_of(cluster)
        status = await cluster.status(leader)
        assert status is not None
        assert status.role == inspection_pb2.Role.LEADER
        assert status.counters.messages_sent > 0
        assert status.fsync_p50_us >= 500
        assert status.now_ns == round(asyncio.get_running_loop().time() * 1e9)
        samples = await cluster.samples(leader)
        assert samples is not None
        assert all(400 <= trip <= 10_000 for trip in samples.round_trip_us)
        assert len(samples.round_trip_us) > 0
        events = [json.loads(line) for line in (await cluster.collect(leader)).trace]
        assert {"node", "number", "time_ns", "kind", "term", "index", "peer", "detail"} <= events[0].keys()
        assert [event["number"] for event in events] == list(range(1, len(events) + 1))
        assert "became_leader" in {event["kind"] for event in events}
        assert cluster.worker(leader).clock.offset_ns == 0

    story(tell)


def test_a_rough_run_gets_its_work_done() -> None:
    """With every kind of fault at once and then a heal, there is one state and one leader, and no rule is broken."""
    outcome = simulate(1)
    assert outcome.violations == []
    assert outcome.exits == []
    assert outcome.faults >= 4, MONKEY
    assert outcome.outcomes[OK] > 150
    assert outcome.leader is not None
    assert len(outcome.states) == 5
    assert len(set(outcome.states)) == 1


# ------------------------------------------------------------------------------ crashes at named points


class _CrashAt(Silent):
    """Crashes the leader once, at the n-th event of a given kind."""

    def __init__(self, point: str, after: int, power: bool) -> None:
        self.cluster: SimCluster | None = None
        self.struck = False
        self._point, self._left, self._power = point, after, power

    def stepped(self, node: RaftNode, before: Snapshot, events: Any, effects: Effects, now: float) -> None:
        if effects.persist is not None:
            self._maybe("stepped", node.node_id)

    def synced(self, node_id: str, persist: Persist, now: float) -> None:
        self._maybe("synced", node_id)

    def applied(self, node_id: str, first_index: int, results: Any, store: Store, now: float) -> None:
        self._maybe("applied", node_id)

    def answered(self, node_id: str, read_index: int, last_applied: int, now: float) -> None:
        self._maybe("answered", node_id)

    def _maybe(self, point: str, node_id: str) -> None:
        if self.cluster is None or self.struck or point != self._point or self.cluster.leader_now() != node_id:
            return
        self._left -= 1
        if self._left < 0:
            self.struck = self.cluster.nodes[node_id].crash(power=self._power)


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("point", ["stepped", "synced", "applied", "answered"])
def test_a_crash_at_a_named_point_loses_nothing_and_does_nothing_twice(point: str, power: bool) -> None:
    for after in range(4):
        watch = _CrashAt(point, after, power)

        async def tell(cluster: SimCluster, watch: _CrashAt = watch) -> None:
            kv = cluster.client()
            watch.cluster = cluster
            for i in range(1, 9):
                assert await kv.append(b"k", b"x") == i
                assert await kv.get(b"k") == b"x" * i
            assert watch.struck
            assert [end.cause for end in cluster.exits] == ["crash"]
            await cluster.restart(*cluster.node_ids)
            assert len(set(await converged(cluster))) == 1
            assert cluster.violations == []

        story(tell, observer=watch, seed=after)


def test_messages_may_pass_through_their_wire_form() -> None:
    outcome = simulate(5, ROUGH.model_copy(update={"wire": True}))
    assert outcome.violations == []
    assert len(set(outcome.states)) == 1
    assert outcome.digest == simulate(5).digest


def test_a_restart_waits_for_the_exit_that_an_injected_error_causes() -> None:
    """Healing may fall between the error and the exit; the node must not stay down."""

    async def tell(cluster: SimCluster) -> None:
        kv = cluster.client()
        await kv.put(b"k", b"1")
        leader = await leader_of(cluster)
        await cluster.set_node_faults({leader: NodeFaults(disk=DiskFault(error="EIO"))})
        put = asyncio.ensure_future(kv.put(b"k", b"2"))
        node = cluster.nodes[leader]
        while not (node.life and node.life.runtime.disk_faults.counters.errors):  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.001)
        assert node.state == "up", "it has not exited yet"
        await cluster.set_node_faults({})
        await cluster.restart(leader)
        assert [(each.node_id, each.cause, each.exit_code) for each in cluster.exits] == [(leader, "fault", 6)]
        assert node.state == "up"
        await put

    story(tell, plan=ClusterPlan(nodes=3, storage=StorageSettings(fsync_latency=0.1)))
