"""Where a node looks for its peers when they move."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from raft_actor_node.config import NodeConfig, TransportSettings
from raft_actor_node.runtime.clock import RealClock
from raft_actor_node.runtime.faults import LinkFaults
from raft_actor_node.runtime.transport import Transport
from raft_actor_node.units import Range


class Port:
    """Somewhere to connect to; it notes that somebody did."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.address = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.called.set()
        writer.close()


@asynccontextmanager
async def listening() -> AsyncIterator[Port]:
    """A port of this host, as long as the context lasts."""
    port = Port()
    server = await asyncio.start_server(port, "127.0.0.1", 0)
    try:
        port.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield port
    finally:
        server.close()


async def test_older_news_of_an_address_is_not_believed() -> None:
    """A later epoch is a later life of the peer; its earlier address may be somebody else's by now."""
    config = NodeConfig.model_validate(
        {"cluster_id": "c", "node_id": "n1", "members": ["n1", "n2"], "storage": {"dir": "unused"}}
    )
    quick = TransportSettings(reconnect_backoff=Range(0.001, 0.002), connect_timeout=0.2)
    config = config.model_copy(update={"transport": quick})
    faults = LinkFaults("n1", config.members, (), random.Random(0))
    transport = Transport(config, faults, lambda message: None, RealClock())
    try:
        async with asyncio.timeout(10), listening() as new, listening() as old, listening() as newest:
            transport.update_addresses({"n2": (new.address, 2)})
            await new.called.wait()
            transport.update_addresses({"n2": (old.address, 1)})
            new.called.clear()
            await new.called.wait()  # it goes on knocking there
            transport.update_addresses({"n2": (newest.address, 3)})
            await newest.called.wait()
            assert not old.called.is_set()
    finally:
        await transport.close()
