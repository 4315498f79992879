"""What replicas must share: nodes that are configured differently, in simulation as with real processes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestration import ClusterPlan
from orchestration.errors import NodeFailed
from orchestration.sim_cluster import SimCluster, run_virtual
from raft_actor_node.config import LimitSettings, RaftSettings
from raft_actor_node.errors import DataCorrupt, OperationFailed


def configure(cluster: SimCluster, node_id: str, **changes: Any) -> None:
    """Change the configuration of a node's future incarnations."""
    node = cluster.nodes[node_id]
    node.config = node.config.model_copy(update=changes)


def refused(cluster: SimCluster, node_id: str) -> int:
    """Return the number of messages that the node refused in this incarnation."""
    life = cluster.nodes[node_id].life
    assert life is not None
    return life.runtime.mail.counters.refused


async def follower_of(cluster: SimCluster) -> str:
    async with asyncio.timeout(30.0):
        while (leader := await cluster.leader()) is None:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.01)
    return next(node_id for node_id in cluster.node_ids if node_id != leader)


@pytest.mark.parametrize("peers", [0, 1, 3])
def test_a_node_that_is_started_again_with_other_members_is_refused(peers: int) -> None:
    async def main() -> None:
        cluster = SimCluster(ClusterPlan(nodes=3), seed=1)
        await cluster.start()
        kv = cluster.client()
        await kv.put(b"k", b"v")
        changed = await follower_of(cluster)
        await cluster.crash(changed)
        members = [changed, *[each for each in (*cluster.node_ids, "n4") if each != changed][:peers]]
        configure(cluster, changed, members=members)
        with pytest.raises(NodeFailed) as caught:
            await cluster.restart(changed)
        assert caught.value.node_exit_code == DataCorrupt.exit_code
        assert "['n1', 'n2', 'n3'] in the log" in str(caught.value)
        assert f"{sorted(members)} in the configuration" in str(caught.value)
        assert await kv.get(b"k") == b"v"
        assert [end.node_id for end in cluster.unexpected_exits] == [changed]
        await cluster.stop()

    run_virtual(main)


def test_peers_refuse_a_new_node_with_other_members_and_ignore_its_term() -> None:
    """The node's log is empty, so it cannot detect the mismatch itself; the others go on without it."""

    async def main() -> None:
        # Without these two settings, a higher term that a node believes deposes the leader.
        raft = RaftSettings(pre_vote=False, check_quorum=False)
        cluster = SimCluster(ClusterPlan(nodes=3, raft=raft), seed=1)
        configure(cluster, "n3", members=["n2", "n3"])
        await cluster.start()
        assert await cluster.leader() in ("n1", "n2")
        kv = cluster.client()
        await kv.put(b"k", b"v")
        one, other, stranger = (node.core for node in cluster.nodes.values())
        assert one is not None
        assert other is not None
        assert stranger is not None
        term = one.current_term
        await asyncio.sleep(20.0)
        assert await kv.get(b"k") == b"v"
        assert one.current_term == other.current_term == term < stranger.current_term
        assert (stranger.log.last_index, stranger.counters.elections_won) == (0, 0)
        assert refused(cluster, "n2") > 0, "n3 asked it for its vote"
        assert refused(cluster, "n3") > 0, "the leader sent it heartbeats"
        assert cluster.exits == []
        assert cluster.violations == []
        await cluster.stop()

    run_virtual(main)


@pytest.mark.parametrize("seed", range(4))
def test_nodes_with_different_limits_answer_alike(seed: int) -> None:
    """All nodes apply the limit of the leader that accepted an operation, not their own."""
    limits = {"n1": 16, "n2": 16, "n3": 64}

    async def main() -> None:
        cluster = SimCluster(ClusterPlan(nodes=3), seed=seed)
        for node_id, value_bytes in limits.items():
            configure(cluster, node_id, limits=LimitSettings(value_bytes=value_bytes))
        await cluster.start()
        kv = cluster.client()
        value = b"x" * 10
        await kv.put(b"k", value)
        for _ in range(12):
            leader = await cluster.leader()
            try:
                assert await kv.append(b"k", b"yyyy") == len(value) + 4
                value += b"yyyy"
            except OperationFailed:
                assert len(value) + 4 > min(limits.values())
            assert await kv.get(b"k") == value
            if leader is not None:
                await cluster.crash(leader)
                await cluster.restart(leader)
        assert len(value) > 16, "the node with the higher limit led once"
        async with asyncio.timeout(30.0):
            while len({node.store and node.store.last_applied for node in cluster.nodes.values()}) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        hashes = [node.store.state_hash() for node in cluster.nodes.values() if node.store is not None]
        assert hashes == hashes[:1] * 3
        assert cluster.violations == []
        await cluster.stop()

    run_virtual(main)
