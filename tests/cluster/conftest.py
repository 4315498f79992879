"""Fixtures: clusters of real node processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.local import LocalCluster


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, 3) as cluster:
        yield cluster


@pytest.fixture
async def five(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, 5) as cluster:
        yield cluster
