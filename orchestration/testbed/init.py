"""Process 1 of a testbed host: sets up the host's private folders; the host exists as long as this process.

Run as ``unshare ... python -I -S init.py FOLDER NAME SHARED...``, with a pipe from the owner as standard input. This
process ends at end-of-file, when the owner is gone, or by SIGKILL. Then the kernel ends every process of the host, and
with the last process it removes the mounts, the interface and the namespaces.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - they become private to the host


def main() -> None:
    """Set the host up, report that, and wait until the owner ends."""
    folder, name, *shared = sys.argv[1:]
    socket.sethostname(name)
    mount("--bind", f"{folder}/../names", "/etc/hosts")
    for place in TEMPORARY:
        private = Path(folder + place)
        private.mkdir(parents=True)
        private.chmod(0o1777)
        # Shared folders inside `place` must stay visible after the private folder covers `place`.
        for path in (path for path in shared if Path(place) in Path(path).parents):
            inside = private / Path(path).relative_to(place)
            inside.mkdir(parents=True, exist_ok=True)
            mount("--rbind", path, inside)
        mount("--rbind", private, place)
    mount("-t", "tmpfs", "tmpfs", "/dev/shm")  # noqa: S108
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # process 1 inherits orphans; with SIG_IGN the kernel reaps them
    os.write(1, b"ready\n")
    while os.read(0, 1):
        pass


def mount(*words: str | Path) -> None:
    """Run mount(8) in the mount namespace of this host."""
    subprocess.run(["mount", *words], check=True)  # noqa: S607


if __name__ == "__main__":
    main()
