"""Real processes under injected disk faults (slow, stalled, failing): who goes on, what is bounded, how a node ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from raft_actor_node.errors import OperationError
from raft_actor_node.node_faults import DiskFault, NodeFaults
from tests.cluster.local import PATIENCE_S, STEADY, LocalCluster, eventually

KB = 1024
STALL = DiskFault(stall=True)


async def strike(cluster: LocalCluster, node_id: str, fault: DiskFault | None) -> None:
    assert await cluster.probe(node_id).set_node_faults(NodeFaults(disk=fault))


def at(cluster: LocalCluster, node_id: str, holds: Callable[[Any], bool]) -> Callable[[], Awaitable[bool]]:
    """A condition on the status of a node."""

    async def condition() -> bool:
        return holds(await cluster.status(node_id))

    return condition


async def test_a_stalled_leader_commits_with_its_followers_and_refuses_what_exceeds_its_bound(tmp_path: Path) -> None:
    """limits.unsynced_bytes bounds what is not on the leader's disk; a refused write has no effect and is retried."""
    raft = STEADY.model_copy(update={"max_inflight_bytes": 64 * KB, "max_batch_bytes": 64 * KB})
    limit = 256 * KB
    async with LocalCluster(tmp_path, 3, raft, limits={"unsynced_bytes": limit}) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"v")
        leader = await cluster.leader()
        term = (await cluster.status(leader)).current_term
        await strike(cluster, leader, STALL)
        for number in range(20):
            await kv.put(b"k", b"%d" % number)
        status = await cluster.status(leader)
        assert status.commit_index > status.durable_index
        assert status.counters.fsyncs_stalled == 1
        assert await kv.get(b"k") == b"19"

        hasty = await cluster.client(only=[leader], retry_budget=0.0, rpc_timeout=PATIENCE_S)
        with pytest.raises(OperationError, match="unsynced_bytes") as caught:
            for _ in range(200):
                await hasty.put(b"l", b"x" * 8 * KB)
        await hasty.close()
        assert caught.value.code == "OVERLOADED"
        status = await cluster.status(leader)
        assert limit - 9 * KB < status.unsynced_bytes <= limit
        waiting = asyncio.create_task(kv.put(b"l", b"y" * 9 * KB))
        refused = status.counters.operations_refused
        await eventually(at(cluster, leader, lambda s: s.counters.operations_refused > refused), "it is refused")
        assert not waiting.done()
        await strike(cluster, leader, None)
        await asyncio.wait_for(waiting, PATIENCE_S)
        await cluster.converged()
        await eventually(at(cluster, leader, lambda s: s.unsynced_bytes == 0), "the disk catches up")
        status = await cluster.status(leader)
        assert (status.current_term, status.leader_id) == (term, leader)


@pytest.mark.parametrize("nodes", [1, 2])
async def test_with_two_nodes_or_fewer_a_stalled_leader_commits_nothing(tmp_path: Path, nodes: int) -> None:
    async with LocalCluster(tmp_path, nodes, STEADY) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"v")
        leader = await cluster.leader()
        await strike(cluster, leader, STALL)
        commit = (await cluster.status(leader)).commit_index
        waiting = asyncio.create_task(kv.put(b"k", b"w"))
        await eventually(at(cluster, leader, lambda s: s.last_log_index > commit), "the write is appended")
        if nodes == 2:  # the leader knows that the follower has the write on disk
            await eventually(at(cluster, leader, lambda s: s.peers[0].match_index > commit), "a copy is durable")
        else:
            await eventually(at(cluster, leader, lambda s: s.counters.fsyncs_stalled == 1), "it waits for its disk")
        assert not waiting.done()
        assert (await cluster.status(leader)).commit_index == commit
        await strike(cluster, leader, None)
        await asyncio.wait_for(waiting, PATIENCE_S)
        assert await kv.get(b"k") == b"w"


@pytest.mark.parametrize("fault", [STALL, DiskFault(fsync_latency_ms=1500)])
async def test_a_followers_disk_costs_no_election(tmp_path: Path, fault: DiskFault) -> None:
    async with LocalCluster(tmp_path, 3) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"v")
        leader = await cluster.leader()
        await cluster.converged()
        follower = cluster.others(leader)[0]
        before = await cluster.status(follower)
        await strike(cluster, follower, fault)
        end = time.monotonic() + 5 * cluster.config.raft.election_timeout.max_s
        while time.monotonic() < end:
            await kv.put(b"k", b"w")
        status = await cluster.status(follower)
        assert status.counters.elections_started == before.counters.elections_started
        assert status.counters.pre_votes_started == before.counters.pre_votes_started
        assert status.counters.fsyncs_stalled + status.counters.fsyncs_delayed > 0
        await strike(cluster, follower, None)
        await cluster.converged()


async def test_a_leader_with_yield_after_gives_way(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, 3, STEADY.model_copy(update={"yield_after": 2.5})) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"v")
        old = await cluster.leader()
        await strike(cluster, old, STALL)
        await kv.put(b"k", b"w")
        new = await cluster.leader(cluster.others(old))
        assert new != old
        await kv.put(b"k", b"x")
        elections = (await cluster.status(old)).counters.elections_started
        await strike(cluster, old, None)
        await cluster.converged()
        assert (await cluster.status(old)).counters.elections_started == elections
        events = (await cluster.traces())[old]
        assert "own disk does not answer" in [event.detail for event in events]


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("on", ["write", "fsync"])
async def test_an_injected_error_is_exit_6_and_loses_nothing(tmp_path: Path, error: str, on: str) -> None:
    async with LocalCluster(tmp_path, 3) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"v")
        leader = await cluster.leader()
        await strike(cluster, leader, DiskFault.model_validate({"error": error, "on": on}))
        await kv.put(b"k", b"w")
        end = await asyncio.wait_for(cluster.supervisors[leader].wait(), PATIENCE_S)
        cluster.live.discard(leader)
        assert end is not None
        assert end.exit_code == 6
        assert f"injected on {on}" in end.log_tail
        await cluster.restart(leader)
        assert await kv.get(b"k") == b"w"
        await cluster.converged()


async def test_sigterm_while_the_disk_is_stalled_ends_the_node_and_acknowledges_nothing(tmp_path: Path) -> None:
    """Exit 6 in bounded time: appended writes are of unknown outcome, and the node acknowledges nothing more."""
    async with LocalCluster(tmp_path, 1) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"v")
        await strike(cluster, "n1", STALL)
        hasty = await cluster.client(retry_budget=0.0, rpc_timeout=PATIENCE_S)
        commit = (await cluster.status("n1")).commit_index
        waiting = asyncio.create_task(hasty.put(b"l", b"w"))
        await eventually(at(cluster, "n1", lambda s: s.last_log_index > commit), "the write is appended")
        began = time.monotonic()
        assert await cluster.terminate("n1") == 6
        assert time.monotonic() - began < 5.0, "its owner kills after that"
        with pytest.raises(OperationError):
            await waiting


async def test_sigterm_while_the_disk_is_slow_is_an_orderly_end(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, 1) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"v")
        await strike(cluster, "n1", DiskFault(fsync_latency_ms=60_000))
        hasty = await cluster.client(retry_budget=0.0, rpc_timeout=PATIENCE_S)
        waiting = asyncio.create_task(hasty.put(b"l", b"w"))
        await eventually(at(cluster, "n1", lambda s: s.counters.fsyncs_delayed > 0), "the write is under way")
        assert await cluster.terminate("n1") == 0
        with pytest.raises(OperationError):
            await waiting


async def test_a_node_that_restarts_under_a_fault_recovers_and_starts_with_it(tmp_path: Path) -> None:
    """The fault does not disturb recovery, but the first write. A killed process does not wait for its disk."""
    async with LocalCluster(tmp_path, 3, STEADY) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"v")
        leader = await cluster.leader()
        await cluster.converged()
        follower = cluster.others(leader)[0]
        await strike(cluster, follower, STALL)
        await kv.put(b"k", b"w")
        await eventually(at(cluster, follower, lambda s: s.counters.fsyncs_stalled == 1), "it is stalled")
        await cluster.kill(follower)
        await cluster.restart(follower, node_faults=NodeFaults(disk=STALL))
        assert (await cluster.status(follower)).last_log_index > 0, "recovered"
        await kv.put(b"k", b"x")
        await eventually(at(cluster, follower, lambda s: s.counters.fsyncs_stalled == 1), "it is stalled again")
        status = await cluster.status(follower)
        assert status.unsynced_bytes > 0
        await strike(cluster, follower, None)
        await cluster.converged()


async def test_the_same_faults_twice_are_the_same_as_once(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, 1) as cluster:
        kv = await cluster.client()
        probe = cluster.probe("n1")
        faults = NodeFaults(disk=DiskFault(fsync_latency_ms=20))
        first, second = await probe.set_node_faults(faults), await probe.set_node_faults(faults)
        assert first is not None
        assert second is not None
        assert first < second
        await kv.put(b"k", b"v")
        assert (await cluster.status("n1")).counters.fsyncs_delayed > 0
        assert (await cluster.status("n1")).fsync_max_us >= 20_000
