"""What a session of tests leaves on this machine: nothing, when it ends (conftest.py).

Other programs may run here, and other tests. So of processes only those count that this session has started, of folders
only those that nobody uses and that were not there before.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from orchestration.ray_cluster.leftovers import clean
from orchestration.ray_cluster.owner import owner, start_ticks

MARK = "RAFT_LAB_TESTS"
"""In the environment of what a session starts: which session it is, as `owner` says it."""
_PATIENCE_S = 60.0
"""Processes of a Ray that was shut down take some seconds to end; other tests that run beside these may leave folders
for a while."""
_PLACE = Path("/tmp")
_PREFIX = f"raft-tests-{os.getpid()}-"


def short_folder() -> Path:
    """A folder with a short path, which its user removes: Ray puts Unix sockets far below it."""
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PLACE))


def leftovers() -> set[str]:
    """Folders and Rays that are left over, whoever made them, as `sweep clean` tells them, and folders of tests. Of
    processes the mark says more: another session of tests may be leaving some at this moment."""
    told = {str(each) for each in clean(dry_run=True) if each.kind != "process"}
    return told | {str(folder) for folder in _PLACE.glob(f"{_PREFIX}*")}


def left(before: set[str]) -> list[str]:
    """What there is of this session, in words; `before` is what was left over when it began."""
    return [*_processes(), *sorted(leftovers() - before)]


def at_last(find: Callable[[], list[str]]) -> list[str]:
    """What it still finds after a while: processes of a Ray that was shut down take some seconds to end."""
    deadline = time.monotonic() + _PATIENCE_S
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _processes() -> list[str]:
    """Descendants of this process, and the daemons among them, which have another parent by now but carry the mark."""
    mark = f"{MARK}={owner()}".encode()
    found = {child.pid for child in psutil.Process().children(recursive=True)}
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if mark in environment.read_bytes().split(b"\0"):
                found.add(int(environment.parent.name))
    # One that has ended, and that nobody has waited for, is no process any more.
    return [f"process {pid}: {_command(pid)}" for pid in sorted(found) if start_ticks(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "has ended"
