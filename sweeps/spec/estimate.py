"""Estimates of the duration and the resources of a sweep, made before its start by rules of thumb that err high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.placement import hosts_needed
from orchestration.plan import OnHosts
from sweeps.spec.grid import Cell
from sweeps.spec.parameters import LoadSettings

RAY_START_S = 6.0
RAY_BYTES = 600 * 2**20
"""Memory of Ray itself."""
ACTOR_BYTES = 90 * 2**20
"""Memory of a Ray worker that supervises a node; later cells reuse the worker."""
NODE_BYTES = 60 * 2**20
"""Memory of a node process without its log."""
LOAD_BYTES = 160 * 2**20
"""Memory of a load generator."""
ENTRY_BYTES = 160
"""Overhead of an entry, in memory and on disk, on top of its key and value."""
ROW_BYTES = 62
"""Size of an operation in the results of a cell."""
TRACE_BYTES = 8
"""Size of the compressed trace of one operation on one node; under load several operations share a line."""
MOST_SIMULATED = 5000
"""Maximum number of operations in a simulated cell, because simulating one is much slower than executing it."""
_MOST_SIMULATED_BYTES = 256 * 2**20
"""Maximum number of bytes of values in a simulated cell, because its disks are in memory."""
_SIMULATED_OPERATION_S = 0.0002
"""Seconds that simulating one operation on one node takes."""
_SIMULATED_SHARE = 0.02
"""Seconds that simulating one second of one idle node takes."""
_FASTEST_PER_S = 10_000.0
"""Highest throughput of a cluster, in operations per second."""
_FASTEST_BYTES_PER_S = 40e6
"""Highest throughput of a cluster, in bytes of values per second."""


@dataclass(frozen=True)
class Needs:
    """The resources that the heaviest cell of a sweep needs."""

    processes: int
    hosts: tuple[int, int]
    """Lower and upper bound on the number of hosts."""
    memory_bytes: int
    disk_bytes: int
    """Size of the write-ahead logs, which are removed after a good cell."""
    results_bytes: int
    """Size of the results of the whole sweep."""


def overhead_s(cell: Cell, cores: int = 2) -> float:
    """Estimate the seconds of a cell outside warm-up and measurement: start, election, drain, collection and check.

    For a simulated cell this is the whole time, because its warm-up and measurement pass in virtual time.
    """
    nodes = cell.parameters.cluster.nodes
    if cell.parameters.kind.can.virtual_time:
        return 1.5 + nodes * (_SIMULATED_SHARE * _load_s(cell) + _SIMULATED_OPERATION_S * _operations(cell))
    return 2.0 + 0.5 * nodes / max(1, cores) + 2 * cell.parameters.raft.election_timeout[1]


def cell_s(cell: Cell, cores: int = 2) -> float:
    """Estimate the whole time of a cell, in seconds."""
    return overhead_s(cell, cores) + (0.0 if cell.parameters.kind.can.virtual_time else _load_s(cell))


def needs(cells: Sequence[Cell]) -> Needs:
    """Return the most that any cell needs, and the size of the results of all cells."""
    most_nodes = max(cell.parameters.cluster.nodes for cell in cells)
    logs = max(_log_bytes(cell) for cell in cells)
    results = sum(int(_operations(cell) * (ROW_BYTES + TRACE_BYTES * cell.parameters.cluster.nodes)) for cell in cells)
    if cells[0].parameters.kind.can.virtual_time:
        return Needs(processes=2, hosts=(1, 1), memory_bytes=LOAD_BYTES + logs, disk_bytes=0, results_bytes=results)
    least, most = zip(*map(_hosts, cells), strict=True)
    most_loads = max(map(_most_generators, cells))
    return Needs(
        processes=2 * most_nodes + most_loads,
        hosts=(max(least), max(most)),
        memory_bytes=RAY_BYTES + most_loads * LOAD_BYTES + most_nodes * (ACTOR_BYTES + NODE_BYTES) + logs,
        disk_bytes=logs,
        results_bytes=results,
    )


def most_simulated(load: LoadSettings) -> int:
    """Return the number of operations that a simulated cell may have."""
    return min(MOST_SIMULATED, _MOST_SIMULATED_BYTES // max(1, load.value_bytes))


def _hosts(cell: Cell) -> tuple[int, int]:
    return hosts_needed(cell.parameters.cluster.nodes, cell.parameters.cluster.placement)


def _most_generators(cell: Cell) -> int:
    """Return the number of load generators.

    With `own_host` the number is that of the hosts without a node. It is unknown here, and counts as 1.
    """
    match cell.parameters.load.on:
        case OnHosts() as chosen:
            return len(chosen.hosts)
        case "every_host":
            return _hosts(cell)[1]
        case _:
            return 1


def _load_s(cell: Cell) -> float:
    return cell.parameters.phases.warmup + cell.parameters.phases.measure


def _operations(cell: Cell) -> float:
    load = cell.parameters.load
    rate = load.rate if load.mode == "open" and load.rate else _FASTEST_PER_S
    count = min(rate, _FASTEST_BYTES_PER_S / (load.value_bytes + 1)) * _load_s(cell)
    return min(count, most_simulated(load)) if cell.parameters.kind.can.virtual_time else count


def _log_bytes(cell: Cell) -> int:
    """Estimate the log bytes of all nodes. Logs are not compacted, and each node also holds its log in memory."""
    load = cell.parameters.load
    entry = ENTRY_BYTES + load.key_bytes + load.value_bytes
    return int(_operations(cell) * (1 - load.mix.get) * entry * cell.parameters.cluster.nodes)
