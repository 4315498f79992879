"""A simulated process: its clock, its pauses and its end.

All code of a node is called through its process. So a paused process does nothing and its messages wait, and an ended
process is never called again. When a process is resumed, its overdue timers fire at once. Messages that arrived
meanwhile follow later, because the process must first read them from the kernel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf, nextafter
from typing import Any

from orchestration.sim_cluster.loop import Call, SimLoop


class Process:
    """A simulated process, from its start to its end; satisfies raft_actor_node's Clock."""

    def __init__(
        self,
        loop: SimLoop,
        rate: float,
        failed: Callable[[BaseException], None],
        reading_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Create the process.

        `rate`: seconds of its clock per second. `failed` is called with an exception that a call raised. `reading_s`
        returns how long a resumed process takes to read the messages that arrived meanwhile.
        """
        self.ended = False
        self._loop = loop
        self._rate = rate
        self._failed = failed
        self._holds = 0
        self._reading_s = reading_s
        self._waiting: deque[_ProcessCall] = deque()
        self._unread: deque[_ProcessCall] = deque()

    # ------------------------------------------------------------------------------ clock

    def now(self) -> float:
        """Return the time of this process's clock in seconds."""
        return self._loop.time() * self._rate

    def now_ns(self) -> int:
        """Return the time of the simulation in nanoseconds, so that records of all processes are comparable."""
        return self._loop.now_ns()

    def call_soon(self, callback: Callable[..., object], *args: Any) -> Call:
        """As in Clock."""
        call = _ProcessCall(self, callback, args)
        self._loop.soon(call)
        return call

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Call:
        """As in Clock."""
        call = _ProcessCall(self, callback, args)
        self._loop.at(self._loop.time() + delay_s / self._rate, call)
        return call

    def call_at(self, when: float, callback: Callable[[], object], *, precise: bool) -> Call:
        """As in Clock; never early."""
        call = _ProcessCall(self, callback, ())
        at = when / self._rate
        while at * self._rate < when:  # if rounded down, the callback would run early and schedule itself forever
            at = nextafter(at, inf)
        self._loop.at(at, call)
        return call

    def run(self, callback: Callable[..., object], *args: Any) -> None:
        """Call back for an external event: now, or after the process is resumed and has read earlier events."""
        call = _ProcessCall(self, callback, args)
        if self._holds or self._unread:
            self._unread.append(call)
        else:
            call._run()

    # ------------------------------------------------------------------------------ pausing, ending

    def hold(self) -> None:
        """Pause the process until each `hold` has been matched by a `release`."""
        self._holds += 1

    def release(self) -> None:
        """Resume: run overdue timers at once, and external events after the time for reading them."""
        self._holds -= 1
        if not self._holds:
            for call in self._waiting:
                self._loop.soon(call)
            self._waiting.clear()
            if self._unread:
                self._loop.at(self._loop.time() + self._reading_s(), Call(self._read, ()))

    def end(self) -> None:
        """End the process: none of its callbacks is called any more."""
        self.ended = True
        self._waiting.clear()
        self._unread.clear()

    def _read(self) -> None:
        while self._unread and not self._holds:
            self._unread.popleft()._run()


class _ProcessCall(Call):
    __slots__ = ("_process",)

    def __init__(self, process: Process, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._process = process

    def _run(self) -> None:
        process = self._process
        if process.ended:
            return
        if process._holds:
            process._waiting.append(self)
            return
        try:
            self._callback(*self._args)
        except Exception as error:
            process._failed(error)
