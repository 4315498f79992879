"""Names of the rules of Raft, as findings report them."""

from __future__ import annotations

from enum import StrEnum


class Rule(StrEnum):
    """A rule of Raft. The package docstring lists where each is checked."""

    ELECTION_SAFETY = "election safety"
    ONE_VOTE = "one vote per term"
    ELECTION_RESTRICTION = "election restriction"
    TERM = "term never decreases"
    ROLES = "roles"
    APPEND_ONLY = "leader append-only"
    LOG_MATCHING = "log matching"
    LEADER_COMPLETENESS = "leader completeness"
    STATE_MACHINE_SAFETY = "state machine safety"
    COMMIT_INDEX = "commit_index monotonic"
    MATCH_INDEX = "match_index monotonic"
    NEXT_INDEX = "next_index above match_index"
    LAST_APPLIED = "last_applied within commit_index"
    OWN_TERM = "commit by counting the own term only"
    DURABLE_QUORUM = "committed means durable on a quorum"
    PROMISE = "a promise leaves after its fsync"
    DISK = "a disk keeps what was synced"
    ONCE = "at most once per session and sequence"
    READ = "linearizable reads"
    SAME_STATE = "same applied prefix, same state"
    PRE_VOTE = "pre-vote changes no term and no vote"
    CHECK_QUORUM = "check quorum steps down"
