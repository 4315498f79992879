"""Faults inside a node as data, as opposed to faults on links.

`runtime/disk_faults.py` decides what each write and each fsync of the log does under a fault.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from raft_actor_node.errors import DiskError
from raft_actor_node.links import Milliseconds

INJECTED = "injected"
"""Word in the message of every error that a fault inside a node makes; real errors do not have it."""


class DiskFault(BaseModel):
    """A fault of the disk that holds the log, the term and the vote. Trace files are not affected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fsync_latency_ms: Milliseconds = 0.0
    """Additional delay before each fsync takes effect, in milliseconds."""
    stall: bool = False
    """Each fsync hangs until the fault is healed. While it hangs, `fsync_latency_ms` and `error` on fsync have no
    effect."""
    error: Literal["", "ENOSPC", "EIO"] = ""
    """Error with which the next call fails; the node then exits with code 6. Empty: no error."""
    on: Literal["write", "fsync"] = "write"
    """Which call fails with `error`."""


class NodeFaults(BaseModel):
    """All faults inside one node; none by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    disk: DiskFault | None = None
    """Fault of the disk of the node; None: no fault."""

    @property
    def exit_code(self) -> int | None:
        """Exit code of a node that these faults end, or that is stopped while they last; None: they cause no exit."""
        return DiskError.exit_code if self.disk is not None and (self.disk.error or self.disk.stall) else None
