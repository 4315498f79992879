"""Link faults in force on this node: what becomes of each message that leaves or arrives.

The hook sits in our own transport and services, not in gRPC interceptors, and costs nothing while the
table is empty. A message that is dropped is simply never delivered: its sender finds out by its deadline.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from raft_actor_node.links import ANY_NODE, CLIENTS, LinkRule

MessageKind = Literal["requests", "replies"]
Delays = tuple[float, ...]
"""The fate of a message: the delay of each of its copies in seconds."""
Fate = Callable[[str, MessageKind, Callable[[], int]], Delays]
"""Tells the fate of a message by the other end of its link, its kind, and its size in bytes (asked when needed)."""

ONCE: Delays = (0.0,)
"""The fate of an unharmed message: delivered once, without delay."""
NEVER: Delays = ()

QUEUE_S = 1.0
"""How long a message may wait for those before it where bandwidth is limited. The buffer of a link is no larger: a
sender that sends again and again would fill the memory, and the link would be busy long after the fault."""
_SHORT_S = 0.001
"""A message that a lack of bandwidth holds back for less counts as undelayed: timers go by milliseconds."""


@dataclass(slots=True)
class FaultCounters:
    """Messages (on client links: operations) that the rules have touched here."""

    cut: int = 0
    """Lost for certain, on a link that is cut."""
    dropped: int = 0
    """Lost by chance, or for lack of bandwidth."""
    delayed: int = 0
    duplicated: int = 0


class LinkFaults:
    """The table of one node. Peers and clients are told apart by membership."""

    def __init__(
        self,
        node_id: str,
        members: Sequence[str],
        rules: Sequence[LinkRule],
        rng: random.Random,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now`: seconds of the node's clock."""
        self.counters = FaultCounters()
        self.rules: tuple[LinkRule, ...] = ()
        self._node_id = node_id
        self._members = frozenset(members)
        self._rng = rng
        self._now = now
        self._free_at: dict[tuple[str, str], float] = {}
        """By link, sender first: when its bandwidth is free again."""
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

    def leaving(self, to_id: str, kind: MessageKind, size: Callable[[], int]) -> Delays:
        """Delays in seconds of the copies of a message that leaves this node; none when it is lost."""
        return self._fate((self._node_id, to_id), self._rules(self._node_id, to_id, kind), size)

    def arriving(self, from_id: str, kind: MessageKind, size: Callable[[], int] = int) -> Delays:
        """The same for a message that arrives. The size of a peer's does not matter.

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
        fate = self._fate((from_id, self._node_id), rules, size)
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

    def _fate(self, link: tuple[str, str], rules: Sequence[LinkRule], size: Callable[[], int]) -> Delays:
        if not rules:
            return ONCE
        delay_ms, copies, random_ = 0.0, 1, self._rng.random
        jitter_ms = tail_ms = late_ms = 0.0
        limits = []
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
            if rule.bytes_per_s:
                limits.append(rule.bytes_per_s)
            if rule.duplicate and random_() < rule.duplicate:
                copies = 2
                late_ms = max(late_ms, rule.late_ms)
        through_s = self._send(link, size() / min(limits), copies) if limits else [0.0] * copies
        if not through_s:
            self.counters.dropped += 1
            return NEVER
        self.counters.duplicated += len(through_s) - 1
        delayed = delay_ms or jitter_ms or tail_ms
        self.counters.delayed += bool(delayed) or through_s[0] >= _SHORT_S
        if not delayed and not late_ms and not limits:
            return ONCE * copies
        fate = [each_s + (delay_ms + random_() * jitter_ms + self._tail(tail_ms)) / 1000 for each_s in through_s]
        if late_ms and len(fate) > 1:
            fate[1] += random_() * late_ms / 1000
        return tuple(fate)

    def _send(self, link: tuple[str, str], lasts_s: float, copies: int) -> list[float]:
        """When the copies have gone through a link that each of them keeps busy for so long, in seconds from now;
        copies that would have to wait too long are lost."""
        now = self._now()
        free_at = max(now, self._free_at.get(link, now))
        through_s: list[float] = []
        while len(through_s) < copies and free_at - now <= QUEUE_S:
            free_at += lasts_s
            through_s.append(free_at - now)
        self._free_at[link] = free_at
        return through_s

    def _tail(self, tail_ms: float) -> float:
        """A draw from a Pareto distribution of index 1 that passes `tail_ms` once in 100 times; cut off at 10 times."""
        return tail_ms * min(10.0, 0.01 / (1.0 - self._rng.random())) if tail_ms else 0.0
