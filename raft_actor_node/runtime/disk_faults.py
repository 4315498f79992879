"""What a disk fault does to the next write and to the next fsync: decided here, for real and for simulated disks.

This module knows no clock and no thread. A disk calls `write` before each write. For each fsync it makes a HeldFsync,
and asks it how long to wait; when `changed` is called it asks again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal

from raft_actor_node.node_faults import DiskFault

NO_FAULT = DiskFault()


@dataclass(slots=True)
class DiskFaultCounters:
    """What the faults did to this disk."""

    fsyncs_delayed: int = 0
    """Fsyncs that were held back by a latency."""
    fsyncs_stalled: int = 0
    """Fsyncs that were held back by a stall."""
    errors: int = 0
    """Writes and fsyncs that failed."""


class DiskFaults:
    """The fault in force on one disk. It may be replaced in one thread and asked in another."""

    def __init__(self) -> None:
        self.fault = NO_FAULT
        self.counters = DiskFaultCounters()
        self.ending = False
        """The node stops: no fsync is held any more."""
        self.raised = False
        """An error of the disk is due to a fault."""
        self.changed: Callable[[], None] = lambda: None
        """Called after each change: what an fsync that is held must wait may be different now."""

    def replace(self, fault: DiskFault | None) -> None:
        """Put another fault in force; None: the disk is whole."""
        self.fault = fault or NO_FAULT
        self.changed()

    def end(self) -> None:
        """Let go of the fsync that is held, because the node stops: a delayed one goes on, a stalled one fails."""
        self.ending = True
        self.changed()

    def write(self) -> None:
        """Raise OSError if the next write fails."""
        self.fail("write")

    def fail(self, call: Literal["write", "fsync"]) -> None:
        """Raise OSError if the next call of this kind fails."""
        fault = self.fault
        if fault.error and fault.on == call:
            self.counters.errors += 1
            self.raised = True
            number = getattr(errno, fault.error)
            raise OSError(number, f"{os.strerror(number)} (injected on {call})")


class HeldFsync:
    """One fsync that has not begun to do anything, because a fault may hold it."""

    def __init__(self, faults: DiskFaults) -> None:
        self._faults = faults
        self._delayed = self._stalled = False

    def left_s(self, waited_s: float) -> float:
        """Return how long it must still wait when it has waited `waited_s`; inf while the disk stalls, 0: go on.

        Raises OSError if it fails.
        """
        faults = self._faults
        fault, counters = faults.fault, faults.counters
        if fault.stall:
            counters.fsyncs_stalled += not self._stalled
            self._stalled = True
            if faults.ending:
                faults.raised = True
                raise OSError(errno.EIO, "an fsync was stalled by a fault when the node stopped")
            return inf
        faults.fail("fsync")
        left_s = max(fault.fsync_latency_ms / 1000 - waited_s, 0.0)
        if left_s > 0:
            counters.fsyncs_delayed += not self._delayed
            self._delayed = True
        return 0.0 if faults.ending else left_s
