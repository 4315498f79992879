"""Acknowledged writes are durable on a quorum at the end."""

from __future__ import annotations

import pytest

from chaos.checks.durability import judge_durability
from chaos.checks.evidence import AppliedState
from tests.chaos.checks.told import NODES


def state(node: str, applied: int = 9, digest: bytes = b"9", at: int = 0, prefix: bytes = b"") -> AppliedState:
    return AppliedState(node, applied, digest, at, prefix)


SAME = [state(node) for node in NODES]


def test_a_prefix_that_all_have_on_disk() -> None:
    finding = judge_durability(7, 8, SAME, dict.fromkeys(NODES, 9), NODES)
    assert (finding.check, finding.verdict) == ("durability", "ok")
    assert finding.reason == "7 writes were acknowledged, and entries 1 to 8 are durable on 3 nodes"


@pytest.mark.parametrize(
    ("durable", "verdict"),
    [
        ({"n1": 8, "n2": 9, "n3": 0}, "ok"),
        ({"n1": 8, "n2": 7}, "unknown"),
        ({"n1": 8, "n2": 8}, "ok"),
        ({"n1": 8, "n2": 7, "n3": 7}, "violated"),
        ({}, "unknown"),
    ],
)
def test_applied_is_not_durable(durable: dict[str, int], verdict: str) -> None:
    """All three nodes have applied the same prefix; only what is on their disks counts."""
    assert judge_durability(7, 8, SAME, durable, NODES).verdict == verdict


def test_a_minority_that_kept_what_it_acknowledged() -> None:
    """A leader acknowledged writes before a quorum had the entries; the other nodes never got them."""
    behind = [state("n1", 12, b"12"), state("n2", 9), state("n3", 9)]
    finding = judge_durability(11, 12, behind, {"n1": 12, "n2": 9, "n3": 9}, NODES)
    assert finding.verdict == "violated"
    assert finding.reason == "11 writes were acknowledged, and entries 1 to 12 are durable on n1 only"


def test_logs_of_the_right_length_with_other_entries_do_not_hold_the_prefix() -> None:
    other = [state("n1"), state("n2", 9, b"x"), state("n3", 9, b"y")]
    assert judge_durability(7, 8, other, dict.fromkeys(NODES, 9), NODES).verdict == "violated"


def test_a_node_that_has_not_applied_the_prefix_yet_is_unclear() -> None:
    """The end of its log may hold other entries, which were never committed."""
    late = [state("n1"), state("n2", 5, b"5"), state("n3", 5, b"5")]
    finding = judge_durability(7, 8, late, dict.fromkeys(NODES, 9), NODES)
    assert (finding.verdict, finding.reason) == (
        "unknown",
        "7 writes were acknowledged, and entries 1 to 8: n2, n3 did not report whether they have them",
    )
    shared = [state("n1", 11, b"11", 9, b"9"), state("n2", 12, b"12", 9, b"9"), state("n3", 5, b"5")]
    assert judge_durability(7, 8, shared, dict.fromkeys(NODES, 12), NODES).verdict == "ok"


@pytest.mark.parametrize(("healthy", "lagging"), [((12, 11), (5,)), ((12, 11, 11), (5, 5))])
def test_hashes_at_different_indexes_do_not_contradict(healthy: tuple[int, ...], lagging: tuple[int, ...]) -> None:
    """While a commit spreads, nodes report different indexes, and a lagging node keeps the common index low."""
    nodes = [f"n{number}" for number in range(1, len(healthy + lagging) + 1)]
    states = [state(node, at, str(at).encode()) for node, at in zip(nodes, healthy + lagging, strict=True)]
    durable = dict.fromkeys(nodes[: len(healthy)], 12) | dict.fromkeys(nodes[len(healthy) :], 5)
    assert judge_durability(7, 8, states, durable, nodes).verdict == "unknown"


@pytest.mark.parametrize("traced", [0, 3, 7])
def test_a_prefix_with_fewer_entries_than_acknowledged_writes_is_no_evidence(traced: int) -> None:
    """The traces of the last commits are missing."""
    assert judge_durability(7, traced, SAME, dict.fromkeys(NODES, 9), NODES).verdict == "unknown"
    assert judge_durability(7, traced, SAME, dict.fromkeys(NODES, traced), NODES).verdict == "violated"


@pytest.mark.parametrize(("acknowledged", "verdict"), [(8, "ok"), (9, "violated"), (50, "violated")])
def test_each_acknowledged_write_has_an_entry_of_its_own(acknowledged: int, verdict: str) -> None:
    """The no-op of the first leader takes one entry more."""
    assert judge_durability(acknowledged, 9, SAME, dict.fromkeys(NODES, 9), NODES).verdict == verdict


@pytest.mark.parametrize(
    ("durable", "verdict"),
    [
        ({"n1": 9}, "unknown"),
        ({"n1": 9, "n2": 9}, "violated"),
        ({"n1": 9, "n2": 12}, "unknown"),
        ({"n1": 9, "n2": 12, "n3": 9}, "unknown"),
    ],
)
def test_a_log_that_is_too_short_as_far_as_it_was_reported(durable: dict[str, int], verdict: str) -> None:
    """A quorum that has the missing entry on disk may be silent, or may not have applied it yet."""
    assert judge_durability(9, 9, SAME, durable, NODES).verdict == verdict


def test_without_acknowledged_writes_nothing_must_be_durable() -> None:
    assert judge_durability(0, 0, [], {}, NODES).verdict == "ok"


def test_writes_of_which_no_node_tells_are_unknown() -> None:
    assert judge_durability(3, 0, [], {}, NODES).verdict == "unknown"
