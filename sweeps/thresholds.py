"""Conditions on the result of a cell, such as `latency.put.p99: "< 100ms"`.

A metric is a dotted name of a value in the result; times are written with their unit.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raft_actor_node.units import parse_duration
from sweeps.latency import KINDS, PERCENTILES

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TIMES: tuple[str, ...] = (
    *(f"latency.{kind}.{name}" for kind in ("all", *KINDS) for name in (*PERCENTILES, "max")),
    *(f"failover.{stage}" for stage in ("detected", "elected", "heard", "committed", "succeeded")),
    "outage",
)
"""Metrics that are times; those of failover are the worst of the cell, `outage` the longest time without success."""
NUMBERS: tuple[str, ...] = (
    "throughput",
    "ok",
    "failed",
    "unknown",
    "dropped",
    "elections",
    "campaigns",
    "failovers",
    "busy",
)
"""Metrics that are numbers; throughput is in operations per second, `elections` were won, `campaigns` begun, and
`busy` is the share of the host's CPU time that was used, by anything."""


@dataclass(frozen=True)
class Threshold:
    """`metric` must compare as written with `limit`: milliseconds for times, else a number."""

    metric: str
    comparison: str
    limit: float
    written: str

    def miss(self, metrics: Mapping[str, float | None]) -> str | None:
        """Why the condition is not met, in one line, or None. What was not measured does not meet it."""
        value = metrics.get(self.metric)
        if value is None:
            return f"{self.metric}: was not measured, so it is not {self.written}"
        if _COMPARISONS[self.comparison](value, self.limit):
            return None
        unit = "ms" if self.metric in TIMES else ""
        return f"{self.metric}: {value:g}{unit} is not {self.written}"


def parse_threshold(metric: str, condition: Any) -> Threshold:
    """A condition from its text. Raises ValueError with one line."""
    if metric not in TIMES and metric not in NUMBERS:
        close = difflib.get_close_matches(metric, (*TIMES, *NUMBERS), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{metric} is not a metric{hint}")
    match = re.fullmatch(r"(<=|>=|<|>)\s*(\S.*)", condition.strip()) if isinstance(condition, str) else None
    if match is None:
        raise ValueError(f"{metric}: {condition!r} is not a condition; write <, <=, > or >= and a limit: '< 100ms'")
    if metric in TIMES:
        limit = parse_duration(match[2]) * 1e3
    elif re.fullmatch(r"\d+(\.\d+)?", match[2]):
        limit = float(match[2])
    else:
        raise ValueError(f"{metric}: {match[2]!r} is not a number")
    return Threshold(metric, match[1], limit, condition.strip())
