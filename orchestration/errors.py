"""The errors one meets when a cluster is brought up and kept alive.

    RaftLabError
    |-- NodeFailed            a node process could not be started, or ended by itself
    |-- PlacementRefused      the hosts cannot carry what was asked for               exit code 2
    |   `-- OtherCode         a process would run other code than the driver
    `-- InfrastructureError   Ray, an actor or a host failed: neither the node's fault nor the chaos schedule's

All of them survive pickling, on their way out of an actor.
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
"""How a line of our own node begins with which it ends: in runtime/process.py, or before it can log (__main__.py)."""


DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""Of a disk, and not of what is asked of it."""


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
    """What to do about a file that cannot be written, in a few words."""
    return _REMEDIES.get(error.errno or 0, "make it writable")


def with_remedy(words: str) -> str:
    """What a node says of its disk, and what to do about it: the words alone tell which error it was."""
    found = next((_REMEDIES[code] for code in DISK_ERRORS if os.strerror(code) in words), None)
    return words if found is None else f"{words}; {found}"


def describe_exit(exit_code: int) -> str:
    """An exit code in words: ``exit code 4 (directory locked)``, ``killed by SIGKILL``."""
    if exit_code < 0:
        try:
            return f"killed by {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"killed by signal {-exit_code}"
    meaning = _EXIT_MEANING.get(exit_code)
    return f"exit code {exit_code} ({meaning})" if meaning else f"exit code {exit_code}"


def last_words(log_tail: str) -> str:
    """The line of a node's log that says why it ended: the last one that our own node writes about that, else the last
    one at all. Libraries, such as gRPC, write their own lines, also after it."""
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
        """As `subprocess` gives it: negative for a signal, None while the process lived."""
        self.log_tail = log_tail
        """The last lines of the node's log."""

    def __str__(self) -> str:
        """The first line alone tells why: what happened, and the last words of the node. Then its log."""
        last = last_words(self.log_tail)
        why = with_remedy(self.reason if last in self.reason else f"{self.reason}: {last}")
        return "\n    ".join((f"node {self.node_id}: {why}", *self.log_tail.splitlines()))


class PlacementRefused(RaftLabError):
    """The hosts cannot carry what was asked for. The message says what is missing, and which hosts there are."""

    exit_code = 2


class OtherCode(PlacementRefused):
    """A worker or a node runs other code than the driver, whose numbers it would falsify. The message names both."""

    @classmethod
    def of(cls, who: str, package: str, there: Origin, here: Origin) -> OtherCode:
        """The error of a process whose package is not the driver's."""
        return cls(
            f"{who} has other code than the driver: {package} {there}, not {here}; install the same there, or start"
            " this program again if its own code has changed"
        )


class InfrastructureError(RaftLabError):
    """Ray, an actor or a host failed: neither the node's fault nor the chaos schedule's."""
