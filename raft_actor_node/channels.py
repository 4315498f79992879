"""What both ends of a gRPC channel agree on: its options, the same for peers and for clients, and metadata."""

from __future__ import annotations

from raft_actor_node.config import TransportSettings

ChannelOptions = list[tuple[str, int]]

ERROR_DETAIL_KEY = "raft-error-bin"
"""In the trailing metadata of a unary call that failed: an ErrorDetail of kv.proto."""

_NEVER_MS = 2**31 - 2
"""The longest time that the library does not take for "off"."""


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
        *silence(transport),
        *message_limits(transport),
    ]


def server_options(transport: TransportSettings) -> ChannelOptions:
    """Options of every server: a port belongs to one process only."""
    return [("grpc.so_reuseport", 0), *silence(transport), *message_limits(transport)]


def silence(transport: TransportSettings) -> ChannelOptions:
    """When to give a connection up on which nothing is acknowledged; both ends send, so both decide.

    The library gives TCP the timeout of its keepalive as TCP_USER_TIMEOUT, if keepalive is on. It is, but never asks:
    that would cost something on every idle link, foreign servers hang up on whoever asks often, and a process that is
    paused would lose its connections.
    """
    return [
        ("grpc.keepalive_time_ms", _NEVER_MS),
        ("grpc.keepalive_timeout_ms", _ms(transport.silence_timeout)),
    ]


def message_limits(transport: TransportSettings) -> ChannelOptions:
    """Both directions: the library's receive limit is 4 MiB, its send limit none."""
    return [
        ("grpc.max_receive_message_length", transport.message_bytes),
        ("grpc.max_send_message_length", transport.message_bytes),
    ]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
