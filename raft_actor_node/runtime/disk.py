"""The calls between the log and the operating system.

All file operations of the log go through `Disk`. A replacement can fail, lose unsynced data (volatile_disk.py), or be
entirely in memory (orchestration's sim_cluster).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

from raft_actor_node.errors import DirectoryLocked, Unsupported

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})
_UNSUPPORTED = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""Errors with which file systems report that they do not support a call on a directory. NFS emulates flock by a lock
that needs a writable descriptor (EBADF), or has no lock service (ENOLCK); CIFS has no fsync of directories (EINVAL)."""


class Disk:
    """System calls on files and directories. Each raises OSError."""

    room_bytes = 1 << 20
    """Zeros that a log writes in advance, so that most appends do not change the file size. Their fsync then journals
    no metadata, which halves its time when several logs share a disk."""

    def __init__(self, *, fsync_latency_s: float = 0.0) -> None:
        """`fsync_latency_s` is an additional delay of each fdatasync, in seconds."""
        self._fsync_latency_s = fsync_latency_s

    # ------------------------------------------------------------------------------ what is there

    def exists(self, path: Path) -> bool:
        """Return whether a file or directory has this name."""
        return path.exists()

    def read(self, path: Path) -> bytes | None:
        """Return the content of a file; None if it does not exist."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def links(self, fd: int) -> int:
        """Return the number of names of an open file; 0 if it was deleted."""
        return os.fstat(fd).st_nlink

    def memory_file_system(self, path: Path) -> str | None:
        """Return the type of the memory file system that holds a path, or would hold it; None if a disk does."""
        return memory_file_system(path)

    def random_bytes(self, size: int) -> bytes:
        """Return unpredictable bytes."""
        return os.urandom(size)

    # ------------------------------------------------------------------------------ descriptors

    def lock(self, directory: Path) -> int:
        """Lock a directory until the returned descriptor is closed.

        The lock is on the directory itself: a lock file would have to be created before this process knows whether it
        may change anything. Raises DirectoryLocked at once if another process holds the lock, and Unsupported if the
        file system has no such lock.
        """
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise DirectoryLocked(f"{directory}: another process holds this directory; nothing was touched") from None
        except BaseException as error:
            os.close(fd)
            _explain(error, directory, "locks on directories (flock)")
            raise
        return fd

    def open(self, path: Path, flags: int) -> int:
        """Open a file or directory. Child processes do not inherit the descriptor."""
        return os.open(path, flags, 0o644)

    def close(self, fd: int) -> None:
        """Close a descriptor, without syncing."""
        os.close(fd)

    # ------------------------------------------------------------------------------ changes

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        """Write at an offset. Return the number of bytes written, which may be fewer than given."""
        return os.pwritev(fd, buffers, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        """Truncate a file to a size in bytes."""
        os.ftruncate(fd, size)

    def fdatasync(self, fd: int) -> None:
        """Return once content and length of the file are on disk."""
        self._take_time()
        os.fdatasync(fd)

    def _take_time(self) -> None:
        if self._fsync_latency_s:
            time.sleep(self._fsync_latency_s)

    def fsync(self, fd: int) -> None:
        """Return once the file, or the entries of the directory, are on disk."""
        os.fsync(fd)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file atomically, replacing any file of that name."""
        source.replace(target)

    def mkdir(self, path: Path) -> None:
        """Create a directory, unless it exists already."""
        path.mkdir(exist_ok=True)


REAL_DISK = Disk()


def write_all(disk: Disk, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
    """Write all buffers at an offset, in one call unless the system writes less."""
    left = sum(map(len, buffers))
    while left:
        written = disk.pwritev(fd, buffers, offset)
        if written <= 0:
            raise OSError(errno.EIO, "a write wrote no bytes")
        left -= written
        if left:
            buffers = [memoryview(b"".join(buffers))[written:]]
            offset += written


def sync_directory(disk: Disk, directory: Path) -> None:
    """Make the entries of a directory durable. Without this sync, a power failure may remove a new file.

    Raises Unsupported if the file system cannot sync directories.
    """
    fd = disk.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        disk.fsync(fd)
    except OSError as error:
        _explain(error, directory, "fsync of directories")
        raise
    finally:
        disk.close(fd)


def _explain(error: BaseException, directory: Path, what: str) -> None:
    """Raise Unsupported if the error means that the file system of a directory does not support `what`."""
    if isinstance(error, OSError) and error.errno in _UNSUPPORTED:
        kind, _ = file_system(directory) or ("unknown", "")
        raise Unsupported(directory, kind, f"{what}: {error.strerror}") from error


def nearest_present(path: Path) -> Path:
    """Return the path if it exists, else its nearest ancestor that this process can see."""
    return next(each for each in (path, *path.absolute().parents) if os.access(each, os.F_OK))


def memory_file_system(path: Path) -> str | None:
    """Return the type of the memory file system that holds a path, or would hold it; None if a disk does.

    Also None if the system does not provide /proc.
    """
    found = file_system(path)
    return found[0] if found is not None and found[0] in MEMORY_FILE_SYSTEMS else None


def file_system(path: Path) -> tuple[str, str] | None:
    """Return type and device of the file system that holds a path, or would hold it: ("ext4", "/dev/sda1").

    None if the system does not provide /proc.
    """
    device = nearest_present(path).stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    # proc(5): ID, parent ID, major:minor, root, mount point, options, optional fields, "-", type, source, ...
    for mount in mounts:
        place, _, kind = mount.partition(" - ")
        if place.split()[2] == number:
            name, source = kind.split()[:2]
            return name, source
    return None
