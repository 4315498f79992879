"""The errors of this project. Each carries data and a one-line message.

RaftLabError
|-- ConfigError               a parameter is not allowed                        exit code 2
|-- BindError                 no port could be bound                            exit code 3
|-- StorageError
|   |-- DirectoryLocked       another process holds the log directory           exit code 4
|   |-- DataCorrupt           damage that is not a torn tail, or foreign data   exit code 5
|   `-- DiskError             the disk failed; the log accepts no more writes   exit code 6
|       `-- Unsupported       the file system lacks what a log needs            exit code 6
|-- InvariantViolated         a rule of Raft is broken: a bug; the node stops   exit code 7
`-- OperationError            a client operation did not succeed
    |-- OperationFailed       it certainly had no effect
    `-- OperationUnknown      it may or may not have taken effect
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class RaftLabError(Exception):
    """Base class of all errors that a caller may want to distinguish."""

    exit_code = 1


class ConfigError(RaftLabError):
    """A parameter is not allowed. The one-line message names the field and what is allowed."""

    exit_code = 2


class BindError(RaftLabError):
    """No port could be bound on the configured interface."""

    exit_code = 3


class StorageError(RaftLabError):
    """The node's directory cannot be used."""


class DirectoryLocked(StorageError):
    """Another process holds the directory. Nothing in it was touched."""

    exit_code = 4


class DataCorrupt(StorageError):
    """Damage that a torn write cannot explain, or data of another node or cluster. No byte was changed."""

    exit_code = 5


class DiskError(StorageError):
    """A write or an fsync failed.

    The node must neither acknowledge the data of the failed call nor retry it. After a failed fsync the kernel may have
    dropped the dirty pages, and the next fsync would report success.
    """

    exit_code = 6


class Unsupported(DiskError):
    """The file system lacks what a log needs, such as locks on directories."""

    def __init__(self, directory: Path, file_system: str, lacks: str) -> None:
        super().__init__(
            f"storage.dir: {directory} is on a file system ({file_system}) without {lacks}; "
            "choose a directory on a local disk"
        )
        self.lacks = lacks
        """What is missing, and the file system's error."""


class InvariantViolated(RaftLabError):
    """A rule of Raft is broken: a bug in this node or in a peer. The node stops at once."""

    exit_code = 7

    def __init__(self, message: str, *, rule: str = "", node_id: str = "", time_s: float | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        """Name of the rule (a Rule of core/invariants) if an observer outside the node found this; otherwise empty."""
        self.node_id = node_id
        self.time_s = time_s


@dataclass(frozen=True)
class Attempt:
    """A failed attempt of a client operation at a node. Times are in ns on the monotonic clock."""

    node_id: str
    outcome: str
    """Name of a gRPC status or an ErrorCode."""
    start_ns: int
    end_ns: int


class OperationError(RaftLabError):
    """A client operation did not succeed."""

    def __init__(self, message: str, code: str, attempts: tuple[Attempt, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        """Last status: the name of an ErrorCode of kv.proto or of a gRPC status."""
        self.attempts = attempts
        """All failed attempts, in order."""

    def __reduce__(self) -> tuple[type[OperationError], tuple[str, str, tuple[Attempt, ...]]]:
        """Support pickling, so that a load generator can send the error to another process."""
        return type(self), (str(self), self.code, self.attempts)


class OperationFailed(OperationError):
    """The operation certainly had no effect."""


class OperationUnknown(OperationError):
    """The operation may have taken effect, or may take effect later, or never."""
