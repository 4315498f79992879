"""Files of a run directory. The write functions replace a file atomically."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestration.errors import remedy
from raft_actor_node.errors import RaftLabError

_COMPRESSION = 3
"""Gzip level of traces: several times faster than the default level, for files that are hardly larger."""


class WriteFailed(RaftLabError):
    """A file of the results cannot be written. The message names the file, the cause, and the remedy."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert an OSError in this block into a WriteFailed that names `path`, a file or folder of the results.

    The OSError may not name a file: a failed write to an open file does not.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise WriteFailed(f"{path}: cannot be written: {why}; {remedy(error)}") from error


def new_directory(path: Path) -> Path:
    """Create a directory and its parents; if it exists, append -2, -3, ... to its name. Return its path.

    Raises OSError.
    """
    for suffix in ("", *(f"-{attempt}" for attempt in range(2, 100))):
        with contextlib.suppress(FileExistsError):
            (made := path.with_name(path.name + suffix)).mkdir(parents=True)
            return made
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file atomically. Values that JSON cannot represent, such as NaN, raise ValueError."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def cut_torn_line(path: Path) -> None:
    """Cut off an incomplete last line, which a SIGKILL may have left."""
    if path.exists():
        written = path.read_bytes()
        os.truncate(path, written.rfind(b"\n") + 1)


def write_compressed(path: Path, lines: Iterable[str]) -> None:
    """Replace a gzip-compressed text file atomically. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    # Without a time stamp, equal traces give equal files.
    partial.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), _COMPRESSION, mtime=0))
    partial.replace(path)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, atomically. On an OSError, `link` stays as it was."""
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(target.relative_to(link.parent))
        partial.replace(link)
    except OSError:
        partial.unlink(missing_ok=True)
