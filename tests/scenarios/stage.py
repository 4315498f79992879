"""Stages of scenarios: real processes or the simulation, with one interface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

from chaos.shapes import cut, separated
from orchestration import ClusterPlan
from orchestration.sim_cluster import SimCluster, run_virtual
from raft_actor_node.client import KVClient
from raft_actor_node.config import RaftSettings
from raft_actor_node.core.invariants.cluster import ClusterInvariants
from raft_actor_node.links import LinkRule
from raft_actor_node.pb import inspection_pb2
from tests.cluster.local import FAST, LocalCluster
from tests.orchestration.sim.worlds import Simulated, WorldName, eventually

LEADER = inspection_pb2.Role.LEADER
SEEDS = range(1, 6)
"""The seeds with which each scenario is played in simulation."""


class Stage(Protocol):
    """A cluster; the methods are those of LocalCluster."""

    node_ids: tuple[str, ...]

    async def leader(self, among: Sequence[str] = ()) -> str: ...
    async def status(self, node_id: str) -> inspection_pb2.StatusReply: ...
    async def client(self, only: Sequence[str] = (), **settings: Any) -> KVClient: ...
    async def kill(self, *node_ids: str) -> None: ...
    async def restart(self, *node_ids: str) -> Any: ...
    async def set_links(self, rules: Sequence[LinkRule]) -> Any: ...
    async def partition(self, *groups: Sequence[str]) -> None: ...
    async def heal(self) -> None: ...
    async def converged(self) -> Any: ...
    def others(self, *node_ids: str) -> tuple[str, ...]: ...


class SimStage(Simulated):
    """A simulated cluster as a stage."""

    def others(self, *node_ids: str) -> tuple[str, ...]:
        return tuple(i for i in self.node_ids if i not in node_ids)

    async def status(self, node_id: str) -> inspection_pb2.StatusReply:
        status = await self.cluster.status(node_id)
        assert status is not None
        return status

    async def leader(self, among: Sequence[str] = ()) -> str:
        async def find() -> str | None:
            found = [await self.status(i) for i in among or self.cluster.live]
            for status in found:
                followers = [
                    s for s in found if s.leader_id == status.node_id and s.current_term == status.current_term
                ]
                if status.role == LEADER and len(followers) > len(self.node_ids) // 2:
                    return status.node_id
            return None

        return str(await eventually(find, "a leader"))

    async def partition(self, *groups: Sequence[str]) -> None:
        await self.set_links(cut(separated(tuple(tuple(group) for group in groups), self.node_ids)))

    async def heal(self) -> None:
        await self.set_links([])

    async def converged(self) -> None:
        async def same() -> bool:
            found = [await self.status(i) for i in self.cluster.live]
            ends = {(s.last_applied, s.last_log_index, s.applied_hash) for s in found}
            return len(ends) == 1 and found[0].last_applied == found[0].last_log_index

        await eventually(same, "all nodes have applied the same")


def play(
    world: WorldName,
    directory: Path,
    story: Callable[[Stage], Coroutine[Any, Any, None]],
    *,
    nodes: int = 5,
    raft: RaftSettings = FAST,
    **switches: bool,
) -> None:
    """Play a story in one of the worlds and check all invariants. `switches` are fields of RaftSettings."""
    raft = raft.model_copy(update=switches)
    if world == "real":
        asyncio.run(_play_on_processes(directory, story, nodes, raft))
    else:
        for seed in SEEDS:
            run_virtual(lambda seed=seed: _play_in_simulation(story, nodes, raft, seed))  # type: ignore[misc]


async def _play_on_processes(
    directory: Path, story: Callable[[Stage], Coroutine[Any, Any, None]], nodes: int, raft: RaftSettings
) -> None:
    async with LocalCluster(directory, nodes, raft) as cluster:
        await story(cluster)


async def _play_in_simulation(
    story: Callable[[Stage], Coroutine[Any, Any, None]], nodes: int, raft: RaftSettings, seed: int
) -> None:
    cluster = SimCluster(ClusterPlan(nodes=nodes, raft=raft), seed=seed, observer=ClusterInvariants())
    await cluster.start()
    await story(SimStage(cluster))
    await cluster.stop()
    assert cluster.violations == []
