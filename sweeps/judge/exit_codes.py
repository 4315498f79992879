"""Exit codes of `sweep`, and which one counts where several hold."""

from __future__ import annotations

EXIT_OK, EXIT_FAILED, EXIT_VIOLATED, EXIT_UNKNOWN, EXIT_INTERRUPTED = 0, 1, 3, 4, 130
"""Exit codes of `sweep`; 2 is usage or spec. Of several that fit: 130 before 2, 3, 1, 4 and 0."""
_WORST_FIRST = (EXIT_INTERRUPTED, 2, EXIT_VIOLATED, EXIT_FAILED, EXIT_UNKNOWN, EXIT_OK)


def worse(*codes: int) -> int:
    """The exit code that counts where several hold."""
    return next((code for code in _WORST_FIRST if code in codes), EXIT_FAILED)


def ends_with(error: Exception, found: int) -> None:
    """Have an error that ends the program exit with the worse of its own exit code and `found`, that of the results so
    far: a violation stays one, also where it cannot be written or printed."""
    error.exit_code = worse(found, getattr(error, "exit_code", EXIT_FAILED))  # type: ignore[attr-defined]
