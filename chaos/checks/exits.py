"""Did a node exit by itself?"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.checks.base import Check
from chaos.checks.evidence import StoredEvidence
from chaos.checks.finding import Finding
from raft_actor_node.errors import DataCorrupt, InvariantViolated


def judge_exits(exits: Sequence[tuple[int | None, str]]) -> Finding:
    """Judge the unexpected exits of nodes, each given as an exit code and a line of text.

    Two exit codes (errors.py) show a violation: a node uses one when a rule is violated, the other when data on its
    disk is lost. Any other unexpected exit is unknown.
    """
    telling = (InvariantViolated.exit_code, DataCorrupt.exit_code)
    for code, text in exits:
        if code in telling:
            return Finding("exits", "violated", text, "\n".join(each for _, each in exits))
    if exits:
        return Finding("exits", "unknown", exits[0][1], "\n".join(text for _, text in exits))
    return Finding("exits", "ok", "no node ended by itself")


def _find(stored: StoredEvidence) -> Finding:
    return judge_exits([(end.code, end.text) for end in stored.exits])


CHECK = Check("exits", _find, safety=True, switch="invariants")
