"""How long a sweep takes and what its machine must bear, before anything runs. Rules of thumb, on the safe side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.plan import OnHosts
from orchestration.ray_cluster.placement import hosts_needed
from sweeps.spec.grid import Cell
from sweeps.spec.parameters import LoadSettings

RAY_START_S = 6.0
RAY_BYTES = 600 * 2**20
ACTOR_BYTES = 90 * 2**20
"""A Ray worker that supervises a node; it lives on from cell to cell."""
NODE_BYTES = 60 * 2**20
LOAD_BYTES = 160 * 2**20
ENTRY_BYTES = 160
"""What an entry takes in memory and on disk beside its key and value."""
ROW_BYTES = 62
TRACE_BYTES = 8
"""Of an operation on each node, compressed; under load several share a line."""
MOST_SIMULATED = 5000
"""Operations in a simulated cell: one costs a thousand times its share of a real one's time."""
_MOST_SIMULATED_BYTES = 256 * 2**20
"""Of values in a simulated cell, whose disks are in memory."""
_SIMULATED_OPERATION_S = 0.0002
"""Of each node, to simulate an operation,"""
_SIMULATED_SHARE = 0.02
"""and, to simulate a second without any."""
_FASTEST_PER_S = 10_000.0
_FASTEST_BYTES_PER_S = 40e6


@dataclass(frozen=True)
class Needs:
    """What the heaviest cell of a sweep takes."""

    processes: int
    hosts: tuple[int, int]
    """So many at least, and so many at most are used."""
    memory_bytes: int
    disk_bytes: int
    """Write-ahead logs; they are removed after a good cell."""
    results_bytes: int
    """Of the whole sweep."""


def overhead_s(cell: Cell, cores: int = 2) -> float:
    """Time of a cell outside of warm-up and measurement: to start, elect, drain, collect and check; of a simulated
    one all of its time, for the other passes in no time."""
    nodes = cell.parameters.cluster.nodes
    if cell.parameters.kind.can.virtual_time:
        return 1.5 + nodes * (_SIMULATED_SHARE * _load_s(cell) + _SIMULATED_OPERATION_S * _operations(cell))
    return 2.0 + 0.5 * nodes / max(1, cores) + 2 * cell.parameters.raft.election_timeout[1]


def cell_s(cell: Cell, cores: int = 2) -> float:
    """Time of a cell from beginning to end."""
    return overhead_s(cell, cores) + (0.0 if cell.parameters.kind.can.virtual_time else _load_s(cell))


def needs(cells: Sequence[Cell]) -> Needs:
    """The most that any cell takes, and the results of all of them."""
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
    """Operations that a simulated cell may have."""
    return min(MOST_SIMULATED, _MOST_SIMULATED_BYTES // max(1, load.value_bytes))


def _hosts(cell: Cell) -> tuple[int, int]:
    return hosts_needed(cell.parameters.cluster.nodes, cell.parameters.cluster.placement)


def _most_generators(cell: Cell) -> int:
    """Load generators; of `own_host` as many as there are other hosts, which nobody knows yet."""
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
    """Entries of all nodes: nothing is compacted, and a node holds its log in memory too."""
    load = cell.parameters.load
    entry = ENTRY_BYTES + load.key_bytes + load.value_bytes
    return int(_operations(cell) * (1 - load.mix.get) * entry * cell.parameters.cluster.nodes)
