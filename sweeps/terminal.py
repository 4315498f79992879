"""What `sweep` prints: nothing of it can command the terminal but its own colours, and a reader may go at any time."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterable

import click
from rich.console import Console
from rich.segment import Segment

from raft_actor_node.text import printable

EXIT_PIPE = 128 + signal.SIGPIPE
"""As a shell tells of a program that the signal ended."""
_WIDTH = 160
"""A pipe or a file has no width of its own, so that nothing needs to be folded there."""


class SafeConsole(Console):
    """A console on which foreign text shows as what it is."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            each if each.control else Segment(printable(each.text, keep="\n"), each.style) for each in buffer
        )

    def on_broken_pipe(self) -> None:
        """Let the error end what is going on, in order."""
        raise BrokenPipeError


def console() -> Console:
    """Standard output."""
    found = SafeConsole()
    return found if found.is_terminal else SafeConsole(width=_WIDTH)


def echo(text: str, *, err: bool = False) -> None:
    """Print lines of text."""
    click.echo(printable(text, keep="\n"), err=err)


def reader_is_gone() -> bool:
    """Whether what reads standard output, such as `head`, has ended."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # it is closed, or no file
        return False


def flush() -> bool:
    """Print what is left; False when the reader is gone. What is left then goes nowhere, also at Python's own end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    except (OSError, ValueError, AttributeError):
        pass
    return True
