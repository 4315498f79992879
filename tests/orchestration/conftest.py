"""One private Ray for all tests that do not kill it: it takes seconds to start."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from orchestration import RayBackend
from tests.ray_head import private_ray

FOREIGN_NODE = (sys.executable, str(Path(__file__).with_name("foreign_node.py")))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def backend() -> AsyncIterator[RayBackend]:
    async with private_ray() as backend:
        yield backend


@pytest.fixture
def foreign() -> tuple[str, ...]:
    """The command of a program that is not ours."""
    return FOREIGN_NODE
