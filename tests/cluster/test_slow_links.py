"""Entries commit under their leader even if they take longer than an election timeout to cross a link."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raft_actor_node.links import LinkRule
from raft_actor_node.units import Range
from tests.cluster.local import FAST, LocalCluster

MB = 10**6
UNHURRIED = FAST.model_copy(update={"election_timeout": Range(0.6, 0.9)})
"""Shorter than the messages need to cross the link, and long enough for a busy machine."""


async def elections(cluster: LocalCluster) -> list[tuple[str, int, int]]:
    """The term of each node, and the number of elections and pre-votes that it started."""
    statuses = await cluster.statuses()
    return sorted(
        (node_id, status.current_term, status.counters.elections_started + status.counters.pre_votes_started)
        for node_id, status in statuses.items()
    )


@pytest.mark.parametrize("rate", [MB, MB // 4], ids=["1 MB/s", "0.25 MB/s"])
async def test_a_large_entry_crosses_a_slow_link_without_an_election(tmp_path: Path, rate: int) -> None:
    """1 MB takes 1 s or 4 s."""
    async with LocalCluster(tmp_path, 3, raft=UNHURRIED) as cluster:
        kv = await cluster.client(rpc_timeout=30.0, retry_budget=60.0)
        await kv.put(b"k", b"v")
        await cluster.leader()
        before = await elections(cluster)
        await cluster.set_links([LinkRule(from_id="*", to_id="*", bytes_per_s=rate)])
        async with asyncio.timeout(2 * MB / rate + 5):
            await kv.put(b"large", bytes(MB))
        assert await elections(cluster) == before
        await cluster.heal()
        await cluster.converged()


async def test_many_entries_cross_a_slow_link_without_an_election(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, 3, raft=UNHURRIED) as cluster:
        kv = await cluster.client(rpc_timeout=30.0, retry_budget=60.0)
        await kv.put(b"k", b"v")
        await cluster.leader()
        before = await elections(cluster)
        await cluster.set_links([LinkRule(from_id="*", to_id="*", bytes_per_s=MB)])
        await asyncio.gather(*(kv.put(b"k%d" % i, bytes(1000)) for i in range(1000)))
        assert await elections(cluster) == before
        await cluster.heal()
        await cluster.converged()
