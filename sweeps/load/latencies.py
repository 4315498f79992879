"""Latencies as arrays; some are known as lower bounds only."""

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
    """Return milliseconds, rounded to 0.1 us."""
    return round(float(nanoseconds) / 1e6, 4)


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
        return nearest_rank(len(self), thousandths)

    def at_ranks(self, ranks: Sequence[int]) -> list[tuple[int, bool]]:
        """The latency of each rank, and whether it is a lower bound: whether another one would have this rank if those
        that are lower bounds took longer."""
        ordered = np.partition(self.ns, sorted({rank - 1 for rank in ranks})) if ranks else self.ns
        known = self.ns[~self.at_least]
        values = [int(ordered[rank - 1]) for rank in ranks]
        return [(v, bool(np.count_nonzero(known <= v) < rank)) for v, rank in zip(values, ranks, strict=True)]
