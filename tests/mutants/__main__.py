"""Every planted bug against the seeds of a simulation campaign: `python -m tests.mutants [NAME ...]`.

The product itself must pass the same seeds. Exit code 0: it does, every bug was caught, and of all bugs enough by
generic means; 1 otherwise.
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
"""So many of all bugs must be caught by what is checked on any seed, and not by a test written for them."""
PRODUCT_SEEDS_AT_A_TIME = 10
ROW = "{:39} {:18} {:40} {:18} {:>5} {:>6}"


def work(names: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, Sequence[int]]]:
    """What is to be searched; that of the product in portions."""
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
    """Search all of them and print the table. True when the product passed and every bug was caught, at least so
    many by generic means."""
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
    """Print what became of the bugs, and of the product. True when that is as it should be."""
    caught = [outcome for outcome in outcomes if outcome.caught]
    generic = [outcome for outcome in caught if outcome.generic]
    by = ", ".join(f"{by} {count}" for by, count in Counter(outcome.by for outcome in caught).most_common())
    tell("")
    tell(f"{len(caught)} of {len(outcomes)} planted bugs caught, {len(generic)} by generic means, in {seconds:.0f} s")
    tell(by)
    if len(generic) < least_generic:
        tell(f"too few by generic means: {len(generic)}, not {least_generic}")
    for outcome in outcomes:
        if not outcome.caught:
            tell(f"{outcome.name}: not caught in {outcome.seeds} seeds. {outcome.detail}")
    wrong = [outcome for outcome in product if outcome.caught or outcome.detail]
    seeds = sum(outcome.seeds for outcome in product)
    tell(f"without any of them: {'VIOLATED' if wrong else 'ok'}, {seeds} seeds")
    for outcome in wrong:
        tell(f"  {outcome.by} {outcome.rule} {outcome.detail}")
    return len(caught) == len(outcomes) and len(generic) >= least_generic and not wrong


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants; all of them by default")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="at most so many for each (%(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--details", action="store_true", help="say what was seen, and on which seed")
    arguments = parser.parse_args()
    known = mutants()
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"no such mutant: {', '.join(unknown)}")
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
