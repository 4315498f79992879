"""Estimate the offset of a host's monotonic clock from the driver's, with a bound on the error.

One sample (Cristian, Probabilistic clock synchronization, 1989): the driver reads t0 and asks; the host reads h; the
driver gets the answer and reads t1. When the host read its clock, the driver's clock was between t0 and t1. So

    h - t1  <=  offset  <=  h - t0

even if the two directions take different times. The driver takes a few samples and keeps the shortest.

Clocks drift: the offset changes by at most R = FASTEST_DRIFT per second. After a time T, the earlier estimate still
implies [low - R T, high + R T]. A new sample is intersected with that interval, so a slow answer of a busy host widens
the bound by no more than R T. Between two samples the offset may have left both intervals and come back. If the later
sample allows [low', high'], the offset was within

    [min(low, low') - R T / 2,  max(high, high') + R T / 2].

The bound covers the whole time from the first sample to the last. The reported offset stays that of the first sample.
So times that were converted earlier and later remain comparable, and a conversion never changes the difference of two
times of one host.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.face import HostClock

FASTEST_DRIFT = 500e-6
"""Maximum drift in seconds per second: the fastest that Linux lets NTP slew a clock (adjtimex(2)).

Crystals drift by less than a fifth of this rate. A clock that drifts faster is detected when a sample contradicts the
bound.
"""


@dataclass(frozen=True)
class Sample:
    """A question and its answer, in nanoseconds."""

    asked_ns: int
    """When the driver asked, on the driver's clock."""
    there_ns: int
    """When the host read its clock, on the host's clock."""
    answered_ns: int
    """When the driver got the answer, on the driver's clock."""

    @property
    def length_ns(self) -> int:
        """The round-trip time: twice the error bound of the offset."""
        return self.answered_ns - self.asked_ns


class TrackedClock:
    """The estimate of a host's clock since its first sample."""

    def __init__(self, first: Sample) -> None:
        self._asked_ns = first.asked_ns
        self._low, self._high = first.there_ns - first.answered_ns, first.there_ns - first.asked_ns
        self.clock = HostClock((self._low + self._high) // 2, (first.length_ns + 1) // 2)
        """The estimate; valid for the time between the first sample and the last."""

    def add(self, sample: Sample) -> None:
        """Update the estimate with a later sample."""
        drift = round(FASTEST_DRIFT * (sample.answered_ns - self._asked_ns))
        least, most = sample.there_ns - sample.answered_ns, sample.there_ns - sample.asked_ns
        low, high = max(least, self._low - drift), min(most, self._high + drift)
        if low > high:  # the clock drifts faster than FASTEST_DRIFT, so the earlier estimate is useless
            low, high = least, most
        turn, offset = drift // 2 + 1, self.clock.offset_ns
        below, above = offset - min(low, self._low) + turn, max(high, self._high) + turn - offset
        self.clock = HostClock(offset, max(self.clock.error_ns, below, above))
        self._asked_ns, self._low, self._high = sample.asked_ns, low, high
