"""Output of `sweep`: foreign text cannot control the terminal, and the reader of a pipe may close it at any time."""

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
"""The exit code that a shell reports for a program ended by this signal."""
_WIDTH = 160
"""Width of output to pipes and files; wide enough that lines are not folded."""


class SafeConsole(Console):
    """A console that shows control characters in foreign text instead of executing them."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        return super()._render_buffer(
            each if each.control else Segment(printable(each.text, keep="\n"), each.style) for each in buffer
        )

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, so that the program cleans up before it ends."""
        raise BrokenPipeError


def console() -> Console:
    """Return a console for standard output."""
    found = SafeConsole()
    return found if found.is_terminal else SafeConsole(width=_WIDTH)


def echo(text: str, *, err: bool = False) -> None:
    """Print text, with control characters made visible."""
    click.echo(printable(text, keep="\n"), err=err)


class _Descriptor(io.FileIO):
    """Standard output that remembers why a write failed: the error of a write does not name the file."""

    problem: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.problem = error
            raise


class Output:
    """Standard output during a program.

    If a write failed, because the disk was full for example, `end` reports the error once. If the reader closed the
    pipe, `end` reports nothing and only changes the exit code.
    """

    def __init__(self) -> None:
        self._raw: _Descriptor | None = None
        with contextlib.suppress(OSError, ValueError, AttributeError):  # standard output is closed, or is not a file
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
        """The error of the failed write, or None."""
        return None if self._raw is None else self._raw.problem

    def end(self, code: str | int | None) -> str | int | None:
        """Flush the output of a program that would exit with `code`; return the code to exit with instead."""
        if self._raw is None:
            return code
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        if self.problem is None:
            return code
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._raw.fileno())  # Python still flushes stdout at exit
        if isinstance(self.problem, BrokenPipeError):
            return EXIT_PIPE
        echo(f"sweep: standard output: {self.problem.strerror}", err=True)
        return code or 1
