"""Channel options."""

from __future__ import annotations

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


async def test_a_port_belongs_to_one_server() -> None:
    first, second = (grpc.aio.server(options=server_options(TransportSettings())) for _ in range(2))
    port = first.add_insecure_port("127.0.0.1:0")
    with pytest.raises(RuntimeError, match="bind"):
        second.add_insecure_port(f"127.0.0.1:{port}")
    await first.stop(None)
    await second.stop(None)
