"""What can happen to a node. The time of a step comes beside its events, and is an event of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raft_actor_node.core.messages import Message


@dataclass(frozen=True, slots=True)
class Receive:
    """A message from a peer arrived."""

    message: Message


@dataclass(frozen=True, slots=True)
class Propose:
    """A client batch: append these payloads if this node leads. Answered in the effects of the same step."""

    proposal_id: int
    payloads: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Read:
    """A batch of linearizable reads, as one: they arrived at one moment and share their read index."""

    read_id: int


@dataclass(frozen=True, slots=True)
class Persisted:
    """The Persist of that number is on disk."""

    number: int


@dataclass(frozen=True, slots=True)
class Reachable:
    """From now on peers can reach this node: it has recovered, it listens, and its address is announced."""


@dataclass(frozen=True, slots=True)
class Paused:
    """The process, or its event loop, stood still until now. What came meanwhile may not have been read yet."""

    for_s: float
    """In seconds, at least this long."""


Event = Receive | Propose | Read | Persisted | Reachable | Paused
