"""Who uses what on a host: how a process is told from a later one, whose it is, and how a folder is held."""

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
"""In the environment of a node and of whatever it starts: the process that it must not outlive, by its pid namespace,
pid and start time."""
RAY_PREFIX = "raft-lab-ray-"
"""Of the folders of private Rays."""
_TRIES = 1000
_PAUSE_S = 0.005
_END_TIMEOUT_MS = 5000


class Leftover(NamedTuple):
    """One thing that nobody uses any more."""

    kind: str
    """`process`, `folder` or `ray`."""
    what: str
    """Which one, in a few words."""

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


def hold(folder: Path) -> int:
    """Make a folder where there is none, and keep it from being removed for as long as the descriptor that is
    returned stays open, in this process only. Raises OSError."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):  # somebody removes empty folders, it or one above it
            with contextlib.suppress(FileExistsError):  # it was there, and is gone, or no folder: open will tell
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # a file system that knows no locks
                fcntl.flock(held, fcntl.LOCK_SH)  # waits where it is just being removed
            with contextlib.suppress(FileNotFoundError):  # it was removed before it was locked
                if os.path.samestat(os.fstat(held), folder.stat()):
                    return held
            os.close(held)
        time.sleep(random.uniform(0, _PAUSE_S))  # not in step with whoever removes it
    raise OSError(f"{folder}: is removed again and again")


def owner() -> str:
    """This process, as its nodes carry it."""
    return f"{_namespace()}:{os.getpid()}:{start_ticks(os.getpid())}"


def start_ticks(pid: int) -> int:
    """When a process was started, in ticks since the machine was; 0 when there is none, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()  # proc(5), from the 3rd on; the name may contain any character
    return 0 if fields[0] in "ZX" else int(fields[19])


def end_process(pid: int, ticks: int) -> bool:
    """SIGKILL to the process that was started then, and wait for its end. False when it is gone already."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Looked at after there is a descriptor, which stays with this very process.
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
    """End the processes of nodes, of this user, whose owner is gone."""
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
            continue  # it has ended
        found = next((each[len(marker) :].decode() for each in variables if each.startswith(marker)), "")
        place, _, process = found.rpartition(":")[0].rpartition(":")
        # One of another namespace cannot be judged from here.
        if found and place == namespace and start_ticks(int(process)) != int(found.rpartition(":")[2]):
            yield pid, ticks, command
