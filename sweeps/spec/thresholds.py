"""Conditions on the result of a cell, such as `latency.put.p99: "< 100ms"`.

The metrics are those of metrics.py. Times are written with their unit.

A percentile may be a lower bound (analysis/latency.py). A lower bound meets `> 1s` or `>= 1s` if the bound itself is
large enough. It never meets `<` or `<=`, because the true value may be above the limit.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from raft_actor_node.text import did_you_mean
from raft_actor_node.units import parse_duration
from sweeps.spec.metrics import METRICS

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Threshold:
    """A comparison of `metric` with `limit`, in milliseconds for times, otherwise a plain number."""

    metric: str
    comparison: str
    limit: float
    written: str

    def miss(self, metrics: Mapping[str, float | None], lower_bounds: Collection[str] = ()) -> str | None:
        """Return why the condition is not met, in one line, or None if it is met.

        A metric that was not measured misses the condition. So does a value that is not known to meet the condition.
        `lower_bounds`: the metrics whose values are only lower bounds.
        """
        value = metrics.get(self.metric)
        if value is None:
            return f"{self.metric}: was not measured, so it is not {self.written}"
        unit = "ms" if METRICS[self.metric].is_time else ""
        meets = _COMPARISONS[self.comparison](value, self.limit)
        if self.metric not in lower_bounds:
            return None if meets else f"{self.metric}: {value:g}{unit} is not {self.written}"
        if self.comparison in (">", ">="):
            return None if meets else f"{self.metric}: at least {value:g}{unit} is not known to be {self.written}"
        return f"{self.metric}: at least {value:g}{unit} is not {'known to be ' if meets else ''}{self.written}"


def parse_threshold(metric: str, condition: Any) -> Threshold:
    """Parse a condition. Raises ValueError with one line."""
    if metric not in METRICS:
        longest = f"{metric}.max"
        raise ValueError(
            f"{metric} is not a metric{did_you_mean(metric, [longest] if longest in METRICS else METRICS)}"
        )
    match = re.fullmatch(r"(<=|>=|<|>)\s*(\S.*)", condition.strip()) if isinstance(condition, str) else None
    if match is None:
        raise ValueError(f"{metric}: {condition!r} is not a condition; write <, <=, > or >= and a limit: '< 100ms'")
    if METRICS[metric].is_time:
        try:
            limit = parse_duration(match[2]) * 1e3
        except ValueError as error:
            raise ValueError(f"{metric}: {error}") from None
    elif re.fullmatch(r"\d+(\.\d+)?", match[2]):
        limit = float(match[2])
    else:
        raise ValueError(f"{metric}: {match[2]!r} is not a number")
    return Threshold(metric, match[1], limit, condition.strip())
