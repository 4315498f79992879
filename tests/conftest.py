"""What all tests share: when they end, nothing of them is left; how long an example takes is no finding."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from orchestration.ray_cluster.owner import owner
from tests.remains import MARK, at_last, left, leftovers

# The clock measures the machine, and whoever else is busy on it.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


ROOT = Path(__file__).parents[1]
OF_THE_USER = ("RAY_ADDRESS", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTHONOPTIMIZE", "PYTHONSAFEPATH")
"""Variables that change which Ray a program uses, what it prints, or how it starts: a test sets those it means."""


@pytest.fixture(scope="session", autouse=True)
def the_same_place_for_all() -> Iterator[None]:
    """Wherever and however pytest was started: programs of tests find this project and each other from its root."""
    for name in OF_THE_USER:
        os.environ.pop(name, None)
    before = Path.cwd()
    os.chdir(ROOT)
    # With nohup, all that the tests start would ignore SIGHUP. A handler is not inherited: they get the default.
    hangup = signal.getsignal(signal.SIGHUP)
    if hangup is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, hangup)
    os.chdir(before)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The first fixture of a session, so the last one to end: no process, no folder, no Ray; see remains.py."""
    before = leftovers()
    os.environ[MARK] = owner()
    yield
    found = at_last(lambda: left(before))
    assert not found, "the tests have left:\n" + "\n".join(found)
