"""A client sees the same effects of a fault in simulation and on real processes (behaviour.md, sections 1 and 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from raft_actor_node.client import KVClient
from raft_actor_node.errors import OperationError, OperationFailed, OperationUnknown
from raft_actor_node.links import LinkRule
from tests.orchestration.sim.worlds import World, WorldName, eventually, live

DEADLINE_S = 2.0
"""Time limit that suffices for an answer, even on a busy machine."""
LATEST_S = 4.0
"""How late an answer at a deadline may be on a busy machine."""
BOTH = pytest.mark.parametrize("world", ["real", "simulated"])


async def failure(call: Awaitable[object]) -> tuple[type[OperationError], str, float]:
    """Return the error of a call, its code, and the seconds until then in the world's time."""
    begin = asyncio.get_running_loop().time()
    with pytest.raises(OperationError) as caught:
        await call
    return type(caught.value), caught.value.code, asyncio.get_running_loop().time() - begin


async def once(world: World, node_id: str, deadline_s: float = DEADLINE_S) -> KVClient:
    """Return a client of one node that tries once; before, it has shown that the node answers it."""
    client = await world.client(only=[node_id], rpc_timeout=deadline_s, retry_budget=0.0)
    await eventually(lambda: reached(client), f"{node_id} answers")
    return client


async def reached(client: KVClient) -> bool:
    try:
        await client.get(b"k")
    except OperationFailed as error:
        return error.code == "NOT_LEADER"
    return True


@BOTH
@pytest.mark.parametrize("lost", ["requests", "replies"])
def test_a_drop_is_a_timeout(world: WorldName, lost: str, tmp_path: Path) -> None:
    async def story(cluster: World) -> None:
        leader = await cluster.leader()
        client, everywhere = await once(cluster, leader), await cluster.client()
        await everywhere.put(b"k", b"0")
        ends = ("clients", leader) if lost == "requests" else (leader, "clients")
        await cluster.set_links([LinkRule(from_id=ends[0], to_id=ends[1], messages=lost, drop=1.0)])
        kind, code, took_s = await failure(client.append(b"k", b"x"))
        assert (kind, code) == (OperationUnknown, "DEADLINE_EXCEEDED")
        assert DEADLINE_S <= took_s < DEADLINE_S + LATEST_S
        await cluster.set_links([])
        assert await everywhere.get(b"k") == (b"0" if lost == "requests" else b"0x")
        await everywhere.close()
        await client.close()

    live(world, tmp_path, story)


@BOTH
def test_a_node_that_is_down_refuses_at_once(world: WorldName, tmp_path: Path) -> None:
    async def story(cluster: World) -> None:
        leader = await cluster.leader()
        client = await once(cluster, leader, deadline_s=5.0)
        await cluster.kill(leader)

        async def noticed() -> bool:
            return (await failure(client.put(b"k", b"1")))[1] == "UNAVAILABLE"

        await eventually(noticed, "the end of the connection")
        kind, code, took_s = await failure(client.put(b"k", b"1"))
        assert (kind, code) == (OperationUnknown, "UNAVAILABLE")
        assert took_s < LATEST_S
        await client.close()

    live(world, tmp_path, story)


@BOTH
def test_a_write_on_a_node_that_dies_is_unknown(world: WorldName, tmp_path: Path) -> None:
    async def story(cluster: World) -> None:
        leader = await cluster.leader()
        client = await once(cluster, leader, deadline_s=5.0)
        cut = [LinkRule(from_id="*", to_id=leader, cut=True), LinkRule(from_id=leader, to_id="*", cut=True)]
        await cluster.set_links(cut)
        before = await cluster.status(leader)
        write = asyncio.ensure_future(failure(client.put(b"k", b"1")))

        async def appended() -> bool:
            return (await cluster.status(leader)).last_log_index > before.last_log_index

        await eventually(appended, "the write is appended; it cannot be committed")
        await cluster.kill(leader)
        kind, code, took_s = await write
        assert (kind, code) == (OperationUnknown, "UNAVAILABLE")
        assert took_s < LATEST_S
        await client.close()

    live(world, tmp_path, story)


@BOTH
def test_a_leader_that_loses_its_quorum_answers_that_it_does_not_know(world: WorldName, tmp_path: Path) -> None:
    async def story(cluster: World) -> None:
        leader = await cluster.leader()
        client = await once(cluster, leader, deadline_s=10.0)
        cut = [LinkRule(from_id="*", to_id=leader, cut=True), LinkRule(from_id=leader, to_id="*", cut=True)]
        await cluster.set_links(cut)
        kind, code, took_s = await failure(client.put(b"k", b"1"))
        assert (kind, code) == (OperationUnknown, "OUTCOME_UNKNOWN")
        assert 0.1 < took_s < 8.0, "check quorum: within two of the longest election timeouts"
        assert (await failure(client.get(b"k")))[:2] == (OperationFailed, "NOT_LEADER")
        await client.close()

    live(world, tmp_path, story)


@BOTH
def test_a_paused_node_is_silent_and_answers_nothing_stale_on_waking(world: WorldName, tmp_path: Path) -> None:
    async def story(cluster: World) -> None:
        leader = await cluster.leader()
        client, everywhere = await once(cluster, leader), await cluster.client()
        await everywhere.put(b"k", b"old")
        await cluster.pause(leader)
        late = asyncio.ensure_future(failure(client.get(b"k")))
        kind, code, took_s = await late
        assert (kind, code) == (OperationFailed, "DEADLINE_EXCEEDED"), "a read has no effect"
        assert DEADLINE_S <= took_s < DEADLINE_S + LATEST_S
        await everywhere.put(b"k", b"new")
        await cluster.resume(leader)
        try:
            assert await client.get(b"k") == b"new"
        except OperationFailed as error:
            assert error.code == "NOT_LEADER"  # noqa: PT017 - either way it is not the old value
        await everywhere.close()
        await client.close()

    live(world, tmp_path, story)


@BOTH
def test_a_follower_refuses_and_nothing_happens(world: WorldName, tmp_path: Path) -> None:
    async def story(cluster: World) -> None:
        leader = await cluster.leader()
        follower = next(node_id for node_id in cluster.node_ids if node_id != leader)
        client = await once(cluster, follower, deadline_s=5.0)
        kind, code, took_s = await failure(client.put(b"k", b"1"))
        assert (kind, code) == (OperationFailed, "NOT_LEADER")
        assert took_s < LATEST_S
        everywhere = await cluster.client()
        assert await everywhere.get(b"k") is None
        await everywhere.close()
        await client.close()

    live(world, tmp_path, story)


@BOTH
def test_a_retry_over_a_leader_change_takes_effect_once(world: WorldName, tmp_path: Path) -> None:
    async def story(cluster: World) -> None:
        leader = await cluster.leader()
        client = await cluster.client(rpc_timeout=DEADLINE_S, retry_budget=15.0)
        assert await client.append(b"k", b"a") == 1
        await cluster.set_links([LinkRule(from_id=leader, to_id="clients", messages="replies", drop=1.0)])
        before = await cluster.status(leader)
        write = asyncio.ensure_future(client.append(b"k", b"b"))

        async def applied() -> bool:
            return (await cluster.status(leader)).last_applied > before.last_applied

        await eventually(applied, "the append takes effect; its answer is lost")
        await cluster.kill(leader)
        assert await write == 2, "the original result"
        assert await client.get(b"k") == b"ab"
        await cluster.restart(leader)
        assert await client.append(b"k", b"c") == 3
        await client.close()

    live(world, tmp_path, story)
