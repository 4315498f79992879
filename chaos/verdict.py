"""Was the system correct, and does the run prove it? Verdicts from what a run left behind. Pure functions.

    ok         everything that was checked holds, and enough happened to say so
    violated   a rule of the protocol, or of what clients were promised, is broken
    unknown    a check could not be made, or what happened proves nothing; unknown is not a pass

Each `judge_...` takes plain data, so that a stored run is judged as it was on the day, and gives one Finding.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from chaos.faults import Proof, fault_kind
from chaos.statuses import Status, broken_rules, fault_of, touched, without_quorum
from raft_actor_node.core.invariants.history import History, Summary
from raft_actor_node.core.invariants.liveness import LIVENESS_BOUND
from raft_actor_node.core.quorum import quorum_size
from raft_actor_node.errors import DataCorrupt, InvariantViolated

Verdict = Literal["ok", "violated", "unknown"]
_WORST_FIRST: tuple[Verdict, ...] = ("violated", "unknown", "ok")

FEWEST_OPERATIONS = 20
"""Fewer operations than these prove nothing."""
MOST_UNKNOWN = 0.5
"""With a larger share of unknown outcomes, nearly every history would pass."""
MOST_UNASKED = 0.1
"""With a larger share of the time in which nobody asked, nobody can say that nobody would have been served."""
LEAST_INJECTED = 0.9
"""With a smaller share of the faults of a kind put in force, other chaos took place than was asked for."""
MOST_NOT_STARTED = 0.05
"""With a larger share of operations that could not be started, another load was offered than was asked for."""
_ROLES = ("became_", "started")
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    """invariants, inspection, state, liveness, coverage, linearizability, ..."""
    verdict: Verdict
    reason: str
    """One line."""
    detail: str = ""
    """More lines, for a person who wants to know."""


def worst(findings: Iterable[Finding]) -> Verdict:
    """violated before unknown before ok; unknown when nothing was checked."""
    found = {finding.verdict for finding in findings}
    return next((verdict for verdict in _WORST_FIRST if verdict in found), "unknown")


def as_json(findings: Sequence[Finding], not_checked: Sequence[str] = ()) -> dict[str, Any]:
    """Verdict, its reason in one line (empty when ok), all findings, and the names of the checks that were not made;
    JSON types only. Where neither the history nor the traces were looked at, nothing shows that the system was
    correct: that is unknown at best."""
    if {"linearizability", "invariants"} <= set(not_checked):
        findings = [*findings, Finding("checks", "unknown", "neither linearizability nor invariants were checked")]
    verdict = worst(findings)
    causes = [f"{finding.check}: {finding.reason}" for finding in findings if finding.verdict == verdict]
    reason = "; ".join(causes) if causes else "nothing was checked"
    return {
        "verdict": verdict,
        "reason": "" if verdict == "ok" else reason,
        "findings": [asdict(finding) for finding in findings],
        "not_checked": list(not_checked),
    }


# ------------------------------------------------------------------------------ what the nodes told


def parse_trace(lines: Iterable[str | bytes], node_id: str) -> Iterator[dict[str, Any]]:
    """The events in the lines of a node's trace file. What is no event is left out: a line may be torn, with the
    first of the next life on its end, and a foreign program may write what it likes."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            text = line if isinstance(line, str) else line.decode(errors="replace")
            try:
                event = json.loads(text[text.rindex("{") :])
            except ValueError:
                continue
        if isinstance(event, dict):
            event["node"] = node_id
            yield event


def judge_traces(
    events: Iterable[Mapping[str, Any]],
    nodes: Collection[str] = (),
    *,
    lives: Mapping[str, tuple[int, int | None]] | None = None,
    committed: Mapping[str, int] | None = None,
) -> Finding:
    """The rules of Raft over the trace events of all lives of all nodes, those of each node in its order.

    Unknown when one of `nodes`, or everybody, told nothing, and when something is missing of what they told: a number,
    a life, or a commit. `lives`: by node, the fewest and the most lives it had, where the most is known. `committed`:
    by node, the highest index of which it said elsewhere that it is committed.
    """
    history = History()
    history.take(events)
    broken, told = history.broken(), history.summary()
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        detail = "\n".join(f"{each} at {each.time_ns} ns" for each in broken)
        return Finding("invariants", "violated", f"{broken[0]}{more}", detail)
    silent = [node for node in nodes if node not in told.lives]
    if silent or not told.events:
        return Finding("invariants", "unknown", f"no trace of {', '.join(silent) or 'any node'}")
    if missing := [*_missing(told, lives or {}, committed or {})]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        return Finding("invariants", "unknown", f"the trace of {missing[0]}{more}", "\n".join(missing))
    counts = f"{told.events} events of {sum(told.lives.values())} lives of {len(told.lives)} nodes"
    return Finding("invariants", "ok", f"{counts}: {told.leaders} leaders, {told.commits} commits")


def _missing(told: Summary, lives: Mapping[str, tuple[int, int | None]], committed: Mapping[str, int]) -> Iterator[str]:
    """What traces lack: of each node, what shows it."""
    for node, gaps in told.gaps.items():
        yield f"{node} has {gaps} gap{'s' if gaps > 1 else ''}"
    for node, (fewest, most) in lives.items():
        found = told.lives.get(node, 0)
        if found < fewest or (most is not None and found > most):
            yield f"{node} tells of {found} of {fewest} lives"
    for node, index in committed.items():
        if told.committed.get(node, 0) < index:
            yield f"{node} ends at commit index {told.committed.get(node, 0)}, and it had said {index}"


def judge_statuses(
    statuses: Sequence[Status],
    nodes: Sequence[str],
    faults: Sequence[Mapping[str, Any]] = (),
    *,
    committed: int = 0,
    asked_ns: int = 0,
    check_quorum_s: float | None = None,
) -> Finding:
    """The rules of Raft in what nodes said of themselves: indexes within a node, what leaders know of followers, what
    is committed on the disks of a quorum, and check quorum.

    `committed`: the highest index of which somebody told before `asked_ns` that it is committed; what nodes said from
    then on is held against it. `check_quorum_s`: the longest election timeout; None without check quorum. Unknown
    when nobody said anything, or when those who did not may be the quorum.
    """
    broken = [*broken_rules(statuses)]
    if check_quorum_s is not None:
        broken += without_quorum(statuses, faults, nodes, check_quorum_s)
    last = {each.node_id: each for each in sorted(statuses, key=lambda each: each.time_ns) if each.time_ns >= asked_ns}
    holders = [node for node, each in last.items() if each.durable_index >= committed]
    silent = [node for node in nodes if node not in last]
    if len(holders) + len(silent) < quorum_size(len(nodes)):
        broken.append(
            f"entry {committed} was committed, and is durable on {', '.join(sorted(holders)) or 'no node'} only"
        )
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        return Finding("inspection", "violated", f"{broken[0]}{more}", "\n".join(broken))
    if len(holders) < quorum_size(len(nodes)):
        return Finding("inspection", "unknown", f"{', '.join(silent)} did not tell what is durable")
    return Finding(
        "inspection", "ok", f"{len(statuses)} statuses; entry {committed} is durable on {len(holders)} nodes"
    )


@dataclass(frozen=True)
class AppliedState:
    """What a node said of its replica; hashes are empty where it was not asked."""

    node_id: str
    last_applied: int
    applied_hash: bytes = b""
    prefix_index: int = 0
    prefix_hash: bytes = b""
    """Hash of the entries 1 to prefix_index: ask all nodes at the smallest last_applied."""
    state_hash: bytes = b""


def judge_hashes(states: Sequence[AppliedState], nodes: Collection[str]) -> Finding:
    """Nodes that applied the same number of entries applied the same ones, and came to the same state.

    Unknown unless all of `nodes` told what they applied, have applied the same number of entries, and told the hashes
    of these entries and of their states: who is behind, after they were waited for, is not known to get there.
    """
    if differs := _difference(states):
        return differs
    reason = _incomparable(states, nodes)
    if reason:
        return Finding("state", "unknown", reason)
    count = states[0].last_applied
    return Finding("state", "ok", f"{len(states)} nodes applied the same {count} entries, and came to the same state")


def _difference(states: Iterable[AppliedState]) -> Finding | None:
    by_prefix: dict[int, dict[bytes, list[str]]] = {}
    by_entries: dict[bytes, dict[bytes, list[str]]] = {}
    for state in states:
        told = ((state.last_applied, state.applied_hash), (state.prefix_index, state.prefix_hash))
        for index, digest in dict.fromkeys(told):
            if index and digest:
                by_prefix.setdefault(index, {}).setdefault(digest, []).append(state.node_id)
        if state.applied_hash and state.state_hash:
            by_entries.setdefault(state.applied_hash, {}).setdefault(state.state_hash, []).append(state.node_id)
    for index, held in sorted(by_prefix.items()):
        if len(held) > 1:
            return Finding("state", "violated", f"{_sides(held)} applied other entries up to {index}", _hashes(held))
    for same in by_entries.values():
        if len(same) > 1:
            return Finding("state", "violated", f"{_sides(same)} differ after the same entries", _hashes(same))
    return None


def _incomparable(states: Sequence[AppliedState], nodes: Collection[str]) -> str:
    """Why states that do not differ are not known to be the same; empty when they are."""
    silent = sorted(set(nodes) - {state.node_id for state in states})
    if silent or not states:
        return f"{', '.join(silent) or 'no node'} did not tell what it applied"
    applied = {state.last_applied for state in states}
    if 0 in applied:
        return "a node has applied nothing"
    if len(applied) > 1:
        behind = ", ".join(state.node_id for state in states if state.last_applied < max(applied))
        return f"{behind} applied {min(applied)} entries at least, others {max(applied)}"
    mute = [state.node_id for state in states if not (state.applied_hash and state.state_hash)]
    return f"{', '.join(mute)} did not tell the hashes of entries and state" if mute else ""


def _sides(held: Mapping[bytes, Sequence[str]]) -> str:
    return " and ".join(", ".join(node_ids) for node_ids in held.values())


def _hashes(held: Mapping[bytes, Sequence[str]]) -> str:
    return "\n".join(f"{', '.join(node_ids)}: {digest.hex()}" for digest, node_ids in held.items())


def judge_exits(exits: Sequence[tuple[int | None, str]]) -> Finding:
    """What the ends of nodes say that nobody asked for, each an exit code and a line of text.

    A node that ends because a rule is broken, or what its disk held is gone, says so itself (errors.py).
    """
    telling = (InvariantViolated.exit_code, DataCorrupt.exit_code)
    for code, text in exits:
        if code in telling:
            return Finding("exits", "violated", text, "\n".join(each for _, each in exits))
    if exits:
        return Finding("exits", "unknown", exits[0][1], "\n".join(text for _, text in exits))
    return Finding("exits", "ok", "no node ended by itself")


# ------------------------------------------------------------------------------ liveness


def leader_signs_ns(events: Iterable[Mapping[str, Any]]) -> list[int]:
    """When trace events showed that there was a leader: it was elected, or something was committed."""
    return sorted(int(event["time_ns"]) for event in events if event.get("kind") in ("became_leader", "commit"))


def judge_liveness(
    signs_ns: Sequence[int],
    *,
    calm_ns: int,
    end_ns: int,
    election_timeout_max_s: float,
    clock_error_s: float = 0.0,
    asked_ns: int | None = None,
    found_ns: int | None = None,
) -> Finding:
    """Once faults are over, a connected majority has a leader within 10 of the longest election timeouts, and whoever
    looks for one later finds it within the same time.

    `signs_ns`: when it was seen that there was one (leader_signs_ns, a leader that answered); `calm_ns`: when the
    last fault was healed, or the load began; `asked_ns`: from when on somebody looked for one at the end, and
    `found_ns`: when it was found; `end_ns`: until when somebody looked. Unknown when that was too short.
    """
    limit_s = LIVENESS_BOUND * election_timeout_max_s + 2 * clock_error_s
    first_ns = min((sign for sign in signs_ns if calm_ns <= sign <= end_ns), default=None)
    looks = [(calm_ns, first_ns, "after the faults")]
    if asked_ns is not None:
        looks.append((max(calm_ns, asked_ns), found_ns, "at the end"))
    took_s = []
    for since_ns, seen_ns, when in looks:
        took_s.append(((end_ns if seen_ns is None else seen_ns) - since_ns) / 1e9)
        if seen_ns is None and took_s[-1] < limit_s:
            return Finding("liveness", "unknown", f"no leader in {took_s[-1]:.3f} s {when}, {limit_s:g} s are due")
        if took_s[-1] > limit_s or seen_ns is None:
            return Finding("liveness", "violated", f"no leader within {limit_s:g} s {when}")
    at_end = "" if asked_ns is None else ", and one at the end"
    return Finding("liveness", "ok", f"a leader {took_s[0]:.3f} s after the faults{at_end}")


# ------------------------------------------------------------------------------ coverage


@dataclass(frozen=True)
class Load:
    """What the clients asked for within the measurement."""

    operations: int
    """Operations with an outcome, whatever it was."""
    succeeded: int
    unknown: int = 0
    due: int = 0
    """Operations that were due outside of faults, in an open loop; 0 in a closed one."""
    not_started: int = 0
    """Those of them that could not be started."""


@dataclass(frozen=True)
class Outage:
    """Where nobody should be served, while faults last or at any time: what shows that somebody asked, and would have
    been served otherwise."""

    asked: int
    """Operations that waited for an answer while none should come, under each fault."""
    fewest: int
    """So many are needed."""
    unasked: float = 0.0
    """Share of the time in which nobody should be served in which nobody asked."""
    before: int | None = None
    """Operations that succeeded before the first fault; None without faults."""
    after: int | None = None
    """Operations that succeeded after the last fault was healed; None without faults."""


@dataclass(frozen=True)
class Evidence:
    """What there is to tell whether a cell proves anything."""

    load: Load
    faults: Sequence[Mapping[str, Any]] = ()
    """Fault events, as in events.jsonl."""
    traces: Sequence[Mapping[str, Any]] = ()
    """Trace events of the nodes, on the clock of the fault events; empty when nothing is traced."""
    aims: Mapping[int, str] = field(default_factory=dict)
    """By position in the schedule: who the planned fault named by its part (`leader`, `leader-in-minority`)."""
    nodes: Sequence[str] = ()
    """All nodes of the cluster."""
    statuses: Sequence[Status] = ()
    """What nodes said of themselves meanwhile: the counters of link faults are looked at here."""
    faults_planned: bool = False
    """Whether there should have been any."""
    faults_asked: Mapping[str, int] = field(default_factory=dict)
    """Kind of fault -> how many the schedule has. One that is missing here was asked for as often as it was tried."""
    outage: Outage | None = None
    """Where operations are expected not to succeed."""
    fewest_operations: int = FEWEST_OPERATIONS
    """So many must succeed, where no outage is expected."""
    clock_doubt: str = ""
    """Why nobody knows well enough in which order things happened."""
    unread: str = ""
    """Of how many keys the last value is not known, for they could not be read at the end."""


def judge_coverage(evidence: Evidence) -> Finding:
    """Whether the faults bit and the load was met: ok, or unknown with every reason why not.

    Of each kind of fault that the schedule asks for, 0.9 must have been put in force, and at least half of those that
    were tried must have bitten; with a single one, that one.
    """
    doubts = [*_load_doubts(evidence)]
    roles = [event for event in evidence.traces if event["kind"].startswith(_ROLES)]
    tried: dict[str, list[str]] = {}
    injected: Counter[str] = Counter()
    proofs = []
    for event in evidence.faults:
        if event.get("action") in ("inject", "skip"):
            injected[event["kind"]] += event["action"] == "inject" and event.get("took_effect", True) is True
            doubt = _not_in_force(event, evidence) or _missed(event, evidence, roles)
            tried.setdefault(event["kind"], []).append(doubt and f"{_named(event)} {doubt}")
            proofs.append(f"{_named(event)} {doubt or 'took effect'}")
    asked = {kind: len(outcomes) for kind, outcomes in tried.items()} | dict(evidence.faults_asked)
    for kind, count in asked.items():
        outcomes = tried.get(kind, [])
        failed = [doubt for doubt in outcomes if doubt]
        if injected[kind] < LEAST_INJECTED * count:
            why = "; ".join((f"{injected[kind]} of {count} {kind} faults were put in force", *failed[:1]))
            doubts.append(why)
        elif 2 * len(failed) > len(outcomes):
            doubts.append(failed[0] + (f", as {len(failed)} of {len(outcomes)}" if len(failed) > 1 else ""))
    if evidence.faults_planned and not tried:
        doubts.append("no fault was put in force")
    detail = "\n".join([*doubts, *proofs])
    if doubts:
        more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
        return Finding("coverage", "unknown", f"{doubts[0]}{more}", detail)
    counts = f"{evidence.load.operations} operations, {evidence.load.succeeded} succeeded"
    struck = f"{injected.total()} of {sum(asked.values())} faults put in force"
    return Finding("coverage", "ok", f"{counts}, {struck}" if asked else counts, detail)


def leader_at(traces: Iterable[Mapping[str, Any]], time_ns: int) -> str | None:
    """Who led then, by the traces: the leader of the highest term that had not left its role, nor its life, before.
    A life that ended is known to have ended when the next one starts."""
    leaders: dict[str, int] = {}
    for event in traces:
        if event["time_ns"] > time_ns:
            continue
        if event["kind"] == "became_leader":
            leaders[event["node"]] = event["term"]
        elif event["kind"].startswith("became_") or event["kind"] == "started":
            leaders.pop(event["node"], None)
    return max(leaders, key=lambda node: leaders[node], default=None)


def _load_doubts(evidence: Evidence) -> Iterator[str]:
    load, fewest = evidence.load, evidence.fewest_operations
    if evidence.clock_doubt:
        yield evidence.clock_doubt
    if evidence.unread:
        yield evidence.unread
    if evidence.outage is not None:
        yield from _outage_doubts(evidence.outage)
    else:
        if load.succeeded < fewest:
            yield f"only {load.succeeded} of {load.operations} operations succeeded, at least {fewest} are needed"
        elif not load.succeeded:
            yield "no operation succeeded"
        if load.unknown > MOST_UNKNOWN * load.operations:
            yield f"{load.unknown} of {load.operations} operations are of unknown outcome"
    if load.due and load.not_started > MOST_NOT_STARTED * load.due:
        yield f"the offered load was not met: {load.not_started} of {load.due} operations could not be started"


def _outage_doubts(outage: Outage) -> Iterator[str]:
    if outage.before == 0:
        yield "no operation succeeded before the first fault"
    if outage.asked < outage.fewest:
        yield f"only {outage.asked} operations waited while none should succeed, at least {outage.fewest} are needed"
    if outage.unasked > MOST_UNASKED:
        yield f"nobody asked for {outage.unasked:.0%} of the time in which nobody should be served"
    if outage.after == 0:
        yield "no operation succeeded after the last fault was healed"


def _not_in_force(event: Mapping[str, Any], evidence: Evidence) -> str:
    """Why it is doubtful that a fault was in force and did anything; empty when it was and did."""
    if event["action"] == "skip":
        return f"was skipped: {event.get('detail', '').rpartition('; ')[2]}"
    last = _last_stage(event, evidence.faults)
    for stage, when in ((event, ""), (last or event, " in its second stage")):
        if stage.get("took_effect", True) is False:
            return f"did not take effect{when}: {stage.get('error') or 'no reason given'}"
    fault = fault_of(event)
    proofs = fault_kind(event["kind"]).proof if fault is None else fault.counters
    if not proofs:
        known = event.get("took_effect", True)
        return "" if known else f"may not have taken effect: {event.get('error') or 'no reason given'}"
    return "had no second stage" if last is None else _unproven(last, proofs, evidence)


def _unproven(event: Mapping[str, Any], proofs: Sequence[Proof], evidence: Evidence) -> str:
    """Why no counter shows that a fault did anything; empty when one does."""
    told = evidence.faults, evidence.nodes, evidence.statuses
    counts = {proof: touched(event, *told, proof.counter) for proof in proofs}
    if any(counts.values()):
        return ""
    [proof, *_] = [proof for proof, count in counts.items() if count is not None] or proofs
    if counts[proof] is None:
        return f"may have done nothing: no node told how many {proof.subject}s were {proof.touched}"
    return f"did nothing: no {proof.subject} was {proof.touched}"


def _last_stage(event: Mapping[str, Any], faults: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The event that put a fault in force as a whole: of a partition of two stages its second one, None when it never
    came."""
    fault = fault_of(event)
    if fault is None or not fault.prepares_s:
        return event
    later = (each for each in faults if each["action"] == "advance" and each.get("index") == event.get("index"))
    return next(later, None)


def _missed(event: Mapping[str, Any], evidence: Evidence, roles: Sequence[Mapping[str, Any]]) -> str:
    """Why a fault that was aimed by where the leader is missed; empty when it hit, or nothing traces who led."""
    aim, kind = evidence.aims.get(event.get("index", -1), ""), fault_kind(event["kind"])
    if not aim or not kind.seeks_leader(aim):
        return ""
    if "there was no leader" in event.get("detail", ""):
        return f"was aimed at {aim}, and there was no leader"
    leader = leader_at(roles, (_last_stage(event, evidence.faults) or event)["time_ns"])
    fault = fault_of(event)
    where = event["nodes"] if fault is None else fault.where
    if roles and (leader is None or not kind.found_leader(aim, where, leader)):
        return f"was aimed at {aim}, and {leader or 'nobody'} led by then"
    return ""


def _named(event: Mapping[str, Any]) -> str:
    # One that never began has no nodes yet where it names a part, such as the leader.
    where = ",".join(event.get("nodes", ())[:_SHOWN]) or str(event.get("detail", "")).partition(";")[0]
    return f"{event['kind']} {where}"
