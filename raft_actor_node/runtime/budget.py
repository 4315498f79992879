"""What operations and answers may take: of a node's memory, from when they arrive until the client has its answers,
and of one turn of its event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from raft_actor_node.pb import kv_pb2

Answer = kv_pb2.OperationResult
Respond = Callable[[list[Answer], int], None]
"""Takes answers that became ready at one moment, and a bound of their bytes."""

TURN_OPERATIONS = 1024
"""Operations that are taken in, applied, answered or sent in one turn of the event loop: heartbeats must get through
meanwhile. Bytes have bounds of their own (limits.turn_apply_bytes, limits.turn_answer_bytes)."""
SMALL_BYTES = 256
"""A pending write of a value no longer than this is not remembered: every compare-and-swap pays for as much."""


class ConfirmedReads(Protocol):
    """Gets of one batch that a heartbeat round has confirmed; their values are looked up when the client reads."""

    keys: deque[tuple[int, bytes]]
    """Id and key of those that are not answered."""
    cost: int
    """Bytes of the budget."""

    def forget(self) -> None:
        """Give their share of the budget back, because their caller is gone."""


class Caller:
    """A client's stream, or one unary call: who gets the answers, and what it holds of the budget meanwhile."""

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
        """`respond` takes the answers, and says through Gate.left how many bytes of them have left the node.

        The answer of a unary call is needed at once: its reads pay for it when they come.
        """
        self.respond = respond
        self.unary = unary
        self.request_bytes = 0
        """Of a unary call: bytes of its request, which gRPC keeps until the call ends."""
        self.held = 0
        """Bytes of the budget."""
        self.unread = 0
        """Bytes of answers that have not left."""
        self.waiting = 0
        """Operations taken in and not answered."""
        self.ready: deque[ConfirmedReads] = deque()
        """Confirmed reads whose values are not looked up yet."""
        self.queued = False
        """It waits for a turn in which `ready` is answered."""
        self.blocked = False
        """Its reads wait until it has read, or until some of the budget is free."""
        self.closed = False
        """Nothing can be said to it any more."""


class Budget:
    """Bytes that all callers of a node hold together.

    Operations may take three quarters of it, answers all: however much has been taken in, it can be answered.
    Messages that are not taken in whole leave less for operations. They leave as much for answers: a message waits
    until the answers before it have left.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.messages = 0
        """Bytes of messages that are not taken in whole."""
        self.starved: list[Caller] = []
        """Callers whose reads wait for some of it to be free."""

    @property
    def wanted(self) -> bool:
        """Whether reads wait for some of it whose client has read all of its answers."""
        return any(caller.ready and not caller.unread for caller in self.starved)

    def for_operations(self, caller: Caller) -> int:
        """Bytes that operations of a caller may take: with them it holds no more than is left for others."""
        return (self.limit * 3 // 4 - self.held - self.messages - caller.held) // 2

    def for_answers(self, caller: Caller) -> int:
        """The same for answers."""
        return (self.limit - self.held - caller.held) // 2

    def hold(self, caller: Caller, cost: int) -> None:
        """Take bytes, or, below zero, give them back."""
        caller.held += cost
        self.held += cost


class PendingValues:
    """How long the value of a key may be once all pending writes are applied: what a compare-and-swap may see.

    Two generations of writes; the older is forgotten when its last batch is answered.
    """

    def __init__(self, get: Callable[[bytes], bytes | None]) -> None:
        """`get`: the value that a key has now."""
        self._get = get
        self._lengths: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        self._batches = [0, 0]
        self._younger = 0

    def longest(self, key: bytes) -> int:
        """Bound of the length, at least SMALL_BYTES.

        Entries of earlier leaders that a new leader has not applied yet are not in it.
        """
        one, other = self._lengths
        return max(len(self._get(key) or b""), one.get(key, 0), other.get(key, 0), SMALL_BYTES)

    def note(self, key: bytes, length: int) -> None:
        """A write that is pending now may leave a value of this length."""
        lengths = self._lengths[self._younger]
        if length > lengths.get(key, 0):
            lengths[key] = length

    def begin(self) -> int:
        """A batch of writes is pending; returns its generation."""
        self._batches[self._younger] += 1
        return self._younger

    def end(self, generation: int) -> None:
        """A batch of this generation is answered."""
        self._batches[generation] -= 1
        older = 1 - self._younger
        if not self._batches[older]:
            self._lengths[older].clear()
            if self._lengths[self._younger]:
                self._younger = older
