"""Speed of a simulation campaign: whole seeds with all checks, in time of one core."""

from __future__ import annotations

import statistics
import time

from sweeps.campaign import Options, draw, run_seed

SEEDS = 20
ROUNDS = 3
NODES = 5
BAR_SEEDS_PER_MINUTE = 100


def seeds_per_minute() -> float:
    """Seeds of five nodes, about 200 operations and faults of all kinds throughout, per minute of one core; median."""
    return statistics.median(_round(range(number * SEEDS, (number + 1) * SEEDS)) for number in range(ROUNDS))


def chaos(seed: int) -> Options:
    """The options of a seed with a storm over five nodes."""
    return draw(seed, "storm").model_copy(update={"nodes": NODES})


def _round(seeds: range) -> float:
    begin, operations = time.process_time(), 0
    for seed in seeds:
        result = run_seed(seed, options=chaos(seed))
        assert result.verdict == "ok", result.findings
        operations += sum(result.operations.values())
    took_s = time.process_time() - begin
    assert operations >= 0.85 * 200 * len(seeds), "about 200 a seed"
    return 60 * len(seeds) / took_s


if __name__ == "__main__":
    print(f"{seeds_per_minute():,.0f} seeds per minute")
