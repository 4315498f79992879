"""Run seeds of the simulation campaign on the product with a planted bug, until a check fails.

The generic checks, which a campaign applies to every seed, come first. If they do not find the bug within the given
seeds, the bug's own test runs in a separate process. A bug with its own test gets only a few seeds.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.checks.finding import Finding
from raft_actor_node.core.invariants.rules import Rule
from raft_actor_node.errors import DataCorrupt, InvariantViolated
from sweeps.campaign import run_seed
from tests.mutants.catalogue import Mutant, mutants
from tests.mutants.edit import planted

TESTS = Path(__file__).parent.parent
FEW_SEEDS = 6
"""Number of seeds for a bug that has its own test, because campaigns rarely or never find it."""
SEED_LIMIT_S = 120.0
TEST_LIMIT_S = 180.0
PRODUCT = "(no bug)"
DIRECTED = "its own test"
MISPRINTS = ("TypeError", "AttributeError", "NameError", "UnboundLocalError")
"""Errors that show a mistake in the diff itself, not a bug of the protocol."""


@dataclass(frozen=True)
class Outcome:
    """The result for a mutant, or for the product itself."""

    name: str
    caught: bool
    by: str = ""
    """The check that caught it: a cluster invariant, the node itself, linearizability, liveness, ..., or `DIRECTED`."""
    rule: str = ""
    """The broken rule or the error; for `DIRECTED` the test."""
    profile: str = ""
    """Profile of the seed that caught it."""
    seeds: int = 0
    """Number of seeds that were run."""
    seconds: float = 0.0
    detail: str = ""

    @property
    def generic(self) -> bool:
        """Whether a check that applies to every seed caught it."""
        return self.caught and self.by != DIRECTED


def search(name: str, seeds: Sequence[int]) -> Outcome:
    """Return the outcome of one mutant, or of the product itself; an error is an outcome too."""
    try:
        return run_until_violated(name, seeds) if name == PRODUCT else hunt(mutants()[name], seeds)
    except Exception as error:
        return Outcome(name, False, seeds=len(seeds), detail=f"{type(error).__name__}: {error}")


def hunt(mutant: Mutant, seeds: Sequence[int]) -> Outcome:
    """Run seeds with this bug until one is violated. If none is, run the bug's own test."""
    begin = time.perf_counter()
    if not mutant.simulated:
        seeds = ()
    elif mutant.test:
        seeds = seeds[:FEW_SEEDS]
    with planted(mutant.edits):
        found = run_until_violated(mutant.name, seeds)
    if not found.caught and mutant.test:
        failed, detail = _directed_test_fails(mutant)
        seconds = time.perf_counter() - begin
        return Outcome(mutant.name, failed, DIRECTED, mutant.test, "", len(seeds), seconds, detail)
    return found


def run_until_violated(name: str, seeds: Sequence[int]) -> Outcome:
    """Run seeds on the product with the bugs that are planted now, until one is violated.

    Without a planted bug, none should be violated. Raises RuntimeError if the diff has a mistake (MISPRINTS).
    """
    begin = time.perf_counter()
    for count, seed in enumerate(seeds, 1):
        with _time_limit(SEED_LIMIT_S):
            result = run_seed(seed)
        if result.verdict == "violated":
            bad = [finding for finding in result.findings if finding.verdict == "violated"]
            # A node that exits at a broken invariant may leave a cluster without a leader: report the cause.
            finding = next((each for each in bad if each.check == "invariants"), bad[0])
            by, rule = who_and_what(finding)
            if any(misprint in rule for misprint in MISPRINTS):
                raise RuntimeError(f"{name}: the diff has a mistake, correct it: {finding.reason}")
            seconds = time.perf_counter() - begin
            return Outcome(name, True, by, rule, result.profile, count, seconds, f"seed {seed}: {finding.reason}")
    return Outcome(name, False, seeds=len(seeds), seconds=time.perf_counter() - begin)


def who_and_what(finding: Finding) -> tuple[str, str]:
    """Return which check found a violation, and which rule or error it was."""
    if finding.check != "invariants":
        return finding.check, ""
    # "1.5 s: n1: InvariantViolated: rule: observation", another error, or "rule: n1: observation in the trace files"
    told = re.match(r"[\d.]+ s: \w+: (\w+): (?:n\d+: )?(.*)", finding.reason, re.DOTALL)
    if told is None:
        return "traces", finding.reason.partition(": ")[0]
    error, rule = told[1], told[2].partition(": ")[0]
    if error == InvariantViolated.__name__:
        return ("cluster invariant" if rule in set(Rule) else "the node itself"), rule
    return ("recovery" if error == DataCorrupt.__name__ else "crash"), error


def _directed_test_fails(mutant: Mutant) -> tuple[bool, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.mutants.plugin", "--mutant", mutant.name]
    run = subprocess.run(
        [*command, "-p", "no:cacheprovider", f"tests/{mutant.test}"],
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=TEST_LIMIT_S,
        check=False,
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
    if any(f" - {misprint}: " in line for line in lines for misprint in MISPRINTS):
        raise RuntimeError(f"{mutant.name}: the diff has a mistake, correct it: {lines[0]}")
    return run.returncode == 1 and bool(lines), lines[0] if lines else run.stdout[-500:]


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this thread, which must be the main one, if the context takes longer.

    There is one alarm per process. If it was set before (pytest sets it), it is set again with its remaining time.
    """

    def ring(*_: object) -> None:
        raise TimeoutError(f"a seed took more than {seconds:g} s")

    begin = time.monotonic()
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left_s:
            signal.setitimer(signal.ITIMER_REAL, max(left_s - (time.monotonic() - begin), 0.001))
