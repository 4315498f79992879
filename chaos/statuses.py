"""What nodes say of themselves when they are inspected, and what can be told from it. Pure functions of plain data.

A status is a consistent picture of one node at one moment; nobody knows what was between two of them. Link counters
end with a process, so that they are noted before a table of link faults is replaced and before nodes are killed or
stopped: see sweeps/run/cell.py.
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
    """Tells its lives apart: the id of its process."""
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
    """Messages that link faults touched here in this life: cut, dropped (by chance), delayed, duplicated."""


def broken_rules(statuses: Iterable[Status]) -> Iterator[str]:
    """What must not be seen of a node: rules within one status, and between two of one life (Figures 2 and 3)."""
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
                yield f"{who}: {name} went from {getattr(before, name)} back to {getattr(each, name)} within one life"
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
    """Leaders that still led 2 of the longest election timeouts after a fault cut them off from every quorum.

    Two statuses, a longest election timeout apart and with none between that says otherwise, must show it: the first
    may have been told by a process that had just woken up, before its timers rang. Where the node was paused
    meanwhile, nothing is said.
    """
    timeout_ns = int(election_timeout_max_s * 1e9)
    patience_ns = QUORUM_PATIENCE * timeout_ns
    cuts = [(begin, end, rules) for begin, end, rules in _in_force(faults, nodes) if any(rule.cut for rule in rules)]
    suspending = [kind for kind, fault in FAULTS.items() if fault.suspends()]
    pauses = [event for event in faults if event.kind in suspending and event.action in ("inject", "heal")]
    suspects: dict[str, tuple[int, int]] = {}
    """By node: the term in which it leads alone, and when it was first seen so."""
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
            yield f"{who}: leads term {each.term}, and hears no quorum for more than {patience_ns / 1e9:g} s"


def _unheard(leader: str, rules: Iterable[LinkRule]) -> Iterator[str]:
    """The peers that get no request of this node, or whose replies it does not get."""
    for rule in rules:
        if rule.cut and rule.from_id == leader and rule.messages != "replies":
            yield rule.to_id
        elif rule.cut and rule.to_id == leader and rule.messages != "requests":
            yield rule.from_id


def _paused(node_id: str, begin_ns: int, end_ns: int, pauses: Iterable[FaultEvent]) -> bool:
    """Whether a node stood still at any time from `begin_ns` to `end_ns`."""
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
    """For each fault of links: from when on all nodes had it, until when, and its rules. A partition of two stages
    counts from its second one; a fault that some node did not get does not count."""
    for event in faults:
        fault = event.fault
        if fault is None or event.action != ("advance" if fault.prepares_s else "inject") or event.error:
            continue
        rules, healed = fault.effect(nodes).links, healing(event, faults)
        if rules is not None:
            yield event.done_ns, inf if healed is None else healed.time_ns, rules


def healing(event: FaultEvent, faults: Iterable[FaultEvent]) -> FaultEvent | None:
    """The event that ended the fault of this one; None when there was none."""
    ends = (each for each in faults if each.action == "heal" and each.index == event.index)
    return next((each for each in ends if not each.error), None)


def touched(
    event: FaultEvent,
    faults: Iterable[FaultEvent],
    nodes: Sequence[str],
    statuses: Iterable[Status],
    name: str,
) -> int | None:
    """Messages that were cut, dropped, ... while a fault was in force, on the nodes that would have done it.

    None when nobody told. Where none of those nodes told, all nodes are looked at. What another fault of the same
    kind took meanwhile, on the same nodes, cannot be told apart.
    """
    healed = healing(event, faults)
    end_ns = inf if healed is None else healed.done_ns
    before: dict[tuple[str, int], int] = {}
    after: dict[tuple[str, int], int] = {}
    for each in sorted(statuses, key=lambda each: each.time_ns):
        if name in each.touched and each.time_ns <= end_ns:
            times = before if each.time_ns <= event.time_ns else after
            times[each.node_id, each.life] = each.touched[name]
    # A life that was not seen before began within the fault.
    gained = {life: count - before.get(life, 0) for life, count in after.items()}
    own = _acting(event, nodes)
    counts = [count for (node_id, _), count in gained.items() if node_id in own] or list(gained.values())
    return sum(counts) if counts else None


def _acting(event: FaultEvent, nodes: Sequence[str]) -> set[str]:
    """The nodes that a fault of links has to do with: the sender decides, for clients the node; a cut is kept at
    both ends, but what the sender cuts does not arrive."""
    rules = (event.fault.effect(nodes).links if event.fault else None) or ()
    return {rule.from_id if rule.from_id != CLIENTS else rule.to_id for rule in rules} or set(event.nodes)
