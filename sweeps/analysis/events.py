"""The events of a cell, all on the driver's clock: its phases, its faults, and the traces of its nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chaos.events import FaultEvent
from raft_actor_node.core.trace import TraceRecord


@dataclass(frozen=True, slots=True)
class PhaseEvent:
    """A phase of the cell began."""

    time_ns: int
    phase: str


Event = PhaseEvent | FaultEvent | TraceRecord


def faults_of(events: Iterable[Event]) -> list[FaultEvent]:
    """Return the fault events, in their order."""
    return [event for event in events if isinstance(event, FaultEvent)]


def traced_of(events: Iterable[Event]) -> list[TraceRecord]:
    """Return the trace events, in their order."""
    return [event for event in events if isinstance(event, TraceRecord)]
