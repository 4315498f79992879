"""What all tests share: when they end, nothing of them is left."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from orchestration.ray_cluster.owner import owner
from tests.remains import MARK, at_last, left, leftovers


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The first fixture of a session, so the last one to end: no process, no folder, no Ray; see remains.py."""
    before = leftovers()
    os.environ[MARK] = owner()
    yield
    found = at_last(lambda: left(before))
    assert not found, "the tests have left:\n" + "\n".join(found)
