"""Options and construction of gRPC channels, the same for peers and for clients."""

from __future__ import annotations

from raft_actor_node.config import TransportSettings

ChannelOptions = list[tuple[str, int]]


def channel_options(transport: TransportSettings) -> ChannelOptions:
    """Options of every outgoing channel.

    gRPC's own defaults (20 s to connect, pauses that grow to 120 s) would be longer than any failover.
    """
    first, longest = transport.reconnect_backoff
    return [
        ("grpc.initial_reconnect_backoff_ms", _ms(first)),
        ("grpc.max_reconnect_backoff_ms", _ms(longest)),
        # Despite its name this is the time that one attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", _ms(transport.connect_timeout)),
        # A retry by the library would be a second attempt that nobody has counted.
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        # Otherwise all channels of a process to one address share one connection.
        ("grpc.use_local_subchannel_pool", 1),
        *message_limits(transport),
    ]


def server_options(transport: TransportSettings) -> ChannelOptions:
    """Options of every server: a port belongs to one process only."""
    return [("grpc.so_reuseport", 0), *message_limits(transport)]


def message_limits(transport: TransportSettings) -> ChannelOptions:
    """Both directions: the library's receive limit is 4 MiB, its send limit none."""
    return [
        ("grpc.max_receive_message_length", transport.message_bytes),
        ("grpc.max_send_message_length", transport.message_bytes),
    ]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
