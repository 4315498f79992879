"""Run the seeds of a simulation campaign on every planted bug: `python -m tests.mutants [NAME ...]`.

The product itself must pass the same seeds. Exit code 0: the product passed, every bug was caught, and generic checks
caught enough of them. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import partial

from tests.mutants.catalogue import mutants
from tests.mutants.hunt import PRODUCT, Outcome, search

SEEDS = 80
LEAST_GENERIC = 20
"""Minimum number of bugs that the generic checks must catch, those of every seed; a bug's own test does not count."""
PRODUCT_SEEDS_AT_A_TIME = 10
ROW = "{:39} {:18} {:40} {:18} {:>5} {:>6}"


def work(names: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, Sequence[int]]]:
    """Return the names and their seeds; the seeds of the product in several portions, to run them in parallel."""
    for at in range(0, len(seeds), PRODUCT_SEEDS_AT_A_TIME):
        yield PRODUCT, seeds[at : at + PRODUCT_SEEDS_AT_A_TIME]
    for name in names:
        yield name, seeds


def run(
    names: Sequence[str],
    seeds: Sequence[int],
    processes: int,
    tell: Callable[[str], object],
    *,
    least_generic: int,
    details: bool,
) -> bool:
    """Search for all bugs and print the table.

    Return whether the product passed, every bug was caught, and generic checks caught at least `least_generic` of them.
    """
    begin = time.perf_counter()
    tell(ROW.format("planted bug", "caught by", "rule", "profile", "seeds", "s"))
    outcomes: list[Outcome] = []
    product: list[Outcome] = []
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        running: list[Future[Outcome]] = [pool.submit(search, *each) for each in work(names, seeds)]
        for future in as_completed(running):
            outcome = future.result()
            if outcome.name == PRODUCT:
                product.append(outcome)
                continue
            outcomes.append(outcome)
            by = outcome.by if outcome.caught else "NOT CAUGHT"
            rule = outcome.rule if len(outcome.rule) <= 40 else outcome.rule[:39] + "…"
            tell(ROW.format(outcome.name, by, rule, outcome.profile, outcome.seeds, f"{outcome.seconds:.1f}"))
            if details:
                tell(f"    {outcome.detail}")
    return summarise(outcomes, product, least_generic, time.perf_counter() - begin, tell)


def summarise(
    outcomes: Sequence[Outcome],
    product: Sequence[Outcome],
    least_generic: int,
    seconds: float,
    tell: Callable[[str], object],
) -> bool:
    """Print the outcomes of the bugs and of the product; return whether the run passed, as `run` does."""
    caught = [outcome for outcome in outcomes if outcome.caught]
    generic = [outcome for outcome in caught if outcome.generic]
    by = ", ".join(f"{by} {count}" for by, count in Counter(outcome.by for outcome in caught).most_common())
    tell("")
    tell(f"{len(caught)} of {len(outcomes)} planted bugs caught, {len(generic)} by generic checks, in {seconds:.0f} s")
    tell(by)
    if len(generic) < least_generic:
        tell(f"generic checks caught too few: {len(generic)}, at least {least_generic} are required")
    for outcome in outcomes:
        if not outcome.caught:
            tell(f"{outcome.name}: not caught in {outcome.seeds} seeds. {outcome.detail}")
    wrong = [outcome for outcome in product if outcome.caught or outcome.detail]
    seeds = sum(outcome.seeds for outcome in product)
    tell(f"product without a bug: {'VIOLATED' if wrong else 'ok'}, {seeds} seeds")
    for outcome in wrong:
        tell(f"  {outcome.by} {outcome.rule} {outcome.detail}")
    return len(caught) == len(outcomes) and len(generic) >= least_generic and not wrong


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="planted bugs; all by default")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="maximum seeds per bug (%(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="first seed (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--details", action="store_true", help="also print the finding and its seed")
    arguments = parser.parse_args()
    known = mutants()
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"no such planted bug: {', '.join(unknown)}; see tests/mutants/planted")
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    names = arguments.names or list(known)
    passed = run(
        names,
        seeds,
        arguments.processes,
        partial(print, flush=True),
        least_generic=0 if arguments.names else LEAST_GENERIC,
        details=arguments.details,
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
