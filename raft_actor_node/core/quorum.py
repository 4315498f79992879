"""Quorum arithmetic over one value per voter."""

from __future__ import annotations

from collections.abc import Iterable


def quorum_size(voters: int) -> int:
    """Return the smallest majority: 2 of 3, 3 of 4, 3 of 5."""
    return voters // 2 + 1


def largest_minority(voters: int) -> int:
    """Return the largest number of voters whose loss leaves a quorum: 1 of 3, 1 of 4, 2 of 5."""
    return voters - quorum_size(voters)


def reached_by_quorum(values: Iterable[float]) -> float:
    """Return the largest value that a majority has reached, given one value per voter.

    For match indexes, this is the index up to which a majority holds the log (section 5.3). For contact times, it is
    the time since which a majority has been heard.
    """
    ordered = sorted(values, reverse=True)
    return ordered[quorum_size(len(ordered)) - 1]
