"""Run a few seeds on some of the planted bugs; `make mutants` runs many seeds on all."""

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
"""Bugs that show within a few seeds, and the checks that may catch them."""
SEEDS = range(8)


@pytest.mark.parametrize(("name", "by"), HANDFUL.items())
def test_a_planted_bug_is_caught(name: str, by: set[str]) -> None:
    """One of the expected checks catches it within a few seeds."""
    outcome = hunt(ALL[name], SEEDS)
    assert outcome.caught
    assert outcome.by in by


def test_without_a_bug_nothing_is_caught() -> None:
    """The control: the same seeds pass without a planted bug."""
    outcome = run_until_violated("none", SEEDS)
    assert not outcome.caught, outcome.detail


def test_every_planted_bug_can_be_planted() -> None:
    """The lines that a diff removes are in the product; otherwise the diff is out of date."""
    for mutant in ALL.values():
        assert rewrite(mutant.edits), mutant.name


def test_every_planted_bug_says_what_it_breaks() -> None:
    """Each has a sentence, a broken promise and at least one change. The test that it names exists."""
    for mutant in ALL.values():
        assert mutant.sentence.endswith("."), mutant.name
        assert mutant.breaks, mutant.name
        assert mutant.edits, mutant.name
        assert set(mutant.known) <= set(KNOWN), mutant.name
        assert not mutant.test or (ROOT / "tests" / mutant.test.partition("::")[0]).is_file(), mutant.name
        assert mutant.test or mutant.simulated, mutant.name


def test_every_known_mistake_is_planted() -> None:
    """Every item of KNOWN is planted, and other bugs are too."""
    assert set(KNOWN) == {known for mutant in ALL.values() for known in mutant.known}
    assert len(ALL) >= 36


def test_no_two_planted_bugs_are_the_same() -> None:
    """All have different edits."""
    assert len({tuple(mutant.edits) for mutant in ALL.values()}) == len(ALL)


def test_a_bug_is_planted_in_its_context_only() -> None:
    """Every importer of the function calls the changed code within the context, and the original code afterwards."""
    with planted(ALL["half-is-a-majority"].edits):
        assert quorum_size(4) == 2
    assert quorum_size(4) == 3


@pytest.mark.parametrize(("generic", "directed", "passes"), [(20, 5, True), (19, 30, False), (25, 0, True)])
def test_enough_bugs_must_be_caught_by_generic_means(generic: int, directed: int, passes: bool) -> None:
    """A checker must find bugs for which it was not written."""
    caught = [Outcome(f"g{i}", True, "linearizability") for i in range(generic)]
    caught += [Outcome(f"d{i}", True, DIRECTED) for i in range(directed)]
    lines: list[str] = []
    assert summarise(caught, [Outcome(PRODUCT, False)], LEAST_GENERIC, 1.0, lines.append) is passes
    assert ("generic checks caught too few: 19, at least 20 are required" in lines) is not passes
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
    """One planted bug breaks a promise to clients; the other disables the link faults."""
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
    """No seed can find it, so no seed is run."""
    monkeypatch.setattr("tests.mutants.hunt._directed_test_fails", lambda mutant: (True, "FAILED"))
    outcome = hunt(ALL["stale-address"], SEEDS)
    assert (outcome.caught, outcome.by, outcome.seeds) == (True, DIRECTED, 0)


def test_lines_that_are_not_there_are_refused() -> None:
    """A diff whose lines have changed in the product raises an error."""
    edit = Edit("raft_actor_node.core.quorum:quorum_size", ("    return voters // 3 + 1",), ())
    with pytest.raises(ValueError, match="0 times"):
        rewrite([edit])
