"""The standard descriptors of a program that was started without them, or whose terminal has gone.

Only the standard library is imported here: this runs before anything else may open a descriptor.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys

_STANDARD = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_standard_descriptors() -> None:
    """Open /dev/null in the place of standard input, output and error where the parent has closed them.

    Otherwise the next socket or file would get such a number, and messages for people would go there; libuv aborts a
    process that closes one. A closed standard input reads as ended.
    """
    for number, (name, mode) in enumerate(_STANDARD):
        try:
            os.fstat(number)
        except OSError:
            # The system gives the lowest free number, and those below are open by now.
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == number, f"descriptor {number} was taken meanwhile"
            os.set_inheritable(number, True)  # as the others are: a child would start without it again
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def leave_lost_terminal() -> None:
    """Put /dev/null in the place of a terminal that has hung up: each write to it would fail."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for number in range(len(_STANDARD)):
            with contextlib.suppress(OSError):  # it is closed
                # After a hangup the device is still a character device, but no terminal any more.
                if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                    os.dup2(null, number)
    finally:
        os.close(null)
