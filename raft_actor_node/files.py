"""Writing of files that the user names: a regular file is replaced atomically, anything else is written in place."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def replacing(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that replaces `path`: mode "w" for UTF-8 text, "wb" for bytes.

    If `path` is a regular file or does not exist, it is replaced in one step when the context ends without an error.
    A symbolic link stays, and its target is replaced. Anything else, such as a pipe or a device, is written to
    directly. Raises OSError; IsADirectoryError for a directory.
    """
    target = _replaceable(Path(path))
    encoding = None if "b" in mode else "utf-8"
    if target is None:
        with Path(path).open(mode, encoding=encoding) as file:
            yield file
        return
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open(mode, encoding=encoding) as file:
            yield file
        partial.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _replaceable(path: Path) -> Path | None:
    """Return the file that a rename may replace: `path` without symbolic links. None if `path` is no regular file."""
    target = Path(os.path.realpath(path))
    try:
        found = path.stat()
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # A link in /proc may lead to a file whose name was deleted or has changed.
    named = stat.S_ISREG(found.st_mode) and target.exists() and target.samefile(path)
    return target if named else None
