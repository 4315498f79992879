"""A handful of the planted bugs, against a few seeds each; `make mutants` runs them all, against many."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from raft_actor_node.core.quorum import quorum_size
from tests.mutants.__main__ import LEAST_GENERIC, summarise
from tests.mutants.catalogue import KNOWN, mutants
from tests.mutants.edit import Edit, planted, rewrite
from tests.mutants.hunt import DIRECTED, PRODUCT, Outcome, hunt, run_until_violated

ROOT = Path(__file__).parents[2]
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
        assert not mutant.test or (ROOT / "tests" / mutant.test.partition("::")[0]).is_file(), mutant.name
        assert mutant.test or mutant.simulated, mutant.name


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


@pytest.mark.parametrize(("generic", "directed", "passes"), [(20, 5, True), (19, 30, False), (25, 0, True)])
def test_enough_bugs_must_be_caught_by_generic_means(generic: int, directed: int, passes: bool) -> None:
    """A checker is worth what it finds without having been told where to look."""
    caught = [Outcome(f"g{i}", True, "linearizability") for i in range(generic)]
    caught += [Outcome(f"d{i}", True, DIRECTED) for i in range(directed)]
    lines: list[str] = []
    assert summarise(caught, [Outcome(PRODUCT, False)], LEAST_GENERIC, 1.0, lines.append) is passes
    assert ("too few by generic means: 19, not 20" in lines) is not passes
    assert not summarise([*caught, Outcome("x", False)], [], 0, 1.0, lines.append)


@pytest.mark.parametrize(
    ("name", "options", "exit_code", "says"),
    [
        (
            "swap-without-compare",
            ("load.mix={put: 0.3, delete: 0.3, cas: 0.4}", "load.keys=2"),
            3,
            "verdict VIOLATED",
        ),
        ("link-faults-do-nothing", ("chaos={drop: 0.2}",), 4, "verdict UNKNOWN: coverage: "),
    ],
)
def test_a_sweep_ends_with_3_on_a_violation_and_with_4_when_it_proves_nothing(
    name: str, options: Sequence[str], exit_code: int, says: str, tmp_path: Path
) -> None:
    """With a planted bug: one breaks what clients were promised, the other has the fault do nothing."""
    command = [sys.executable, "-m", "tests.mutants.sweep", name, "run", "quick", "--target", "sim", "--plain"]
    one_cell = ("cluster.nodes=3", "chaos=none", "phases.measure=4s")
    run = subprocess.run(
        [*command, "--out", str(tmp_path), *(f"-o{option}" for option in (*one_cell, *options))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == exit_code, run.stdout + run.stderr
    assert says in run.stdout


def test_a_bug_that_no_simulation_runs_goes_to_its_own_test_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds would be run for nothing."""
    monkeypatch.setattr("tests.mutants.hunt._directed_test_fails", lambda mutant: (True, "FAILED"))
    outcome = hunt(ALL["stale-address"], SEEDS)
    assert (outcome.caught, outcome.by, outcome.seeds) == (True, DIRECTED, 0)


def test_lines_that_are_not_there_are_refused() -> None:
    """The product went on, the diff did not: that must not go unnoticed."""
    edit = Edit("raft_actor_node.core.quorum:quorum_size", ("    return voters // 3 + 1",), ())
    with pytest.raises(ValueError, match="0 times"):
        rewrite([edit])
