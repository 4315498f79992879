"""Fixtures: clusters of real node processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.local import STEADY, LocalCluster


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """n1 leads, whatever happens."""
    async with LocalCluster(tmp_path, 1) as cluster:
        await cluster.leader()
        yield cluster


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, 3) as cluster:
        yield cluster


@pytest.fixture
async def five(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, 5) as cluster:
        yield cluster


@pytest.fixture
async def steady_three(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, 3, STEADY) as cluster:
        yield cluster


@pytest.fixture
async def steady_five(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path, 5, STEADY) as cluster:
        yield cluster
