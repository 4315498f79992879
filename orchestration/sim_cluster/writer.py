"""Makes things durable on a simulated disk: written at once, done only when the disk would be."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

from orchestration.sim_cluster.disk import SimDisk
from orchestration.sim_cluster.loop import Call
from orchestration.sim_cluster.process import Process
from orchestration.sim_cluster.settings import SimSettings
from raft_actor_node.core import Persist, Persisted
from raft_actor_node.runtime.samples import Samples
from raft_actor_node.runtime.wal import Wal
from raft_actor_node.runtime.writer import Done, Failed, write


class SimWriter:
    """Satisfies runtime's Writer. A crash before it is done leaves any part of the write that was under way."""

    def __init__(
        self,
        wal: Wal,
        fsync: Samples,
        done: Done,
        failed: Failed,
        *,
        process: Process,
        disk: SimDisk,
        settings: Callable[[], SimSettings],
        rng: random.Random,
        synced: Callable[[Persist], None],
        broken: Callable[[], None],
        slower_s: float,
    ) -> None:
        """`synced` is told what is durable, `broken` that chance has broken the disk. This disk takes `slower_s` beside
        what chance has it take."""
        self._wal, self._fsync, self._done, self._failed = wal, fsync, done, failed
        self._process, self._disk, self._settings, self._rng, self._synced = process, disk, settings, rng, synced
        self._broken, self._slower_s = broken, slower_s
        self._under_way: tuple[Call, Persist] | None = None

    def start(self) -> None:
        """As in Writer."""

    def submit(self, persist: Persist) -> None:
        """As in Writer; the core hands over one at a time."""
        settings, random_ = self._settings(), self._rng.random
        latency_s = self._rng.uniform(*settings.fsync) * self._disk.slowness + self._slower_s
        if settings.fsync_tail and random_() < settings.fsync_tail:
            latency_s += self._rng.uniform(*settings.fsync_tail_latency)
        if settings.disk_failure and random_() < settings.disk_failure:
            self._break()
        self._disk.begin()
        try:
            write(self._wal, persist)
        except Exception as error:  # whatever it is, this node cannot promise anything any more
            self._process.call_later(latency_s, self._failed, error)
            return
        self._under_way = self._process.call_later(latency_s, self._finish, persist, latency_s), persist

    async def close(self) -> None:
        """As in Writer; what is under way is done in no time, and nobody is told."""
        if self._under_way is not None:
            self._under_way[0].cancel()
        self._disk.commit()
        self._wal.close()

    def _finish(self, persist: Persist, latency_s: float) -> None:
        self._under_way = None
        self._disk.commit()
        self._fsync.add_ns(round(latency_s * 1e9))
        self._synced(persist)
        if self._process.ended:  # crashed at this very moment
            return
        self._done(Persisted(persist.number))

    def _break(self) -> None:
        self._broken()
        match self._rng.randrange(3):
            case 0:
                self._disk.fail_writes = errno.ENOSPC
            case 1:
                self._disk.fail_writes = errno.EIO
            case _:
                self._disk.fail_syncs = errno.EIO
