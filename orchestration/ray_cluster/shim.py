"""The launcher of a node: ties the process to its owner, then executes the command.

Run as ``python -I -S shim.py OWNER_PID COMMAND...``. It imports nothing of this project and nothing slow.
Its settings survive the exec, so they apply to foreign programs as well.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Execute the command, or exit with 126 or 127 as a shell would."""
    owner, command = int(sys.argv[1]), sys.argv[2:]
    # SIGKILL, because no other signal ends a process that was stopped by SIGSTOP.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != owner:
        sys.exit("the owner was gone before the node began")
    # Ray blocks SIGINT and lowers the priority of its workers; a node must behave as if started by hand.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:  # noqa: SIM105 - importing contextlib would delay the start of every node
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except PermissionError:
        pass
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command is the user's own
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if error.errno == errno.ENOENT else 126)


if __name__ == "__main__":
    main()
