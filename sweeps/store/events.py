"""events.jsonl: one JSON object per line, in order of time.

a phase began     {"time_ns": ..., "kind": "phase", "phase": "boot"}
a fault           the fields of FaultEvent (chaos/events.py)
a trace event     the fields of TraceRecord (raft_actor_node/core/trace.py); of commits, the first of each term
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from chaos.events import FaultEvent
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.trace_lines import read_record
from sweeps.analysis.events import Event, PhaseEvent


def write_events(events: Iterable[Event]) -> str:
    """Return the lines of events.jsonl."""
    ordered = sorted(events, key=lambda event: event.time_ns)
    return "".join(json.dumps(_fields(event)) + "\n" for event in ordered)


def read_events(text: str) -> list[Event]:
    """Return the events of all lines, in their order. Raises ValueError for a line that is not an event."""
    return [_event(json.loads(line)) for line in text.splitlines()]


def _fields(event: Event) -> object:
    match event:
        case PhaseEvent():
            return {"time_ns": event.time_ns, "kind": "phase", "phase": event.phase}
        case FaultEvent():
            return event.to_dict()
        case TraceRecord():
            return event.as_json()


def _event(line: object) -> Event:
    if isinstance(line, dict):
        if "action" in line:
            return FaultEvent.read(line)
        if line.get("kind") == "phase":
            return PhaseEvent(int(line["time_ns"]), str(line["phase"]))
        if isinstance(node := line.get("node"), str):
            return read_record(node, line)
    raise ValueError(f"{line!r} is not an event of a cell")
