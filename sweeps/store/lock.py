"""The lock on a run directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from raft_actor_node.errors import ConfigError


class RunLock:
    """A lock held by the process that writes in a run directory. The kernel releases it when the process ends."""

    def __init__(self, path: Path) -> None:
        """Acquire the lock. Raises ConfigError if another process holds it."""
        self._directory: int | None = None
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ConfigError(f"{path}: still runs, or is being judged; wait until that ends") from None
        except OSError:
            pass  # the file system does not support locks

    def release(self) -> None:
        """Release the lock."""
        directory, self._directory = self._directory, None
        if directory is not None:
            os.close(directory)

    def __del__(self) -> None:
        self.release()
