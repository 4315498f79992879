"""How long a sweep takes and what its machine must bear, before anything runs. Rules of thumb, on the safe side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.grid import Cell

RAY_START_S = 6.0
RAY_BYTES = 600 * 2**20
ACTOR_BYTES = 90 * 2**20
"""A Ray worker that supervises a node; it lives on from cell to cell."""
NODE_BYTES = 60 * 2**20
LOAD_BYTES = 160 * 2**20
ENTRY_BYTES = 160
"""What an entry takes in memory and on disk beside its key and value."""
ROW_BYTES = 52
_FASTEST_PER_S = 10_000.0
_FASTEST_BYTES_PER_S = 40e6


@dataclass(frozen=True)
class Needs:
    """What the heaviest cell of a sweep takes."""

    processes: int
    memory_bytes: int
    disk_bytes: int
    """Write-ahead logs; they are removed after a good cell."""
    results_bytes: int
    """Of the whole sweep."""


def overhead_s(cell: Cell, cores: int = 2) -> float:
    """Time of a cell outside of warm-up and measurement: to start, elect, drain and collect."""
    nodes = cell.parameters.cluster.nodes
    return 2.0 + 0.5 * nodes / max(1, cores) + 2 * cell.parameters.raft.election_timeout[1]


def cell_s(cell: Cell, cores: int = 2) -> float:
    """Time of a cell from beginning to end."""
    phases = cell.parameters.phases
    return overhead_s(cell, cores) + phases.warmup + phases.measure


def needs(cells: Sequence[Cell]) -> Needs:
    """The most that any cell takes, and the results of all of them."""
    most_nodes = max(cell.parameters.cluster.nodes for cell in cells)
    logs = max(_log_bytes(cell) for cell in cells)
    return Needs(
        processes=2 * most_nodes + 1,
        memory_bytes=RAY_BYTES + LOAD_BYTES + most_nodes * (ACTOR_BYTES + NODE_BYTES) + logs,
        disk_bytes=logs,
        results_bytes=sum(int(_operations(cell) * ROW_BYTES) for cell in cells),
    )


def _operations(cell: Cell) -> float:
    load, phases = cell.parameters.load, cell.parameters.phases
    rate = load.rate if load.mode == "open" and load.rate else _FASTEST_PER_S
    return min(rate, _FASTEST_BYTES_PER_S / (load.value_bytes + 1)) * (phases.warmup + phases.measure)


def _log_bytes(cell: Cell) -> int:
    """Entries of all nodes: nothing is compacted, and a node holds its log in memory too."""
    load = cell.parameters.load
    entry = ENTRY_BYTES + load.key_bytes + load.value_bytes
    return int(_operations(cell) * (1 - load.mix.get) * entry * cell.parameters.cluster.nodes)
