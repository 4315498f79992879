"""Ownership on a host: identify processes despite reused pids, find their owner, and hold folders."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OWNER_VARIABLE = "RAFT_LAB_OWNER"
"""Environment variable of a node and its children: the owner that they must not outlive.

Its value is the owner's pid namespace, pid and start time.
"""
RAY_PREFIX = "raft-lab-ray-"
"""Prefix of the folders of private Rays."""
_TRIES = 1000
_PAUSE_S = 0.005
_END_TIMEOUT_MS = 5000


class Leftover(NamedTuple):
    """A process or folder that is no longer in use."""

    kind: str
    """`process`, `folder` or `ray`."""
    what: str
    """A short description of the process or folder."""

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


def hold(folder: Path) -> int:
    """Create a folder if needed, and protect it from removal while the returned descriptor is open.

    The descriptor belongs to this process only; child processes do not inherit it. Raises OSError.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):  # another process removed the empty folder, or one above it
            with contextlib.suppress(FileExistsError):  # removed meanwhile, or not a folder: os.open decides
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # the file system has no locks
                fcntl.flock(held, fcntl.LOCK_SH)  # waits while another process removes the folder
            with contextlib.suppress(FileNotFoundError):  # removed before it was locked
                if os.path.samestat(os.fstat(held), folder.stat()):
                    return held
            os.close(held)
        time.sleep(random.uniform(0, _PAUSE_S))  # random, so as not to be in step with the process that removes folders
    raise OSError(f"{folder}: other processes removed it {_TRIES} times; end them and try again")


def owner() -> str:
    """Return the value of OWNER_VARIABLE for nodes of this process."""
    return f"{_namespace()}:{os.getpid()}:{start_ticks(os.getpid())}"


def start_ticks(pid: int) -> int:
    """Return when a process was started, in ticks since boot; 0 if there is no such process or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # proc(5): the fields from the 3rd on. The 2nd is the name in parentheses, which may contain any character.
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def end_process(pid: int, ticks: int) -> bool:
    """Kill the process with this pid and start time (SIGKILL), and wait up to 5 s for its end.

    Returns False if it was already gone, or if this user may not kill it.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Compared after the descriptor is open: from then on the descriptor cannot refer to another process.
        if not ticks or start_ticks(pid) != ticks:
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
        waiting = select.poll()
        waiting.register(process, select.POLLIN)
        waiting.poll(_END_TIMEOUT_MS)
        return True
    except OSError:
        return False
    finally:
        os.close(process)


def end_orphans(*, dry_run: bool = False) -> list[Leftover]:
    """End this user's node processes whose owner is gone."""
    return [
        Leftover("process", f"{pid}: {command}")
        for pid, ticks, command in _orphans()
        if dry_run or end_process(pid, ticks)
    ]


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _orphans() -> Iterator[tuple[int, int, str]]:
    namespace, marker = _namespace(), f"{OWNER_VARIABLE}=".encode()
    for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        folder, ticks = Path(f"/proc/{pid}"), start_ticks(pid)
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            variables = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # the process has ended
        found = next((each[len(marker) :].decode() for each in variables if each.startswith(marker)), "")
        place, _, process = found.rpartition(":")[0].rpartition(":")
        # The pids of another namespace mean nothing here.
        if found and place == namespace and start_ticks(int(process)) != int(found.rpartition(":")[2]):
            yield pid, ticks, command
