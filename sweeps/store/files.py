"""Files of a run directory, each replaced atomically."""

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
"""Level for traces: several times as fast as the usual level, and nearly as small."""


class WriteFailed(RaftLabError):
    """A file of the results cannot be written. The message says which file, why, and what to do."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Wrap a change of a file or folder of the results: an OSError becomes a WriteFailed that names the path.

    The system's own errors name no path once a file is open.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise WriteFailed(f"{path}: cannot be written: {why}; {remedy(error)}") from error


def new_directory(path: Path) -> Path:
    """Create a new directory and its parents: with this name, or with a number appended. Raises OSError."""
    for suffix in ("", *(f"-{attempt}" for attempt in range(2, 100))):
        with contextlib.suppress(FileExistsError):
            (made := path.with_name(path.name + suffix)).mkdir(parents=True)
            return made
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file atomically. Raises ValueError for values that JSON does not have, such as NaN."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def cut_torn_line(path: Path) -> None:
    """Cut off the line that a SIGKILL left unfinished."""
    if path.exists():
        written = path.read_bytes()
        os.truncate(path, written.rfind(b"\n") + 1)


def write_compressed(path: Path, lines: Iterable[str]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    # Without a time in it, the same trace gives the same bytes.
    partial.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), _COMPRESSION, mtime=0))
    partial.replace(path)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, atomically. Where that is impossible there is no link."""
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(target.relative_to(link.parent))
        partial.replace(link)
    except OSError:
        partial.unlink(missing_ok=True)
