"""Standard descriptors of a program that was started without them, or that lost its terminal.

This module imports only the standard library, because it runs before any other code may open a descriptor.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys

_STANDARD = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_standard_descriptors() -> None:
    """Open /dev/null for each of standard input, output and error that the parent has closed.

    Otherwise the next socket or file would get that number and receive the program's messages. libuv aborts a process
    that closes such a descriptor. The replaced standard input reads as end of file.
    """
    for number, (name, mode) in enumerate(_STANDARD):
        try:
            os.fstat(number)
        except OSError:
            # The system returns the lowest free number, and all lower ones are open by now.
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == number, f"descriptor {number} was taken meanwhile"
            os.set_inheritable(number, True)  # otherwise a child would start without it
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def leave_lost_terminal() -> None:
    """Replace a terminal that has hung up by /dev/null, because each write to it would fail."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for number in range(len(_STANDARD)):
            with contextlib.suppress(OSError):  # the descriptor is closed
                # After a hangup the device is still a character device, but no longer a terminal.
                if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                    os.dup2(null, number)
    finally:
        os.close(null)
