"""Measurements of a node, kept as raw samples: arrays can be pooled, percentiles cannot."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Callable
from math import ceil
from time import monotonic_ns

KEPT = 65536
"""Maximum number of samples of one kind that a node keeps."""
RECENT = 4096
"""Maximum number of samples in a percentile: few enough to be sorted between two messages."""
LAG_INTERVAL_S = 0.05


class Samples:
    """The KEPT most recent samples of one kind, in microseconds, each with its time.

    A ring of two arrays, which costs no object per sample.
    """

    def __init__(self, clock_ns: Callable[[], int] = monotonic_ns) -> None:
        self.total = 0
        self._clock_ns = clock_ns
        self._times = array("Q")
        self._values = array("I")

    def add_ns(self, duration_ns: int) -> None:
        """Record a duration that ended now. On one object, only one thread may call this method."""
        now_ns, value = self._clock_ns(), min(duration_ns // 1000, 2**32 - 1)
        position = self.total % KEPT
        if position < len(self._values):
            self._times[position], self._values[position] = now_ns, value
        else:
            self._times.append(now_ns)
            self._values.append(value)
        self.total += 1

    def since(self, time_ns: int) -> list[int]:
        """Return the samples taken at or after `time_ns` on the monotonic clock, in microseconds, oldest first."""
        oldest = self.total % KEPT if len(self._values) == KEPT else 0
        # Two runs with growing times: the older samples start at `oldest`, the newer end before it.
        runs = ((oldest, len(self._values)), (0, oldest))
        return [us for lo, hi in runs for us in self._values[bisect_left(self._times, time_ns, lo, hi) : hi]]

    def percentiles(self, *shares: float) -> list[float]:
        """Return nearest-rank percentiles of the last RECENT samples, in microseconds; zeros if there are none.

        Each share is from 0 to 1: 0.99 is the 99th percentile.
        """
        end = self.total % KEPT or len(self._values)
        begin = max(end - RECENT, 0)
        recent = self._values[begin:end]
        if len(recent) < min(RECENT, len(self._values)):
            recent.extend(self._values[len(recent) - RECENT :])
        ordered = sorted(recent)
        if not ordered:
            return [0.0 for _ in shares]
        # Rounded, because 0.07 * 100 is 7.000000000000001 as a float; the rank of the 7th percentile of 100 is 7.
        ranks = [max(ceil(round(share * len(ordered), 6)), 1) for share in shares]
        return [float(ordered[rank - 1]) for rank in ranks]


async def measure_loop_lag(samples: Samples) -> None:
    """Record, for ever, how late the event loop runs a timer."""
    while True:
        due_ns = monotonic_ns() + int(LAG_INTERVAL_S * 1e9)
        await asyncio.sleep(LAG_INTERVAL_S)
        samples.add_ns(max(monotonic_ns() - due_ns, 0))
