"""How the monotonic clock of a host relates to the driver's: an offset, and a bound on its error.

One sample (Cristian, Probabilistic clock synchronization, 1989): the driver reads t0, asks, the host reads h, the
driver gets the answer and reads t1. When the host read its clock the driver's showed something between t0 and t1, so
that

    h - t1  <=  offset  <=  h - t0

however unequally the way there and the way back share the time. Of a few samples the shortest is kept.

Clocks drift: the offset changes, though by no more than R = FASTEST_DRIFT. What a sample says after a time T may
therefore be taken together with what was known, [low - R T, high + R T]: a host that is too busy to answer at once
makes the bound no wider than R T does. And between two samples, of which the later one allows [low', high'], the offset
may have turned round, so that it was within

    [min(low, low') - R T / 2,  max(high, high') + R T / 2].

The bound covers all of that, from the first sample to the last. The offset stays that of the first one: what was put on
the driver's clock earlier stays comparable with what is later, and differences of a host's own times what they were.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.face import HostClock

FASTEST_DRIFT = 500e-6
"""Seconds per second: as fast as Linux lets NTP slew a clock (adjtimex(2)); crystals are off by less than a fifth of
it. One that is faster all the same is seen as soon as a sample contradicts what was known."""


@dataclass(frozen=True)
class Sample:
    """A question and its answer, in nanoseconds."""

    asked_ns: int
    """On the driver's clock,"""
    there_ns: int
    """on the host's,"""
    answered_ns: int
    """on the driver's."""

    @property
    def length_ns(self) -> int:
        """Twice the error of the offset that it tells."""
        return self.answered_ns - self.asked_ns


class TrackedClock:
    """What is known of a clock from its first sample on."""

    def __init__(self, first: Sample) -> None:
        self._asked_ns = first.asked_ns
        self._low, self._high = first.there_ns - first.answered_ns, first.there_ns - first.asked_ns
        self.clock = HostClock((self._low + self._high) // 2, (first.length_ns + 1) // 2)
        """Holds for the time between the first sample and the last."""

    def add(self, sample: Sample) -> None:
        """Take a later sample into account."""
        drift = round(FASTEST_DRIFT * (sample.answered_ns - self._asked_ns))
        least, most = sample.there_ns - sample.answered_ns, sample.there_ns - sample.asked_ns
        low, high = max(least, self._low - drift), min(most, self._high + drift)
        if low > high:  # it drifts faster than it should, and what was known says nothing about now
            low, high = least, most
        turn, offset = drift // 2 + 1, self.clock.offset_ns
        below, above = offset - min(low, self._low) + turn, max(high, self._high) + turn - offset
        self.clock = HostClock(offset, max(self.clock.error_ns, below, above))
        self._asked_ns, self._low, self._high = sample.asked_ns, low, high
