"""The raw data of a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sweeps.analysis.events import Event
from sweeps.load.node_stats import NodeStats
from sweeps.load.operations import Operations
from sweeps.spec.parameters import Parameters


@dataclass(frozen=True)
class CellData:
    """The raw data of a cell."""

    parameters: Parameters
    operations: Operations | None
    """None: no load could begin."""
    events: Sequence[Event]
    faults_asked: int = 0
    """Number of faults in the schedule."""
    nodes: Mapping[str, NodeStats] = field(default_factory=dict)
    loads: Sequence[NodeStats] = ()
    """The figures of each load generator."""
    notes: Sequence[str] = ()
    """Additional flags."""
    cores: int | None = None
    """Number of cores that the nodes and the load generator share; None with several hosts."""
    host_busy: float | None = None
    """Share of the host's CPU time used by all programs; None with several hosts."""
    clock_error_ms: float = 0.0
    """Error of times relative to other hosts; 0 when all hosts read one clock."""
    phases_s: Mapping[str, float] = field(default_factory=dict)
    bring_up_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each step: place, spawn, serving, leader. A step begins when the previous one ends."""
