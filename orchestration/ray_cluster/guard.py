"""The process that ends a private Ray instance after its driver ended in any way.

Run as ``python -I -S guard.py FOLDER``, in its own session, with a pipe from the driver as standard input. FOLDER
contains the files of the Ray instance, and the guard holds a lock on it (owner.py). When the guard reads a byte or the
end of the pipe, it kills the rest of the instance and removes the folder.

The kernel ends most of Ray together with the driver. Without the guard, Ray's agents would run for another minute,
trying to report the death of their parent to a process that is dead too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from pathlib import Path

_GIVE_UP_S = 20.0
_LONGEST_LOOK_S = 1.0


def belongs(pid: int, folder: str) -> bool:
    """Return whether a process belongs to the Ray instance in `folder`."""
    try:
        command = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes())
        if f"={folder}/" in command or f"={folder}\0" in command:
            return True
        # Workers replaced their command line by a title; some processes do not name the folder. Both have files in it
        # open: workers under any descriptor, the others as their output.
        titled = command.startswith("ray::")
        written = (fd for fd in Path(f"/proc/{pid}/fd").iterdir() if titled or fd.name in ("1", "2"))
        return any(_target(fd).startswith(f"{folder}/") for fd in written)
    except OSError:
        return False  # the process has ended, or belongs to another user


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # closed meanwhile


def kill_all(folder: str) -> int:
    """Send SIGKILL to every process of the instance; return their number."""
    found = 0
    for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        if not belongs(pid, folder):
            continue
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            # Checked again, because the pid may have been reused before the descriptor was opened.
            if belongs(pid, folder):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                found += 1
        except OSError:
            pass
        finally:
            os.close(pidfd)
    return found


def clean_up(folder: str) -> None:
    """End the instance and remove its folder."""
    left_s = _GIVE_UP_S
    quiet = 0
    # Until two scans in a row find nothing: the first may miss a process that is just starting.
    while quiet < 2 and left_s > 0:
        begin = time.monotonic()
        quiet = 0 if kill_all(folder) else quiet + 1
        time.sleep(0.05)
        # A longer scan means that the machine was suspended or this process was stopped; the rest does not count.
        left_s -= min(time.monotonic() - begin, _LONGEST_LOOK_S)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Wait until the driver ends, then clean up."""
    with contextlib.suppress(OSError):  # the file system has no locks
        fcntl.flock(os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_SH)
    os.read(0, 1)
    clean_up(sys.argv[1])


if __name__ == "__main__":
    main()
