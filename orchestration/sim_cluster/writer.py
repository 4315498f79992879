"""The writer of a simulated node: it writes at once, and reports completion when a real disk would."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from orchestration.sim_cluster.disk import SimDisk
from orchestration.sim_cluster.loop import Call
from orchestration.sim_cluster.process import Process
from orchestration.sim_cluster.settings import SimSettings
from raft_actor_node.core import Persist, Persisted
from raft_actor_node.runtime.disk_faults import DiskFaults, HeldFsync
from raft_actor_node.runtime.samples import Samples
from raft_actor_node.runtime.wal import Wal
from raft_actor_node.runtime.writer import Done, Failed, write

_MOMENT_S = 1e-9
"""A shorter wait counts as 0: it may be a rounding error, and would be repeated forever."""


@dataclass
class _Write:
    """A write in progress."""

    persist: Persist
    latency_s: float
    """Duration of its fsync, once it begins."""
    held: HeldFsync
    began_s: float
    call: Call | None = None
    """The next step; None while the disk stalls."""
    held_s: float = 0.0
    """How long a fault held the fsync."""
    held_back: bool = True
    """Whether a fault still holds the fsync, so that it has not begun."""


class SimWriter:
    """A writer that satisfies runtime's Writer. A crash during a write leaves any part of it on the disk."""

    def __init__(
        self,
        wal: Wal,
        fsync: Samples,
        done: Done,
        failed: Failed,
        *,
        process: Process,
        disk: SimDisk,
        faults: DiskFaults,
        settings: Callable[[], SimSettings],
        rng: random.Random,
        synced: Callable[[Persist], None],
        broken: Callable[[], None],
        slower_s: float,
    ) -> None:
        """Create the writer.

        `synced` is called with each durable persist, `broken` when the disk fails at random. `slower_s` is added to the
        random latency of each fsync.
        """
        self._wal, self._fsync, self._done, self._failed = wal, fsync, done, failed
        self._process, self._disk, self._settings, self._rng, self._synced = process, disk, settings, rng, synced
        self._broken, self._slower_s, self._faults = broken, slower_s, faults
        self._under_way: _Write | None = None
        faults.changed = self._go_on

    def start(self) -> None:
        """As in Writer."""

    def submit(self, persist: Persist) -> None:
        """As in Writer; the core submits one persist at a time."""
        settings, random_ = self._settings(), self._rng.random
        latency_s = self._rng.uniform(*settings.fsync) * self._disk.slowness + self._slower_s
        if settings.fsync_tail and random_() < settings.fsync_tail:
            latency_s += self._rng.uniform(*settings.fsync_tail_latency)
        if settings.disk_failure and random_() < settings.disk_failure:
            self._break()
        self._disk.begin()
        try:
            write(self._wal, persist)
        except Exception as error:  # after any error the node can no longer guarantee durability
            self._process.call_later(latency_s, self._failed, error)
            return
        self._under_way = _Write(persist, latency_s, HeldFsync(self._faults), self._process.now())
        self._go_on()

    def _go_on(self) -> None:
        """Wait until no fault holds the fsync, then for the fsync itself."""
        write = self._under_way
        if write is None or (write.call is not None and not write.held_back):
            return
        if write.call is not None:
            write.call.cancel()
        try:
            left_s = write.held.left_s(self._process.now() - write.began_s)
        except OSError as error:
            self._under_way = None
            self._failed(error)
            return
        write.held_back = left_s > _MOMENT_S
        if left_s == inf:
            write.call = None
        elif write.held_back:
            write.call = self._process.call_later(left_s, self._go_on)
        else:
            write.held_s = self._process.now() - write.began_s
            write.call = self._process.call_later(write.latency_s, self._finish)

    async def close(self) -> None:
        """As in Writer. A write in progress is completed at once without notice to the core; a stalled fsync fails."""
        self._faults.end()
        if (write := self._under_way) is not None:
            if write.call is not None:
                write.call.cancel()
            self._disk.commit()
        self._wal.close()

    def _finish(self) -> None:
        write, self._under_way = self._under_way, None
        assert write is not None
        self._disk.commit()
        self._fsync.add_ns(round((write.held_s + write.latency_s) * 1e9))
        self._synced(write.persist)
        if self._process.ended:  # the observer crashed the node in `synced`
            return
        self._done(Persisted(write.persist.number))

    def _break(self) -> None:
        self._broken()
        match self._rng.randrange(3):
            case 0:
                self._disk.fail_writes = errno.ENOSPC
            case 1:
                self._disk.fail_writes = errno.EIO
            case _:
                self._disk.fail_syncs = errno.EIO
