"""The fault events of a run, the schedule that repeats them, and the time windows in which faults were in force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from chaos.faults import AnyFault
from chaos.schedule import Schedule
from raft_actor_node.config import Section

NEVER_NS = 2**63 - 1
"""End of a fault that was never healed."""


class FaultEvent(Section):
    """One action on a fault: it was injected, advanced to its second stage, healed, or skipped."""

    time_ns: int
    """When the action took effect on the first node, on the monotonic clock."""
    done_ns: int
    """When the action took effect on the last node."""
    kind: str
    """Kind of the fault; `links` for the final healing of all tables (link faults and faults inside nodes)."""
    action: Literal["inject", "advance", "heal", "skip"]
    nodes: tuple[str, ...]
    """The nodes that the fault targets."""
    detail: str
    """Text for display: where and how the fault strikes, why it was skipped, or which node replaced the leader."""
    error: str = ""
    """What failed; the fault or its healing may have taken effect in part or not at all."""
    took_effect: bool | None = True
    """Whether the action took effect on any node; None: unknown, because the call failed or was not answered."""
    planned_at_s: float
    """When the action was due, in seconds after the start of the schedule."""
    index: int | None
    """Position of the fault in the schedule; the same for its injection and its healing."""
    fault: AnyFault | None
    """The fault with node ids in place of selectors such as `leader`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON types, for a line of events.jsonl."""
        return self.model_dump(mode="json")

    @classmethod
    def read(cls, line: Mapping[str, object]) -> Self:
        """Return the event in a line of events.jsonl, written by this version, an older one or a later one.

        Unknown fields are ignored. Raises ValueError when the line is not a fault event.
        """
        absent = {"done_ns": line.get("time_ns"), "nodes": (), "detail": "", "planned_at_s": 0.0}
        known = {name: value for name, value in line.items() if name in cls.model_fields}
        return cls.model_validate({**absent, "index": None, "fault": None, **known})

    @property
    def injects(self) -> bool:
        """Whether this event injected a fault, or may have."""
        return self.action == "inject" and self.took_effect is not False

    @property
    def struck(self) -> bool:
        """Whether this event certainly injected a fault."""
        return self.action == "inject" and self.took_effect is True


def ran(schedule: Schedule, events: Iterable[FaultEvent]) -> Schedule:
    """Return the schedule that repeats a run: the faults that were injected, on the same nodes."""
    done = [event.fault for event in events if event.action == "inject" and event.fault is not None]
    return schedule.model_copy(update={"faults": tuple(sorted(done, key=lambda fault: float(fault.at)))})


def fault_windows(events: Iterable[FaultEvent]) -> list[tuple[int, int]]:
    """Return disjoint, ascending [start, end) windows in nanoseconds in which at least one fault was in force.

    A fault is in force from when it takes effect on its first node until it is healed on its last. If healing failed,
    the fault lasts until a later attempt succeeds; if every attempt failed, until NEVER_NS. A fault that took effect on
    no node is ignored.
    """
    opened: dict[int | None, int] = {}
    spans: list[tuple[int, int]] = []
    for event in events:
        if event.action == "inject" and event.took_effect is not False:
            opened.setdefault(event.index, event.time_ns)
        elif event.action == "heal" and not event.error and event.index in opened:
            spans.append((opened.pop(event.index), event.done_ns))
    spans += [(start_ns, NEVER_NS) for start_ns in opened.values()]
    windows: list[tuple[int, int]] = []
    for start_ns, end_ns in sorted(spans):
        if windows and start_ns <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(end_ns, windows[-1][1]))
        else:
            windows.append((start_ns, end_ns))
    return windows


def exit_cause(events: Iterable[FaultEvent], node_id: str, exit_code: int | None, time_ns: int) -> FaultEvent | None:
    """Return the injection event of the fault that made a node exit; None if no fault explains the exit.

    A fault explains an exit of one of its nodes if the exit code is `Fault.exit_code`, and the exit happens between
    injection and healing. Such an exit also proves that the fault struck. This proof is needed because the counters of
    the node are lost with its process.
    """
    causes: dict[int | None, FaultEvent] = {}
    for event in events:
        if event.action == "inject" and event.took_effect is not False and event.fault is not None:
            explains = exit_code is not None and event.fault.exit_code == exit_code
            if explains and node_id in event.nodes and event.time_ns <= time_ns:
                causes[event.index] = event
        elif event.action == "heal" and not event.error and event.done_ns < time_ns:
            causes.pop(event.index, None)
    return next(iter(causes.values()), None)
