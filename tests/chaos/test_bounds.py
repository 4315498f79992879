"""The time limit of a check: it counts only time in which the check runs."""

from __future__ import annotations

import time

import pytest

from chaos.linearizability.bounds import PAUSE_S, Bounds, OutOfBounds


def test_a_pause_of_the_judge_is_none_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While its process is stopped, the judge loses no time; its working time stays limited."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    bounds = Bounds(end=now + 10.0)
    now += PAUSE_S - 1.0
    bounds.look()
    now += 1000.0
    bounds.look()
    now += 10.0 - PAUSE_S
    bounds.look()
    now += 2.0
    with pytest.raises(OutOfBounds):
        bounds.look()
