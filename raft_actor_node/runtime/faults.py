"""Link faults in force on this node: the fate of each message that leaves or arrives.

The hook is in our own transport and services, not in gRPC interceptors, and costs nothing while the table is empty. A
dropped message is never delivered; its sender notices when its own deadline expires.
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
"""Flows that share the bandwidth of a link between nodes, as TCP connections do: votes and heartbeats ("requests"),
answers ("replies"), and entries."""
Delays = tuple[float, ...]
"""Fate of a message: the delay of each of its copies in seconds."""
Fate = Callable[[str, MessageKind, Callable[[], int]], Delays]
"""Function of the other end of the link, the kind, and a function that returns the size in bytes."""

ONCE: Delays = (0.0,)
"""Fate of an unaffected message: delivered once, without delay."""
NEVER: Delays = ()
"""Fate of a lost message."""

QUEUE_S = 1.0
"""Longest time in seconds that an operation or answer waits for earlier ones if the bandwidth to a client is limited.
A message that would wait longer is lost, as in the full buffer of a router. Otherwise a client that retries would fill
the memory, and occupy the link long after the fault. Between nodes, nothing is lost for lack of bandwidth. As under
TCP, the excess waits at the sender, which bounds its queue (TransportSettings.queue_bytes) and replaces stale
messages."""
REMEMBERED_LINKS = 4096
"""Maximum number of links kept in memory. Each client may have its own name, so links are unbounded in number."""
RECHECK_S = 0.1
"""Time within which a message that waits for bandwidth notices that the fault is healed."""
_SHORT_S = 0.001
"""A message that waits less than this for bandwidth counts as undelayed, because timers have millisecond resolution."""


@dataclass(slots=True)
class FaultCounters:
    """Messages (on client links: operations) that the rules affected on this node."""

    cut: int = 0
    """Lost because the link is cut."""
    dropped: int = 0
    """Lost at random, or for lack of bandwidth to a client."""
    delayed: int = 0
    duplicated: int = 0


class _Pipe:
    """The bandwidth of a link, shared evenly by the flows with bytes in transit."""

    def __init__(self) -> None:
        self._left: dict[Flow, float] = {}
        """Bytes in transit, by flow."""
        self._at = 0.0

    def add(self, flow: Flow, size: int, rate: float, now: float) -> None:
        """Begin to send `size` bytes of a flow."""
        self._flow_until(now, rate)
        self._left[flow] = self._left.get(flow, 0.0) + size

    def busy_s(self, flow: Flow, rate: float, now: float) -> float:
        """Return the seconds until all bytes of this flow have passed, unless another flow adds bytes."""
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
    """The table of link faults of a node. An end that is not a member is a client."""

    def __init__(
        self,
        node_id: str,
        members: Sequence[str],
        rules: Sequence[LinkRule],
        rng: random.Random,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now` returns the seconds of the node's clock."""
        self.counters = FaultCounters()
        self.rules: tuple[LinkRule, ...] = ()
        self._node_id = node_id
        self._members = frozenset(members)
        self._rng = rng
        self._now = now
        self._free_at: dict[tuple[str, str], float] = {}
        """Time at which the bandwidth is free again, by link with a client (sender first)."""
        self._pipes: dict[str, _Pipe] = {}
        """Bandwidth by receiving node."""
        self._matching: dict[tuple[str, str, str], tuple[LinkRule, ...]] = {}
        self.replace(rules)

    @property
    def active(self) -> bool:
        """Whether there is any rule; check it first on hot paths."""
        return bool(self.rules)

    def replace(self, rules: Sequence[LinkRule]) -> None:
        """Replace the table."""
        self.rules = tuple(rules)
        self._matching.clear()

    def leaving(self, to_id: str, kind: MessageKind, size: Callable[[], int] = int) -> Delays:
        """Return the delays in seconds of the copies of a message that leaves this node; none if it is lost.

        For a peer, the delays exclude bandwidth. `occupy` and `busy_s` limit it when messages leave their queue.
        """
        return self._fate((self._node_id, to_id), self._rules(self._node_id, to_id, kind), size)

    def occupy(self, to_id: str, flow: Flow, size: Callable[[], int]) -> bool:
        """Begin to send bytes of a flow to a peer. Return whether they must wait for bandwidth (see `busy_s`)."""
        rate = self._rate(to_id, flow)
        if not rate:
            return False
        pipe = self._pipes.setdefault(to_id, _Pipe())
        pipe.add(flow, size(), rate, self._now())
        waits = self.busy_s(to_id, flow) > 0
        self.counters.delayed += waits
        return waits

    def busy_s(self, to_id: str, flow: Flow) -> float:
        """Return the seconds to wait before calling again, at most RECHECK_S; 0 if the flow's bytes have passed.

        Waits below a millisecond are skipped, so that slightly late timers do not cost bandwidth.
        """
        rate = self._rate(to_id, flow)
        left_s = self._pipes[to_id].busy_s(flow, rate, self._now()) if rate else 0.0
        return min(left_s, RECHECK_S) if left_s >= _SHORT_S else 0.0

    def _rate(self, to_id: str, flow: Flow) -> float:
        """Return the bytes per second of a flow to a peer; 0 is no limit."""
        if not self.rules:
            return 0
        rules = self._rules(self._node_id, to_id, "replies" if flow == "replies" else "requests")
        return min((rule.bytes_per_s for rule in rules if rule.bytes_per_s), default=0)

    def arriving(self, from_id: str, kind: MessageKind, size: Callable[[], int] = int) -> Delays:
        """Return the delays in seconds of the copies of a message that arrives; none if it is lost.

        For a message from a peer only a cut counts, because the sender has decided everything else. Clients have no
        table of faults, so this node decides everything for their messages. Copies of a client's request arrive
        together. Otherwise this node could refuse one copy, become leader and accept the other. The client would take
        the refusal as proof of no effect.
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
        """Return in how many seconds each copy has passed the link. A copy occupies the link for `lasts_s` seconds.

        Copies that would wait longer than QUEUE_S are lost.
        """
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
        """Draw from a Pareto distribution of index 1: above `tail_ms` once in 100 draws, capped at 10 times that."""
        return tail_ms * min(10.0, 0.01 / (1.0 - self._rng.random())) if tail_ms else 0.0
