"""A simulated disk under faults inside the node: writes and fsyncs fail here, and the writer waits (writer.py)."""

from __future__ import annotations

from raft_actor_node.runtime.faulty_disk import FaultyDisk


class SimFaultyDisk(FaultyDisk):
    """As runtime's FaultyDisk, but nothing waits here: simulated time must not stand still."""

    def _hold(self) -> None:
        if not self._faults.fault.stall:
            self._faults.fail("fsync")
