"""Latencies and their percentiles; some latencies are known as lower bounds only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
PERCENTILES = {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999}
"""Names of the percentiles, in thousandths."""
LOWER_BOUNDS = "lower_bounds"
"""Beside percentiles: the names of those that are only known to be at least as large as they say."""
MIN_ABOVE = 10
"""A percentile with fewer samples above it is not printed."""


def no_times() -> Ints:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Latencies:
    """Latencies in nanoseconds, in no order; those marked in `at_least` are lower bounds."""

    ns: Ints = field(default_factory=no_times)
    at_least: Mask = field(default_factory=lambda: np.empty(0, np.bool_))

    def __len__(self) -> int:
        return len(self.ns)

    @classmethod
    def pooled(cls, parts: Iterable[Latencies]) -> Latencies:
        """All of them together."""
        some = [cls(), *parts]
        return cls(np.concatenate([each.ns for each in some]), np.concatenate([each.at_least for each in some]))

    def rank(self, thousandths: int) -> int:
        """The rank, from 1, of a percentile: the nearest one."""
        return -(-len(self) * thousandths // 1000)

    def at_ranks(self, ranks: Sequence[int]) -> list[tuple[int, bool]]:
        """The latency of each rank, and whether it is a lower bound: whether another one would have this rank if those
        that are lower bounds took longer."""
        ordered = np.partition(self.ns, sorted({rank - 1 for rank in ranks})) if ranks else self.ns
        known = self.ns[~self.at_least]
        values = [int(ordered[rank - 1]) for rank in ranks]
        return [(v, bool(np.count_nonzero(known <= v) < rank)) for v, rank in zip(values, ranks, strict=True)]


def percentiles(latencies: Latencies) -> dict[str, Any]:
    """p50, p90, p99, p99.9 and max in milliseconds, by the nearest rank; under LOWER_BOUNDS the names of those that are
    lower bounds. One with fewer than 10 samples above it says nothing and is None; so is the maximum of nothing."""
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


def to_ms(nanoseconds: Any) -> float:
    return round(float(nanoseconds) / 1e6, 4)
