"""Default names of the nodes of a cluster."""

from __future__ import annotations


def node_names(count: int) -> tuple[str, ...]:
    """Return n1, n2, ... n`count`."""
    return tuple(f"n{number}" for number in range(1, count + 1))
