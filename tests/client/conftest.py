"""Fixtures: fake nodes and engines, stopped after the test.

The tests of a module share one event loop: gRPC has one poller per process, which stumbles over what is
left to deliver to a loop that was closed, and then delivers late to the next one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest_asyncio

from raft_actor_node.config import ClientSettings
from raft_actor_node.kv.store import Store
from tests.client.fakes import CALM, FakeNode, Load, StartLoad, StartNodes, book


@pytest_asyncio.fixture(loop_scope="module")
async def nodes() -> AsyncIterator[StartNodes]:
    """Start fake nodes that share one store: `n1, n2 = await nodes(2)`."""
    async with AsyncExitStack() as stack:

        async def start(count: int) -> list[FakeNode]:
            store = Store(value_bytes=1 << 20)
            started = [FakeNode(store) for _ in range(count)]
            for node in started:
                await node.start()
                stack.push_async_callback(node.stop)
            return started

        yield start


@pytest_asyncio.fixture(loop_scope="module")
async def load() -> AsyncIterator[StartLoad]:
    """Start an engine with a load: `load = await load([n1, n2])`; the nodes' ids are n1, n2, ... in this order."""
    async with AsyncExitStack() as stack:

        async def start(targets: Any, settings: ClientSettings = CALM, **options: Any) -> Load:
            started = Load(book(targets) if isinstance(targets, list) else targets, settings, **options)
            started.engine.start()
            stack.push_async_callback(started.engine.close)
            return started

        yield start
