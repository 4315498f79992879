"""What a run tells of itself to whatever displays it."""

from __future__ import annotations

from typing import Protocol, Self

from sweeps.run.progress import Progress


class View(Protocol):
    """A display of a run: a context manager that is told of events."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def note(self, text: str) -> None:
        """Something a person wants to know now."""

    def cell_done(self, progress: Progress) -> None:
        """The last of `progress.done` is new."""

    def cell_judged(self, progress: Progress, position: int) -> None:
        """The one at this position of `progress.done` has got the verdict it waited for."""
