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
Flow = Literal["requests", "replies", "entries"]
"""What shares the bandwidth of a link between nodes, as TCP connections do: votes and heartbeats, answers, entries."""
Delays = tuple[float, ...]
"""The fate of a message: the delay of each of its copies in seconds."""
Fate = Callable[[str, MessageKind, Callable[[], int]], Delays]
"""Tells the fate of a message by the other end of its link, its kind, and its size in bytes (asked when needed)."""

ONCE: Delays = (0.0,)
"""The fate of an unharmed message: delivered once, without delay."""
NEVER: Delays = ()

QUEUE_S = 1.0
"""How long an operation or an answer may wait for those before it where the bandwidth to a client is limited. The
buffer of a link is no larger: a client that asks again and again would fill the memory, and the link would be busy
long after the fault. Between nodes nothing is lost for lack of bandwidth: as under TCP, what the link cannot take yet
waits at the sender, who bounds it (TransportSettings.queue_bytes) and replaces what is out of date."""
REMEMBERED_LINKS = 4096
"""So many links are remembered at most: each client may have a name of its own."""
RECHECK_S = 0.1
"""How soon a message that waits for bandwidth sees that the fault is healed."""
_SHORT_S = 0.001
"""A message that a lack of bandwidth holds back for less counts as undelayed: timers go by milliseconds."""


@dataclass(slots=True)
class FaultCounters:
    """Messages (on client links: operations) that the rules have touched here."""

    cut: int = 0
    """Lost for certain, on a link that is cut."""
    dropped: int = 0
    """Lost by chance, or for lack of bandwidth to a client."""
    delayed: int = 0
    duplicated: int = 0


class _Pipe:
    """The bandwidth of one link, shared evenly by the flows that have something on the way."""

    def __init__(self) -> None:
        self._left: dict[Flow, float] = {}
        """Bytes that are not through yet, of the flows that have any."""
        self._at = 0.0

    def add(self, flow: Flow, size: int, rate: float, now: float) -> None:
        """So many bytes of a flow begin to go through."""
        self._flow_until(now, rate)
        self._left[flow] = self._left.get(flow, 0.0) + size

    def busy_s(self, flow: Flow, rate: float, now: float) -> float:
        """Seconds until everything of this flow is through, unless another flow adds something."""
        self._flow_until(now, rate)
        mine = self._left.get(flow, 0.0)
        return sum(min(mine, each) for each in self._left.values()) / rate

    def _flow_until(self, now: float, rate: float) -> None:
        room = max(now - self._at, 0.0) * rate
        self._at = now
        while self._left and room > 0:
            each = min(room / len(self._left), *self._left.values())
            room -= each * len(self._left)
            self._left = {flow: left - each for flow, left in self._left.items() if left - each > 1e-6}


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
        """By link with a client, sender first: when its bandwidth is free again."""
        self._pipes: dict[str, _Pipe] = {}
        """By receiving node."""
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

    def leaving(self, to_id: str, kind: MessageKind, size: Callable[[], int] = int) -> Delays:
        """Delays in seconds of the copies of a message that leaves this node; none when it is lost.

        To a peer this is without bandwidth, which is limited where messages leave their queue: `occupy`, `busy_s`.
        """
        return self._fate((self._node_id, to_id), self._rules(self._node_id, to_id, kind), size)

    def occupy(self, to_id: str, flow: Flow, size: Callable[[], int]) -> bool:
        """Begin to send bytes of a flow to a peer; whether they have to wait for bandwidth (then: until `busy_s`)."""
        rate = self._rate(to_id, flow)
        if not rate:
            return False
        pipe = self._pipes.setdefault(to_id, _Pipe())
        pipe.add(flow, size(), rate, self._now())
        waits = self.busy_s(to_id, flow) > 0
        self.counters.delayed += waits
        return waits

    def busy_s(self, to_id: str, flow: Flow) -> float:
        """Seconds to wait, at most RECHECK_S, before asking again whether what occupies the link is through; 0: it is.

        A millisecond is not waited for, so that timers that ring a little late do not cost bandwidth.
        """
        rate = self._rate(to_id, flow)
        left_s = self._pipes[to_id].busy_s(flow, rate, self._now()) if rate else 0.0
        return min(left_s, RECHECK_S) if left_s >= _SHORT_S else 0.0

    def _rate(self, to_id: str, flow: Flow) -> float:
        """Bytes per second of a flow to a peer; 0 is no limit."""
        if not self.rules:
            return 0
        rules = self._rules(self._node_id, to_id, "replies" if flow == "replies" else "requests")
        return min((rule.bytes_per_s for rule in rules if rule.bytes_per_s), default=0)

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
            if len(self._matching) >= REMEMBERED_LINKS:
                self._matching.clear()
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
            if rule.bytes_per_s and not self._members.issuperset(link):
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
        if len(self._free_at) >= REMEMBERED_LINKS:
            self._free_at = {each: at for each, at in self._free_at.items() if at > now}
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
