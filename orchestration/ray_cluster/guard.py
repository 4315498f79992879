"""The process that ends a private Ray instance whose driver is gone, however it went.

Run as ``python -I -S guard.py FOLDER``, in a session of its own, with a pipe from the driver as standard
input. At a byte or at end-of-file it kills what is left of the Ray instance that has its files in FOLDER, and removes
the folder, which it holds until then (owner.py). The kernel ends most of Ray together with the driver, but
Ray's agents live on for a minute, in which they try to report the death of their parent to another dead
process.
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
    """True for a process of the Ray instance in `folder`."""
    try:
        command = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes())
        if f"={folder}/" in command or f"={folder}\0" in command:
            return True
        # Others have overwritten their command lines by a title, or were not told the folder; but they write there.
        titled = command.startswith("ray::")
        written = (fd for fd in Path(f"/proc/{pid}/fd").iterdir() if titled or fd.name in ("1", "2"))
        return any(_target(fd).startswith(f"{folder}/") for fd in written)
    except OSError:
        return False  # it has ended, or is another user's


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # closed meanwhile


def kill_all(folder: str) -> int:
    """SIGKILL to every process of the instance; how many there were."""
    found = 0
    for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
        if not belongs(pid, folder):
            continue
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            # Again, now that the descriptor keeps hold of this very process.
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
    # Twice nothing: the first look may miss a process that was just being started.
    while quiet < 2 and left_s > 0:
        begin = time.monotonic()
        quiet = 0 if kill_all(folder) else quiet + 1
        time.sleep(0.05)
        # A look that takes longer is one during which the machine was suspended, or this process stopped.
        left_s -= min(time.monotonic() - begin, _LONGEST_LOOK_S)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Wait for the driver's end, then clean up."""
    with contextlib.suppress(OSError):  # a file system that knows no locks
        fcntl.flock(os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_SH)
    os.read(0, 1)
    clean_up(sys.argv[1])


if __name__ == "__main__":
    main()
