"""Steps into a host of the testbed, and becomes the parent of a command there.

Run as ``python -I -S enter.py PID COMMAND...`` with the id of the host's process 1. SIGINT and SIGTERM are passed on
to the command, which also goes when this process goes; the exit code is the command's. (nsenter would die of the
signal and leave the command behind.)
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from pathlib import Path

NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000 | 0x00000080
"""CLONE_NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET, NEWTIME."""
PR_SET_PDEATHSIG = 1
PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Run the command in the host, and exit as it does."""
    pid, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    folder = Path.cwd()
    host = os.pidfd_open(pid)
    if libc.setns(host, NAMESPACES) != 0:
        sys.exit(f"cannot enter the host of process {pid}: {os.strerror(ctypes.get_errno())}")
    os.close(host)
    os.chdir(folder)  # setns went to the root
    ours, parents = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until each of the two has its way to take them
    child = os.fork()
    if child == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.close(parents)
        if select.select([ours], [], [], 0)[0]:
            os._exit(1)  # the parent has ended before
        for number in (*PASSED_ON, signal.SIGPIPE):
            # Python ignores the last, whoever started the tests in the background perhaps the first.
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
