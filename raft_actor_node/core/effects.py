"""Effects of a step: what the driver must do, and in which order.

    1. trace       record, before other nodes or clients can see any effect of this step
    2. persist     write to disk; once durable, feed back Persisted(number). At most one write is in progress. The next
                   one covers all changes made meanwhile, which batches fsyncs
    3. messages    send at once. Everything they promise is already durable: the core defers a message that promises a
                   vote, a term or an append success until Persisted covers the promise
    4. commit      apply entries up to commit_index, in order; then answer `accepted` proposals by their index
    5. reads       answer each ready read from a state that has applied its index

The leader sends AppendEntries (3) while its own write is in progress (2). The leader counts its own copy only after
Persisted (dissertation, section 10.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from raft_actor_node.core.messages import Message
from raft_actor_node.core.trace import TraceEvent
from raft_actor_node.core.types import NodeId


@dataclass(frozen=True, slots=True)
class HardState:
    """State besides the log that must survive a crash (paper, Figure 2, persistent state)."""

    current_term: int = 0
    voted_for: NodeId | None = None


@dataclass(frozen=True, slots=True)
class Persist:
    """A write to make durable, hard state first: a log must never hold a term above the stored term.

    The entries replace everything from `first_index` on. `commit_index` is a hint for the next start.
    """

    number: int
    hard_state: HardState | None
    first_index: int
    terms: Sequence[int]
    payloads: Sequence[bytes]
    commit_index: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A proposal that was appended at [first_index, first_index + number of payloads) in `term`.

    Each of its entries is committed if and when an entry of that term is applied at that index.
    """

    proposal_id: int
    first_index: int
    term: int


@dataclass(frozen=True, slots=True)
class ReadReady:
    """A read that may be answered from any state that has applied `index`."""

    read_id: int
    index: int


@dataclass(slots=True)
class Effects:
    """The effects of one step, in the order given by the module docstring."""

    trace: list[TraceEvent] = field(default_factory=list)
    persist: Persist | None = None
    messages: list[Message] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    """Proposals not appended because this node does not lead."""
    overloaded: list[int] = field(default_factory=list)
    """Proposals not appended because too many bytes wait for this node's disk (limits.unsynced_bytes)."""
    reads: list[ReadReady] = field(default_factory=list)
    reads_refused: list[int] = field(default_factory=list)
    """Reads that this node cannot answer because it does not lead or no longer leads."""
    leadership_lost: bool = False
    """Whether the node lost its leadership in this step: uncommitted accepted proposals have an unknown outcome."""
