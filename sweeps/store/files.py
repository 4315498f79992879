"""Files of a run directory. Each write replaces a file atomically."""

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
"""Gzip level of traces: several times as fast as the default level, and nearly as small."""


class WriteFailed(RaftLabError):
    """A file of the results cannot be written. The message names the file, the cause, and the remedy."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert an OSError while changing `path`, a file or folder of the results, into a WriteFailed that names it.

    System errors of open files do not name them.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise WriteFailed(f"{path}: cannot be written: {why}; {remedy(error)}") from error


def new_directory(path: Path) -> Path:
    """Create a new directory and its parents; add a number to its name if that exists. Raises OSError."""
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
    """Cut off the last line if a SIGKILL left it unfinished."""
    if path.exists():
        written = path.read_bytes()
        os.truncate(path, written.rfind(b"\n") + 1)


def write_compressed(path: Path, lines: Iterable[str]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    # Without a time stamp: the same trace gives the same bytes.
    partial.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), _COMPRESSION, mtime=0))
    partial.replace(path)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, atomically; leave no link where that is impossible."""
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(target.relative_to(link.parent))
        partial.replace(link)
    except OSError:
        partial.unlink(missing_ok=True)
