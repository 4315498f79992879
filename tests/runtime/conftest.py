"""Shows at the end of a session what happened to damaged logs."""

from __future__ import annotations

import pytest

from tests.runtime.torture import OUTCOMES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if OUTCOMES:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(OUTCOMES.items()))
        terminalreporter.write_line(f"damaged logs: {counts}")
