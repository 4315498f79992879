"""Did the faults strike, and was the load met? Otherwise the cell proves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from chaos.checks.base import Check
from chaos.checks.evidence import FaultExit, Load, Outage, StoredEvidence
from chaos.checks.finding import Finding, with_more
from chaos.events import FaultEvent, exit_cause
from chaos.faults import Proof, fault_kind
from chaos.statuses import Status, touched
from raft_actor_node.core.trace import TraceRecord

FEWEST_OPERATIONS = 20
"""Fewer operations prove nothing."""
MOST_UNKNOWN = 0.5
"""If a larger share of operations has an unknown outcome, nearly every history passes the check."""
MOST_UNASKED = 0.1
"""If clients were idle for a larger share of the outage, unavailability cannot be concluded."""
LEAST_INJECTED = 0.9
"""If a smaller share of the faults of a kind was put in force, the chaos was not the one requested."""
MOST_NOT_STARTED = 0.05
"""If a larger share of operations could not be started, the load was not the one requested."""
_ROLES = ("became_", "started")
_SHOWN = 5


@dataclass(frozen=True)
class Observed:
    """The evidence on whether a cell proves anything."""

    load: Load
    faults: Sequence[FaultEvent] = ()
    """Fault events, as in events.jsonl."""
    traces: Sequence[TraceRecord] = ()
    """Trace events of the nodes, on the clock of the fault events; empty when nothing is traced."""
    aims: Mapping[int, str] = field(default_factory=dict)
    """Position in the schedule -> selector of the planned fault (`leader`, `leader-in-minority`)."""
    nodes: Sequence[str] = ()
    """All nodes of the cluster."""
    statuses: Sequence[Status] = ()
    """Statuses that nodes reported during the measurement, with the counters of faults."""
    fault_exits: Sequence[FaultExit] = ()
    """Nodes that exited because of a fault inside them; the counters of each were lost with its process."""
    faults_planned: bool = False
    """Whether the cell was to have faults."""
    faults_asked: Mapping[str, int] = field(default_factory=dict)
    """Kind of fault -> how many the schedule has. A missing kind was requested as often as it was tried."""
    outage: Outage | None = None
    """The evidence of an outage; None where operations are expected to succeed."""
    fewest_operations: int = FEWEST_OPERATIONS
    """How many operations must succeed, where no outage is expected."""
    clock_doubt: str = ""
    """Why the order of events is too uncertain to judge; empty if the order is certain enough."""
    unread: str = ""
    """Why the last values of some keys are unknown: how many keys could be read at the end. Empty if all were read."""


def judge_coverage(seen: Observed) -> Finding:
    """Judge whether the faults struck and the load was met: ok, or unknown with every reason for doubt.

    For each kind of fault in the schedule, at least 0.9 of the faults must have been put in force. At least half of
    those tried must have struck; if only one was tried, it must have struck.
    """
    doubts = [*_load_doubts(seen)]
    roles = [event for event in seen.traces if event.kind.startswith(_ROLES)]
    tried: dict[str, list[str]] = {}
    injected: Counter[str] = Counter()
    proofs = []
    for event in seen.faults:
        if event.action in ("inject", "skip"):
            injected[event.kind] += event.struck
            doubt = _not_in_force(event, seen) or _missed(event, seen, roles)
            tried.setdefault(event.kind, []).append(doubt and f"{_named(event)} {doubt}")
            proofs.append(f"{_named(event)} {doubt or 'took effect'}")
    asked = {kind: len(outcomes) for kind, outcomes in tried.items()} | dict(seen.faults_asked)
    for kind, count in asked.items():
        outcomes = tried.get(kind, [])
        failed = [doubt for doubt in outcomes if doubt]
        if injected[kind] < LEAST_INJECTED * count:
            why = "; ".join((f"{injected[kind]} of {count} {kind} faults were put in force", *failed[:1]))
            doubts.append(why)
        elif 2 * len(failed) > len(outcomes):
            doubts.append(failed[0] + (f"; {len(failed)} of {len(outcomes)} are in doubt" if len(failed) > 1 else ""))
    if seen.faults_planned and not tried:
        doubts.append("no fault was put in force")
    detail = "\n".join([*doubts, *proofs])
    if doubts:
        return Finding("coverage", "unknown", with_more(doubts), detail)
    counts = f"{seen.load.operations} operations, {seen.load.succeeded} succeeded"
    struck = f"{injected.total()} of {sum(asked.values())} faults put in force"
    return Finding("coverage", "ok", f"{counts}, {struck}" if asked else counts, detail)


def leader_at(traces: Iterable[TraceRecord], time_ns: int) -> str | None:
    """Return the leader at a time, according to the traces; None if there was none.

    If several nodes had been elected and had not left the role, the leader is the one with the highest term. A
    leadership also ends when the node traces its next `started`, because the end of an incarnation is not traced.
    """
    leaders: dict[str, int] = {}
    for event in traces:
        if event.time_ns > time_ns:
            continue
        if event.kind == "became_leader":
            leaders[event.node] = event.term
        elif event.kind.startswith("became_") or event.kind == "started":
            leaders.pop(event.node, None)
    return max(leaders, key=lambda node: leaders[node], default=None)


def _load_doubts(seen: Observed) -> Iterator[str]:
    load, fewest = seen.load, seen.fewest_operations
    if seen.clock_doubt:
        yield seen.clock_doubt
    if seen.unread:
        yield seen.unread
    if seen.outage is not None:
        yield from _outage_doubts(seen.outage)
    else:
        if load.succeeded < fewest:
            yield f"only {load.succeeded} of {load.operations} operations succeeded, at least {fewest} are needed"
        elif not load.succeeded:
            yield "no operation succeeded"
        if load.unknown > MOST_UNKNOWN * load.operations:
            yield f"{load.unknown} of {load.operations} operations have an unknown outcome"
    if load.due and load.not_started > MOST_NOT_STARTED * load.due:
        yield f"the offered load was not met: {load.not_started} of {load.due} operations could not be started"


def _outage_doubts(outage: Outage) -> Iterator[str]:
    if outage.before == 0:
        yield "no operation succeeded before the first fault"
    if outage.asked < outage.fewest:
        yield f"only {outage.asked} operations waited while none was to succeed, at least {outage.fewest} are needed"
    if outage.unasked > MOST_UNASKED:
        yield f"all clients were idle for {outage.unasked:.0%} of the time in which no operation was to succeed"
    if outage.after == 0:
        yield "no operation succeeded after the last fault was healed"


def _not_in_force(event: FaultEvent, seen: Observed) -> str:
    """Return why a fault may not have been in force or may have had no effect; empty if it was in force and struck."""
    if event.action == "skip":
        return f"was skipped: {event.detail.rpartition('; ')[2]}"
    last = _last_stage(event, seen.faults)
    for stage, when in ((event, ""), (last or event, " in its second stage")):
        if stage.took_effect is False:
            return f"did not take effect{when}: {stage.error or 'no reason given'}"
    fault = event.fault
    proofs = fault_kind(event.kind).proof if fault is None else fault.counters
    if not proofs:
        known = event.took_effect
        return "" if known else f"may not have taken effect: {event.error or 'no reason given'}"
    return "had no second stage" if last is None else _unproven(last, proofs, seen)


def _unproven(event: FaultEvent, proofs: Sequence[Proof], seen: Observed) -> str:
    """Return why no counter shows an effect of the fault; empty if one does."""
    causes = (exit_cause(seen.faults, end.node_id, end.code, end.time_ns) for end in seen.fault_exits)
    if any(cause is not None and cause.index == event.index for cause in causes):
        return ""  # the counters ended with the node
    told = seen.faults, seen.nodes, seen.statuses
    counts = {proof: touched(event, *told, proof.counter) for proof in proofs}
    if any(counts.values()):
        return ""
    [proof, *_] = [proof for proof, count in counts.items() if count is not None] or proofs
    if counts[proof] is None:
        return f"may have done nothing: no node reported how many {proof.subject}s were {proof.touched}"
    return f"did nothing: no {proof.subject} was {proof.touched}"


def _last_stage(event: FaultEvent, faults: Iterable[FaultEvent]) -> FaultEvent | None:
    """Return the event that put a fault fully in force, or None if the fault never was.

    For a partition of two stages, the event is that of the second stage.
    """
    fault = event.fault
    if fault is None or not fault.prepares_s:
        return event
    later = (each for each in faults if each.action == "advance" and each.index == event.index)
    return next(later, None)


def _missed(event: FaultEvent, seen: Observed, roles: Sequence[TraceRecord]) -> str:
    """Return why a fault aimed relative to the leader missed; empty if it hit, or if no trace shows who led."""
    aim, kind = seen.aims.get(-1 if event.index is None else event.index, ""), fault_kind(event.kind)
    if not aim or not kind.seeks_leader(aim):
        return ""
    if "there was no leader" in event.detail:
        return f"was aimed at {aim}, but there was no leader"
    leader = leader_at(roles, (_last_stage(event, seen.faults) or event).time_ns)
    fault = event.fault
    where = event.nodes if fault is None else fault.where
    if roles and (leader is None or not kind.found_leader(aim, where, leader)):
        return f"was aimed at {aim}, but {leader or 'no node'} led when it struck"
    return ""


def _named(event: FaultEvent) -> str:
    # A fault with a selector, such as `leader`, has no nodes if it never began. Its detail begins with the selector.
    where = ",".join(event.nodes[:_SHOWN]) or event.detail.partition(";")[0]
    return f"{event.kind} {where}"


def _find(stored: StoredEvidence) -> Finding:
    return judge_coverage(
        Observed(
            load=stored.load,
            faults=stored.faults,
            traces=stored.roles,
            aims=stored.aims,
            nodes=stored.nodes,
            statuses=stored.statuses,
            fault_exits=stored.fault_exits,
            faults_planned=stored.faults_planned,
            faults_asked=stored.faults_asked,
            outage=stored.outage if stored.outage_expected else None,
            fewest_operations=stored.least_operations,
            clock_doubt=stored.clock_doubt,
            unread=stored.unread,
        )
    )


CHECK = Check("coverage", _find, safety=False)
