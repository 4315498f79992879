"""An asyncio event loop with virtual time: instead of waiting, it advances its clock to the next due call.

Programs on it are deterministic, including their timing: calls that are due at the same time run in the order in which
they were scheduled. Work for an executor runs immediately on the loop's thread, and takes no virtual time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from heapq import heappop, heappush
from itertools import count
from selectors import BaseSelector
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START_S = 1.0
"""The initial time of the clock; not 0, because a time of 0 ns means "none"."""
_TURNS_PER_POLL = 4096
"""Turns of the loop between two checks for signals; each check is a system call."""


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end on a new SimLoop; cancel the tasks that it leaves behind."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(main())


class Call:
    """A scheduled call; cheaper than asyncio's handles."""

    __slots__ = ("_args", "_callback", "_cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._callback = callback
        self._args = args
        self._cancelled = False

    def cancel(self) -> None:
        """Cancel the call."""
        self._cancelled = True

    def _run(self) -> None:
        self._callback(*self._args)


class SimLoop(asyncio.SelectorEventLoop):
    """The loop. It replaces only the passing of time; the attributes declared below are asyncio's."""

    _ready: deque[Any]
    _selector: BaseSelector
    _stopping: bool
    _process_events: Callable[[Any], None]

    def __init__(self) -> None:
        super().__init__()
        self._now = START_S
        self._timers: list[tuple[float, int, Any]] = []
        self._ticket = count()
        self._turns = 0

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def now_ns(self) -> int:
        """Return the virtual time in nanoseconds."""
        return round(self._now * 1e9)

    def at(self, when: float, call: Call) -> None:
        """Schedule a call at a time, or now if that time is past."""
        heappush(self._timers, (when, next(self._ticket), call))

    def soon(self, call: Call) -> None:
        """Schedule a call at the current time, after all calls that are already due."""
        self._ready.append(call)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As in asyncio."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._ticket), timer))
        return timer

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Call the function immediately; return its result as a completed future."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        ready = self._ready
        if not ready and not self._stopping:
            self._pass_time()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                try:
                    handle._run()
                except Exception as error:  # only from a Call: asyncio's own handles report their errors themselves
                    self.call_exception_handler({"message": f"a call failed: {handle}", "exception": error})
        self._turns += 1
        if self._turns % _TURNS_PER_POLL == 0:
            self._poll()

    def _pass_time(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heappop(timers)
        if not timers:
            self._poll()
            if not self._ready:
                raise RuntimeError("deadlock in the simulation: tasks wait, and no call is due")
            return
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            self._ready.append(heappop(timers)[2])

    def _poll(self) -> None:
        self._process_events(self._selector.select(0))
