"""Make the file system lack the calls that a log needs, for this process."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

import pytest


def without_locks_and_directory_fsync(patch: pytest.MonkeyPatch) -> None:
    """Fail as NFS does on flock, and CIFS on fsync of a directory."""
    fsync = os.fsync

    def no_lock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def no_fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    patch.setattr(fcntl, "flock", no_lock)
    patch.setattr(os, "fsync", no_fsync)
