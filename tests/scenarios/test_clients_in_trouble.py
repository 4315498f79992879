"""Clients while the cluster cannot serve: nothing is applied twice, and no acknowledged write is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raft_actor_node.client import KVClient
from raft_actor_node.errors import OperationError, OperationUnknown
from tests.cluster.local import STEADY
from tests.scenarios.stage import Stage, WorldName, eventually, play

WORLDS = pytest.mark.parametrize("world", ["real", "simulated"])


@WORLDS
def test_what_could_not_be_committed_takes_effect_once_or_never(world: WorldName, tmp_path: Path) -> None:
    """The leader appends but cannot commit; clients give up; after the heal their operations commit."""

    async def story(cluster: Stage) -> None:
        leader = await cluster.leader()
        stuck = await cluster.client(only=[leader], rpc_timeout=0.3, retry_budget=2.0)

        async def written() -> bool:
            outcomes = await asyncio.gather(*(stuck.put(b"k%d" % i, b"a") for i in range(8)), return_exceptions=True)
            return outcomes == [None] * 8

        await eventually(written, "the first values")  # its sessions are open from here on
        await cluster.partition(*((node_id,) for node_id in cluster.node_ids))
        before = (await cluster.status(leader)).commit_index
        outcomes = await asyncio.gather(
            *(stuck.append(b"k%d" % i, b"b") for i in range(8)), stuck.get(b"k0"), return_exceptions=True
        )
        *writes, read = outcomes
        assert all(isinstance(outcome, OperationUnknown) for outcome in writes), writes
        assert isinstance(read, OperationError)
        status = await cluster.status(leader)
        assert status.commit_index == before
        assert status.last_log_index > before, "they are in its log, each retry of them too"
        await cluster.heal()
        kv = await cluster.client()
        for i in range(8):
            await kv.append(b"k%d" % i, b"c")
            assert await kv.get(b"k%d" % i) in (b"abc", b"ac"), "once or never, and not later"
        await cluster.converged()
        await stuck.close()
        await kv.close()

    play(world, tmp_path, story, nodes=3, raft=STEADY, check_quorum=False)


@WORLDS
def test_clients_count_on_one_key_over_a_crash_of_the_leader(world: WorldName, tmp_path: Path) -> None:
    """Several clients compare-and-swap: each number is won once; an unknown swap counts once or not at all."""

    async def story(cluster: Stage) -> None:
        clients = [await cluster.client(rpc_timeout=1.0, retry_budget=60.0) for _ in range(4)]
        await clients[0].put(b"k", b"0")
        won: list[int] = []
        unknown: list[int] = []
        counters = [asyncio.ensure_future(_count(kv, won, unknown, 25)) for kv in clients]

        async def on_its_way() -> bool:
            return len(won) >= 20

        await eventually(on_its_way, "some numbers")
        leader = await cluster.leader()
        await cluster.kill(leader)
        await asyncio.gather(*counters)
        await cluster.leader(cluster.others(leader))
        await cluster.restart(leader)
        assert len(won) == len(set(won)), "a number was won twice"
        end = int(await clients[1].get(b"k") or b"")
        assert len(won) <= end <= len(won) + len(unknown)
        await cluster.converged()
        for kv in clients:
            await kv.close()

    play(world, tmp_path, story, nodes=3)


async def _count(kv: KVClient, won: list[int], unknown: list[int], times: int) -> None:
    """Raise the number at the key, `times` times, by compare-and-swap."""
    current = b"0"
    done = 0
    while done < times:
        following = b"%d" % (int(current) + 1)
        try:
            swap = await kv.compare_and_swap(b"k", current, following)
        except OperationUnknown:
            unknown.append(int(following))
            current = await kv.get(b"k") or b"0"
            done += 1
            continue
        if swap.swapped:
            won.append(int(following))
            current = following
            done += 1
        else:
            current = swap.current or b"0"
