"""What a node measures about itself, kept as raw samples: percentiles cannot be pooled, arrays can."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from time import monotonic_ns

KEPT = 65536
LAG_INTERVAL_S = 0.05


class Samples:
    """The most recent samples of one kind, in microseconds, each with its time: a ring of two arrays, which an
    idle node does not fill with objects."""

    def __init__(self, clock_ns: Callable[[], int] = monotonic_ns) -> None:
        self.total = 0
        self._clock_ns = clock_ns
        self._times = array("Q")
        self._values = array("I")

    def add_ns(self, duration_ns: int) -> None:
        """Record a duration that ended now. From one thread only, as each kind of sample is."""
        now_ns, value = self._clock_ns(), min(duration_ns // 1000, 2**32 - 1)
        position = self.total % KEPT
        if position < len(self._values):
            self._times[position], self._values[position] = now_ns, value
        else:
            self._times.append(now_ns)
            self._values.append(value)
        self.total += 1

    def since(self, time_ns: int) -> list[int]:
        """Samples taken at or after time_ns on the monotonic clock, in no order."""
        return [us for taken_ns, us in zip(self._times[:], self._values[:], strict=False) if taken_ns >= time_ns]

    def percentiles(self, *shares: float) -> list[float]:
        """Nearest-rank percentiles of what is remembered; zeros when nothing is."""
        ordered = sorted(self._values[:])
        if not ordered:
            return [0.0 for _ in shares]
        return [float(ordered[min(int(share * len(ordered)), len(ordered) - 1)]) for share in shares]


async def measure_loop_lag(samples: Samples) -> None:
    """Record, for ever, how late the event loop runs a timer."""
    while True:
        due_ns = monotonic_ns() + int(LAG_INTERVAL_S * 1e9)
        await asyncio.sleep(LAG_INTERVAL_S)
        samples.add_ns(max(monotonic_ns() - due_ns, 0))
