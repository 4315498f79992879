"""What the driver must do after a step, and in which order.

    1. trace       record, before anything of this step becomes visible to others
    2. persist     hand to the disk; when it is durable, feed back Persisted(number). At most one is under
                   way, so everything that happens meanwhile is covered by the next one: fsyncs batch themselves
    3. messages    may leave at once. Whatever a message promises is durable already: a vote, a term or an
                   append success that is not stays inside the core until Persisted says so
    4. commit      apply entries up to commit_index, in order; then answer `accepted` proposals by their index
    5. reads       answer each ready read from a state that has applied its index

The leader's own AppendEntries leave (3) while its own write is under way (2): the leader counts itself only
when Persisted came (dissertation, section 10.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from raft_actor_node.core.messages import Message
from raft_actor_node.core.trace import TraceEvent
from raft_actor_node.core.types import NodeId


@dataclass(frozen=True, slots=True)
class HardState:
    """What must survive a crash besides the log (paper, Figure 2, persistent state)."""

    current_term: int = 0
    voted_for: NodeId | None = None


@dataclass(frozen=True, slots=True)
class Persist:
    """To be made durable, hard state first: a log must never hold a term above the stored one.

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
    """A proposal was appended at [first_index, first_index + number of payloads) in `term`.

    It is committed if and when an entry of that term is applied at that index.
    """

    proposal_id: int
    first_index: int
    term: int


@dataclass(frozen=True, slots=True)
class ReadReady:
    """A read may be answered from any state that has applied `index`."""

    read_id: int
    index: int


@dataclass(slots=True)
class Effects:
    """The outcome of one step; see the module's text for the order."""

    trace: list[TraceEvent] = field(default_factory=list)
    persist: Persist | None = None
    messages: list[Message] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    """Proposals that were not appended, because this node does not lead."""
    overloaded: list[int] = field(default_factory=list)
    """Proposals that were not appended, because too much waits for this node's disk (limits.unsynced_bytes)."""
    reads: list[ReadReady] = field(default_factory=list)
    reads_refused: list[int] = field(default_factory=list)
    """Reads that this node cannot answer, because it does not lead (any more)."""
    leadership_lost: bool = False
    """The node led before this step and does not any more: accepted proposals have an unknown outcome."""
