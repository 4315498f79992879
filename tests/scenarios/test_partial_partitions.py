"""Networks in which only some nodes see each other: which nodes can lead.

The cases are those of the literature (Ng, Haridi, Carbone: Omni-Paxos, EuroSys 2023, section 2). The preset `survival`
shows what clients see of them with each protocol switch; these tests show why.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chaos.shapes import SHAPES
from raft_actor_node.errors import OperationError
from tests.cluster.local import FAST, STEADY
from tests.scenarios.stage import LEADER, Stage, WorldName, eventually, play

WORLDS = pytest.mark.parametrize("world", ["real", "simulated"])
LONG_S = 4 * FAST.election_timeout.max_s
"""Several elections would take place in this time, if any could."""


@WORLDS
@pytest.mark.parametrize("switch", [True, False], ids=["pre-vote+check-quorum", "neither"])
def test_who_alone_sees_a_majority_is_not_elected_with_a_stale_log(
    world: WorldName, switch: bool, tmp_path: Path
) -> None:
    """Constrained election: having no leader is right, as no other node could get a majority (section 5.4.1)."""

    async def story(cluster: Stage) -> None:
        kv = await cluster.client()
        await kv.append(b"k", b"1")
        await cluster.converged()
        hub, *_ = cluster.others(await cluster.leader())
        await cluster.partition((hub,), cluster.others(hub))
        for _ in range(5):
            await kv.append(b"k", b"2")
        leader = await cluster.leader(cluster.others(hub))
        others = cluster.others(hub, leader)
        committed = (await cluster.status(leader)).commit_index
        assert (await cluster.status(hub)).last_log_index < committed
        await cluster.partition(*SHAPES["constrained-election"].groups((leader, hub, *others)))

        tries = await cluster.client(only=cluster.others(leader), rpc_timeout=0.3, retry_budget=LONG_S)
        with pytest.raises(OperationError):
            await tries.get(b"k")
        await tries.close()
        for node_id in cluster.others(leader):
            status = await cluster.status(node_id)
            assert status.role != LEADER
            assert status.commit_index <= committed
        await cluster.heal()
        await cluster.leader()
        assert await kv.get(b"k") == b"122222", "what was acknowledged is there, also on who had missed it"
        await cluster.converged()
        await kv.close()

    play(world, tmp_path, story, pre_vote=switch, check_quorum=switch)


@WORLDS
@pytest.mark.parametrize("pre_vote", [True, False])
def test_the_only_node_that_sees_a_majority_comes_to_lead(world: WorldName, pre_vote: bool, tmp_path: Path) -> None:
    """Quorum loss with check quorum: the leader notices that it has no quorum, and steps down."""

    async def story(cluster: Stage) -> None:
        kv = await cluster.client()
        await kv.put(b"k", b"before")
        leader = await cluster.leader()
        hub, *others = cluster.others(leader)
        await cluster.partition(*SHAPES["quorum-loss"].groups((hub, *others, leader)))
        await eventually(lambda: leads(cluster, hub), "the hub leads")
        await kv.put(b"k", b"after")
        await eventually(lambda: leads_on(cluster, hub), "the hub leads on")
        await cluster.heal()
        assert await kv.get(b"k") == b"after"
        await cluster.converged()
        await kv.close()

    play(world, tmp_path, story, pre_vote=pre_vote, check_quorum=True)


@WORLDS
def test_without_check_quorum_a_leader_without_a_majority_keeps_everybody_waiting(
    world: WorldName, tmp_path: Path
) -> None:
    """Quorum loss with pre-vote alone: the hub hears a leader, and no other node can spread a higher term."""

    async def story(cluster: Stage) -> None:
        kv = await cluster.client()
        await kv.put(b"k", b"before")
        await cluster.converged()
        leader = await cluster.leader()
        before = await cluster.status(leader)
        hub, *others = cluster.others(leader)
        await cluster.partition(*SHAPES["quorum-loss"].groups((hub, *others, leader)))
        # A node that hears no other tries twice in this time.
        tries = await cluster.client(rpc_timeout=0.3, retry_budget=2 * STEADY.election_timeout.max_s)
        with pytest.raises(OperationError):
            await tries.get(b"k")
        await tries.close()
        during = await cluster.status(leader)
        assert during.role == LEADER
        assert (during.current_term, during.commit_index) == (before.current_term, before.commit_index)
        assert (await cluster.status(hub)).leader_id == leader
        await cluster.heal()
        # The leader may stay, or lose to a node that heard no other, depending on which message comes first.
        await kv.put(b"k", b"after")
        await kv.close()

    play(world, tmp_path, story, raft=STEADY, pre_vote=True, check_quorum=False)


@WORLDS
@pytest.mark.parametrize("nodes", [3, 5])
def test_a_chained_leader_stays(world: WorldName, nodes: int, tmp_path: Path) -> None:
    """One follower does not see the leader, but all others do: with pre-vote it cannot depose the leader repeatedly."""

    async def story(cluster: Stage) -> None:
        kv = await cluster.client()
        await kv.put(b"k", b"before")
        leader = await cluster.leader()
        term = (await cluster.status(leader)).current_term
        end = cluster.others(leader)[-1]
        tried = (await cluster.status(end)).counters.pre_votes_started
        await cluster.partition(*SHAPES["chained"].groups((leader, *cluster.others(leader, end), end)))

        async def tries_in_vain() -> bool:
            return (await cluster.status(end)).counters.pre_votes_started >= tried + 3

        await eventually(tries_in_vain, "pre-votes of the end")
        await kv.put(b"k", b"after")
        await cluster.heal()
        await cluster.converged()
        assert await cluster.leader() == leader
        assert (await cluster.status(end)).current_term == term
        assert await kv.get(b"k") == b"after"
        await kv.close()

    play(world, tmp_path, story, nodes=nodes, raft=STEADY)


async def leads(cluster: Stage, node_id: str) -> bool:
    return (await cluster.status(node_id)).role == LEADER


async def leads_on(cluster: Stage, node_id: str) -> bool:
    """Whether a node leads for LONG_S without interruption.

    A busy machine may interrupt it once, so the caller repeats the check. A node that is deposed again and again never
    leads that long.
    """
    before = await cluster.status(node_id)
    await asyncio.sleep(LONG_S)
    after = await cluster.status(node_id)
    return before.role == after.role == LEADER and before.current_term == after.current_term
