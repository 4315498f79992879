"""Enter a host of the testbed and run a command there.

Run as ``python -I -S enter.py PID COMMAND...`` with the pid of the host's process 1. This process forwards SIGINT and
SIGTERM to the command and returns its exit code. When this process ends, the kernel kills the command. (nsenter would
die of the signal and leave the command running.)
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from pathlib import Path

NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000 | 0x00000080
"""The namespaces of a host: CLONE_NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET, NEWTIME."""
PR_SET_PDEATHSIG = 1
PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Run the command in the host, and exit with its exit code."""
    pid, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    folder = Path.cwd()
    host = os.pidfd_open(pid)
    if libc.setns(host, NAMESPACES) != 0:
        sys.exit(f"cannot enter the host of process {pid}: {os.strerror(ctypes.get_errno())}")
    os.close(host)
    os.chdir(folder)  # setns changed to the root folder
    ours, parents = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until parent and child have set their handlers
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.close(parents)
        if select.select([ours], [], [], 0)[0]:
            os._exit(1)  # the parent ended before prctl took effect
        for number in (*PASSED_ON, signal.SIGPIPE):
            # Python ignores SIGPIPE, and a shell that starts the tests in the background may ignore SIGINT.
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        try:
            os.execvp(command[0], command)  # noqa: S606
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
            os._exit(127)
    for number in PASSED_ON:
        signal.signal(number, lambda received, _: os.kill(child, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(exit_code if exit_code >= 0 else 128 - exit_code)


if __name__ == "__main__":
    main()
