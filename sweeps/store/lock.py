"""The lock on a run directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from raft_actor_node.errors import ConfigError


class RunLock:
    """The lock of the process that writes in a run directory; the kernel releases it when the process ends."""

    def __init__(self, path: Path) -> None:
        """Acquire the lock. Raises ConfigError when it is already held."""
        self._directory: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ConfigError(f"{path}: it still runs, or is being judged") from None
        except OSError:
            pass  # a file system without locks

    def release(self) -> None:
        """Let other processes write there."""
        directory, self._directory = self._directory, None
        if directory is not None:
            os.close(directory)

    def __del__(self) -> None:
        self.release()
