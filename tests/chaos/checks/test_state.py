"""Hashes of what nodes applied."""

from __future__ import annotations

import pytest

from chaos.checks.evidence import AppliedState
from chaos.checks.state import judge_hashes


def state(node: str, applied: int, digest: bytes, at: int = 0, prefix: bytes = b"", whole: bytes = b"") -> AppliedState:
    return AppliedState(node, applied, digest, at, prefix, whole)


def test_nodes_that_applied_the_same() -> None:
    same = [state(node, 7, b"7", 7, b"7", b"state") for node in ("n1", "n2", "n3")]
    finding = judge_hashes(same, ["n1", "n2", "n3"])
    assert (finding.verdict, finding.reason) == ("ok", "3 nodes applied the same 7 entries, and reached the same state")


@pytest.mark.parametrize(
    "other",
    [
        state("n2", 7, b"7", 7, b"?"),
        state("n2", 7, b"?", 7, b"7"),
        state("n2", 9, b"?"),
        state("n2", 7, b"?"),  # against the prefix that the other nodes reported
        state("n2", 9, b"9", 7, b"7", b"other state"),
    ],
)
def test_nodes_that_applied_other_entries_or_came_to_another_state(other: AppliedState) -> None:
    states = [state("n1", 9, b"9", 7, b"7", b"state"), other, state("n3", 9, b"9", 7, b"7")]
    finding = judge_hashes(states, ["n1", "n2", "n3"])
    assert finding.verdict == "violated"
    assert "n2" in finding.reason


@pytest.mark.parametrize(
    "states",
    [
        [],
        [state("n1", 7, b"7")],
        [state("n1", 7, b"7"), state("n2", 9, b"9")],
        [state("n1", 7, b"7", 7, b"7"), state("n2", 9, b"9")],
        [state("n1", 0, b""), state("n2", 0, b"")],
        [state("n1", 7, b"7", 7, b"7", b"state"), state("n2", 7, b"7", 7, b"7")],
        [state("n1", 7, b"7", 7, b"7"), state("n2", 7, b"7", 7, b"7")],
    ],
)
def test_hashes_that_cannot_be_compared_are_unknown(states: list[AppliedState]) -> None:
    assert judge_hashes(states, ["n1", "n2"]).verdict == "unknown"


def test_a_node_that_never_catches_up_is_not_said_to_be_the_same() -> None:
    ahead = [state(node, 10_000, b"a", 5, b"p", b"S1") for node in ("n1", "n2")]
    finding = judge_hashes([*ahead, state("n3", 5, b"p", 5, b"p", b"S0")], ["n1", "n2", "n3"])
    assert (finding.verdict, finding.reason) == ("unknown", "n3 applied at least 5 entries, others 10000")
