"""The faults of a cell: the schedule, the monkey that carries it out, and the events that result."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from chaos import FaultEvent, Schedule, fault_windows, plan, ran, run
from chaos.target import Applied
from orchestration.face import Cluster
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import NodeFaults
from sweeps.load.latencies import Ints
from sweeps.run.inspector import Inspector
from sweeps.run.progress import Progress
from sweeps.spec.grid import Cell


class CellFaults:
    """Plans and runs the faults of one cell, and keeps their events."""

    def __init__(self, cell: Cell, progress: Progress) -> None:
        self._cell, self._progress = cell, progress
        self._schedule: Schedule | None = None
        self.events: list[FaultEvent] = []
        """The events so far, in order."""

    def plan(self, nodes: Sequence[str]) -> Schedule:
        """Return the schedule for a cluster of these nodes."""
        parameters = self._cell.parameters
        self._schedule = schedule = plan(
            parameters.chaos, duration_s=parameters.phases.measure, nodes=nodes, seed=self._cell.seed
        )
        self._progress.asks(len(schedule.faults))
        return schedule

    async def run(self, target: WatchedCluster, schedule: Schedule, now_ns: Callable[[], int]) -> None:
        """Carry out the schedule. Raises NotHealed."""
        await run(target, schedule, clock=_LoopClock(now_ns), on_event=self._happened)

    def _happened(self, event: FaultEvent) -> None:
        self.events.append(event)
        injected = event.action == "inject"
        words = event.kind if injected else f"{event.action} {event.kind}"
        self._progress.fault(f"{words} {','.join(event.nodes)}", counts=injected and event.took_effect is True)

    @property
    def aims(self) -> dict[str, str]:
        """Position in the schedule -> selector of the fault, such as `leader`. Faults with node ids are absent."""
        faults = () if self._schedule is None else self._schedule.faults
        return {str(i): each.where for i, each in enumerate(faults) if isinstance(each.where, str)}

    @property
    def asked(self) -> Counter[str]:
        """Kind -> number of faults of this kind in the schedule."""
        return Counter(each.kind for each in (() if self._schedule is None else self._schedule.faults))

    @property
    def windows_ns(self) -> Ints:
        """[begin, end) of each window with a fault in force, in nanoseconds: disjoint, ascending, shape (n, 2)."""
        return np.array(fault_windows(self.events), np.int64).reshape(-1, 2)

    def ran(self, nodes: Sequence[str]) -> dict[str, Any]:
        """Return the schedule that repeats what happened: schedule.json."""
        return ran(self._schedule or self.plan(nodes), self.events).model_dump(mode="json")


class WatchedCluster:
    """The cluster that the monkey acts on: it forwards each call, and inspects the affected nodes first.

    A killed process loses its counters, and a paused one cannot be inspected. So nodes are inspected before they are
    killed or paused. All nodes are inspected before a table of faults is replaced, because the effect of each table is
    the difference of two counts.
    """

    def __init__(self, cluster: Cluster, inspector: Inspector) -> None:
        self._cluster, self._inspector = cluster, inspector

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Every node of the cluster."""
        return self._cluster.node_ids

    async def leader(self) -> str | None:
        """Return the leader, or None."""
        return await self._cluster.leader()

    async def crash(self, *node_ids: str) -> Applied | None:
        """Inspect nodes, then kill them."""
        await self._inspector.note(node_ids)
        return await self._cluster.crash(*node_ids)

    async def restart(self, *node_ids: str) -> Applied | None:
        """Start nodes again."""
        return await self._cluster.restart(*node_ids)

    async def pause(self, *node_ids: str) -> Applied | None:
        """Inspect nodes, then pause them."""
        await self._inspector.note(node_ids)
        return await self._cluster.pause(*node_ids)

    async def resume(self, *node_ids: str) -> Applied | None:
        """Resume nodes."""
        return await self._cluster.resume(*node_ids)

    async def set_links(self, rules: Sequence[LinkRule]) -> Applied | None:
        """Inspect all nodes, then replace the table of link faults."""
        await self._inspector.note(self.node_ids)
        return await self._cluster.set_links(rules)

    async def set_node_faults(self, faults: Mapping[str, NodeFaults]) -> Applied | None:
        """Inspect all nodes, then replace the table of faults inside nodes."""
        await self._inspector.note(self.node_ids)
        return await self._cluster.set_node_faults(faults)

    async def heal(self) -> Applied | None:
        """Inspect all nodes, then remove every link fault and every fault inside a node."""
        await self._inspector.note(self.node_ids)
        return await self._cluster.heal()


class _LoopClock:
    """The backend's time, with sleep on the event loop; both may be virtual."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns

    async def sleep(self, seconds: float) -> None:
        """Sleep in the event loop."""
        await asyncio.sleep(seconds)
