"""A wrapper that injects faults into a disk in use (node_faults.py).

The writer thread waits here. The event loop only changes the faults.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from math import inf
from pathlib import Path

from raft_actor_node.runtime.disk import Disk
from raft_actor_node.runtime.disk_faults import DiskFaults, HeldFsync


class FaultyDisk(Disk):
    """A disk that forwards calls to another disk. A fault may make a write or an fsync fail, or hold an fsync first.

    A held fsync has not begun, so a power failure meanwhile loses its data.
    """

    def __init__(self, disk: Disk, faults: DiskFaults) -> None:
        super().__init__()
        self.room_bytes = disk.room_bytes
        self._disk = disk
        self._faults = faults
        self._changed = threading.Condition()
        faults.changed = self._wake

    # ------------------------------------------------------------------------------ what is there

    def exists(self, path: Path) -> bool:
        return self._disk.exists(path)

    def read(self, path: Path) -> bytes | None:
        return self._disk.read(path)

    def links(self, fd: int) -> int:
        return self._disk.links(fd)

    def memory_file_system(self, path: Path) -> str | None:
        return self._disk.memory_file_system(path)

    def random_bytes(self, size: int) -> bytes:
        return self._disk.random_bytes(size)

    # ------------------------------------------------------------------------------ descriptors

    def lock(self, directory: Path) -> int:
        return self._disk.lock(directory)

    def open(self, path: Path, flags: int) -> int:
        return self._disk.open(path, flags)

    def close(self, fd: int) -> None:
        self._disk.close(fd)

    # ------------------------------------------------------------------------------ changes

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        self._faults.write()
        return self._disk.pwritev(fd, buffers, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        self._disk.ftruncate(fd, size)

    def fdatasync(self, fd: int) -> None:
        self._hold()
        self._disk.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        self._hold()
        self._disk.fsync(fd)

    def replace(self, source: Path, target: Path) -> None:
        self._disk.replace(source, target)

    def mkdir(self, path: Path) -> None:
        self._disk.mkdir(path)

    # ------------------------------------------------------------------------------ inside

    def _hold(self) -> None:
        held, began = HeldFsync(self._faults), time.monotonic()
        with self._changed:
            while left_s := held.left_s(time.monotonic() - began):
                self._changed.wait(None if left_s == inf else left_s)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
