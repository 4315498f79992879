"""What really happened: the events of a run, the schedule that would repeat them, and the windows they span."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from chaos.faults import AnyFault
from chaos.schedule import Schedule
from raft_actor_node.config import Section

NEVER_NS = 2**63 - 1
"""The end of a fault that was not healed."""


class FaultEvent(Section):
    """One act: a fault was put in force, came to its second stage, was healed, or was skipped."""

    time_ns: int
    """When the first node had it, on the monotonic clock."""
    done_ns: int
    """When the last node had it."""
    kind: str
    """Kind of the fault; `links` for the final healing of all tables (links, and what is inside nodes)."""
    action: Literal["inject", "advance", "heal", "skip"]
    nodes: tuple[str, ...]
    """The nodes it is about."""
    detail: str
    """For a person: where and how; why it was skipped; who was chosen in place of a missing leader."""
    error: str = ""
    """What failed; the fault, or the healing, may have taken effect in part or not at all."""
    took_effect: bool | None = True
    """Whether any node had it; None: nobody can tell, for the call failed, or was not answered."""
    planned_at_s: float
    """When it was due, in seconds after the start."""
    index: int | None
    """Position of the fault in the schedule; it ties a healing to its injection."""
    fault: AnyFault | None
    """The fault with node ids in place of `leader` and the like."""

    def to_dict(self) -> dict[str, Any]:
        """JSON types only, for a line of events.jsonl."""
        return self.model_dump(mode="json")

    @classmethod
    def read(cls, line: Mapping[str, object]) -> Self:
        """Return the event of a line of events.jsonl, also of one that an older or a later version wrote.

        Raises ValueError when it is no fault event. Unknown fields are left out.
        """
        absent = {"done_ns": line.get("time_ns"), "nodes": (), "detail": "", "planned_at_s": 0.0}
        known = {name: value for name, value in line.items() if name in cls.model_fields}
        return cls.model_validate({**absent, "index": None, "fault": None, **known})

    @property
    def injects(self) -> bool:
        """Whether it put a fault in force, or may have."""
        return self.action == "inject" and self.took_effect is not False

    @property
    def struck(self) -> bool:
        """Whether it put a fault in force for certain."""
        return self.action == "inject" and self.took_effect is True


def ran(schedule: Schedule, events: Iterable[FaultEvent]) -> Schedule:
    """The schedule that repeats what happened: the same faults on the same nodes, skipped ones left out."""
    done = [event.fault for event in events if event.action == "inject" and event.fault is not None]
    return schedule.model_copy(update={"faults": tuple(sorted(done, key=lambda fault: float(fault.at)))})


def fault_windows(events: Iterable[FaultEvent]) -> list[tuple[int, int]]:
    """The spans of time, in nanoseconds, in which at least one fault was in force: disjoint, in order.

    A span runs from when the first node had the fault to when the last one was rid of it; a fault whose
    healing failed lasts until a healing that succeeds, or else to NEVER_NS. One that no node had opens none.
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
    """Return the injection of the fault that explains why a node ended by itself; None: no fault explains it.

    A fault explains that one of its nodes ends with `Fault.exit_code`, from its injection until it is healed. Such an
    exit also proves that it struck: what the node had counted is gone with its process.
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
