"""Network addresses: the only module that joins and splits host and port.

An IPv6 address contains colons, so it needs brackets before a port: [::1]:41233 (RFC 3986, 3.2.2).
"""

from __future__ import annotations

import ipaddress
import re

ALLOWED = "must be host:port, such as 127.0.0.1:41233 or [::1]:41233"

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_MOST_PORT = 65535


def join_address(host: str, port: int) -> str:
    """Return "host:port", with brackets around an IPv6 address. `host` may have the brackets already."""
    host = _bare(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: object) -> tuple[str, int]:
    """Return the host (without brackets) and the port of "host:port".

    Raises ValueError with a one-line message. A missing port is an error because gRPC would assume 443.
    """
    if not isinstance(address, str):
        raise ValueError(f"{ALLOWED}, not {address!r}")
    scheme, separator, _ = address.partition("://")
    if separator:
        raise ValueError(f"{ALLOWED}, not {address!r}: leave out {scheme}://")
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        raise ValueError(f"{ALLOWED}, not {address!r}: the port is missing")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        why = "an IPv6 address needs brackets" if _is_ipv6(host) or _is_ipv6(address) else "it has more than one colon"
        raise ValueError(f"{ALLOWED}, not {address!r}: {why}")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= _MOST_PORT):
        raise ValueError(f"{ALLOWED}, not {address!r}: the port must be a number from 1 to {_MOST_PORT}")
    try:
        return checked_host(host), int(port)
    except ValueError as error:
        raise ValueError(f"{ALLOWED}, not {address!r}: {error}") from None


def checked_address(address: object) -> str:
    """Return an address as `join_address` writes it. Raises ValueError with a one-line message."""
    return join_address(*split_address(address))


def checked_host(host: str) -> str:
    """Return the name or IP address of a host, without brackets. Raises ValueError with a one-line message."""
    bare = _bare(host)
    if ":" in bare or bare != host:
        try:
            return str(ipaddress.IPv6Address(bare))
        except ValueError:
            raise ValueError(f"{host!r} is not an IPv6 address, nor a host name without a port") from None
    if _NAME.fullmatch(bare) is None:
        raise ValueError(f"{host!r} is not a host name or an IP address")
    return bare


def every_interface(address: str) -> str:
    """Return the wildcard host to listen on: "::" if `address` is an IPv6 address, otherwise "0.0.0.0".

    `address` is the name or IP address at which other hosts reach this host.
    """
    return "::" if ":" in address else "0.0.0.0"  # noqa: S104 - nodes on other hosts must reach this node


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host
