"""The effect of a disk fault on the next write and the next fsync, for real and for simulated disks.

This module uses no clock and no thread. A disk calls `write` before each write. For each fsync the disk makes a
HeldFsync, and `left_s` returns how long to wait. The disk calls `left_s` again after the wait, and at once when
`changed` is called.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal

from raft_actor_node.node_faults import INJECTED, DiskFault

NO_FAULT = DiskFault()


@dataclass(slots=True)
class DiskFaultCounters:
    """Effects of the faults on this disk so far."""

    fsyncs_delayed: int = 0
    """Number of fsyncs delayed by a latency."""
    fsyncs_stalled: int = 0
    """Number of fsyncs held by a stall."""
    errors: int = 0
    """Number of writes and fsyncs that failed."""


class DiskFaults:
    """The fault in force on a disk. One thread may replace it while another uses it."""

    def __init__(self) -> None:
        self.fault = NO_FAULT
        self.counters = DiskFaultCounters()
        self.ending = False
        """Whether the node is stopping. Then no fsync is held any more."""
        self.changed: Callable[[], None] = lambda: None
        """Called after each change, because the wait of a held fsync may have changed."""

    def replace(self, fault: DiskFault | None) -> None:
        """Replace the fault; None heals the disk."""
        self.fault = fault or NO_FAULT
        self.changed()

    def end(self) -> None:
        """Release the held fsync because the node stops: a delayed fsync proceeds, a stalled fsync fails."""
        self.ending = True
        self.changed()

    def write(self) -> None:
        """Raise OSError if the fault makes the next write fail."""
        self.fail("write")

    def fail(self, call: Literal["write", "fsync"]) -> None:
        """Raise OSError if the fault makes the next call of this kind fail."""
        fault = self.fault
        if fault.error and fault.on == call:
            self.counters.errors += 1
            number = getattr(errno, fault.error)
            raise OSError(number, f"{os.strerror(number)} ({INJECTED} on {call})")


class HeldFsync:
    """An fsync that has not begun, because a fault may hold it."""

    def __init__(self, faults: DiskFaults) -> None:
        self._faults = faults
        self._delayed = self._stalled = False

    def left_s(self, waited_s: float) -> float:
        """Return how many seconds the fsync must still wait after `waited_s` seconds; inf during a stall, 0 to proceed.

        Raises OSError if the fault makes the fsync fail.
        """
        faults = self._faults
        fault, counters = faults.fault, faults.counters
        if fault.stall:
            counters.fsyncs_stalled += not self._stalled
            self._stalled = True
            if faults.ending:
                counters.errors += 1
                raise OSError(errno.EIO, f"an fsync still hung when the node stopped ({INJECTED} stall)")
            return inf
        faults.fail("fsync")
        left_s = max(fault.fsync_latency_ms / 1000 - waited_s, 0.0)
        if left_s > 0:
            counters.fsyncs_delayed += not self._delayed
            self._delayed = True
        return 0.0 if faults.ending else left_s
