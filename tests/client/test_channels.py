"""Channel options."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest

from raft_actor_node.channels import channel_options, server_options
from raft_actor_node.config import TransportSettings
from raft_actor_node.units import Range


def test_options_follow_the_settings() -> None:
    transport = TransportSettings(message_bytes=1 << 20, connect_timeout=0.75, reconnect_backoff=Range(0.0001, 0.25))
    options = dict(channel_options(transport))
    assert len(options) == len(channel_options(transport)), "no option twice"
    assert options["grpc.initial_reconnect_backoff_ms"] == 1
    assert options["grpc.max_reconnect_backoff_ms"] == 250
    assert options["grpc.min_reconnect_backoff_ms"] == 750
    assert options["grpc.max_receive_message_length"] == options["grpc.max_send_message_length"] == 1 << 20
    assert (options["grpc.enable_retries"], options["grpc.enable_http_proxy"]) == (0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
async def test_both_ends_give_up_on_one_that_acknowledges_nothing() -> None:
    """tests/testbed/test_links.py shows why this is needed."""
    server = grpc.aio.server(options=server_options(TransportSettings(silence_timeout=0.75)))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = channel_options(TransportSettings(silence_timeout=0.5))
    async with asyncio.timeout(10), grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        await channel.channel_ready()
        timeouts = _user_timeouts()
    await server.stop(None)
    assert [timeout for (_, there), timeout in timeouts.items() if there == port] == [500]
    assert [timeout for (here, _), timeout in timeouts.items() if here == port] == [750]


def _user_timeouts() -> dict[tuple[int, int], int]:
    """The TCP user timeouts in ms of all connections of this process, by local and remote port."""
    found = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(descriptor.name))) as end:
            if end.family in (socket.AF_INET, socket.AF_INET6):
                ends = end.getsockname()[1], end.getpeername()[1]
                found[ends] = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    return found


async def test_a_port_belongs_to_one_server() -> None:
    first, second = (grpc.aio.server(options=server_options(TransportSettings())) for _ in range(2))
    port = first.add_insecure_port("127.0.0.1:0")
    with pytest.raises(RuntimeError, match="bind"):
        second.add_insecure_port(f"127.0.0.1:{port}")
    await first.stop(None)
    await second.stop(None)
