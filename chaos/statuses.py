"""Statuses that nodes report when they are inspected, and what follows from them. Pure functions of plain data.

A status is a consistent snapshot of one node at one moment; what happened between two snapshots is unknown. Link
counters are lost with the process. Therefore a cell reads them before it replaces a table of link faults and before it
kills or stops nodes: see sweeps/run/faults.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from chaos.events import FaultEvent
from chaos.faults import FAULTS
from raft_actor_node.core.invariants import QUORUM_PATIENCE
from raft_actor_node.core.quorum import quorum_size
from raft_actor_node.links import CLIENTS, LinkRule


@dataclass(frozen=True)
class Status:
    """A node at one moment."""

    node_id: str
    life: int
    """The incarnation of the node: the id of its process."""
    time_ns: int
    """On the clock of the fault events."""
    term: int = 0
    leads: bool = False
    last_index: int = 0
    """Index of the last entry of its log."""
    durable_index: int = 0
    commit_index: int = 0
    last_applied: int = 0
    peers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Of a leader, by peer: match index and next index."""
    touched: Mapping[str, int] = field(default_factory=dict)
    """How often faults struck on this node in this incarnation, by counter; see Proof.counter in chaos/faults/base.py.

    Examples: messages cut, dropped (by chance), delayed or duplicated; fsyncs delayed or stalled; disk errors.
    """


def broken_rules(statuses: Iterable[Status]) -> Iterator[str]:
    """Yield each violated rule, within one status or between two of one incarnation (Figures 2 and 3)."""
    lives: dict[tuple[str, int], Status] = {}
    terms: dict[str, int] = {}
    for each in sorted(statuses, key=lambda each: each.time_ns):
        who, before = each.node_id, lives.get((each.node_id, each.life), each)
        lives[who, each.life] = each
        if each.last_applied > each.commit_index:
            yield f"{who}: last_applied {each.last_applied} beyond commit_index {each.commit_index}"
        if each.commit_index > each.last_index:
            yield f"{who}: commit_index {each.commit_index} beyond the log, which ends at {each.last_index}"
        if each.term < terms.get(who, 0):
            yield f"{who}: term went from {terms[who]} back to {each.term}"
        terms[who] = each.term
        for name in ("commit_index", "last_applied"):
            if getattr(each, name) < getattr(before, name):
                fell = f"from {getattr(before, name)} back to {getattr(each, name)}"
                yield f"{who}: {name} went {fell} in one incarnation"
        led_on = before.leads and each.leads and before.term == each.term
        for peer, (match, following) in each.peers.items():
            known = before.peers[peer][0] if led_on and peer in before.peers else 0
            if match < known:
                yield f"{who}: match_index of {peer} went from {known} back to {match} in term {each.term}"
            if following <= match:
                yield f"{who}: next_index {following} for {peer}, which matches {match}"


def without_quorum(
    statuses: Iterable[Status], faults: Sequence[FaultEvent], nodes: Sequence[str], election_timeout_max_s: float
) -> Iterator[str]:
    """Yield the leaders that still led two longest election timeouts after a fault cut them off from every quorum.

    Two statuses at least one longest election timeout apart must show such a leader, and no status in between may
    contradict them. One status is not enough: a process that has just resumed may report before its timers fire. Nodes
    that were paused meanwhile are not judged.
    """
    timeout_ns = int(election_timeout_max_s * 1e9)
    patience_ns = QUORUM_PATIENCE * timeout_ns
    cuts = [(begin, end, rules) for begin, end, rules in _in_force(faults, nodes) if any(rule.cut for rule in rules)]
    suspending = [kind for kind, fault in FAULTS.items() if fault.suspends()]
    pauses = [event for event in faults if event.kind in suspending and event.action in ("inject", "heal")]
    suspects: dict[str, tuple[int, int]] = {}
    """By node: the term that it leads without a quorum, and when this was first seen."""
    for each in sorted(statuses, key=lambda each: each.time_ns):
        who, since_ns = each.node_id, each.time_ns - patience_ns
        lost = {
            peer
            for begin, end, rules in cuts
            if begin <= since_ns and each.time_ns <= end
            for peer in _unheard(who, rules)
        }
        alone = each.leads and len(set(nodes) - lost) < quorum_size(len(nodes))
        if not alone:
            suspects.pop(who, None)
            continue
        term, first_ns = suspects.setdefault(who, (each.term, each.time_ns))
        if term != each.term:
            suspects[who] = each.term, each.time_ns
        elif each.time_ns - first_ns >= timeout_ns and not _paused(who, since_ns, each.time_ns, pauses):
            yield f"{who}: leads term {each.term}, but has heard no quorum for more than {patience_ns / 1e9:g} s"


def _unheard(leader: str, rules: Iterable[LinkRule]) -> Iterator[str]:
    """Yield the peers that receive no requests of this leader, or whose replies the leader does not receive."""
    for rule in rules:
        if rule.cut and rule.from_id == leader and rule.messages != "replies":
            yield rule.to_id
        elif rule.cut and rule.to_id == leader and rule.messages != "requests":
            yield rule.from_id


def _paused(node_id: str, begin_ns: int, end_ns: int, pauses: Iterable[FaultEvent]) -> bool:
    """Return whether a node was paused at any time from `begin_ns` to `end_ns`."""
    stopped: set[int | None] = set()
    for event in pauses:
        if node_id not in event.nodes:
            continue
        if event.action == "inject" and event.time_ns <= end_ns:
            stopped.add(event.index)
        elif event.action == "heal" and event.done_ns < begin_ns:
            stopped.discard(event.index)
    return bool(stopped)


def _in_force(faults: Sequence[FaultEvent], nodes: Sequence[str]) -> Iterator[tuple[float, float, Sequence[LinkRule]]]:
    """Yield for each link fault when it was in force on all nodes, when it ended, and its rules.

    A partition of two stages counts from its second stage. A fault that failed on some node does not count.
    """
    for event in faults:
        fault = event.fault
        if fault is None or event.action != ("advance" if fault.prepares_s else "inject") or event.error:
            continue
        rules, healed = fault.effect(nodes).links, healing(event, faults)
        if rules is not None:
            yield event.done_ns, inf if healed is None else healed.time_ns, rules


def healing(event: FaultEvent, faults: Iterable[FaultEvent]) -> FaultEvent | None:
    """Return the event that healed the fault of this event; None if it was not healed."""
    ends = (each for each in faults if each.action == "heal" and each.index == event.index)
    return next((each for each in ends if not each.error), None)


def touched(
    event: FaultEvent,
    faults: Iterable[FaultEvent],
    nodes: Sequence[str],
    statuses: Iterable[Status],
    name: str,
) -> int | None:
    """Return by how much a counter of Status.touched grew while a fault was in force, on the nodes that apply it.

    `name` is the counter. Returns None when no status has it. If none of those nodes reported the counter, the sum is
    over all nodes. The sum includes what another fault of the same kind did to the same nodes at the same time.
    """
    healed = healing(event, faults)
    end_ns = inf if healed is None else healed.done_ns
    before: dict[tuple[str, int], int] = {}
    after: dict[tuple[str, int], int] = {}
    for each in sorted(statuses, key=lambda each: each.time_ns):
        if name in each.touched and each.time_ns <= end_ns:
            times = before if each.time_ns <= event.time_ns else after
            times[each.node_id, each.life] = each.touched[name]
    # An incarnation without an earlier status began while the fault was in force.
    gained = {life: count - before.get(life, 0) for life, count in after.items()}
    own = _acting(event, nodes)
    counts = [count for (node_id, _), count in gained.items() if node_id in own] or list(gained.values())
    return sum(counts) if counts else None


def _acting(event: FaultEvent, nodes: Sequence[str]) -> set[str]:
    """Return the nodes that apply a link fault: the sender, or the node where the sender is a client.

    Both ends of a link enforce a cut, but a message that the sender cuts never arrives at the receiver.
    """
    rules = (event.fault.effect(nodes).links if event.fault else None) or ()
    return {rule.from_id if rule.from_id != CLIENTS else rule.to_id for rule in rules} or set(event.nodes)
