"""Find the processes and folders that a session of tests left on this machine; conftest.py asserts there are none.

Other programs and other tests may run at the same time. So only processes that this session started count, and only
folders that are unused and did not exist before.
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
"""Variable in the environment of every process that a session starts; its value names the session (see `owner`)."""
_PATIENCE_S = 60.0
"""How long to wait for processes and folders to disappear. The processes of a Ray end some seconds after its shutdown,
and other tests that run at the same time may leave folders for a while."""
_PLACE = Path("/tmp")
_PREFIX = f"raft-tests-{os.getpid()}-"


def short_folder() -> Path:
    """Create a folder with a short path, because Ray creates Unix sockets deep below it. The caller removes it."""
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PLACE))


def leftovers() -> set[str]:
    """Return the leftover folders and Rays of any program, as `sweep clean` reports them, and the folders of tests.

    Processes are excluded, because another session of tests may be ending some now; `left` finds ours by the mark.
    """
    told = {str(each) for each in clean(dry_run=True) if each.kind != "process"}
    return told | {str(folder) for folder in _PLACE.glob(f"{_PREFIX}*")}


def left(before: set[str]) -> list[str]:
    """Return what this session left, one line each. `before`: the leftovers when it began."""
    return [*_processes(), *sorted(leftovers() - before)]


def at_last(find: Callable[[], list[str]]) -> list[str]:
    """Return what `find` finds, once it finds nothing or _PATIENCE_S has passed."""
    deadline = time.monotonic() + _PATIENCE_S
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _processes() -> list[str]:
    """Return the descendants of this process, including daemons: they have another parent now, but carry the mark."""
    mark = f"{MARK}={owner()}".encode()
    found = {child.pid for child in psutil.Process().children(recursive=True)}
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            if mark in environment.read_bytes().split(b"\0"):
                found.add(int(environment.parent.name))
    # A zombie, which has ended but has not been reaped, does not count.
    return [f"process {pid}: {_command(pid)}" for pid in sorted(found) if start_ticks(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "has ended"
