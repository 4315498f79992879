"""A process that is an object: its clock, and the ways in which it stands still and ends.

Everything that a node does is called through here, so a paused process does nothing and its mail waits, and of
one that has ended nothing is ever called again. A process that wakes finds its timers due at once; what came meanwhile
is still in the kernel, and has to be read first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf, nextafter
from typing import Any

from orchestration.sim_cluster.loop import Call, SimLoop


class Process:
    """One life of a simulated process; satisfies raft_actor_node's Clock."""

    def __init__(
        self,
        loop: SimLoop,
        rate: float,
        failed: Callable[[BaseException], None],
        reading_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`rate`: seconds of its clock per second. `failed` is told what a call raised. `reading_s` says how long a
        process that wakes takes to read what came meanwhile."""
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
        """Seconds of this process's clock."""
        return self._loop.time() * self._rate

    def now_ns(self) -> int:
        """Nanoseconds of the simulation: what is recorded is comparable everywhere."""
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
        while at * self._rate < when:  # rounded down: it would find that it is early, at the same moment for ever
            at = nextafter(at, inf)
        self._loop.at(at, call)
        return call

    def run(self, callback: Callable[..., object], *args: Any) -> None:
        """Have something from outside taken in now, or once the process runs again and has read what came before."""
        call = _ProcessCall(self, callback, args)
        if self._holds or self._unread:
            self._unread.append(call)
        else:
            call._run()

    # ------------------------------------------------------------------------------ standing still, ending

    def hold(self) -> None:
        """Stand still until a `release` for each `hold`."""
        self._holds += 1

    def release(self) -> None:
        """Go on: with what is due at once, with what came in the meantime when it is read."""
        self._holds -= 1
        if not self._holds:
            for call in self._waiting:
                self._loop.soon(call)
            self._waiting.clear()
            if self._unread:
                self._loop.at(self._loop.time() + self._reading_s(), Call(self._read, ()))

    def end(self) -> None:
        """Nothing of this process is called any more."""
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
