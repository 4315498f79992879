"""Timeouts that do not run while this process is paused.

A process may be stopped (SIGSTOP, a debugger, a suspended machine). When it wakes, its timers are due before it has
read the answers that arrived meanwhile. `asyncio.timeout` would count that pause as silence of the peer.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from types import TracebackType
from typing import AnyStr

SLICE_S = 1.0
"""Longest slice in which time is counted."""
LATE_S = 0.25
"""A slice that ends later than this contained a pause. Then only the length of the slice less the delay is counted,
because the process may not have noticed answers in the rest of the slice."""


class Patience:
    """A timeout like `asyncio.timeout` that counts only the time in which this event loop ran.

    It expires after `seconds` or, if the process was paused, up to SLICE_S later. It never expires at the moment when
    the process wakes.

        async with Patience(5.0):  # raises TimeoutError
            await answer
    """

    def __init__(self, seconds: float | None, *, interrupt: bool = True) -> None:
        """Set the timeout; None never expires. Without `interrupt` nothing is cancelled: check `over`."""
        self.over = False
        """Whether the timeout has expired."""
        self.paused_s = 0.0
        """Total length of the pauses noticed, in seconds."""
        self._left_s = seconds
        self._interrupt = interrupt
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Patience:
        self._loop = asyncio.get_running_loop()
        self._limit = asyncio.timeout(None)
        await self._limit.__aenter__()
        if self._left_s is not None:
            self._begin_slice(self._left_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def end(self) -> None:
        """Expire now."""
        self.over = True
        if self._interrupt and not self._limit.expired():
            self._limit.reschedule(self._loop.time())

    def _begin_slice(self, left_s: float) -> None:
        length_s = min(left_s, SLICE_S)
        due = self._loop.time() + length_s
        self._timer = self._loop.call_at(due, self._end_slice, due, left_s, left_s - length_s)

    def _end_slice(self, due: float, before_s: float, after_s: float) -> None:
        late_s = self._loop.time() - due
        left_s = after_s
        if late_s > LATE_S:
            self.paused_s += late_s
            # Count what was certainly not a pause, so that the timeout also expires in a program that is always late.
            left_s = before_s - max(before_s - after_s - late_s, 0.0)
        if left_s > 0:
            self._begin_slice(left_s)
        else:
            self.end()


def communicate(
    process: subprocess.Popen[AnyStr], message: AnyStr | None = None, *, seconds: float
) -> tuple[AnyStr | None, AnyStr | None]:
    """Call `Popen.communicate` with a timeout that does not run while this process is paused. Blocks.

    Raises TimeoutExpired after `seconds`; `process` then still runs.
    """
    left_s = seconds
    while True:
        slice_s, begin = min(left_s, SLICE_S), time.monotonic()
        try:
            return process.communicate(message, timeout=slice_s)
        except subprocess.TimeoutExpired:
            late_s = time.monotonic() - begin - slice_s
            left_s -= max(slice_s - late_s, 0.0) if late_s > LATE_S else slice_s
            message = None  # the next call sends the rest of the message
            if left_s <= 0:
                raise
