"""Process 1 of a host of the testbed: makes the host's folders its own, and is the host's life.

Run as ``unshare ... python -I -S init.py FOLDER NAME SHARED...``, with a pipe from the owner as standard input. When
this process ends, because the pipe reaches its end with its owner or by SIGKILL, the kernel ends every process of
the host, and with the last one go its mounts, its interface and its namespaces.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - of this host, which makes them its own


def main() -> None:
    """Set the host up, say so, and wait for the owner's end."""
    folder, name, *shared = sys.argv[1:]
    socket.sethostname(name)
    mount("--bind", f"{folder}/../names", "/etc/hosts")
    for place in TEMPORARY:
        private = Path(folder + place)
        private.mkdir(parents=True)
        private.chmod(0o1777)
        # What all hosts see must not vanish with the folder that contains it.
        for path in (path for path in shared if Path(place) in Path(path).parents):
            inside = private / Path(path).relative_to(place)
            inside.mkdir(parents=True, exist_ok=True)
            mount("--rbind", path, inside)
        mount("--rbind", private, place)
    mount("-t", "tmpfs", "tmpfs", "/dev/shm")  # noqa: S108
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans of the host come to process 1; the kernel buries them
    os.write(1, b"ready\n")
    while os.read(0, 1):
        pass


def mount(*words: str | Path) -> None:
    """As mount(8), in the mount namespace of this host."""
    subprocess.run(["mount", *words], check=True)  # noqa: S607


if __name__ == "__main__":
    main()
