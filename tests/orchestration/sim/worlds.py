"""Two worlds with the same interface, real processes and the simulation, so that a test can run in both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestration import ClusterPlan
from orchestration.sim_cluster import SimCluster, run_virtual
from raft_actor_node.client import KVClient
from raft_actor_node.config import CallForm, ClientSettings, RaftSettings
from raft_actor_node.links import LinkRule
from tests.cluster.local import STEADY, LocalCluster

WorldName = Literal["real", "simulated"]
PATIENCE_S = 20.0


class World(Protocol):
    """A cluster of three nodes."""

    node_ids: Any

    async def leader(self) -> str: ...
    async def set_links(self, rules: Sequence[LinkRule]) -> Any: ...
    async def kill(self, *node_ids: str) -> None: ...
    async def restart(self, *node_ids: str) -> Any: ...
    async def pause(self, node_id: str) -> Any: ...
    async def resume(self, node_id: str) -> Any: ...
    async def status(self, node_id: str) -> Any: ...
    async def client(self, only: Sequence[str] = (), call: CallForm = "stream", **settings: Any) -> KVClient: ...


class Simulated:
    """The simulation behind the interface of LocalCluster."""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.node_ids = cluster.node_ids

    async def leader(self) -> str:
        async def settled() -> str | None:
            leader = self.cluster.leader_now()
            views = [node.core.leader_id for node in self.cluster.nodes.values() if node.core is not None]
            return leader if views.count(leader) > len(self.node_ids) // 2 else None

        return str(await eventually(settled, "a leader"))

    async def set_links(self, rules: Sequence[LinkRule]) -> None:
        await self.cluster.set_links(rules)

    async def kill(self, *node_ids: str) -> None:
        await self.cluster.crash(*node_ids)

    async def restart(self, *node_ids: str) -> None:
        await self.cluster.restart(*node_ids)

    async def pause(self, node_id: str) -> None:
        await self.cluster.pause(node_id)

    async def resume(self, node_id: str) -> None:
        await self.cluster.resume(node_id)

    async def status(self, node_id: str) -> Any:
        return await self.cluster.status(node_id)

    async def client(self, only: Sequence[str] = (), call: CallForm = "stream", **settings: Any) -> KVClient:
        client = KVClient(
            {i: a for i, a in self.cluster.addresses.addresses().items() if not only or i in only},
            settings=ClientSettings(**settings),
            engine=partial(self.cluster.engine_factory, call=call),
        )
        client.start()
        return client


async def eventually(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Wait until the condition returns a true value, in the time of the present world."""
    async with asyncio.timeout(PATIENCE_S):
        while not (value := await condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return value
    raise AssertionError(what)


def live(
    world: WorldName,
    directory: Path,
    story: Callable[[World], Coroutine[Any, Any, None]],
    raft: RaftSettings = STEADY,
) -> None:
    """Run a scenario in one of the worlds."""

    async def real() -> None:
        async with LocalCluster(directory, 3, raft=raft) as cluster:
            await story(cluster)

    async def simulated() -> None:
        cluster = SimCluster(ClusterPlan(nodes=3, raft=raft), seed=1)
        await cluster.start()
        await story(Simulated(cluster))
        await cluster.stop()
        assert cluster.violations == []

    if world == "real":
        asyncio.run(real())
    else:
        run_virtual(simulated)
