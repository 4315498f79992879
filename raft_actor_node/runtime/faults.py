"""Link faults in force on this node: what becomes of each message that leaves or arrives.

The hook sits in our own transport and services, not in gRPC interceptors, and costs nothing while the
table is empty. A message that is dropped is simply never delivered: its sender finds out by its deadline.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raft_actor_node.links import ANY_NODE, CLIENTS, LinkRule

MessageKind = Literal["requests", "replies"]

ONCE = (0.0,)
"""The fate of an unharmed message: delivered once, without delay."""
NEVER: tuple[float, ...] = ()


@dataclass(slots=True)
class FaultCounters:
    """Messages (on client links: operations) that the rules have touched here."""

    cut: int = 0
    """Lost for certain, on a link that is cut."""
    dropped: int = 0
    """Lost by chance."""
    delayed: int = 0
    duplicated: int = 0


class LinkFaults:
    """The table of one node. Peers and clients are told apart by membership."""

    def __init__(self, node_id: str, members: Sequence[str], rules: Sequence[LinkRule], rng: random.Random) -> None:
        self.counters = FaultCounters()
        self.rules: tuple[LinkRule, ...] = ()
        self._node_id = node_id
        self._members = frozenset(members)
        self._rng = rng
        self._matching: dict[tuple[str, str, str], tuple[LinkRule, ...]] = {}
        self.replace(rules)

    @property
    def active(self) -> bool:
        """Whether there is any rule; ask before anything else on a hot path."""
        return bool(self.rules)

    def replace(self, rules: Sequence[LinkRule]) -> None:
        """Put another table in force."""
        self.rules = tuple(rules)
        self._matching.clear()

    def leaving(self, to_id: str, kind: MessageKind) -> tuple[float, ...]:
        """Delays in seconds of the copies of a message that leaves this node; none when it is lost."""
        return self._fate(self._rules(self._node_id, to_id, kind))

    def arriving(self, from_id: str, kind: MessageKind) -> tuple[float, ...]:
        """The same for a message that arrives.

        From a peer only a cut counts: everything else was decided once, by the sender. A client does not
        decide anything, so its side is decided here. Copies of its request come together: were one refused, and
        the other taken by a node that leads meanwhile, the refusal would have told the client that nothing happened.
        """
        rules = self._rules(from_id, self._node_id, kind)
        if from_id in self._members:
            if not any(rule.cut for rule in rules):
                return ONCE
            self.counters.cut += 1
            return NEVER
        fate = self._fate(rules)
        return fate if len(fate) < 2 else fate[:1] * len(fate)

    def _rules(self, from_id: str, to_id: str, kind: MessageKind) -> tuple[LinkRule, ...]:
        key = (from_id, to_id, kind)
        found = self._matching.get(key)
        if found is None:
            found = tuple(
                rule
                for rule in self.rules
                if self._names(rule.from_id, from_id)
                and self._names(rule.to_id, to_id)
                and rule.messages in ("all", kind)
            )
            self._matching[key] = found
        return found

    def _names(self, pattern: str, end: str) -> bool:
        if pattern == ANY_NODE:
            return end in self._members
        if pattern == CLIENTS:
            return end not in self._members
        return pattern == end

    def _fate(self, rules: Sequence[LinkRule]) -> tuple[float, ...]:
        if not rules:
            return ONCE
        delay_ms, copies, random_ = 0.0, 1, self._rng.random
        jitter_ms = tail_ms = 0.0
        for rule in rules:
            if rule.cut:
                self.counters.cut += 1
                return NEVER
            if rule.drop and random_() < rule.drop:
                self.counters.dropped += 1
                return NEVER
            delay_ms += rule.delay_ms
            jitter_ms += rule.jitter_ms
            tail_ms += rule.tail_ms
            if rule.duplicate and random_() < rule.duplicate:
                copies = 2
        self.counters.duplicated += copies - 1
        if not delay_ms and not jitter_ms and not tail_ms:
            return ONCE * copies
        self.counters.delayed += 1
        return tuple((delay_ms + random_() * jitter_ms + self._tail(tail_ms)) / 1000 for _ in range(copies))

    def _tail(self, tail_ms: float) -> float:
        """A draw from a Pareto distribution of index 1 that passes `tail_ms` once in 100 times; cut off at 10 times."""
        return tail_ms * min(10.0, 0.01 / (1.0 - self._rng.random())) if tail_ms else 0.0
