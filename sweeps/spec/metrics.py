"""The metrics of a cell: one registry for thresholds, columns of results.csv, and tables.

To add a metric, yield it in `_all`. When a cell ends, the value of each metric is computed from the content of
result.json. A stored run keeps the metrics of the version that made it. A value that is only a lower bound is an
AtLeast. A metric derived from a latency must read the latency with `latency`, which returns an AtLeast where needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from sweeps.spec.parameters import Mix

Unit = Literal["", "ms", "per_s"]
Result = Mapping[str, Any]
"""The content of result.json."""

PERCENTILES = {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999}
"""Latency percentiles by name, in thousandths."""
MIN_ABOVE = 10
"""Minimum number of samples above a percentile; with fewer, the percentile is not reported."""
STAGES = ("detected", "elected", "heard", "committed", "succeeded")
"""The stages of a failover, in order; sweeps/analysis/failover.py defines them."""
MIN_FAILOVERS = 10
"""Minimum number of failovers for a 90th percentile; with fewer, it would be the maximum."""


@dataclass(frozen=True)
class Metric:
    """A number that describes a cell as a whole."""

    name: str
    """Dotted name without the unit: `latency.put.p99`."""
    unit: Unit
    meaning: str
    """Description in the reference, one line."""
    value: Callable[[Result], float | None]
    """Computes the value from result.json; None if the metric was not measured."""

    @property
    def is_time(self) -> bool:
        """Whether the metric is a duration; thresholds write durations with their unit."""
        return self.unit == "ms"

    @property
    def column(self) -> str:
        """The column in results.csv: the name, then the unit."""
        return column(self.name, self.unit)


def column(name: str, unit: Unit = "") -> str:
    """Return the column of a metric. `name` may be a metric that only earlier versions had."""
    words = name.replace(".", "_").replace("p99_9", "p99.9")
    return f"{words}_{unit}" if unit else words


def nearest_rank(count: int, thousandths: int) -> int:
    """Return the rank, from 1, of a percentile of `count` samples: ceil(count * p). It is 0 without samples."""
    return -(-count * thousandths // 1000)


def _field(name: str, result: Result) -> float | None:
    found: float | None = result.get(name)
    return found


def _operations(name: str, result: Result) -> float | None:
    found: float | None = result.get("operations", {}).get(name)
    return found


def _elections(name: str, result: Result) -> float | None:
    found: float | None = result["elections"][name]
    return found


class AtLeast(float):
    """A lower bound on a value whose true size is unknown."""


LOWER_BOUNDS = "lower_bounds"
"""Key in result.json; it lists the names of the values in the same mapping that are only lower bounds."""


def latency(kind: str, name: str, result: Result) -> float | None:
    """Return a percentile, or `max`, of the latency of a kind of operation, in ms."""
    of_kind = result.get("latency_ms", {}).get(kind, {})
    found: float | None = of_kind.get(name)
    return AtLeast(found) if found is not None and name in of_kind.get(LOWER_BOUNDS, ()) else found


def _stage(stage: str, result: Result) -> list[float | None]:
    return [each[f"{stage}_ms"] for each in result["failovers"]]


def _reached(stage: str, result: Result) -> float:
    return sum(time is not None for time in _stage(stage, result))


def _stage_time(stage: str, thousandths: int, result: Result) -> float | None:
    """Return a percentile of the times to a stage, in milliseconds.

    A failover that never reached the stage counts as longer than any other; a percentile that falls on it is None.
    """
    times = _stage(stage, result)
    reached = sorted(time for time in times if time is not None)
    rank = nearest_rank(len(times), thousandths)
    return reached[rank - 1] if 0 < rank <= len(reached) else None


def _stage_p90(stage: str, result: Result) -> float | None:
    return _stage_time(stage, 900, result) if len(result["failovers"]) >= MIN_FAILOVERS else None


def _all() -> Iterator[Metric]:
    yield Metric("throughput", "per_s", "operations that succeeded per second", partial(_field, "throughput_per_s"))
    outcomes = {
        "ok": "operations that succeeded",
        "failed": "operations that had no effect",
        "unknown": "operations of unknown outcome",
        "dropped": "operations of an open loop that were due and could not be started",
    }
    for name, meaning in outcomes.items():
        yield Metric(name, "", meaning, partial(_operations, name))
    yield Metric("elections", "", "elections won", partial(_elections, "won"))
    yield Metric("campaigns", "", "elections begun", partial(_elections, "started"))
    yield Metric("busy", "", "share of the host's CPU time used by all programs", partial(_field, "host_busy"))
    yield Metric("faults", "", "faults put in force", partial(_field, "faults"))
    yield Metric("faults_asked", "", "faults in the schedule", partial(_field, "faults_asked"))
    yield Metric("failovers", "", "losses of a leader", lambda result: len(result["failovers"]))
    yield Metric(
        "outage", "ms", "longest time within the measurement without a success", partial(_field, "longest_gap_ms")
    )
    for stage in STAGES:
        since = f"time from the loss of the leader to `{stage}`, over all failovers of the cell"
        yield Metric(f"failover.{stage}.median", "ms", f"median {since}", partial(_stage_time, stage, 500))
        p90 = f"90th percentile of the {since}; needs {MIN_FAILOVERS} failovers"
        yield Metric(f"failover.{stage}.p90", "ms", p90, partial(_stage_p90, stage))
        yield Metric(f"failover.{stage}.max", "ms", f"longest {since}", partial(_stage_time, stage, 1000))
        yield Metric(f"failover.{stage}.count", "", f"failovers that reached `{stage}`", partial(_reached, stage))
    for kind in ("all", *Mix.model_fields):
        for name in (*PERCENTILES, "max"):
            meaning = f"latency of {kind if kind != 'all' else 'all operations'}, {name}"
            yield Metric(f"latency.{kind}.{name}", "ms", meaning, partial(latency, kind, name))


METRICS: dict[str, Metric] = {metric.name: metric for metric in _all()}
"""All metrics by name, in the order of the columns of results.csv."""


def metrics(result: Result) -> dict[str, float | None]:
    """Return the metrics of a result by name, without the latencies of operation kinds that the load did not use."""
    unasked = tuple(
        f"latency.{kind}." for kind in ("all", *Mix.model_fields) if kind not in result.get("latency_ms", ())
    )
    return {name: metric.value(result) for name, metric in METRICS.items() if not name.startswith(unasked)}


def lower_bounds(result: Result) -> list[str]:
    """Return the names of the metrics whose values are only lower bounds."""
    return [name for name, metric in METRICS.items() if isinstance(metric.value(result), AtLeast)]
