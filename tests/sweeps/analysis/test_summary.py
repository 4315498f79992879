"""The summary of raw data, and whether a cell is as expected."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from chaos import parse_chaos
from chaos.events import FaultEvent
from orchestration.sim_cluster.settings import SimSettings
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.units import WRITTEN
from sweeps.analysis.cell_data import CellData
from sweeps.analysis.summary import summarise
from sweeps.judge.expectations import unmet_expectation
from sweeps.load.node_stats import NodeStats
from sweeps.load.operations import FAIL, KINDS, OK, UNKNOWN, Operations
from sweeps.spec.metrics import METRICS, STAGES, AtLeast, Metric, latency, metrics
from sweeps.spec.parameters import ClusterSettings, Parameters
from sweeps.spec.thresholds import parse_threshold
from tests.sweeps.analysis.test_latency import MS, S, operations

CRASH = parse_chaos({"crash": "leader"})


def events(*rows: tuple[float, str, str, int]) -> list[TraceRecord]:
    return [TraceRecord(node, None, int(at * S), kind, term) for at, node, kind, term in rows]


def puts(count: int = 100, outcome: int = OK, **extra: Any) -> Operations:
    rows = [
        {"start_ns": i * MS, "end_ns": i * MS + 5 * MS, "kind": KINDS["put"], "outcome": outcome} for i in range(count)
    ]
    return operations(*rows, **extra)


def evidence(ops: Operations | None, parameters: Parameters | None = None, **more: Any) -> CellData:
    return CellData(parameters or Parameters(), ops, more.pop("events", ()), **more)


def test_counts_percentiles_and_throughput() -> None:
    result = summarise(evidence(puts(100, measure_ns=(0, S))))
    assert result["operations"]["ok"] == 100
    assert result["operations"]["by_kind"] == {"put": {"ok": 100, "failed": 0, "unknown": 0, "dropped": 0}}
    assert result["throughput_per_s"] == 100.0
    figures = {"p50": 5.0, "p90": 5.0, "p99": None, "p99.9": None, "max": 5.0, "lower_bounds": []}
    assert result["latency_ms"]["put"] == figures
    assert result["lower_bounds"] == []
    assert "latency_under_fault_ms" not in result


def test_windows_with_and_without_fault_are_apart() -> None:
    ops = puts(100, fault_ns=np.array([[0, 20 * MS]], np.int64))
    result = summarise(evidence(ops, Parameters(chaos=CRASH)))
    assert ops.under_fault.sum() == 20
    assert result["latency_under_fault_ms"]["put"]["p50"] == 5.0
    assert result["latency_without_fault_ms"]["put"]["p50"] == 5.0


def test_elections_are_counted_within_the_measurement() -> None:
    seen = events(
        (0.5, "n1", "became_candidate", 1),
        (0.5, "n1", "became_leader", 1),
        (3.0, "n2", "became_candidate", 2),
        (3.1, "n3", "became_candidate", 3),
        (3.2, "n3", "became_leader", 3),
    )
    result = summarise(evidence(operations(measure_ns=(S, 5 * S)), events=seen))
    assert result["elections"] == {"started": 2, "won": 1, "first_term": 1, "last_term": 3}


def test_what_a_foreign_program_does_not_tell_is_not_a_number() -> None:
    result = summarise(evidence(puts()))
    assert result["elections"] == {"started": None, "won": None, "first_term": None, "last_term": None}
    assert result["metrics"]["elections"] is None
    assert result["failovers"] == []


def test_what_was_dropped_is_in_the_percentiles_of_its_kind() -> None:
    """100 puts take 5 ms; in the last of ten seconds, 40 puts and 30 gets find no free client."""
    due = {9 * S + i * MS: "put" if i < 40 else "get" for i in range(70)}
    result = summarise(evidence(puts(100, dropped=due)))
    assert result["operations"]["by_kind"] == {
        "put": {"ok": 100, "failed": 0, "unknown": 0, "dropped": 40},
        "get": {"ok": 0, "failed": 0, "unknown": 0, "dropped": 30},
    }
    put, get, both = (result["latency_ms"][kind] for kind in ("put", "get", "all"))
    assert (put["p50"], put["p90"], put["max"], put["lower_bounds"]) == (5.0, 986.0, 1000.0, ["p90", "max"])
    assert (get["p50"], get["p90"], get["max"], get["lower_bounds"]) == (945.0, None, 960.0, ["p50", "max"])
    assert (both["p50"], both["p90"], both["lower_bounds"]) == (5.0, 983.0, ["p90", "max"])
    assert result["lower_bounds"] == [
        "latency.all.p90", "latency.all.max", "latency.put.p90", "latency.put.max", "latency.get.p50",
        "latency.get.max",
    ]  # fmt: skip


def test_failovers_are_told_by_median_p90_and_maximum() -> None:
    def crash(at: float, node: str) -> FaultEvent:
        return FaultEvent.read({"time_ns": int(at * S), "kind": "crash", "action": "inject", "nodes": [node]})

    seen = [
        *events((0.0, "n1", "became_leader", 1), (1.3, "n2", "became_leader", 2), (2.5, "n3", "became_leader", 3)),
        crash(1.0, "n1"),
        crash(2.0, "n2"),
    ]
    ops = operations({"start_ns": S, "end_ns": int(1.4 * S)}, {"start_ns": 2 * S, "end_ns": int(2.6 * S)})
    result = summarise(evidence(ops, Parameters(chaos=CRASH), events=seen))
    assert result["faults"] == 2
    assert figures(result, "elected") == (300.0, None, 500.0, 2)
    assert figures(result, "succeeded") == (400.0, None, 600.0, 2)
    # A failover that never ended is worse than any number.
    unended = summarise(evidence(ops, Parameters(chaos=CRASH), events=[*seen, crash(3.0, "n3")]))
    assert unended["metrics"]["failovers"] == 3
    assert figures(unended, "elected") == (500.0, None, None, 2)


def figures(result: dict[str, Any], stage: str) -> tuple[float | None, ...]:
    return tuple(result["metrics"][f"failover.{stage}.{name}"] for name in ("median", "p90", "max", "count"))


@pytest.mark.parametrize(
    ("times_ms", "expected"),
    [
        ([], (None, None, None, 0)),
        ([None], (None, None, None, 0)),
        ([7.0], (7.0, None, 7.0, 1)),
        ([3.0, 1.0, 2.0], (2.0, None, 3.0, 3)),
        ([float(n) for n in range(1, 10)], (5.0, None, 9.0, 9)),
        ([float(n) for n in range(1, 11)], (5.0, 9.0, 10.0, 10)),
        ([*(float(n) for n in range(1, 20)), None], (10.0, 18.0, None, 19)),
        ([*(float(n) for n in range(1, 9)), None, None], (5.0, None, None, 8)),
    ],
)
def test_the_figures_of_failovers(times_ms: list[float | None], expected: tuple[float | None, ...]) -> None:
    """With fewer than 10 failovers the p90 is None. A failover that never ended exceeds all others."""
    empty = {
        "failovers": [{f"{stage}_ms": time for stage in STAGES} for time in times_ms],
        "elections": {"won": 0, "started": 0},
        "faults": 0,
        "faults_asked": 0,
    }
    found = metrics(empty)
    assert figures({"metrics": found}, "heard") == expected


def test_figures_of_nodes_obey_the_rule_of_percentiles() -> None:
    few = NodeStats(fsync_us=[100] * 999, loop_lag_us=[7]).as_json()
    assert (few["fsync_p50_us"], few["fsync_p99_us"]) == (100, None)
    assert (few["loop_lag_p99_us"], few["loop_lag_max_us"]) == (None, 7)
    assert NodeStats(fsync_us=[100] * 1000).as_json()["fsync_p99_us"] == 100
    assert NodeStats(cpu_share=0.51234).as_json()["cpu_share"] == 0.512


@pytest.mark.parametrize(
    ("more", "flag"),
    [
        (
            {"nodes": {"n1": NodeStats(cpu_share=1.0)}, "loads": [NodeStats(cpu_share=0.85)], "cores": 2},
            "cpu: this cell used 1.9 of 2 cores",
        ),
        ({"cores": 2, "host_busy": 0.98}, "cpu: the host was 98% busy; this cell used 0.0 of 2 cores"),
        ({"loads": [NodeStats(cpu_share=0.95)]}, "load generator: 95% of a core"),
        (
            {"loads": [NodeStats(cpu_share=0.95), NodeStats(cpu_share=0.2)]},
            "load generator: 95% of a core, the busiest of 2",
        ),
        ({"notes": ["load.on: so"]}, "load.on: so"),
        (
            {"nodes": {"n2": NodeStats(loop_lag_us=[10, 60_000])}},
            "lag: the event loop of n2 was blocked for up to 60",
        ),
        ({"nodes": {"n3": NodeStats(fsync_us=[90_000] * 1000)}}, "fsync: p99 on n3 was 90 ms"),
    ],
)
def test_signs_that_the_machine_was_measured_are_flagged(more: dict[str, Any], flag: str) -> None:
    [found] = summarise(evidence(puts(), **more))["flags"]
    assert found.startswith(flag)


def test_a_calm_machine_is_not_flagged() -> None:
    calm = NodeStats(cpu_share=0.2, fsync_us=[300] * 2000, loop_lag_us=[900] * 200)
    assert (
        summarise(evidence(puts(), nodes={"n1": calm, "n2": calm}, loads=[calm], cores=2, host_busy=0.5))["flags"] == []
    )


def raft(shortest: str, longest: str) -> Parameters:
    return Parameters.model_validate({"raft": {"election_timeout": f"{shortest}-{longest}"}}, context=WRITTEN)


def test_an_election_timeout_near_the_time_of_a_broadcast_is_flagged() -> None:
    """Broadcast time must be an order of magnitude below the election timeout (paper, section 5.6)."""
    led = {
        "n1": NodeStats(round_trip_us=[12_000] * 100, fsync_us=[1000] * 100),
        "n2": NodeStats(fsync_us=[4000] * 100),
    }
    [flag] = summarise(evidence(puts(), raft("150ms", "300ms"), nodes=led))["flags"]
    assert flag == (
        "election timeout: the shortest is 150 ms, and a broadcast (round trip and fsync) took 16 ms, "
        "more than a tenth of it"
    )
    assert summarise(evidence(puts(), raft("161ms", "300ms"), nodes=led))["flags"] == []
    few = {"n1": NodeStats(round_trip_us=[12_000] * 10)}
    assert summarise(evidence(puts(), raft("150ms", "300ms"), nodes=few))["flags"] == []


def test_clocks_that_are_known_badly_are_flagged() -> None:
    assert summarise(evidence(puts(), raft("150ms", "300ms"), clock_error_ms=2.0))["flags"] == []
    [flag] = summarise(evidence(puts(), raft("150ms", "300ms"), clock_error_ms=20.0))["flags"]
    assert flag == "clock: times of different hosts are accurate only to 20 ms"


def test_a_client_deadline_below_the_commit_latency_is_flagged() -> None:
    def flags(deadline: str, **more: Any) -> Any:
        parameters = Parameters.model_validate(
            {"client": {"rpc_timeout": deadline}, "chaos": {"crash": "leader"}}, context=WRITTEN
        )
        return summarise(evidence(puts(**more), parameters))["flags"]

    assert flags("6ms") == []
    expected = ["client deadline: client.rpc_timeout is 5 ms, and half of the writes took 5 ms or more"]
    assert flags("5ms") == expected
    always = np.array([[0, S]], np.int64)
    assert flags("5ms", fault_ns=always) == expected, "all were under a fault: then that is what it is"


def test_writes_that_take_long_under_a_fault_alone_are_not_flagged() -> None:
    rows = [{"start_ns": i * MS, "end_ns": i * MS + MS, "kind": KINDS["put"], "outcome": OK} for i in range(30)]
    late = [{"start_ns": S + i, "end_ns": 2 * S, "kind": KINDS["put"], "outcome": UNKNOWN} for i in range(60)]
    ops = operations(*rows, *late, fault_ns=np.array([[S, 2 * S]], np.int64))
    assert summarise(evidence(ops, Parameters(chaos=CRASH)))["flags"] == []


def test_a_node_that_chaos_paused_is_no_stalled_machine() -> None:
    paused = FaultEvent.read({"time_ns": 1, "kind": "pause", "action": "inject", "nodes": ["n1"]})
    late = NodeStats(loop_lag_us=[3_000_000])
    found = evidence(puts(), Parameters(chaos=CRASH), nodes={"n1": late}, events=[paused])
    assert summarise(found)["flags"] == []


def test_a_disk_that_chaos_slowed_is_no_slow_machine() -> None:
    slowed = FaultEvent.read({"time_ns": 1, "kind": "disk", "action": "inject", "nodes": ["n1"]})
    late = NodeStats(fsync_us=[90_000] * 1000, round_trip_us=[100] * 100)
    flags = summarise(evidence(puts(), Parameters(chaos=CRASH), nodes={"n1": late}, events=[slowed]))["flags"]
    assert flags == []
    flags = summarise(evidence(puts(), Parameters(chaos=CRASH), nodes={"n1": late, "n2": late}, events=[slowed]))[
        "flags"
    ]
    assert [flag.partition(":")[0] for flag in flags] == ["fsync", "election timeout"]


def test_operations_that_do_not_succeed_without_chaos_are_flagged() -> None:
    ops = operations({"outcome": OK}, {"outcome": UNKNOWN}, {"outcome": FAIL}, {"outcome": UNKNOWN})
    flags = summarise(evidence(ops))["flags"]
    assert flags == ["failed: 1 operations, without chaos", "unknown: 2 operations, without chaos"]
    assert summarise(evidence(ops, Parameters(chaos=CRASH)))["flags"] == []


def injection(**more: Any) -> FaultEvent:
    line = {"time_ns": 1, "kind": "isolate", "action": "inject", "nodes": ["n1"], "detail": "n1", **more}
    return FaultEvent.read(line)


def test_faults_that_never_struck_are_flagged_and_left_to_the_verdict() -> None:
    missed = injection(error="not on n1, n2, n3", took_effect=False)
    skipped = injection(action="skip", detail="n1; crashed or paused already", took_effect=False)
    found = evidence(puts(), Parameters(chaos=CRASH), events=[missed, skipped, skipped])
    result = summarise(found)
    assert result["faults"] == 0
    assert result["flags"] == [
        "fault: isolate n1 did not take effect: not on n1, n2, n3",
        "fault: isolate n1 was skipped: crashed or paused already (2 times)",
    ]
    assert unmet_expectation(found, result, {}) is None


def test_one_fault_that_struck_in_part_is_enough_and_is_flagged() -> None:
    found = evidence(puts(), Parameters(chaos=CRASH), events=[injection(error="not on n2", took_effect=True)])
    result = summarise(found)
    assert (result["faults"], unmet_expectation(found, result, {})) == (1, None)
    assert result["flags"] == ["fault: isolate n1 took effect in part: not on n2"]


def verdict(ops: Operations | None, thresholds: dict[str, str] | None = None, **parameters: Any) -> str | None:
    found = evidence(ops, Parameters(**parameters), events=[injection()] if "chaos" in parameters else [])
    return unmet_expectation(found, summarise(found), thresholds or {})


def test_a_cell_is_good_when_operations_succeed() -> None:
    assert verdict(puts()) is None
    assert verdict(puts(outcome=UNKNOWN)) == "no operation succeeded"
    assert verdict(None) == "no load could begin"


def test_expected_unavailability_is_good_and_its_absence_is_not() -> None:
    assert verdict(None, expect="unavailable") is None
    assert verdict(puts(outcome=UNKNOWN), expect="unavailable") is None
    assert verdict(puts(), expect="unavailable") == "expected to be unavailable, and operations succeeded"


def test_availability_is_judged_while_faults_last() -> None:
    """With a longest election timeout of 300 ms, operations count from 3 s after the fault (test_availability.py)."""
    early, late = ({"start_ns": at * S, "end_ns": at * S + 5, "outcome": OK} for at in (1, 5))
    for rows, state in (([early], "unavailable"), ([early, late], "available")):
        other = {"unavailable": "available", "available": "unavailable"}[state]
        found = operations(*rows, measure_ns=(0, 10 * S))
        assert verdict(found, expect=state, chaos=CRASH) is None
        assert verdict(found, expect=other, chaos=CRASH) == f"expected to be {other}, and was {state}"
        assert verdict(found, expect="safe", chaos=CRASH) is None
    assert "no fault lasted" in str(verdict(operations(early, measure_ns=(0, 2 * S)), expect="available", chaos=CRASH))


def test_availability_is_judged_later_where_a_simulated_clock_is_slow() -> None:
    """On a clock at a fifth of real speed, 300 ms take 1.5 s."""
    slow = {"target": "sim", "sim": SimSettings(clock_rate=(0.2, 1.0)), "chaos": CRASH}
    found = operations({"start_ns": 5 * S, "end_ns": 5 * S + 5, "outcome": OK}, measure_ns=(0, 14 * S))
    assert "no fault lasted" in str(verdict(found, expect="unavailable", **slow))
    later = operations({"start_ns": 5 * S, "end_ns": 5 * S + 5, "outcome": OK}, measure_ns=(0, 16 * S))
    assert verdict(later, expect="unavailable", **slow) is None


def test_what_is_only_to_be_safe_may_be_anything_else() -> None:
    assert verdict(None, expect="safe") is None
    assert verdict(puts(outcome=UNKNOWN), expect="safe") is None
    assert verdict(puts(outcome=UNKNOWN), expect="unknown") is None
    assert verdict(puts(outcome=UNKNOWN), expect="violated") == "no operation succeeded"


@pytest.mark.parametrize(
    ("metric", "condition", "miss"),
    [
        ("latency.put.p50", "< 100ms", None),
        ("latency.put.p50", "< 5ms", "latency.put.p50: 5ms is not < 5ms"),
        ("latency.put.p50", "<= 5ms", None),
        ("latency.put.p50", ">= 1s", "latency.put.p50: 5ms is not >= 1s"),
        ("latency.put.p99.9", "< 1s", "latency.put.p99.9: was not measured, so it is not < 1s"),
        ("latency.get.p50", "< 1s", "latency.get.p50: was not measured, so it is not < 1s"),
        ("throughput", "> 5", None),
        ("throughput", "> 5000", "throughput: 10 is not > 5000"),
        ("unknown", "< 1", None),
        ("outage", "< 1s", "outage: 9896ms is not < 1s"),
    ],
)
def test_thresholds(metric: str, condition: str, miss: str | None) -> None:
    result = summarise(evidence(puts()))
    assert parse_threshold(metric, condition).miss(result["metrics"]) == miss
    assert verdict(puts(), {metric: condition}) == (miss and f"threshold {miss}")


@pytest.mark.parametrize(
    ("condition", "miss"),
    [
        ("< 100ms", "at least 986ms is not < 100ms"),
        ("<= 100ms", "at least 986ms is not <= 100ms"),
        ("< 986ms", "at least 986ms is not < 986ms"),
        ("<= 986ms", "at least 986ms is not known to be <= 986ms"),
        ("< 2s", "at least 986ms is not known to be < 2s"),
        ("> 100ms", None),
        (">= 986ms", None),
        ("> 986ms", "at least 986ms is not known to be > 986ms"),
        ("> 2s", "at least 986ms is not known to be > 2s"),
    ],
)
def test_what_is_known_only_from_below_never_shows_that_it_is_below_a_limit(condition: str, miss: str | None) -> None:
    ops = puts(100, dropped=dict.fromkeys((9 * S + i * MS for i in range(40)), "put"))
    assert verdict(ops, {"latency.put.p90": condition}) == (miss and f"threshold latency.put.p90: {miss}")
    assert verdict(ops, {"latency.put.p50": "< 6ms"}) is None, "that one is known"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("failover.elected", "failover.elected.max"),
        ("failover.elected.p50", "failover.elected.p90"),
        ("failover.succeeded.median_ms", "failover.succeeded.median"),
    ],
)
def test_a_metric_that_there_is_not_is_refused_with_the_one_that_was_meant(written: str, meant: str) -> None:
    """`failover.elected` does not say that it is the maximum, so it is no metric."""
    with pytest.raises(ValueError, match="is not a metric") as refused:
        parse_threshold(written, "< 1s")
    assert str(refused.value) == f"{written} is not a metric; did you mean {meant}?"


def test_every_metric_of_a_threshold_is_in_a_result() -> None:
    every_kind = operations(*({"kind": kind, "end_ns": 1} for kind in KINDS.values()))
    assert set(summarise(evidence(every_kind))["metrics"]) == set(METRICS)


def test_a_small_cluster_is_described_by_its_parameters() -> None:
    assert summarise(evidence(puts(), Parameters(cluster=ClusterSettings(nodes=1))))["chaos"] == "none"


def test_what_is_derived_from_a_lower_bound_is_one() -> None:
    """A threshold must not take a lower bound for the true value."""
    result = {"latency_ms": {"get": {"p50": 1.0, "max": 5.0, "lower_bounds": ["max"]}}, "failovers": []}
    assert isinstance(latency("get", "max", result), AtLeast)
    assert not isinstance(latency("get", "p50", result), AtLeast)
    derived = Metric("longest_get", "ms", "longest get", partial(latency, "get", "max"))
    assert isinstance(derived.value(result), AtLeast)
