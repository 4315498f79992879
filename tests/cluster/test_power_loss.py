"""Power failures under load: unsynced writes of a node die with its process (`storage.unsynced: lost`).

SIGKILL alone leaves the page cache to the kernel and proves nothing about fsync; the last tests are the controls.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.local import LocalCluster
from tests.cluster.test_crashes import Writers, missing

LOST = {"unsynced": "lost", "fsync_latency": 0.01}
"""Slow enough that the power fails while writes are under way to the disk, which reveals premature promises."""


@pytest.mark.parametrize("nodes", [1, 3, 5])
async def test_power_loss_of_all_nodes_at_once_keeps_every_acknowledged_write(tmp_path: Path, nodes: int) -> None:
    async with LocalCluster(tmp_path, nodes, storage=LOST) as cluster:
        kv = await cluster.client()
        writers = Writers(kv)
        for _ in range(2):
            await writers.reach(len(writers.acknowledged) + 200)
            await cluster.kill(*cluster.node_ids)
            await cluster.restart(*cluster.node_ids)
        await writers.reach(len(writers.acknowledged) + 100)
        await writers.stop()
        assert await missing(kv, writers.acknowledged) == {}
        await cluster.converged()


@pytest.mark.parametrize("who", ["leader", "follower"])
async def test_power_loss_of_one_node_again_and_again_keeps_every_acknowledged_write(tmp_path: Path, who: str) -> None:
    async with LocalCluster(tmp_path, 3, storage=LOST) as cluster:
        kv = await cluster.client()
        writers = Writers(kv)
        for _ in range(3):
            await writers.reach(len(writers.acknowledged) + 100)
            leader = await cluster.leader()
            victim = leader if who == "leader" else cluster.others(leader)[0]
            await cluster.kill(victim)
            await writers.reach(len(writers.acknowledged) + 100)
            await cluster.restart(victim)
        await writers.stop()
        assert await missing(kv, writers.acknowledged) == {}
        await cluster.converged()


async def test_an_orderly_end_is_no_power_loss(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, 1, storage={**LOST, "fsync": "off"}) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"v")
        assert await cluster.terminate("n1") == 0
        await cluster.restart("n1")
        assert await kv.get(b"k") == b"v"


async def lost_when_all_die(cluster: LocalCluster) -> int:
    """The number of acknowledged writes that are lost after all nodes were killed at once and restarted."""
    kv = await cluster.client()
    writers = Writers(kv)
    await writers.reach(200)
    await cluster.kill(*cluster.node_ids)
    await writers.stop()
    await cluster.restart(*cluster.node_ids)
    return len(await missing(kv, writers.acknowledged))


@pytest.mark.parametrize("nodes", [1, 3])
async def test_without_fsync_power_loss_loses_acknowledged_writes_and_is_caught(tmp_path: Path, nodes: int) -> None:
    """Votes are lost as well: the traces of both incarnations show it too."""
    with pytest.raises(AssertionError, match="back to"):
        async with LocalCluster(tmp_path, nodes, storage={**LOST, "fsync": "off"}) as cluster:
            assert await lost_when_all_die(cluster) >= 200


async def test_without_fsync_a_kill_alone_proves_nothing(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, 3, storage={"fsync": "off"}) as cluster:
        assert await lost_when_all_die(cluster) == 0
