"""Speed of a simulation campaign: whole seeds with all checks, in CPU time of one core."""

from __future__ import annotations

import statistics
import time

from sweeps.campaign import Options, draw, run_seed

SEEDS = 20
ROUNDS = 3
NODES = 5
OPERATIONS = 200
ASKED = 230
"""Planned operations per seed. It exceeds OPERATIONS because a seed whose clients wait for long does not begin all."""
BAR_SEEDS_PER_MINUTE = 100


def seeds_per_minute() -> float:
    """Return the seeds per minute of CPU time on one core, as the median of several rounds.

    Each seed has five nodes, and faults of all kinds throughout. Seeds run at least 200 operations on average.
    """
    return statistics.median(_round(range(number * SEEDS, (number + 1) * SEEDS)) for number in range(ROUNDS))


def chaos(seed: int) -> Options:
    """Draw the options of a seed with the profile `storm` and five nodes."""
    drawn = draw(seed, "storm")
    load = drawn.load.model_copy(update={"operations": ASKED})
    return drawn.model_copy(update={"nodes": NODES, "load": load})


def _round(seeds: range) -> float:
    begin, operations = time.process_time(), 0
    for seed in seeds:
        result = run_seed(seed, options=chaos(seed))
        assert result.verdict == "ok", result.findings
        operations += sum(result.operations.values())
    took_s = time.process_time() - begin
    assert operations >= OPERATIONS * len(seeds)
    return 60 * len(seeds) / took_s


if __name__ == "__main__":
    print(f"{seeds_per_minute():,.0f} seeds per minute")
