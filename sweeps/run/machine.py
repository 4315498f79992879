"""Measurements of the hosts that a cell runs on: CPU time, stalls of disk and event loop, clocks.

A simulated cell has no hosts and uses NoMachine.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import psutil

from orchestration.errors import InfrastructureError
from orchestration.face import Backend, Cluster, Worker
from sweeps.load.node_stats import NodeStats
from sweeps.load.results import GroupResult
from sweeps.run.inspector import Inspector

CLOCK_POLL_S = 5.0
"""Interval of clock comparisons. It widens the error bound of a clock by half the interval x FASTEST_DRIFT: 1.25 ms."""
_CLOCK_TIMEOUT_S = 2.0

Window = tuple[int, int]
"""[begin, end) in nanoseconds of the driver's clock."""


class Machine(Protocol):
    """Measures the properties of a cell's hosts that affect its numbers."""

    nodes: dict[str, NodeStats]
    """What each node measured about itself."""
    host_busy: float | None
    """Share of the host's CPU time in use, by any program; None with several hosts."""

    @property
    def cores(self) -> int | None:
        """Number of cores that nodes and load generators share; None with several hosts."""

    def wall_s(self, seconds: float | None) -> float | None:
        """Return the wall-clock duration of a phase of `seconds`; None if it is unknown."""

    def begin_busy(self) -> None:
        """Begin to measure `host_busy`."""

    def end_busy(self) -> None:
        """End the measurement of `host_busy`."""

    async def begin(self, inspector: Inspector) -> None:
        """Record the CPU time that nodes have used before the measurement."""

    async def end(self, inspector: Inspector, cluster: Cluster, begin_ns: int) -> None:
        """Fetch what the running nodes measured about themselves since `begin_ns`."""

    async def watch_clocks(self, workers: Callable[[], Iterable[Worker]]) -> None:
        """Compare the clocks of all hosts every CLOCK_POLL_S, to bound their drift. Runs until it is cancelled."""

    def load_figures(self, loaded: GroupResult, window_ns: Window) -> Sequence[NodeStats]:
        """Return what each load generator measured about itself."""

    def facts(self, cluster: Cluster | None, loaded: GroupResult | None, window_ns: Window) -> dict[str, Any]:
        """Return the hosts of nodes and load generators, for result.json."""


class Hosts:
    """The hosts of a cell of real processes."""

    def __init__(self, backend: Backend) -> None:
        self.nodes: dict[str, NodeStats] = {}
        self.host_busy: float | None = None
        self._backend = backend
        self._cpu: dict[str, tuple[int, float, int]] = {}

    @property
    def cores(self) -> int | None:
        """As in Machine."""
        return os.cpu_count() if self._one_host else None

    @property
    def _one_host(self) -> bool:
        return len(self._backend.hosts) == 1

    def wall_s(self, seconds: float | None) -> float | None:
        """As in Machine."""
        return seconds

    def begin_busy(self) -> None:
        """As in Machine."""
        psutil.cpu_percent()  # the next call covers the time since this one

    def end_busy(self) -> None:
        """As in Machine."""
        share = psutil.cpu_percent() / 100
        self.host_busy = share if self._one_host else None

    async def begin(self, inspector: Inspector) -> None:
        """As in Machine."""
        for node_id, status in (await inspector.all()).items():
            if status is not None:
                self._cpu[node_id] = (status.pid, status.cpu_s, status.now_ns)

    async def end(self, inspector: Inspector, cluster: Cluster, begin_ns: int) -> None:
        """As in Machine."""
        statuses = await inspector.all()
        since = {node_id: begin_ns + cluster.worker(node_id).clock.offset_ns for node_id in cluster.node_ids}
        samples = await asyncio.gather(*(cluster.samples(node_id, since[node_id]) for node_id in cluster.node_ids))
        for (node_id, status), sample in zip(statuses.items(), samples, strict=True):
            share = None
            pid, cpu_s, then_ns = self._cpu.get(node_id, (0, 0.0, 0))
            if status is not None and status.pid == pid and status.now_ns > then_ns:
                share = (status.cpu_s - cpu_s) * 1e9 / (status.now_ns - then_ns)
            self.nodes[node_id] = NodeStats(
                cpu_share=share,
                resident_bytes=None if status is None else int(status.resident_bytes),
                fsync_us=() if sample is None else tuple(sample.fsync_us),
                loop_lag_us=() if sample is None else tuple(sample.loop_lag_us),
                round_trip_us=() if sample is None else tuple(sample.round_trip_us),
            )

    async def watch_clocks(self, workers: Callable[[], Iterable[Worker]]) -> None:
        """As in Machine."""
        while True:
            await asyncio.sleep(CLOCK_POLL_S)
            silent = set()
            # In sequence: simultaneous requests delay each other, which widens the error bound.
            for worker in workers():
                if worker.host not in silent:
                    try:
                        await worker.compare_clocks(timeout_s=_CLOCK_TIMEOUT_S)
                    except InfrastructureError:
                        silent.add(worker.host)

    def load_figures(self, loaded: GroupResult, window_ns: Window) -> Sequence[NodeStats]:
        """As in Machine."""
        return [each.figures(window_ns) for each in loaded.generators]

    def facts(self, cluster: Cluster | None, loaded: GroupResult | None, window_ns: Window) -> dict[str, Any]:
        """As in Machine."""
        facts: dict[str, Any] = {}
        if cluster is not None:
            hosts = {node_id: cluster.worker(node_id).host for node_id in cluster.node_ids}
            facts["placement"] = {
                node_id: {"host": host.address, "hostname": host.name} for node_id, host in hosts.items()
            }
        if loaded is not None:
            facts["generators"] = [each.as_json(window_ns) for each in loaded.generators]
        return facts


class NoMachine:
    """Replaces Hosts in a simulated cell, and measures nothing."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeStats] = {}
        self.host_busy: float | None = None
        self.cores: int | None = None

    def wall_s(self, seconds: float | None) -> None:
        """As in Machine."""

    def begin_busy(self) -> None:
        """As in Machine."""

    def end_busy(self) -> None:
        """As in Machine."""

    async def begin(self, inspector: Inspector) -> None:
        """As in Machine."""

    async def end(self, inspector: Inspector, cluster: Cluster, begin_ns: int) -> None:
        """As in Machine."""

    async def watch_clocks(self, workers: Callable[[], Iterable[Worker]]) -> None:
        """As in Machine."""

    def load_figures(self, loaded: GroupResult, window_ns: Window) -> Sequence[NodeStats]:
        """As in Machine."""
        return ()

    def facts(self, cluster: Cluster | None, loaded: GroupResult | None, window_ns: Window) -> dict[str, Any]:
        """As in Machine."""
        return {}
