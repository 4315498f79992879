"""Cells in simulation: the same life of a cell, in virtual time, on a loop of its own and in a thread of its own.

Each cell begins at the same virtual moment, so that it is a function of its parameters and its seed, whatever ran
before it. What has no meaning in simulation, such as shares of a CPU, is absent from its result.
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
"""Of them are aimed at: random arrivals may be more than expected."""


class SimulatedCell:
    """One cell in virtual time; it has the shape of a CellRun."""

    def __init__(self, cell: Cell, progress: Progress, run_id: str) -> None:
        self._cell, self._progress, self._run_id = cell, progress, run_id
        self.interrupted: Record | None = None

    async def run(self) -> Record:
        """As CellRun.run, and release."""
        load, scaled = scale(self._cell.parameters.load, self._cell.parameters.phases)
        parameters = self._cell.parameters.model_copy(update={"load": load})
        return await in_virtual_time(lambda: self._live(replace(self._cell, parameters=parameters), scaled))

    async def release(self, *, keep: bool) -> None:
        """Nothing is left."""

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
    """The load with no more operations in its phases than can be simulated (5000, fewer of large values), and what
    was changed; None: nothing had to be."""
    lasts_s = phases.warmup + phases.measure
    most = _SURE * most_simulated(load)
    if load.mode == "open":
        assert load.rate is not None
        if load.rate * lasts_s <= most:
            return load, None
        rate = round(most / lasts_s, 3)
        return load.model_copy(update={"rate": rate}), {"load.rate": [load.rate, rate]}
    # Each client begins an operation at most once in this time, and one more for the beginning.
    clients = min(load.clients, int(most / 2))
    think = max(load.think, round(lasts_s * clients / (most - clients), 6))
    changed: dict[str, Any] = {}
    if think > load.think:
        changed["load.think"] = [format_duration(load.think), format_duration(think)]
    if clients < load.clients:
        changed["load.clients"] = [load.clients, clients]
    return load.model_copy(update={"think": think, "clients": clients}), changed or None


async def in_virtual_time(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end on a loop of virtual time, in a thread, while this loop goes on. A cancellation
    is passed on, and takes effect when it is through there."""
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
