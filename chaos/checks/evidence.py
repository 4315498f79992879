"""What a finished cell left behind, as the checks see it.

The judge implements `StoredEvidence` over the files of a cell. It reads each part when a check first needs it: a
damaged file affects only the checks that need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chaos.checks.finding import Finding
from chaos.events import FaultEvent
from chaos.history import History
from chaos.linearizability import Violation
from chaos.statuses import Status
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.errors import RaftLabError


class Missing(RaftLabError):
    """A part of the evidence does not exist. The message says which part, and what follows."""


@dataclass(frozen=True)
class AppliedState:
    """What a node reported about its replica; a hash is empty if it was not requested."""

    node_id: str
    last_applied: int
    applied_hash: bytes = b""
    prefix_index: int = 0
    prefix_hash: bytes = b""
    """Hash of the entries 1 to prefix_index, which is the smallest last_applied of all nodes."""
    state_hash: bytes = b""


@dataclass(frozen=True)
class Settled:
    """How the cell ended: faults healed, load drained, nodes inspected until all had applied the same entries."""

    begin_ns: int
    """When the search for a leader began."""
    end_ns: int
    """When the last node had answered."""
    leader_ns: int | None
    """When a leader was found; None: never."""
    states: Sequence[AppliedState]
    """Of each node that answered."""


@dataclass(frozen=True)
class UnexpectedExit:
    """A node process that ended although neither the sweep nor a fault ended it."""

    code: int | None
    text: str


@dataclass(frozen=True)
class FaultExit:
    """A node process that ended because of a fault inside the node."""

    node_id: str
    code: int | None
    time_ns: int
    """On the clock of the fault events."""


@dataclass(frozen=True)
class Load:
    """The operations that clients requested within the measurement."""

    operations: int
    """Operations with an outcome, whatever it was."""
    succeeded: int
    unknown: int = 0
    due: int = 0
    """Operations that were due outside of faults, in an open loop; 0 in a closed loop."""
    not_started: int = 0
    """Those of them that could not be started."""


@dataclass(frozen=True)
class Outage:
    """The evidence that clients sent operations while none should succeed, and that they would have succeeded
    otherwise.

    No operation should succeed while faults last or, in a cell without faults, at any time.
    """

    asked: int
    """Operations that waited for an answer while none should come, under each fault."""
    fewest: int
    """The fewest of them that prove anything."""
    unasked: float = 0.0
    """Share of that time in which no client was waiting."""
    before: int | None = None
    """Operations that succeeded before the first fault; None without faults."""
    after: int | None = None
    """Operations that succeeded after the last fault was healed; None without faults."""


class StoredEvidence(Protocol):
    """The files of a finished cell. Times are nanoseconds of the driver's clock.

    Every part may raise Missing, or an error of reading a damaged file.
    """

    # ------------------------------------------------------------------------------ what was asked for

    @property
    def nodes(self) -> Sequence[str]:
        """All nodes of the cluster."""

    @property
    def foreign(self) -> bool:
        """Whether the nodes run another program, which may report nothing about itself."""

    @property
    def check_quorum(self) -> bool:
        """Whether leaders must step down without a quorum."""

    @property
    def longest_timeout_s(self) -> float:
        """Longest election timeout, in true time: a simulated clock may be slow."""

    @property
    def leader_due(self) -> bool:
        """Whether a leader must be found once the faults are over."""

    @property
    def faults_planned(self) -> bool:
        """Whether the cell should have had faults."""

    @property
    def outage_expected(self) -> bool:
        """Whether operations are expected not to succeed, while faults last or at any time."""

    @property
    def least_operations(self) -> int:
        """Fewest successful operations that prove anything."""

    @property
    def time_limit_s(self) -> float:
        """Time limit of the search of a history, in seconds."""

    @property
    def memory_limit_bytes(self) -> int:
        """Memory limit of the search of a history, in bytes."""

    # ------------------------------------------------------------------------------ what clients saw

    @property
    def history(self) -> History | None:
        """All operations of the clients, warm-up included; None when no load could begin."""

    @property
    def refused_sessions(self) -> int:
        """How often all clients asked for their sessions in vain, in a cell without any load."""

    @property
    def answered_ns(self) -> Sequence[int]:
        """When operations succeeded."""

    @property
    def nothing_answered(self) -> bool:
        """Whether no operation of the whole cell succeeded."""

    @property
    def acknowledged_writes(self) -> int:
        """How many writes of the whole cell were acknowledged."""

    @property
    def measure_begin_ns(self) -> int:
        """When the measurement began; 0 without any load."""

    @property
    def load(self) -> Load: ...

    @property
    def outage(self) -> Outage:
        """What the clients requested while no answer is expected."""

    @property
    def unread(self) -> str:
        """How many keys could not be read at the end, so that a lost write may go unnoticed; empty if none."""

    @property
    def clock_doubt(self) -> str:
        """Why the order of operations of several load generators is too uncertain; empty if it is not."""

    # ------------------------------------------------------------------------------ what nodes reported

    def traced(self, kind: str | None = None) -> Iterator[TraceRecord]:
        """Return the trace events of all incarnations of all nodes, or those of one kind; each node's in its order."""

    @property
    def committed_before_end(self) -> int:
        """Highest index that any node traced as committed before the nodes were inspected at the end; 0 for none."""

    @property
    def traces_nothing(self) -> bool:
        """Whether no node wrote a trace."""

    @property
    def statuses(self) -> Sequence[Status]:
        """All statuses that nodes reported."""

    @property
    def settled(self) -> Settled | None:
        """How the cell ended; None when it ended before the nodes could be inspected."""

    @property
    def exits(self) -> Sequence[UnexpectedExit]: ...

    @property
    def fault_exits(self) -> Sequence[FaultExit]: ...

    @property
    def lost(self) -> Sequence[str]:
        """Nodes whose host, actor or disk was lost."""

    @property
    def broken_steps(self) -> Sequence[str]:
        """Rules that a simulation found violated, step by step."""

    @property
    def clock_error_ns(self) -> int:
        """Error of the times of nodes and of operations, in either direction."""

    # ------------------------------------------------------------------------------ what was done to them

    @property
    def faults(self) -> Sequence[FaultEvent]:
        """Every fault event."""

    @property
    def roles(self) -> Sequence[TraceRecord]:
        """The trace events of events.jsonl, in order of time; most commits are left out."""

    @property
    def aims(self) -> Mapping[int, str]:
        """By position in the schedule: the selector of the planned fault (`leader`)."""

    @property
    def faults_asked(self) -> Mapping[str, int]:
        """Kind of fault -> how many the schedule has. A missing kind was requested as often as it was tried."""

    # ------------------------------------------------------------------------------ what a check leaves behind

    def keep_violation(self, violation: Violation | None) -> str:
        """Store a violation beside the cell, replacing that of an earlier judgement; None removes it.

        Return why it could not be stored, or an empty text.
        """


def tells_of_itself(stored: StoredEvidence) -> bool:
    """Return whether any node answered an inspection: then it runs our program, which also traces."""
    return bool(stored.statuses or (stored.settled and stored.settled.states))


def unless_excused(finding: Finding, stored: StoredEvidence) -> Finding | None:
    """Return None for an unknown finding of a cell in which nothing should succeed, and nothing did."""
    if finding.verdict != "unknown" or not stored.outage_expected or stored.faults_planned:
        return finding
    return None if stored.nothing_answered else finding
