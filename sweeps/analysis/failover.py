"""How long a cluster was without a leader, stage by stage. Pure functions of events and arrays.

The paper (extended version, section 9.3, Figure 16) measures from the crash of the leader until the other servers have
received the new leader's first heartbeat. A failover has more stages:

    crash -> detected (first election begins) -> elected (a new leader) -> heard (by the last survivor; the
    paper's end) -> committed (first entry of the new leader's own term) -> succeeded (first client operation)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from chaos.events import FaultEvent
from chaos.faults import FAULTS, fault_kind
from raft_actor_node.core.trace import TraceRecord
from sweeps.analysis.events import Event, faults_of, traced_of
from sweeps.load.latencies import Ints
from sweeps.spec.metrics import STAGES


@dataclass(frozen=True)
class Failover:
    """One loss of a leader, with times in nanoseconds of the shared monotonic clock.

    A time is None if the stage was not reached before the next loss of a leader or the end of the events, or was not
    traced.
    """

    lost_ns: int
    old_leader: str
    new_leader: str | None = None
    term: int | None = None
    detected_ns: int | None = None
    elected_ns: int | None = None
    heard_ns: int | None = None
    committed_ns: int | None = None
    succeeded_ns: int | None = None

    def stages_ms(self) -> dict[str, float | None]:
        """Return the milliseconds from the loss of the leader to each stage."""
        times = {stage: getattr(self, f"{stage}_ns") for stage in STAGES}
        return {stage: None if at is None else round((at - self.lost_ns) / 1e6, 3) for stage, at in times.items()}


def failovers(events: Iterable[Event], success_ns: Ints) -> list[Failover]:
    """Return the failovers in a cell's events.

    `success_ns`: the times at which operations succeeded, ascending. All times must be from one clock.
    """
    ordered = sorted(events, key=lambda event: event.time_ns)
    losses: list[tuple[int, str]] = []
    leader = ""
    for event in ordered:
        match event:
            case TraceRecord(kind="became_leader"):
                leader = event.node
            case FaultEvent() if event.injects and leader in event.nodes and _ends_leadership(event, leader, ordered):
                losses.append((event.time_ns, leader))
                leader = ""
    ends = [lost_ns for lost_ns, _ in losses[1:]] + [int(np.iinfo(np.int64).max)]
    faults, traced = faults_of(ordered), traced_of(ordered)
    return [
        _follow(lost_ns, old, end, faults, traced, success_ns)
        for (lost_ns, old), end in zip(losses, ends, strict=False)
    ]


def _ends_leadership(fault: FaultEvent, leader: str, events: Sequence[Event]) -> bool:
    """Return whether a fault ended the leadership of a node that it struck.

    If the fault ends leaderships only sometimes, or may not have taken effect, the events decide: another node must
    become leader before the fault is healed, and before the next fault that may end the leadership.
    """
    ends = fault_kind(fault.kind).ends_leadership
    if ends == "always" and fault.took_effect:
        return True
    if ends == "never":
        return False

    def decides(event: Event) -> bool:
        match event:
            case TraceRecord(kind="became_leader"):
                return event.node != leader
            case FaultEvent() if event.injects:
                may_end = fault_kind(event.kind).ends_leadership != "never"
                return may_end and leader in event.nodes and event is not fault
            case FaultEvent():
                same = event.kind == fault.kind and event.index == fault.index
                return same and event.action == "heal" and not event.error
        return False

    decisive = next((event for event in events if event.time_ns >= fault.time_ns and decides(event)), None)
    return isinstance(decisive, TraceRecord)


def _held(faults: Sequence[FaultEvent], begin_ns: int, end_ns: int) -> set[str]:
    """Return the nodes that a fault silenced at any time from `begin_ns` to `end_ns`."""
    silencing = [kind for kind, fault in FAULTS.items() if fault.silences]
    held: set[str] = set()
    in_force: dict[tuple[str, int | None], Sequence[str]] = {}
    for event in faults:
        if event.kind not in silencing or event.time_ns > end_ns:
            continue
        fault = event.kind, event.index
        if event.injects:
            in_force[fault] = event.nodes
        elif event.action == "heal" and not event.error:
            nodes = in_force.pop(fault, ())
            if event.done_ns >= begin_ns:
                held.update(nodes)
    return held.union(*in_force.values())


def _follow(
    lost_ns: int,
    old: str,
    end_ns: int,
    faults: Sequence[FaultEvent],
    traced: Sequence[TraceRecord],
    success_ns: Ints,
) -> Failover:
    """Return the failover that began at `lost_ns`, from events until `end_ns`."""
    after = [event for event in traced if lost_ns <= event.time_ns < end_ns]
    campaigns = ("became_pre_candidate", "became_candidate")
    detected_ns = _first_ns(event for event in after if event.kind in campaigns and event.node != old)
    elected = next((event for event in after if event.kind == "became_leader"), None)
    if elected is None:
        return Failover(lost_ns, old, detected_ns=detected_ns)
    new, term, elected_ns = elected.node, elected.term, elected.time_ns
    later = [event for event in after if event.time_ns >= elected_ns and event.term == term]
    heard: dict[str, int] = {}
    for event in later:
        if event.kind == "leader_heard":
            heard.setdefault(event.node, event.time_ns)
    survivors = {event.node for event in traced} - {old, new} - _held(faults, lost_ns, elected_ns)
    position = int(np.searchsorted(success_ns, elected_ns))
    succeeded = int(success_ns[position]) if position < len(success_ns) and success_ns[position] < end_ns else None
    return Failover(
        lost_ns,
        old,
        new_leader=new,
        term=term,
        detected_ns=detected_ns,
        elected_ns=elected_ns,
        heard_ns=max((heard[node] for node in survivors), default=None) if survivors <= heard.keys() else None,
        committed_ns=_first_ns(event for event in later if event.kind == "commit" and event.node == new),
        succeeded_ns=succeeded,
    )


def _first_ns(events: Iterable[TraceRecord]) -> int | None:
    return next((event.time_ns for event in events), None)
