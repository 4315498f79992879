"""Limits on operations and answers.

The limits bound the memory that operations and answers take until the client has the answers. They also bound the work
of one turn of the event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from raft_actor_node.pb import kv_pb2

Answer = kv_pb2.OperationResult
Respond = Callable[[list[Answer], int], None]
"""Function that takes answers which became ready together, and an upper bound on their bytes."""

TURN_OPERATIONS = 1024
"""Maximum number of operations accepted, applied, answered or sent in one turn of the event loop, to keep heartbeats
on time. Bytes have their own limits (limits.turn_apply_bytes, limits.turn_answer_bytes)."""
SMALL_BYTES = 256
"""Pending writes of values up to this length are not tracked, because every compare-and-swap pays for at least
this many bytes."""


class ConfirmedReads(Protocol):
    """Gets of one batch that a heartbeat round confirmed. Values are looked up when the client reads its answers."""

    keys: deque[tuple[int, bytes]]
    """Id and key of each unanswered get."""
    cost: int
    """Bytes of the budget that these gets hold."""

    def forget(self) -> None:
        """Return the bytes of these gets to the budget, because their caller is gone."""


class Caller:
    """A client's stream or unary call: the receiver of answers, and its share of the budget."""

    __slots__ = (
        "blocked",
        "closed",
        "held",
        "queued",
        "ready",
        "request_bytes",
        "respond",
        "unary",
        "unread",
        "waiting",
    )

    def __init__(self, respond: Respond, *, unary: bool = False) -> None:
        """`respond` takes the answers, and reports their bytes with Gate.left once they have left the node.

        A unary call is answered at once, so a read of a unary call pays for its answer when it arrives.
        """
        self.respond = respond
        self.unary = unary
        self.request_bytes = 0
        """For a unary call: bytes of its request, which gRPC keeps until the call ends."""
        self.held = 0
        """Bytes of the budget that this caller holds."""
        self.unread = 0
        """Bytes of answers that have not left the node."""
        self.waiting = 0
        """Number of operations accepted and not answered."""
        self.ready: deque[ConfirmedReads] = deque()
        """Confirmed reads whose values are not looked up yet."""
        self.queued = False
        """Whether this caller is queued for a turn that answers `ready`."""
        self.blocked = False
        """Whether its reads wait until the client has read earlier answers, or until budget is free."""
        self.closed = False
        """Whether answers can no longer reach the client."""


class Budget:
    """Bytes that all callers of a node hold together.

    Operations may take three quarters of the limit, answers all of it, so every accepted operation can be answered.
    Messages that are only partly accepted reduce what is left for operations. They do not reduce what is left for
    answers, because the rest of a message waits until earlier answers have left.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.messages = 0
        """Bytes of messages that are only partly accepted."""
        self.starved: list[Caller] = []
        """Callers whose reads wait for free budget."""

    @property
    def wanted(self) -> bool:
        """Whether a client that has read all its answers waits for free budget."""
        return any(caller.ready and not caller.unread for caller in self.starved)

    def for_operations(self, caller: Caller) -> int:
        """Return the bytes that more operations of a caller may take: it may hold at most as much as it leaves free."""
        return (self.limit * 3 // 4 - self.held - self.messages - caller.held) // 2

    def for_answers(self, caller: Caller) -> int:
        """Return the bytes that answers to a caller may take, by the same rule."""
        return (self.limit - self.held - caller.held) // 2

    def hold(self, caller: Caller, cost: int) -> None:
        """Take `cost` bytes for a caller; a negative cost returns them."""
        caller.held += cost
        self.held += cost


class PendingValues:
    """Upper bounds on the lengths of values after all pending writes. A compare-and-swap may return such a value.

    There are two generations of writes. The older generation is discarded when its last batch is answered.
    """

    def __init__(self, get: Callable[[bytes], bytes | None]) -> None:
        """`get` returns the present value of a key."""
        self._get = get
        self._lengths: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        self._batches = [0, 0]
        self._younger = 0

    def longest(self, key: bytes) -> int:
        """Return the upper bound for a key, at least SMALL_BYTES.

        The bound does not cover entries of earlier leaders that a new leader has not applied yet.
        """
        one, other = self._lengths
        return max(len(self._get(key) or b""), one.get(key, 0), other.get(key, 0), SMALL_BYTES)

    def note(self, key: bytes, length: int) -> None:
        """Note that a pending write may leave a value of this length."""
        lengths = self._lengths[self._younger]
        if length > lengths.get(key, 0):
            lengths[key] = length

    def begin(self) -> int:
        """Note that a batch of writes is pending. Return its generation."""
        self._batches[self._younger] += 1
        return self._younger

    def end(self, generation: int) -> None:
        """Note that a batch of this generation is answered."""
        self._batches[generation] -= 1
        older = 1 - self._younger
        if not self._batches[older]:
            self._lengths[older].clear()
            if self._lengths[self._younger]:
                self._younger = older
