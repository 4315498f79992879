"""A disk for which SIGKILL is a power failure: unsynced changes exist only in this process and end with it.

SIGKILL leaves the page cache to the kernel, so on a real disk SIGKILL does not test fsync. This disk bypasses the page
cache: a sync of a file writes its changes, and a sync of a directory performs its creations and renames. For tests and
experiments (`storage.unsynced: lost`).

Directories are created at once, because a missing directory could not be locked. A process that ends cleanly closes the
lock. Closing it hands all unsynced changes to the kernel, as if the kernel had held them from the start.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from raft_actor_node.runtime.disk import REAL_DISK, Disk, write_all


@dataclass(eq=False)
class _File:
    """A file as this process sees it."""

    fd: int | None
    """Descriptor of the file on disk; None until it has a name there."""
    nameless: bytearray = field(default_factory=bytearray)
    """Synced content of a file that has no name on disk yet."""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Unsynced changes: bytes written at an offset, or None for a truncation there."""


class _NewName(NamedTuple):
    """A creation (`source` is None) or rename that no sync of its directory has covered yet."""

    source: Path | None
    target: Path
    file: _File


class VolatileDisk(Disk):
    """A real disk that holds only what a power failure at this moment would leave."""

    def __init__(self, *, fsync_latency_s: float = 0.0) -> None:
        super().__init__(fsync_latency_s=fsync_latency_s)
        self._names: dict[Path, _File | None] = {}
        """Files opened so far, by their name in this process; None for a name that was renamed away."""
        self._new_names: list[_NewName] = []
        self._open: dict[int, _File] = {}
        """Open files by descriptor. Descriptors are negative, so they cannot be confused with the system's."""
        self._directories: dict[int, Path] = {}
        self._lock_fd: int | None = None

    def exists(self, path: Path) -> bool:
        return self._names[path] is not None if path in self._names else super().exists(path)

    def read(self, path: Path) -> bytes | None:
        if path not in self._names:
            return super().read(path)
        file = self._names[path]
        if file is None:
            return None
        content = file.nameless if file.fd is None else os.pread(file.fd, os.fstat(file.fd).st_size, 0)
        return bytes(_changed(bytearray(content), file))

    def links(self, fd: int) -> int:
        on_disk = self._open[fd].fd
        return 1 if on_disk is None else super().links(on_disk)

    def lock(self, directory: Path) -> int:
        self._lock_fd = super().lock(directory)
        return self._lock_fd

    def open(self, path: Path, flags: int) -> int:
        if flags & os.O_DIRECTORY:
            directory = super().open(path, flags)
            self._directories[directory] = path
            return directory
        file = self._file_at(path)
        if file is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            file = _File(None)
            self._name(_NewName(None, path, file))
        if flags & os.O_TRUNC:
            file.pending.append((0, None))
        fd = min(self._open, default=0) - 1
        self._open[fd] = file
        return fd

    def close(self, fd: int) -> None:
        if fd in self._open:
            del self._open[fd]
            return
        if fd == self._lock_fd:
            self._leave_to_the_kernel()
        self._directories.pop(fd, None)
        super().close(fd)

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        pending, data = self._open[fd].pending, b"".join(buffers)
        if pending and (last := pending[-1])[1] is not None and (last[0], len(last[1])) == (offset, len(data)):
            pending.pop()  # repeated rewrites of a record must not take more memory
        pending.append((offset, data))
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        self._open[fd].pending.append((size, None))

    def fdatasync(self, fd: int) -> None:
        # Before any visible effect: a kill during this time leaves nothing of the sync, like a power failure.
        self._take_time()
        file = self._open[fd]
        self._write(file)
        if file.fd is not None:
            os.fdatasync(file.fd)

    def fsync(self, fd: int) -> None:
        directory = self._directories.get(fd)
        if directory is None:
            self.fdatasync(fd)
            return
        self._make_names([name for name in self._new_names if name.target.parent == directory])
        super().fsync(fd)

    def replace(self, source: Path, target: Path) -> None:
        file = self._file_at(source)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        self._name(_NewName(source, target, file))

    def _file_at(self, path: Path) -> _File | None:
        if path not in self._names and super().exists(path):
            self._names[path] = _File(super().open(path, os.O_RDWR))
        return self._names.get(path)

    def _name(self, name: _NewName) -> None:
        if name.source is not None:
            self._names[name.source] = None
        self._names[name.target] = name.file
        self._new_names.append(name)

    def _write(self, file: _File) -> None:
        """Hand the changes of a file to the kernel, or add them to `nameless` if the file has no name on disk."""
        if file.fd is None:
            _changed(file.nameless, file)
        else:
            for offset, data in file.pending:
                if data is None:
                    super().ftruncate(file.fd, offset)
                else:
                    write_all(REAL_DISK, file.fd, (data,), offset)
        file.pending.clear()

    def _make_names(self, names: Sequence[_NewName]) -> None:
        """Perform creations and renames on the real disk, in order."""
        for name in names:
            if name.source is not None:
                super().replace(name.source, name.target)
            elif name.file.fd is None:
                name.file.fd = super().open(name.target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                write_all(REAL_DISK, name.file.fd, (bytes(name.file.nameless),), 0)
                os.fdatasync(name.file.fd)
            self._new_names.remove(name)

    def _leave_to_the_kernel(self) -> None:
        self._make_names(list(self._new_names))
        for file in self._names.values():
            if file is not None and file.fd is not None:
                self._write(file)
                os.close(file.fd)
        self._names.clear()
        self._lock_fd = None


def _changed(content: bytearray, file: _File) -> bytearray:
    for offset, data in file.pending:
        if data is None:
            del content[offset:]
        else:
            content.extend(bytes(max(offset - len(content), 0)))
            content[offset : offset + len(data)] = data
    return content
