"""What `sweep` prints: nothing of it can command the terminal but its own colours, and a reader may go at any time."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any

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


class _Descriptor(io.FileIO):
    """Standard output, which remembers why it could not be written: the error of a write says not of what."""

    problem: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.problem = error
            raise


class Output:
    """Standard output for the time of a program. What does not reach it, for its reader has read enough, or its disk is
    full, is told once, at the end."""

    def __init__(self) -> None:
        self._raw: _Descriptor | None = None
        with contextlib.suppress(OSError, ValueError, AttributeError):  # it is closed, or no file
            sys.stdout.flush()
            self._raw = _Descriptor(sys.stdout.fileno(), "wb", closefd=False)
            sys.stdout = io.TextIOWrapper(
                io.BufferedWriter(self._raw),
                sys.stdout.encoding,
                sys.stdout.errors,
                line_buffering=self._raw.isatty(),
            )

    @property
    def problem(self) -> OSError | None:
        """Why it could not be written; None when it could."""
        return None if self._raw is None else self._raw.problem

    def end(self, code: str | int | None) -> str | int | None:
        """Print what is left of a program that would exit with `code`; what it exits with now."""
        if self._raw is None:
            return code
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        if self.problem is None:
            return code
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._raw.fileno())  # for what Python still tries to print
        if isinstance(self.problem, BrokenPipeError):
            return EXIT_PIPE
        echo(f"sweep: standard output: {self.problem.strerror}", err=True)
        return code or 1
