"""gRPC channel options and metadata keys, shared by nodes and clients."""

from __future__ import annotations

from raft_actor_node.config import TransportSettings

ChannelOptions = list[tuple[str, int]]

ERROR_DETAIL_KEY = "raft-error-bin"
"""Key in the trailing metadata of a failed unary call; the value is an ErrorDetail of kv.proto."""

_NEVER_MS = 2**31 - 2
"""Longest keepalive time, in milliseconds; gRPC interprets any longer time as "off"."""


def channel_options(transport: TransportSettings) -> ChannelOptions:
    """Return the options of every outgoing channel.

    gRPC's defaults (20 s to connect, pauses that grow to 120 s) are longer than any failover.
    """
    first, longest = transport.reconnect_backoff
    return [
        ("grpc.initial_reconnect_backoff_ms", _ms(first)),
        ("grpc.max_reconnect_backoff_ms", _ms(longest)),
        # Despite its name, this limits the time of one connection attempt.
        ("grpc.min_reconnect_backoff_ms", _ms(transport.connect_timeout)),
        # A retry by gRPC would be an attempt that the client does not count.
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        # Otherwise all channels from a process to the same address share a connection.
        ("grpc.use_local_subchannel_pool", 1),
        *silence(transport),
        *message_limits(transport),
    ]


def server_options(transport: TransportSettings) -> ChannelOptions:
    """Return the options of every server. Without SO_REUSEPORT, a port belongs to a single process."""
    return [("grpc.so_reuseport", 0), *silence(transport), *message_limits(transport)]


def silence(transport: TransportSettings) -> ChannelOptions:
    """Return the options that close a connection on which the peer acknowledges nothing.

    Both ends send, so both ends need the options. If keepalive is on, gRPC sets TCP_USER_TIMEOUT to the keepalive
    timeout. Keepalive is on here, but its pings are never due. Pings would cost bandwidth on every idle link and would
    drop the connections of a paused process; foreign servers disconnect clients that ping often.
    """
    return [
        ("grpc.keepalive_time_ms", _NEVER_MS),
        ("grpc.keepalive_timeout_ms", _ms(transport.silence_timeout)),
    ]


def message_limits(transport: TransportSettings) -> ChannelOptions:
    """Return the size limits of both directions. gRPC's defaults: 4 MiB to receive, no limit to send."""
    return [
        ("grpc.max_receive_message_length", transport.message_bytes),
        ("grpc.max_send_message_length", transport.message_bytes),
    ]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
