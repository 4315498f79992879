"""Invariants of a single node, which the node checks after every step (paper, Figure 3).

A broken invariant is a bug in this program or in a peer: the node stops at once with an error, also under `python -O`.
Checks over several nodes or several incarnations are in cluster.py and history.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from raft_actor_node.core.quorum import quorum_size
from raft_actor_node.core.types import NodeId, Role
from raft_actor_node.errors import InvariantViolated

if TYPE_CHECKING:
    from raft_actor_node.core.progress import FollowerProgress

QUORUM_PATIENCE = 2
"""Number of longest election timeouts after which a leader without contact to a quorum must step down."""


class Snapshot(NamedTuple):
    """The state of a node that the checks compare; cheap to take."""

    role: Role
    current_term: int
    voted_for: NodeId | None
    leader_id: NodeId | None
    last_index: int
    last_term: int
    durable_index: int
    commit_index: int
    disk_late: bool = False
    """Whether a write has been in progress for `yield_after`."""


def require(condition: bool, rule: str) -> None:
    """Raise InvariantViolated, with `rule` as its message, unless the condition holds."""
    if not condition:
        raise InvariantViolated(rule)


def check(before: Snapshot, after: Snapshot) -> None:
    """Check the states before and after a step. Raises InvariantViolated."""
    rule = _broken(before, after)
    if rule:
        raise InvariantViolated(f"{rule}: {before} -> {after}")


def _broken(before: Snapshot, after: Snapshot) -> str:
    """Return the first broken rule; empty if all hold."""
    same_term = after.current_term == before.current_term
    led = same_term and before.role == Role.LEADER
    rule = ""
    if after.current_term < before.current_term:
        rule = "term decreased"
    elif after.commit_index < before.commit_index:
        rule = "commit_index decreased"
    elif after.commit_index > after.last_index:
        rule = "commit_index beyond the log"
    elif after.durable_index > after.last_index:
        rule = "durable_index beyond the log"
    elif after.last_term > after.current_term:
        rule = "log of a later term than the node's"
    elif same_term and before.voted_for is not None and after.voted_for != before.voted_for:
        rule = "vote changed within a term (election safety)"
    elif led and after.role not in (Role.LEADER, Role.FOLLOWER):
        rule = "leader became candidate in its own term"
    elif led and after.role == Role.LEADER and after.last_index < before.last_index:
        rule = "leader erased entries (leader append-only)"
    elif after.disk_late:
        rule = _broken_while_late(before, after)
    return rule


def _broken_while_late(before: Snapshot, after: Snapshot) -> str:
    """Return the rule of `yield_after` that is broken while the disk does not answer; empty if none."""
    if after.role == Role.LEADER:
        return "leads while its own disk does not answer (yield_after)"
    began = (after.role, after.current_term) != (before.role, before.current_term)
    if began and after.role in (Role.CANDIDATE, Role.PRE_CANDIDATE):
        return "stands for election while its own disk does not answer (yield_after)"
    return ""


class Leadership:
    """Checks on a leader over all steps of its leadership, based on its own records of the followers."""

    __slots__ = ("_match", "_patience_s", "_term")

    def __init__(self, patience_s: float) -> None:
        """`patience_s`: seconds that the node may lead without contact to a quorum; inf without check quorum."""
        self._patience_s = patience_s
        self._term = 0
        self._match: dict[NodeId, int] = {}
        """Highest match index seen in this term, by peer."""

    def check(self, before: Snapshot, after: Snapshot, progress: Mapping[NodeId, FollowerProgress], now: float) -> None:
        """Check a step after which the node leads. Raises InvariantViolated."""
        rule = self._broken(before, after, progress, now)
        if rule:
            raise InvariantViolated(f"{rule}: {before} -> {after}, {dict(progress)} at {now}")

    def _broken(
        self, before: Snapshot, after: Snapshot, progress: Mapping[NodeId, FollowerProgress], now: float
    ) -> str:
        if after.current_term != self._term:
            self._term = after.current_term
            self._match = dict.fromkeys(progress, 0)
        seen, since, heard = self._match, now - self._patience_s, 1
        for peer, each in progress.items():
            match = each.match_index
            if match != seen[peer]:
                if match < seen[peer]:
                    return "match_index decreased within a leadership"
                seen[peer] = match
            if each.next_index <= match:
                return "next_index not above match_index"
            if each.last_contact >= since:
                heard += 1
        index = after.commit_index
        # The node led before and after the step, so it committed by counting copies.
        if index > before.commit_index and before.role == Role.LEADER and before.current_term == after.current_term:
            holders = (after.durable_index >= index) + sum(match >= index for match in seen.values())
            if holders < quorum_size(len(seen) + 1):
                return "committed an entry that is not durable on a quorum"
        if heard < quorum_size(len(seen) + 1):
            return "leads without hearing a quorum (check quorum)"
        return ""
