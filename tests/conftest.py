"""Fixtures of all tests: a fixed environment, and a check that no process, folder or Ray remains at the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from orchestration.ray_cluster.owner import owner
from tests.remains import MARK, at_last, left, leftovers

# A deadline would measure the load of the machine, not the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


ROOT = Path(__file__).parents[1]
OF_THE_USER = ("RAY_ADDRESS", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTHONOPTIMIZE", "PYTHONSAFEPATH")
"""Variables that change which Ray a program uses, what it prints, or how it starts. A test that needs one sets it."""


@pytest.fixture(scope="session", autouse=True)
def the_same_place_for_all() -> Iterator[None]:
    """Run all tests from the root of this project, in the same environment, however pytest was started."""
    for name in OF_THE_USER:
        os.environ.pop(name, None)
    before = Path.cwd()
    os.chdir(ROOT)
    # Under nohup, child processes would inherit the ignored SIGHUP. With a handler here, they get the default.
    hangup = signal.getsignal(signal.SIGHUP)
    if hangup is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, hangup)
    os.chdir(before)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Check that the session leaves no process, folder or Ray (remains.py). As its first fixture, it ends last."""
    before = leftovers()
    os.environ[MARK] = owner()
    yield
    found = at_last(lambda: left(before))
    assert not found, "these remain after the tests:\n" + "\n".join(found)
