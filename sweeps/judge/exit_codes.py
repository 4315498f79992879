"""Exit codes of `sweep`, and their precedence."""

from __future__ import annotations

EXIT_OK, EXIT_FAILED, EXIT_VIOLATED, EXIT_UNKNOWN, EXIT_INTERRUPTED = 0, 1, 3, 4, 130
"""Exit codes of `sweep`; 2 is usage or spec. If several apply: 130 before 2, 3, 1, 4 and 0."""
_WORST_FIRST = (EXIT_INTERRUPTED, 2, EXIT_VIOLATED, EXIT_FAILED, EXIT_UNKNOWN, EXIT_OK)


def worse(*codes: int) -> int:
    """Return the exit code that takes precedence."""
    return next((code for code in _WORST_FIRST if code in codes), EXIT_FAILED)


def ends_with(error: Exception, found: int) -> None:
    """Set the exit code of an error that ends the program: the worse of its own and `found`.

    `found` is the exit code of the results so far. A violation keeps its exit code even if it cannot be written or
    printed.
    """
    error.exit_code = worse(found, getattr(error, "exit_code", EXIT_FAILED))  # type: ignore[attr-defined]
