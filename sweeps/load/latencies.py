"""Arrays of latencies, some of which are only lower bounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sweeps.spec.metrics import nearest_rank

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def no_times() -> Ints:
    """Return an empty array of times."""
    return np.empty(0, np.int64)


def to_ms(nanoseconds: float) -> float:
    """Convert nanoseconds to milliseconds, rounded to 0.1 us."""
    return round(float(nanoseconds) / 1e6, 4)


@dataclass(frozen=True)
class Latencies:
    """Latencies in nanoseconds, unordered. Those marked in `at_least` are lower bounds."""

    ns: Ints = field(default_factory=no_times)
    at_least: Mask = field(default_factory=lambda: np.empty(0, np.bool_))

    def __len__(self) -> int:
        return len(self.ns)

    @classmethod
    def pooled(cls, parts: Iterable[Latencies]) -> Latencies:
        """Return the latencies of all parts together."""
        some = [cls(), *parts]
        return cls(np.concatenate([each.ns for each in some]), np.concatenate([each.at_least for each in some]))

    def rank(self, thousandths: int) -> int:
        """Return the rank, from 1, of a percentile by nearest rank."""
        return nearest_rank(len(self), thousandths)

    def at_ranks(self, ranks: Sequence[int]) -> list[tuple[int, bool]]:
        """Return the latency at each rank, and whether it is a lower bound.

        A latency is a lower bound if fewer exact latencies than `rank` are at most that long. The true latency at this
        rank is then longer if those marked in `at_least` are.
        """
        ordered = np.partition(self.ns, sorted({rank - 1 for rank in ranks})) if ranks else self.ns
        known = self.ns[~self.at_least]
        values = [int(ordered[rank - 1]) for rank in ranks]
        return [(v, bool(np.count_nonzero(known <= v) < rank)) for v, rank in zip(values, ranks, strict=True)]
