"""The clock of a node, for time and for later calls in all code that real and simulated nodes share.

A simulator supplies its own Clock. With it, the simulator also pauses, stalls and ends a node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

TIMER_GRAIN_S = 0.001
"""Resolution of uvloop's timers and clock."""


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> object:
        """Cancel the call."""


class Clock(Protocol):
    """Monotonic time, and calls at a later time, on the node's event loop."""

    def now(self) -> float:
        """Return the time in seconds."""

    def now_ns(self) -> int:
        """Return the time in nanoseconds, on the clock with which events are recorded."""

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object:
        """Call after everything that is due now."""

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call after a delay."""

    def call_at(self, when: float, callback: Callable[[], object], *, precise: bool) -> Timer:
        """Call when `now` reaches `when`, in seconds.

        A `precise` call may be early: its callback must check the clock and schedule itself again. A call that is not
        `precise` may be slightly late, and is never early.
        """


class RealClock:
    """The monotonic clock of this host and the running event loop."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.now = time.monotonic
        self.now_ns = time.monotonic_ns
        self.call_soon = loop.call_soon
        self.call_later = loop.call_later

    def call_at(self, when: float, callback: Callable[[], object], *, precise: bool) -> Timer:
        """As in Clock.

        uvloop counts whole milliseconds, in phase in all processes of a host, so timeouts drawn from a narrow range
        would coincide. Therefore a precise call spends its last 1 to 2 ms in turns of the loop.
        """
        left = when - time.monotonic()
        if not precise:
            return self._loop.call_later(max(left, 0.0) + TIMER_GRAIN_S / 2, callback)
        if left > 2 * TIMER_GRAIN_S:
            return self._loop.call_later(left - 1.5 * TIMER_GRAIN_S, callback)
        return self._loop.call_soon(callback)
