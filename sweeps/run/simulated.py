"""Cells in simulation: the phases of a real cell in virtual time, on a separate event loop in a separate thread.

Each cell begins at the same virtual time. So its result depends only on its parameters and its seed, not on earlier
cells. Values without a meaning in simulation, such as CPU shares, are absent from the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from orchestration.sim_cluster import run_virtual
from orchestration.targets import Place
from raft_actor_node.core.invariants.cluster import ClusterInvariants
from raft_actor_node.kv.reference import Reference
from raft_actor_node.units import format_duration
from sweeps.run.cell import CellRun
from sweeps.run.machine import NoMachine
from sweeps.run.progress import Progress
from sweeps.run.record import Record
from sweeps.spec.estimate import most_simulated
from sweeps.spec.grid import Cell
from sweeps.spec.parameters import LoadSettings, PhaseSettings

T = TypeVar("T")

_SURE = 0.94
"""Share of the limit to aim for: random arrivals may exceed the expected number."""


class SimulatedCell:
    """One cell in virtual time, with the interface of CellRun."""

    def __init__(self, cell: Cell, progress: Progress, run_id: str) -> None:
        self._cell, self._progress, self._run_id = cell, progress, run_id
        self.interrupted: Record | None = None

    async def run(self) -> Record:
        """Run the cell and release it; see CellRun.run."""
        load, scaled = scale(self._cell.parameters.load, self._cell.parameters.phases)
        parameters = self._cell.parameters.model_copy(update={"load": load})
        return await in_virtual_time(lambda: self._live(replace(self._cell, parameters=parameters), scaled))

    async def release(self, *, keep: bool) -> None:
        """Do nothing: `run` has released everything."""

    async def _live(self, cell: Cell, scaled: dict[str, Any] | None) -> Record:
        parameters = cell.parameters

        def invariants() -> ClusterInvariants:
            model = Reference(value_bytes=parameters.limits.value_bytes)
            return ClusterInvariants(slowest_clock=parameters.slowest_clock, model=model)

        observer = invariants if parameters.checks.invariants else None
        place = Place(sim=parameters.sim, seed=cell.seed, observer=observer)
        async with parameters.kind.open(place) as backend:
            life = CellRun(cell, backend, NoMachine(), self._progress, self._run_id)
            try:
                record = await life.run()
                record.facts = {"target": parameters.target, "load_scaled": scaled, **backend.facts}
            except asyncio.CancelledError:
                self.interrupted = life.interrupted
                raise
            finally:
                await life.release(keep=False)
        return record


def scale(load: LoadSettings, phases: PhaseSettings) -> tuple[LoadSettings, dict[str, Any] | None]:
    """Reduce the load to the number of operations that can be simulated: 5000, fewer if values are large.

    Returns the load and the changes; the changes are None if the load was small enough.
    """
    lasts_s = phases.warmup + phases.measure
    most = _SURE * most_simulated(load)
    if load.mode == "open":
        assert load.rate is not None
        if load.rate * lasts_s <= most:
            return load, None
        rate = round(most / lasts_s, 3)
        return load.model_copy(update={"rate": rate}), {"load.rate": [load.rate, rate]}
    # Each client begins at most one operation per pause, plus its first.
    clients = min(load.clients, int(most / 2))
    think = max(load.think, round(lasts_s * clients / (most - clients), 6))
    changed: dict[str, Any] = {}
    if think > load.think:
        changed["load.think"] = [format_duration(load.think), format_duration(think)]
    if clients < load.clients:
        changed["load.clients"] = [load.clients, clients]
    return load.model_copy(update={"think": think, "clients": clients}), changed or None


async def in_virtual_time(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end on an event loop in virtual time, in a thread; the calling event loop continues.

    A cancellation is passed to the coroutine, and CancelledError is raised here once the coroutine has ended.
    """
    inside: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    cancelled = False

    async def work() -> T:
        task = asyncio.current_task()
        assert task is not None
        inside.append((asyncio.get_running_loop(), task))
        if cancelled:
            raise asyncio.CancelledError
        return await make()

    outside = asyncio.ensure_future(asyncio.to_thread(run_virtual, work))
    while not outside.done():
        try:
            await asyncio.wait({outside})
        except asyncio.CancelledError:
            cancelled = True
            for loop, task in inside:
                loop.call_soon_threadsafe(task.cancel)
    if cancelled:
        outside.exception()
        raise asyncio.CancelledError
    return outside.result()
