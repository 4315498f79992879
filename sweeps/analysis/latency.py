"""Percentiles of latencies."""

from __future__ import annotations

from typing import Any

from sweeps.load.latencies import Latencies, to_ms
from sweeps.spec.metrics import LOWER_BOUNDS, MIN_ABOVE, PERCENTILES


def percentiles(latencies: Latencies) -> dict[str, Any]:
    """Return p50, p90, p99, p99.9 and max in milliseconds, by the nearest rank.

    The key LOWER_BOUNDS lists the names of the values that are lower bounds. A percentile with fewer than 10 samples
    above it is meaningless and therefore None. The maximum is None without samples.
    """
    count = len(latencies)
    ranks = {name: latencies.rank(thousandths) for name, thousandths in PERCENTILES.items()}
    supported = {name: rank for name, rank in ranks.items() if count - rank >= MIN_ABOVE}
    if count:
        supported["max"] = count
    found = dict(zip(supported, latencies.at_ranks([*supported.values()]), strict=True))
    return {
        **{name: to_ms(found[name][0]) if name in found else None for name in (*PERCENTILES, "max")},
        LOWER_BOUNDS: [name for name, (_, at_least) in found.items() if at_least],
    }
