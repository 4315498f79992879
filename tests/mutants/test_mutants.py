"""A handful of the planted bugs, against a few seeds each; `make mutants` runs them all, against many."""

from __future__ import annotations

import pytest

from raft_actor_node.core.quorum import quorum_size
from tests.mutants.catalogue import KNOWN, mutants
from tests.mutants.edit import Edit, planted, rewrite
from tests.mutants.hunt import hunt, run_until_violated

ALL = mutants()
HANDFUL = {
    "vote-before-fsync": {"cluster invariant"},
    "old-term-committed-by-counting": {"cluster invariant"},
    "read-by-lease": {"cluster invariant"},
    "stepping-down-forgets-the-vote": {"the node itself"},
    "log-not-synced": {"recovery", "cluster invariant"},
    "never-backs-off": {"liveness", "convergence"},
    "timeout-is-failure": {"linearizability"},
}
"""Bugs that show within a few seeds, and who may notice them."""
SEEDS = range(8)


@pytest.mark.parametrize(("name", "by"), HANDFUL.items())
def test_a_planted_bug_is_caught(name: str, by: set[str]) -> None:
    """Whoever should notice it does, within a few seeds."""
    outcome = hunt(ALL[name], SEEDS)
    assert outcome.caught
    assert outcome.by in by


def test_without_a_bug_nothing_is_caught() -> None:
    """The control: the same seeds pass when nothing is planted."""
    outcome = run_until_violated("none", SEEDS)
    assert not outcome.caught, outcome.detail


def test_every_planted_bug_can_be_planted() -> None:
    """The lines that it changes are in the product; a bug that does not apply any more is no bug."""
    for mutant in ALL.values():
        assert rewrite(mutant.edits), mutant.name


def test_every_planted_bug_says_what_it_breaks() -> None:
    """A sentence, a section, at least one change; its own test exists, if it names one."""
    for mutant in ALL.values():
        assert mutant.sentence.endswith("."), mutant.name
        assert mutant.breaks, mutant.name
        assert mutant.edits, mutant.name
        assert set(mutant.known) <= set(KNOWN), mutant.name


def test_every_known_mistake_is_planted() -> None:
    """The list of known ways to get it wrong, and more than that."""
    assert set(KNOWN) == {known for mutant in ALL.values() for known in mutant.known}
    assert len(ALL) >= 36


def test_no_two_planted_bugs_are_the_same() -> None:
    """Each is a change of its own."""
    assert len({tuple(mutant.edits) for mutant in ALL.values()}) == len(ALL)


def test_a_bug_is_planted_in_its_context_only() -> None:
    """Everybody who imported the function gets the changed one, and afterwards the right one again."""
    with planted(ALL["half-is-a-majority"].edits):
        assert quorum_size(4) == 2
    assert quorum_size(4) == 3


def test_lines_that_are_not_there_are_refused() -> None:
    """The product went on, the diff did not: that must not go unnoticed."""
    edit = Edit("raft_actor_node.core.quorum:quorum_size", ("    return voters // 3 + 1",), ())
    with pytest.raises(ValueError, match="0 times"):
        rewrite([edit])
