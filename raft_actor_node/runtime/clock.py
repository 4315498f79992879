"""The time of a node: what tells it, and what rings. Everything a node does later goes through one Clock.

A simulator has a clock of its own, by which it also pauses, stalls and ends a node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

TIMER_GRAIN_S = 0.001
"""uvloop's timers and clock go by whole milliseconds."""


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> object:
        """It will not."""


class Clock(Protocol):
    """Monotonic time, and calls at a later time, on the node's event loop."""

    def now(self) -> float:
        """Seconds."""

    def now_ns(self) -> int:
        """Nanoseconds of the clock by which events are recorded."""

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object:
        """Call as soon as everything that is due now was called."""

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call after a delay."""

    def call_at(self, when: float, callback: Callable[[], object], *, precise: bool) -> Timer:
        """Call at a time of `now`, or earlier: whoever is called looks at the clock, and asks again.

        What is not precise may come a little late, and never early.
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

        uvloop counts whole milliseconds, and in phase in all processes of a host: timeouts drawn from a narrow
        range would fall together. So the last millisecond of a precise call is awaited in turns of the loop.
        """
        left = when - time.monotonic()
        if not precise:
            return self._loop.call_later(max(left, 0.0) + TIMER_GRAIN_S / 2, callback)
        if left > 2 * TIMER_GRAIN_S:
            return self._loop.call_later(left - 1.5 * TIMER_GRAIN_S, callback)
        return self._loop.call_soon(callback)
