"""The evidence that a finished cell leaves for the checks.

The judge implements `StoredEvidence` over the files of a cell. It reads each part when a check first needs that part,
so a damaged file affects only the checks that need it.
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
    """A part of the evidence does not exist. The message names the part and the consequence."""


@dataclass(frozen=True)
class AppliedState:
    """The state of a node's replica, as the node reported it. A hash that was not requested is empty."""

    node_id: str
    last_applied: int
    applied_hash: bytes = b""
    prefix_index: int = 0
    prefix_hash: bytes = b""
    """Hash of the entries 1 to prefix_index, which is the smallest last_applied of all nodes."""
    state_hash: bytes = b""


@dataclass(frozen=True)
class Settled:
    """How the cell ended.

    The cell heals the faults and drains the load. Then it inspects the nodes until all have applied the same entries.
    """

    begin_ns: int
    """When the search for a leader began."""
    end_ns: int
    """When the last node had answered."""
    leader_ns: int | None
    """When a leader was found; None: none was found."""
    states: Sequence[AppliedState]
    """The state of each node that answered."""


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
    """Number of due operations that could not be started."""


@dataclass(frozen=True)
class Outage:
    """The evidence that an expected outage was put to the test.

    In the outage no operation is to succeed. It lasts as long as the faults do, or in a cell without faults all the
    time. Clients must have sent operations during the outage, and operations must have succeeded outside of it.
    """

    asked: int
    """Operations that waited for an answer in the outage; with several faults, the fewest under any of them."""
    fewest: int
    """How many operations must have waited; fewer prove nothing."""
    unasked: float = 0.0
    """Share of the outage in which no client was waiting; with several faults, the largest share."""
    before: int | None = None
    """Operations that succeeded before the first fault; None without faults."""
    after: int | None = None
    """Operations that succeeded after the last fault was healed; None without faults."""


class StoredEvidence(Protocol):
    """The files of a finished cell. Times are nanoseconds of the driver's clock.

    Reading any part may raise Missing. If its file is damaged, other errors are possible too.
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
        """Longest election timeout in seconds of true time; on a slow simulated clock it is longer than configured."""

    @property
    def leader_due(self) -> bool:
        """Whether a leader must be found once the faults are over."""

    @property
    def faults_planned(self) -> bool:
        """Whether the cell was to have faults."""

    @property
    def outage_expected(self) -> bool:
        """Whether operations are expected not to succeed while faults last, or at any time in a cell without faults."""

    @property
    def least_operations(self) -> int:
        """How many operations must succeed; fewer prove nothing."""

    @property
    def time_limit_s(self) -> float:
        """Time limit of the search of a history, in seconds."""

    @property
    def memory_limit_bytes(self) -> int:
        """Memory limit of the search of a history, in bytes."""

    # ------------------------------------------------------------------------------ what clients saw

    @property
    def history(self) -> History | None:
        """All operations of the clients, including the warm-up; None when no load could begin."""

    @property
    def refused_sessions(self) -> int:
        """In a cell without any load: number of rounds in which every client requested its session and none got it."""

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
        """The evidence of what clients requested during an expected outage."""

    @property
    def unread(self) -> str:
        """Why a lost write may go unnoticed: how many keys could be read at the end. Empty if all were read."""

    @property
    def clock_doubt(self) -> str:
        """Why the order of operations of several load generators is too uncertain to judge; empty if it is not."""

    # ------------------------------------------------------------------------------ what nodes reported

    def traced(self, kind: str | None = None) -> Iterator[TraceRecord]:
        """Return the trace events of all incarnations of all nodes, or only those of one kind.

        The events of each node are in their order.
        """

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
        """Largest error of the times of nodes and operations, in either direction."""

    # ------------------------------------------------------------------------------ what was done to them

    @property
    def faults(self) -> Sequence[FaultEvent]:
        """Every fault event."""

    @property
    def roles(self) -> Sequence[TraceRecord]:
        """The trace events of events.jsonl, in order of time. events.jsonl leaves out most commits."""

    @property
    def aims(self) -> Mapping[int, str]:
        """Position in the schedule -> selector of the planned fault (`leader`)."""

    @property
    def faults_asked(self) -> Mapping[str, int]:
        """Kind of fault -> how many the schedule has. A missing kind was requested as often as it was tried."""

    # ------------------------------------------------------------------------------ what a check leaves behind

    def keep_violation(self, violation: Violation | None) -> str:
        """Store a violation beside the cell. It replaces the one of an earlier judgement; None removes that one.

        Return why the violation could not be stored, or an empty text.
        """


def tells_of_itself(stored: StoredEvidence) -> bool:
    """Return whether any node answered an inspection. Such a node runs our program, so it also traces."""
    return bool(stored.statuses or (stored.settled and stored.settled.states))


def unless_excused(finding: Finding, stored: StoredEvidence) -> Finding | None:
    """Return the finding, or None if it is unknown only because no operation was to succeed, and none did.

    This applies only to cells without faults.
    """
    if finding.verdict != "unknown" or not stored.outage_expected or stored.faults_planned:
        return finding
    return None if stored.nothing_answered else finding
