"""Tests on hosts out of namespaces: marked, skipped where none can be made, and nothing may be left of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.testbed.hosts import missing, prefix, reap, remains


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the marks
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark all tests of this folder: `make testbed` runs them, `make test` does not."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.testbed)


@pytest.hookimpl(tryfirst=True)  # before the fixtures, which would bring hosts up
def pytest_runtest_setup() -> None:
    """Skip, and say why."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def nothing_remains() -> Iterator[None]:
    """After all tests, those that failed too: no folder and no process, so no namespace and no interface."""
    reap()
    yield
    assert remains(prefix(os.getpid())) == []
    reap()
