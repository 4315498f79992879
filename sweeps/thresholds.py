"""Conditions on the result of a cell, such as `latency.put.p99: "< 100ms"`.

A metric is a dotted name of a value in the result; times are written with their unit.

A percentile may be a lower bound (latency.py): it is at least so large. Such a value meets `> 1s` and `>= 1s` when the
bound does, and never meets `<` or `<=`: where the bound is below the limit it is not known to be, and what is not known
to be met counts as missed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from raft_actor_node.text import did_you_mean
from raft_actor_node.units import parse_duration
from sweeps.failover import STAGES
from sweeps.latency import KINDS, PERCENTILES

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TIMES: tuple[str, ...] = (
    *(f"latency.{kind}.{name}" for kind in ("all", *KINDS) for name in (*PERCENTILES, "max")),
    *(f"failover.{stage}.{name}" for stage in STAGES for name in ("median", "p90", "max")),
    "outage",
)
"""Metrics that are times. Those of failover are of all failovers of the cell, from the loss of the leader to the stage;
they are not measured where they fall on one that never came to it, and p90 is not of fewer than 10. `outage` is the
longest time within the measurement without success."""
NUMBERS: tuple[str, ...] = (
    "throughput",
    "ok",
    "failed",
    "unknown",
    "dropped",
    "elections",
    "campaigns",
    "faults",
    "faults_asked",
    "failovers",
    *(f"failover.{stage}.count" for stage in STAGES),
    "busy",
)
"""Metrics that are numbers. `throughput` is in operations per second. `elections` were won, `campaigns` begun. Of
`faults_asked` in the schedule, `faults` were put in force. `failovers` are losses of a leader, and the count of a stage
says after how many of them it was reached. `busy` is the share of the host's CPU time that was used, by anything."""


@dataclass(frozen=True)
class Threshold:
    """`metric` must compare as written with `limit`: milliseconds for times, else a number."""

    metric: str
    comparison: str
    limit: float
    written: str

    def miss(self, metrics: Mapping[str, float | None], lower_bounds: Collection[str] = ()) -> str | None:
        """Why the condition is not met, in one line, or None. What was not measured does not meet it, nor does what is
        not known to. `lower_bounds`: metrics that are at least as large as they say."""
        value = metrics.get(self.metric)
        if value is None:
            return f"{self.metric}: was not measured, so it is not {self.written}"
        unit = "ms" if self.metric in TIMES else ""
        meets = _COMPARISONS[self.comparison](value, self.limit)
        if self.metric not in lower_bounds:
            return None if meets else f"{self.metric}: {value:g}{unit} is not {self.written}"
        if self.comparison in (">", ">="):
            return None if meets else f"{self.metric}: at least {value:g}{unit} is not known to be {self.written}"
        return f"{self.metric}: at least {value:g}{unit} is not {'known to be ' if meets else ''}{self.written}"


def parse_threshold(metric: str, condition: Any) -> Threshold:
    """A condition from its text. Raises ValueError with one line."""
    if metric not in TIMES and metric not in NUMBERS:
        known = (*TIMES, *NUMBERS)
        longest = f"{metric}.max"
        raise ValueError(f"{metric} is not a metric{did_you_mean(metric, [longest] if longest in known else known)}")
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
