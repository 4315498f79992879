"""The errors of starting and supervising a cluster.

    RaftLabError
    |-- NodeFailed            a node process could not be started, or ended by itself
    |-- PlacementRefused      the hosts cannot carry the requested cluster            exit code 2
    |   `-- OtherCode         a process would run different code from the driver's
    `-- InfrastructureError   Ray, an actor or a host failed: neither the node's fault nor the chaos schedule's

All of them can be pickled, because actors raise them across processes.
"""

from __future__ import annotations

import errno
import os
import re
import signal

from raft_actor_node.errors import RaftLabError
from raft_actor_node.origin import Origin

_EXIT_MEANING = {
    0: "ok",
    1: "error",
    2: "configuration",
    3: "cannot bind",
    4: "directory locked",
    5: "data corrupt or foreign",
    6: "disk error",
    7: "invariant broken",
    126: "command not executable",
    127: "command not found",
}


_REASON = re.compile(r"\d\d:\d\d:\d\d\.\d{3} CRITICAL |raft_actor_node: ")
"""The start of a log line in which our own node gives the reason for its exit.

runtime/process.py logs the first form. __main__.py writes the second form for an error at start-up.
"""


DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""Error codes that blame the disk, not the request."""


_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EIO: "look at the disk (dmesg)",
    errno.EROFS: "choose a folder on a file system that is not read-only",
    errno.ENOENT: "its folder does not exist: make the folder, or choose another one",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EISDIR: "it is a folder: choose the name of a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its symbolic links lead in a circle: choose another name",
    errno.EPIPE: "its reader has ended",
}


def remedy(error: OSError) -> str:
    """Return what the user can do about a file that cannot be written, in a few words."""
    return _REMEDIES.get(error.errno or 0, "make it writable")


def with_remedy(words: str) -> str:
    """Return a node's message, with a remedy appended if it contains the text of a disk error.

    Only the text is available: the error code stayed in the node's process.
    """
    found = next((_REMEDIES[code] for code in DISK_ERRORS if os.strerror(code) in words), None)
    return words if found is None else f"{words}; {found}"


def describe_exit(exit_code: int) -> str:
    """Return an exit code in words: ``exit code 4 (directory locked)``, ``killed by SIGKILL``."""
    if exit_code < 0:
        try:
            return f"killed by {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"killed by signal {-exit_code}"
    meaning = _EXIT_MEANING.get(exit_code)
    return f"exit code {exit_code} ({meaning})" if meaning else f"exit code {exit_code}"


def last_words(log_tail: str) -> str:
    """Return the log line that says why a node ended.

    That is the last line that matches `_REASON`, otherwise the last line. Libraries such as gRPC may log after it.
    """
    lines = [line.strip() for line in log_tail.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if _REASON.match(line)), lines[-1] if lines else "")


class NodeFailed(RaftLabError):
    """A node process could not be started, or ended by itself."""

    def __init__(self, node_id: str, reason: str, exit_code: int | None = None, log_tail: str = "") -> None:
        # All arguments go to the base class: unpickling calls this with them.
        super().__init__(node_id, reason, exit_code, log_tail)
        self.node_id = node_id
        self.reason = reason
        """What happened, in a few words."""
        self.node_exit_code = exit_code
        """As in `subprocess`: negative for a signal, None if the process had not ended."""
        self.log_tail = log_tail
        """The last lines of the node's log."""

    def __str__(self) -> str:
        """Return the reason and the node's last message on the first line, then the end of its log."""
        last = last_words(self.log_tail)
        why = with_remedy(self.reason if last in self.reason else f"{self.reason}: {last}")
        return "\n    ".join((f"node {self.node_id}: {why}", *self.log_tail.splitlines()))


class PlacementRefused(RaftLabError):
    """The hosts cannot carry the requested cluster. The message says what is missing, and lists the hosts."""

    exit_code = 2


class OtherCode(PlacementRefused):
    """A worker or a node runs different code from the driver's, which would falsify the results.

    The message names both versions.
    """

    @classmethod
    def of(cls, who: str, package: str, there: Origin, here: Origin) -> OtherCode:
        """Return the error for a process whose package differs from the driver's."""
        return cls(
            f"{who} has other code than the driver: {package} {there}, not {here}; install the same there, or start"
            " this program again if its own code has changed"
        )


class InfrastructureError(RaftLabError):
    """Ray, an actor or a host failed: neither the node's fault nor the chaos schedule's."""
