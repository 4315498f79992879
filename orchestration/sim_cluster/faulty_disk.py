"""A simulated disk under faults inside the node: it makes writes and fsyncs fail; writer.py implements delays."""

from __future__ import annotations

from raft_actor_node.runtime.faulty_disk import FaultyDisk


class SimFaultyDisk(FaultyDisk):
    """As runtime's FaultyDisk, but it never waits: a blocking wait would stop the simulated time."""

    def _hold(self) -> None:
        if not self._faults.fault.stall:
            self._faults.fail("fsync")
