"""Faults inside a node as data: what its owner breaks in the node itself, not on a link.

`runtime/disk_faults.py` decides what each write and each fsync of the log does under a fault.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from raft_actor_node.errors import DiskError
from raft_actor_node.links import Milliseconds


class DiskFault(BaseModel):
    """A fault of the disk under the log, the term and the vote. Trace files are not touched."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fsync_latency_ms: Milliseconds = 0.0
    """Additional time that each fsync takes before it does anything, in milliseconds."""
    stall: bool = False
    """Each fsync hangs until the fault is healed. While it hangs, `error` on fsync and the latency do nothing."""
    error: Literal["", "ENOSPC", "EIO"] = ""
    """The error with which the next call fails; a node ends then (exit code 6). Empty: none."""
    on: Literal["write", "fsync"] = "write"
    """Which call fails with `error`."""


class NodeFaults(BaseModel):
    """Everything that is broken inside one node; by default nothing is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    disk: DiskFault | None = None
    """The fault of its disk."""

    @property
    def exit_code(self) -> int | None:
        """The exit code of a node that these faults may end, or that is stopped under them; None: they end none."""
        return DiskError.exit_code if self.disk is not None and (self.disk.error or self.disk.stall) else None
