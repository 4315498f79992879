"""Nodes that crash and restart, while clients write."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from raft_actor_node.client import KVClient
from raft_actor_node.config import LimitSettings, TransportSettings
from raft_actor_node.errors import OperationError
from tests.cluster.local import FAST, LocalCluster, eventually

READS_AT_A_TIME = 100


class Writers:
    """Clients that write new keys all the time, and remember the acknowledged writes."""

    def __init__(self, kv: KVClient, count: int = 8) -> None:
        self.acknowledged: dict[bytes, bytes] = {}
        self.unknown: set[bytes] = set()
        self._kv = kv
        self._tasks = [asyncio.create_task(self._write(i)) for i in range(count)]

    async def _write(self, writer: int) -> None:
        for i in itertools.count():
            key, value = b"w%d-%d" % (writer, i), b"v%d" % i
            try:
                await self._kv.put(key, value)
            except OperationError:
                self.unknown.add(key)
            else:
                self.acknowledged[key] = value

    async def reach(self, count: int) -> None:
        """Wait for `count` acknowledged writes; fail only if no new one comes within the time limit of `eventually`."""
        while (so_far := len(self.acknowledged)) < count:

            async def more(than: int = so_far) -> bool:
                return len(self.acknowledged) > than

            await eventually(more, f"{count} acknowledged writes, more than {so_far}")

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def missing(kv: KVClient, expected: dict[bytes, bytes]) -> dict[bytes, bytes | None]:
    """The keys whose linearizable read differs from the expected value, with the values that were read.

    Reads go out in batches, as a busy machine may not answer all of them before their deadline.
    """
    wrong, all_keys = {}, list(expected)
    for begin in range(0, len(all_keys), READS_AT_A_TIME):
        keys = all_keys[begin : begin + READS_AT_A_TIME]
        found = await asyncio.gather(*map(kv.get, keys))
        wrong |= {key: value for key, value in zip(keys, found, strict=True) if value != expected[key]}
    return wrong


@pytest.mark.parametrize("nodes", [3, 5])
async def test_no_acknowledged_write_is_lost_when_the_leader_dies_under_load(tmp_path: Path, nodes: int) -> None:
    async with LocalCluster(tmp_path, nodes) as cluster:
        kv = await cluster.client()
        first = await cluster.leader()
        writers = Writers(kv)
        await writers.reach(200)
        await cluster.kill(first)
        before = len(writers.acknowledged)
        second = await cluster.leader(cluster.others(first))
        assert second != first
        await writers.reach(before + 200)
        await cluster.restart(first)
        await writers.reach(before + 400)
        await writers.stop()
        assert await missing(kv, writers.acknowledged) == {}
        await cluster.converged()


async def test_every_follower_may_die_in_turn(three: LocalCluster) -> None:
    kv = await three.client()
    leader = await three.leader()
    writers = Writers(kv)
    for follower in three.others(leader):
        await writers.reach(len(writers.acknowledged) + 100)
        await three.kill(follower)
        await writers.reach(len(writers.acknowledged) + 100)
        await three.restart(follower)
    await writers.stop()
    assert writers.unknown == set()
    assert await missing(kv, writers.acknowledged) == {}
    await three.converged()


@pytest.mark.parametrize("nodes", [3, 5])
async def test_all_nodes_killed_at_once_come_back_with_everything(tmp_path: Path, nodes: int) -> None:
    async with LocalCluster(tmp_path, nodes) as cluster:
        kv = await cluster.client()
        writers = Writers(kv)
        await writers.reach(300)
        await cluster.kill(*cluster.node_ids)
        acknowledged = dict(writers.acknowledged)
        await cluster.restart(*cluster.node_ids)
        await writers.reach(len(acknowledged) + 100)
        await writers.stop()
        assert await missing(kv, writers.acknowledged) == {}
        await cluster.converged()


async def test_many_small_entries_reach_a_follower_that_was_away(tmp_path: Path) -> None:
    """A batch keeps the size limit of a message; the limit counts the overhead of each entry."""
    raft = FAST.model_copy(update={"max_batch_entries": 65536, "max_batch_bytes": 960 * 1024})
    small = {"transport": TransportSettings(message_bytes=1024 * 1024), "limits": LimitSettings(value_bytes=1024)}
    async with LocalCluster(tmp_path, 3, raft, **small) as cluster:
        leader = await cluster.leader()
        away = cluster.others(leader)[0]
        await cluster.kill(away)
        kv = await cluster.client()
        for _ in range(20):
            await asyncio.gather(*(kv.delete(b"k") for _ in range(2000)))
        await cluster.restart(away)
        assert (await cluster.converged()).last_log_index > 40_000


async def test_the_leader_dies_again_and_again(five: LocalCluster) -> None:
    kv = await five.client()
    writers = Writers(kv)
    terms = set()
    for _ in range(5):
        status = await five.leading()
        leader = status.node_id
        terms.add(status.current_term)
        await writers.reach(len(writers.acknowledged) + 50)
        await five.kill(leader)
        await five.leader(five.others(leader))
        await five.restart(leader)
    await writers.stop()
    assert len(terms) == 5
    assert await missing(kv, writers.acknowledged) == {}
    await five.converged()


async def test_without_a_majority_of_processes_nothing_is_acknowledged(three: LocalCluster) -> None:
    leader = await three.leader()
    await three.kill(*three.others(leader))
    kv = await three.client(rpc_timeout=0.5, retry_budget=1.5)
    with pytest.raises(OperationError):
        await kv.put(b"k", b"v")
    with pytest.raises(OperationError):
        await kv.get(b"k")
    await three.restart(*three.others(leader))
    await three.leader()
    await (await three.client()).put(b"k", b"after")


async def test_a_terminated_node_leaves_with_zero_and_comes_back(three: LocalCluster) -> None:
    kv = await three.client()
    leader = await three.leader()
    await kv.put(b"k", b"v")
    assert await three.terminate(leader) == 0
    await three.leader(three.others(leader))
    assert await kv.get(b"k") == b"v"
    await three.restart(leader)
    await three.converged()


async def test_one_node_alone_leads_and_survives(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, 1) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"v")
        await cluster.kill("n1")
        await cluster.restart("n1")
        assert await kv.get(b"k") == b"v"
