"""The interface between a run and its display."""

from __future__ import annotations

from typing import Protocol, Self

from sweeps.run.progress import Progress


class View(Protocol):
    """A display of a run: a context manager that receives events."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def note(self, text: str) -> None:
        """Show a message that matters now."""

    def cell_done(self, progress: Progress) -> None:
        """Show the newest result, the last of `progress.done`."""

    def cell_judged(self, progress: Progress, position: int) -> None:
        """Show the deferred verdict of the result at this position of `progress.done`."""
