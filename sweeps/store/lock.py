"""The lock on a run directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from raft_actor_node.errors import ConfigError


class RunLock:
    """Held by whoever writes in a run directory, for as long as it lives: the kernel lets go of it then."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when somebody else holds it."""
        self._directory: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ConfigError(f"{path}: it still runs, or is being judged") from None
        except OSError:
            pass  # a file system that knows no locks

    def release(self) -> None:
        """Let others write there."""
        directory, self._directory = self._directory, None
        if directory is not None:
            os.close(directory)

    def __del__(self) -> None:
        self.release()
