"""A resumed node does not mistake its own pause for silence of its peers, in simulation and on real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raft_actor_node.config import RaftSettings
from raft_actor_node.units import Range
from tests.orchestration.sim.worlds import World, WorldName, eventually, live

BOTH = pytest.mark.parametrize("world", ["real", "simulated"])
PRE_VOTE = pytest.mark.parametrize("pre_vote", [True, False])
LONG = Range(1.0, 1.5)
"""An election timeout longer than the stalls of a leader on a busy machine."""
PAUSES_S = (1.2, 2.0, 4.0)
"""Pauses around the election timeout and beyond it."""


async def ballots(world: World, node_id: str) -> tuple[int, int, int]:
    """Return the term of a node, and the numbers of elections and pre-votes that it began in this incarnation."""
    status: Any = await eventually(lambda: world.status(node_id), "a status")
    return status.current_term, status.counters.elections_started, status.counters.pre_votes_started


@BOTH
@PRE_VOTE
def test_a_woken_follower_hears_its_leader_before_it_stands(world: WorldName, pre_vote: bool, tmp_path: Path) -> None:
    """No election and no pre-vote: the leader was alive, and its messages were waiting in the kernel."""

    async def story(cluster: World) -> None:
        leader = await cluster.leader()
        follower = next(node_id for node_id in cluster.node_ids if node_id != leader)
        before = {node_id: await ballots(cluster, node_id) for node_id in cluster.node_ids}
        for pause_s in PAUSES_S:
            await cluster.pause(follower)
            await asyncio.sleep(pause_s)
            await cluster.resume(follower)
            await asyncio.sleep(LONG.max_s)  # an election would have begun by then
        assert await cluster.leader() == leader
        assert {node_id: await ballots(cluster, node_id) for node_id in cluster.node_ids} == before

    live(world, tmp_path, story, RaftSettings(election_timeout=LONG, pre_vote=pre_vote))


@BOTH
@PRE_VOTE
def test_nodes_that_wake_to_a_dead_leader_replace_it_in_time(world: WorldName, pre_vote: bool, tmp_path: Path) -> None:
    """They listen for two heartbeats and then stand at different times, within a longest election timeout of waking."""

    async def story(cluster: World) -> None:
        leader = await cluster.leader()
        others = [node_id for node_id in cluster.node_ids if node_id != leader]
        for node_id in others:
            await cluster.pause(node_id)
        await cluster.kill(leader)
        await asyncio.sleep(3.0)
        for node_id in others:
            await cluster.resume(node_id)
        begin_s = asyncio.get_running_loop().time()
        assert await cluster.leader() in others
        if world == "simulated":
            assert asyncio.get_running_loop().time() - begin_s < LONG.max_s

    live(world, tmp_path, story, RaftSettings(election_timeout=LONG, pre_vote=pre_vote))


@BOTH
def test_a_cluster_that_is_paused_as_a_whole_keeps_its_leader(world: WorldName, tmp_path: Path) -> None:
    """As when a machine is suspended: no node was silent for another."""

    async def story(cluster: World) -> None:
        leader = await cluster.leader()
        before = {node_id: await ballots(cluster, node_id) for node_id in cluster.node_ids}
        for node_id in cluster.node_ids:
            await cluster.pause(node_id)
        await asyncio.sleep(3.0)
        for node_id in cluster.node_ids:
            await cluster.resume(node_id)
        await asyncio.sleep(LONG.max_s)
        assert await cluster.leader() == leader
        assert {node_id: await ballots(cluster, node_id) for node_id in cluster.node_ids} == before

    live(world, tmp_path, story, RaftSettings(election_timeout=LONG))
