"""How long a cluster was without a leader, phase by phase. Pure functions of events and arrays.

The paper (extended version, section 9.3, Figure 16) measures from the crash of the leader until the other
servers have received the new leader's first heartbeat. A failover has more phases than that:

    crash -> detected (first election begins) -> elected (a new leader) -> heard (by the last survivor; the
    paper's end) -> committed (first entry of the new leader's own term) -> succeeded (first client operation)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chaos.faults import FAULTS, fault_kind
from sweeps.load.latencies import Ints
from sweeps.spec.metrics import STAGES


@dataclass(frozen=True)
class Failover:
    """One loss of a leader. Times are in nanoseconds of the shared monotonic clock; None: it did not come
    to that before the next loss of a leader or the end, or nothing traced it."""

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
        """Milliseconds from the loss of the leader to each stage."""
        times = {stage: getattr(self, f"{stage}_ns") for stage in STAGES}
        return {stage: None if at is None else round((at - self.lost_ns) / 1e6, 3) for stage, at in times.items()}


def failovers(events: Iterable[Mapping[str, Any]], success_ns: Ints) -> list[Failover]:
    """The failovers in a cell's events (as in events.jsonl: faults and trace events with `time_ns`) and the
    ascending times of successful operations. Times must be of one clock."""
    ordered = sorted(events, key=lambda event: int(event["time_ns"]))
    losses: list[tuple[int, str]] = []
    leader = ""
    for event in ordered:
        if event["kind"] == "became_leader":
            leader = event["node"]
        elif is_injection(event) and leader in event["nodes"] and _ends_leadership(event, leader, ordered):
            losses.append((int(event["time_ns"]), leader))
            leader = ""
    ends = [lost_ns for lost_ns, _ in losses[1:]] + [int(np.iinfo(np.int64).max)]
    return [_follow(lost_ns, old, end, ordered, success_ns) for (lost_ns, old), end in zip(losses, ends, strict=False)]


def is_injection(event: Mapping[str, Any]) -> bool:
    """Whether an event of a cell is a fault that was put in force, or may have been."""
    return event.get("action") == "inject" and event.get("took_effect", True) is not False


def _ends_leadership(fault: Mapping[str, Any], leader: str, events: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a fault ended the leadership of a node that it struck. One that sometimes does, or may not have taken
    effect, did when another node came to lead before it was healed, and before the next fault that may end it."""
    ends = fault_kind(fault["kind"]).ends_leadership
    if ends == "always" and fault.get("took_effect", True):
        return True
    if ends == "never":
        return False

    def decides(event: Mapping[str, Any]) -> bool:
        if event["kind"] == "became_leader":
            return bool(event["node"] != leader)
        if is_injection(event):
            may_end = fault_kind(event["kind"]).ends_leadership != "never"
            return may_end and leader in event["nodes"] and event is not fault
        return _heals(event, fault)

    since = [event for event in events if event["time_ns"] >= fault["time_ns"]]
    decisive = _first(since, decides)
    return decisive is not None and decisive["kind"] == "became_leader"


def _heals(event: Mapping[str, Any], fault: Mapping[str, Any]) -> bool:
    same = event["kind"] == fault["kind"] and event.get("index") == fault.get("index")
    return same and event.get("action") == "heal" and not event.get("error")


def _held(events: Sequence[Mapping[str, Any]], begin_ns: int, end_ns: int) -> set[str]:
    """The nodes that a fault silenced at any time from `begin_ns` to `end_ns`."""
    silencing = [kind for kind, fault in FAULTS.items() if fault.silences]
    held: set[str] = set()
    in_force: dict[Any, Sequence[str]] = {}
    for event in events:
        if event["kind"] not in silencing or event["time_ns"] > end_ns:
            continue
        fault = event["kind"], event.get("index")
        if is_injection(event):
            in_force[fault] = event["nodes"]
        elif event.get("action") == "heal" and not event.get("error"):
            nodes = in_force.pop(fault, ())
            if event.get("done_ns", event["time_ns"]) >= begin_ns:
                held.update(nodes)
    return held.union(*in_force.values())


def _follow(lost_ns: int, old: str, end_ns: int, events: Sequence[Mapping[str, Any]], success_ns: Ints) -> Failover:
    """The failover that began at `lost_ns`, looked for until `end_ns`."""
    after = [event for event in events if lost_ns <= event["time_ns"] < end_ns]
    campaigns = ("became_pre_candidate", "became_candidate")
    detected = _first(after, lambda event: event["kind"] in campaigns and event["node"] != old)
    elected = _first(after, lambda event: event["kind"] == "became_leader")
    if elected is None:
        return Failover(lost_ns, old, detected_ns=_time(detected))
    new, term, elected_ns = elected["node"], elected["term"], int(elected["time_ns"])
    later = [event for event in after if event["time_ns"] >= elected_ns]
    committed = _first(
        later, lambda event: event["kind"] == "commit" and event["node"] == new and event["term"] == term
    )
    heard: dict[str, int] = {}
    for event in later:
        if event["kind"] == "leader_heard" and event["term"] == term:
            heard.setdefault(event["node"], int(event["time_ns"]))
    survivors = {event["node"] for event in events if "node" in event} - {old, new} - _held(events, lost_ns, elected_ns)
    position = int(np.searchsorted(success_ns, elected_ns))
    succeeded = int(success_ns[position]) if position < len(success_ns) and success_ns[position] < end_ns else None
    return Failover(
        lost_ns,
        old,
        new_leader=new,
        term=term,
        detected_ns=_time(detected),
        elected_ns=elected_ns,
        heard_ns=max((heard[node] for node in survivors), default=None) if survivors <= heard.keys() else None,
        committed_ns=_time(committed),
        succeeded_ns=succeeded,
    )


def _first(events: Iterable[Mapping[str, Any]], wanted: Any) -> Mapping[str, Any] | None:
    return next((event for event in events if wanted(event)), None)


def _time(event: Mapping[str, Any] | None) -> int | None:
    return None if event is None else int(event["time_ns"])
