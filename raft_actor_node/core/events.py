"""Events that a node handles. Each step also gets the time, which may itself trigger actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raft_actor_node.core.messages import Message


@dataclass(frozen=True, slots=True)
class Receive:
    """Arrival of a message from a peer."""

    message: Message


@dataclass(frozen=True, slots=True)
class Propose:
    """A client batch to append if this node leads. The effects of the same step accept or refuse the batch."""

    proposal_id: int
    payloads: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Read:
    """A batch of linearizable reads that arrived at the same time and share a read index."""

    read_id: int


@dataclass(frozen=True, slots=True)
class Persisted:
    """Completion of the Persist with this number: its content is on disk."""

    number: int


@dataclass(frozen=True, slots=True)
class Reachable:
    """Peers can reach this node from now on: it has recovered, listens, and has announced its address."""


@dataclass(frozen=True, slots=True)
class Paused:
    """End of a pause of the process or its event loop. Messages that arrived meanwhile may still be unread."""

    for_s: float
    """Minimum length of the pause, in seconds."""


Event = Receive | Propose | Read | Persisted | Reachable | Paused
