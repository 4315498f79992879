"""Fixtures that all tests of sweeps share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.run import runner
from sweeps.spec.parameters import CheckSettings

GOOD: dict[str, Any] = {"verdict": "ok", "reason": "", "findings": []}


class FakeJudge:
    """Replaces the judge's process; reports the verdicts that a test sets."""

    def __init__(self) -> None:
        self.verdict = GOOD
        self.look: Callable[[Path, CheckSettings], Awaitable[dict[str, Any]]] = self._tell

    async def __call__(self, folder: Path, checks: CheckSettings) -> dict[str, Any]:
        assert (folder / "result.json").is_file(), "the files are there before they are judged"
        return await self.look(folder, checks)

    async def _tell(self, folder: Path, checks: CheckSettings) -> dict[str, Any]:
        return self.verdict


@pytest.fixture(autouse=True)
def judge(monkeypatch: pytest.MonkeyPatch) -> FakeJudge:
    """Replace the judge: starting its process for each cell would dominate the time of these tests."""
    fake = FakeJudge()
    monkeypatch.setattr(runner, "judged", fake)
    return fake
