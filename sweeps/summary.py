"""What a cell's raw data says: counts, percentiles, elections, failovers, flags, and whether it is good.

Pure functions from arrays, events and samples to the result that stands in result.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chaos import label
from chaos.faults import FAULTS
from sweeps.availability import availability, refutes
from sweeps.failover import STAGES, failovers, is_injection
from sweeps.latency import FAIL, KINDS, LOWER_BOUNDS, MIN_ABOVE, OK, UNKNOWN, Ints, Operations, percentiles
from sweeps.spec import Parameters
from sweeps.thresholds import parse_threshold

_BUSY = 0.9
"""From this share of the CPU on, the machine may be what is measured."""
_MOST_OF_TIMEOUT = 0.1
"""The time of a broadcast should be an order of magnitude below the election timeout (paper, section 5.6)."""

MIN_FAILOVERS = 10
"""Of fewer, the 90th percentile would be the maximum."""
_MOST_OF_HEARTBEAT = 0.1
"""The stages of a failover are some tenths of heartbeats long; clocks that are not known better mix them up."""


@dataclass(frozen=True)
class NodeFigures:
    """What a node, or the load generator, measured about itself during the measurement."""

    cpu_share: float | None = None
    """CPU time per time; 1 is one core."""
    resident_bytes: int | None = None
    fsync_us: Sequence[int] = ()
    loop_lag_us: Sequence[int] = ()
    round_trip_us: Sequence[int] = ()

    def as_json(self) -> dict[str, Any]:
        """Medians, 99th percentiles and maxima, in microseconds."""
        return {
            "cpu_share": None if self.cpu_share is None else round(self.cpu_share, 3),
            "resident_bytes": self.resident_bytes,
            "fsync_p50_us": _percentile(self.fsync_us, 0.5),
            "fsync_p99_us": _percentile(self.fsync_us, 0.99),
            "loop_lag_p99_us": _percentile(self.loop_lag_us, 0.99),
            "loop_lag_max_us": _percentile(self.loop_lag_us, 1.0),
            "round_trip_p50_us": _percentile(self.round_trip_us, 0.5),
        }


@dataclass(frozen=True)
class Evidence:
    """The raw data of a cell."""

    parameters: Parameters
    operations: Operations | None
    """None: no load could begin."""
    events: Sequence[Mapping[str, Any]]
    faults_asked: int = 0
    """Faults in the schedule."""
    nodes: Mapping[str, NodeFigures] = field(default_factory=dict)
    loads: Sequence[NodeFigures] = ()
    """Of each load generator."""
    notes: Sequence[str] = ()
    """More flags."""
    cores: int | None = None
    """Cores that nodes and load generator share; None when they are on several hosts."""
    host_busy: float | None = None
    """Share of that host's CPU time which anything at all used."""
    clock_error_ms: float = 0.0
    """By how much times of different hosts may be off; 0 when all read one clock."""
    phases_s: Mapping[str, float] = field(default_factory=dict)
    bring_up_s: Mapping[str, float] = field(default_factory=dict)
    """place, spawn, serving, leader: each from the end of the one before."""


def summarise(evidence: Evidence) -> dict[str, Any]:
    """The result of a cell, JSON types only, without `status` and `reason`."""
    operations = evidence.operations
    lost = failovers(evidence.events, operations.success_ns()) if operations is not None else []
    elections = count_elections(evidence.events, operations.measure_ns if operations is not None else None)
    longest_timeout_s = evidence.parameters.raft.election_timeout.max_s / evidence.parameters.slowest_clock
    result: dict[str, Any] = {
        "chaos": label(evidence.parameters.chaos),
        "phases_s": {phase: round(seconds, 3) for phase, seconds in evidence.phases_s.items()},
        "bring_up_s": {step: round(seconds, 3) for step, seconds in evidence.bring_up_s.items()},
        "elections": elections,
        "faults": sum(_struck(event) for event in evidence.events),
        "faults_asked": evidence.faults_asked,
        "failovers": [
            {
                "old_leader": each.old_leader,
                "new_leader": each.new_leader,
                "term": each.term,
                "lost_ns": each.lost_ns,
                **{f"{stage}_ms": value for stage, value in each.stages_ms().items()},
            }
            for each in lost
        ],
        "availability": availability(evidence.events, operations, longest_timeout_s),
        "flags": flags(evidence),
    }
    if evidence.parameters.target != "sim":  # where there is no machine, there is nothing to tell of it
        result |= {
            "host_busy": evidence.host_busy,
            "nodes": {node_id: figures.as_json() for node_id, figures in evidence.nodes.items()},
            "load": _worst(evidence.loads),
            "clock_error_ms": evidence.clock_error_ms,
        }
    if operations is not None:
        result |= _of_operations(operations)
    result["metrics"] = metrics(result, [each.stages_ms() for each in lost])
    result[LOWER_BOUNDS] = [
        f"latency.{kind}.{name}" for kind, found in result.get("latency_ms", {}).items() for name in found[LOWER_BOUNDS]
    ]
    return result


def _of_operations(operations: Operations) -> dict[str, Any]:
    used = [kind for kind in KINDS if operations.of_kind(kind).any() or operations.dropped(kind)]
    outcomes = {"ok": OK, "failed": FAIL, "unknown": UNKNOWN}
    windows = {"under_fault": True, "without_fault": False} if len(operations.fault_ns) else {}
    return {
        "operations": {
            **{name: operations.count(outcome) for name, outcome in outcomes.items()},
            "dropped": operations.dropped(),
            "by_kind": {
                kind: {
                    **{name: operations.count(outcome, kind) for name, outcome in outcomes.items()},
                    "dropped": operations.dropped(kind),
                }
                for kind in used
            },
        },
        "throughput_per_s": round(operations.throughput(), 2),
        "throughput_series_per_s": operations.throughput_series(),
        "longest_gap_ms": round(operations.longest_gap_ns() / 1e6, 3),
        "latency_ms": {kind: percentiles(operations.latencies(kind)) for kind in ("all", *used)},
        **{
            f"latency_{name}_ms": {
                kind: percentiles(operations.latencies(kind, under_fault=under)) for kind in ("all", *used)
            }
            for name, under in windows.items()
        },
    }


def metrics(result: Mapping[str, Any], stages: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The numbers of a result by the names that thresholds and columns use; times in milliseconds."""
    operations = result.get("operations", {})
    found: dict[str, float | None] = {
        "throughput": result.get("throughput_per_s"),
        **{name: operations.get(name) for name in ("ok", "failed", "unknown", "dropped")},
        "elections": result["elections"]["won"],
        "campaigns": result["elections"]["started"],
        "busy": result.get("host_busy"),
        "faults": result["faults"],
        "faults_asked": result["faults_asked"],
        "failovers": len(result["failovers"]),
        "outage": result.get("longest_gap_ms"),
    }
    for stage in STAGES:
        figures = _of_failovers([each[stage] for each in stages])
        found |= {f"failover.{stage}.{name}": value for name, value in figures.items()}
    for kind, values in result.get("latency_ms", {}).items():
        found |= {f"latency.{kind}.{name}": value for name, value in values.items() if name != LOWER_BOUNDS}
    return found


def _of_failovers(times_ms: Sequence[float | None]) -> dict[str, float | None]:
    """Median, p90 and maximum, by the nearest rank, of the times in which failovers came to a stage, and how many did.
    One that never did took longer than any: what falls on it is None. There is no p90 of fewer than 10."""
    reached = sorted(time for time in times_ms if time is not None)

    def ranked(thousandths: int) -> float | None:
        rank = -(-len(times_ms) * thousandths // 1000)
        return reached[rank - 1] if 0 < rank <= len(reached) else None

    p90 = ranked(900) if len(times_ms) >= MIN_FAILOVERS else None
    return {"median": ranked(500), "p90": p90, "max": ranked(1000), "count": len(reached)}


def count_elections(events: Iterable[Mapping[str, Any]], window_ns: tuple[int, int] | None) -> dict[str, int | None]:
    """Elections begun and won, and the terms seen, within the measurement; all None when nothing is traced."""
    traced = [event for event in events if "term" in event]
    if not traced:
        return {"started": None, "won": None, "first_term": None, "last_term": None}
    begin, end = window_ns if window_ns is not None else (0, 2**63)
    inside = [event for event in traced if begin <= event["time_ns"] < end]
    before = [int(event["term"]) for event in traced if event["time_ns"] < begin]
    terms = [int(event["term"]) for event in inside]
    first = max(before, default=min(terms, default=0))
    return {
        "started": sum(event["kind"] == "became_candidate" for event in inside),
        "won": sum(event["kind"] == "became_leader" for event in inside),
        "first_term": first,
        "last_term": max(terms, default=first),
    }


def flags(evidence: Evidence) -> list[str]:
    """What a reader of the numbers must know, one short line each: operations that did not succeed though
    nothing was done to the cluster, and signs that the machine was measured and not the protocol."""
    found = [*evidence.notes, *(f"fault: {problem}" for problem in _fault_problems(evidence.events))]
    raft, operations = evidence.parameters.raft, evidence.operations
    if operations is not None and not evidence.parameters.chaos:
        bad = {"failed": operations.count(FAIL), "unknown": operations.count(UNKNOWN)}
        found += [f"{name}: {count} operations, without chaos" for name, count in bad.items() if count]
    figures = [*evidence.nodes.values(), *evidence.loads]
    used = sum(each.cpu_share or 0.0 for each in figures)
    if evidence.cores is not None and max(used / evidence.cores, evidence.host_busy or 0.0) >= _BUSY:
        busy = "" if evidence.host_busy is None else f"the host was {evidence.host_busy:.0%} busy, "
        found.append(f"cpu: {busy}{used:.1f} of {evidence.cores} cores by this cell")
    busiest = max((each.cpu_share or 0.0 for each in evidence.loads), default=0.0)
    if busiest >= _BUSY:
        which = "" if len(evidence.loads) < 2 else f", the busiest of {len(evidence.loads)}"
        found.append(f"load generator: {busiest:.0%} of a core{which}")
    # A stall of half the gap between a heartbeat and the shortest timeout is where false elections begin.
    bearable_us = max(raft.heartbeat_interval, raft.election_timeout[0] - raft.heartbeat_interval) * 1e6 / 2
    suspending = [kind for kind, fault in FAULTS.items() if fault.suspends()]
    paused = {node for event in evidence.events if event["kind"] in suspending for node in event["nodes"]}
    stalls = {name: max(each.loop_lag_us, default=0) for name, each in evidence.nodes.items() if name not in paused}
    writes = {name: _percentile(each.fsync_us, 0.99) for name, each in evidence.nodes.items()}
    for name, worst_us in sorted(stalls.items(), key=lambda item: -item[1])[:1]:
        if worst_us > bearable_us:
            found.append(f"lag: the event loop of {name} stood still for up to {worst_us / 1e3:.0f} ms")
    for name, p99_us in sorted(writes.items(), key=lambda item: -(item[1] or 0))[:1]:
        if p99_us is not None and p99_us > bearable_us:
            found.append(f"fsync: p99 on {name} was {p99_us / 1e3:.0f} ms")
    if evidence.clock_error_ms > _MOST_OF_HEARTBEAT * raft.heartbeat_interval * 1e3:
        found.append(f"clock: times of different hosts are right within {evidence.clock_error_ms:.3g} ms only")
    return found + _timing_problems(evidence)


def _timing_problems(evidence: Evidence) -> list[str]:
    """Timeouts that are too short for what was measured; what they should be compared with is not known before."""
    found, parameters, nodes = [], evidence.parameters, evidence.nodes.values()
    round_trip_us = max((_percentile(each.round_trip_us, 0.5) or 0 for each in nodes), default=0)
    fsync_us = max((_percentile(each.fsync_us, 0.5) or 0 for each in nodes), default=0)
    shortest_s, broadcast_s = parameters.raft.election_timeout[0], (round_trip_us + fsync_us) / 1e6
    if round_trip_us and broadcast_s > _MOST_OF_TIMEOUT * shortest_s:
        text = f"election timeout: the shortest is {shortest_s * 1e3:g} ms, and a broadcast, round trip and fsync,"
        found.append(f"{text} took {broadcast_s * 1e3:.3g} ms, more than a tenth of it")
    limit_s = parameters.client.rpc_timeout
    commit_s = _commit_s(evidence.operations) if evidence.operations is not None else None
    if commit_s is not None and commit_s >= limit_s:
        text = f"client deadline: client.rpc_timeout is {limit_s * 1e3:g} ms"
        found.append(f"{text}, and half of the writes took {commit_s * 1e3:.3g} ms or more")
    return found


def _commit_s(operations: Operations) -> float | None:
    """The median time from the start of a write to its end, outside of faults, or, where all were under one, under it;
    what was given up counts with the time that it took. None when there were too few writes."""
    writes = operations.measured & ~operations.of_kind("get")
    calm = writes & ~operations.under_fault
    chosen = calm if calm.any() else writes
    median_ns = _percentile(operations["end_ns"][chosen] - operations["start_ns"][chosen], 0.5)
    return None if median_ns is None else median_ns / 1e9


def judge(evidence: Evidence, result: Mapping[str, Any], thresholds: Mapping[str, str]) -> str | None:
    """Why the cell is not what was expected of it, in one line, or None when it is good. Whether it proves anything,
    and whether its faults bit, is a matter of its verdict."""
    expected = evidence.parameters.expect
    if expected == "safe":
        return None
    if expected == "unavailable":
        return _available_after_all(evidence, result)
    if evidence.operations is None:
        return "no load could begin"
    if expected != "unknown" and not evidence.operations.count(OK):
        return "no operation succeeded"
    refuted = evidence.parameters.chaos and expected == "available" and refutes(result["availability"], "available")
    return refuted or _missed(result, thresholds)


def _missed(result: Mapping[str, Any], thresholds: Mapping[str, str]) -> str | None:
    misses = [
        miss
        for metric, condition in thresholds.items()
        if (miss := parse_threshold(metric, condition).miss(result["metrics"], result[LOWER_BOUNDS])) is not None
    ]
    return "threshold " + "; ".join(misses) if misses else None


def _worst(loads: Sequence[NodeFigures]) -> dict[str, Any]:
    """Of each figure of the load generators the largest."""
    each = [figures.as_json() for figures in loads] or [NodeFigures().as_json()]
    return {name: max((one[name] for one in each if one[name] is not None), default=None) for name in each[0]}


def _struck(event: Mapping[str, Any]) -> bool:
    """Whether an event is a fault of which it is known that a node had it."""
    return is_injection(event) and event.get("took_effect", True) is True


def _fault_problems(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """The faults that were not put in force as planned, and why."""
    problems = []
    for event in events:
        if event.get("action") == "skip":
            where, _, reason = event["detail"].rpartition("; ")
            problems.append(f"{event['kind']} {where} was skipped: {reason}")
        elif event.get("action") == "inject" and event.get("error"):
            effects = {True: "took effect in part", False: "did not take effect", None: "may not have taken effect"}
            effect = effects[event.get("took_effect", True)]
            problems.append(f"{event['kind']} {', '.join(event['nodes'])} {effect}: {event['error']}")
    return [f"{problem} ({count} times)" if count > 1 else problem for problem, count in Counter(problems).items()]


def _available_after_all(evidence: Evidence, result: Mapping[str, Any]) -> str | None:
    """Why a cell was not as unavailable as expected: while faults last, or, without any, in the measurement."""
    if evidence.operations is None:
        return None
    if evidence.parameters.chaos:
        return refutes(result["availability"], "unavailable")
    return "expected to be unavailable, and operations succeeded" if evidence.operations.count(OK) else None


def _percentile(samples: Sequence[int] | Ints, q: float) -> int | None:
    """A percentile by the nearest rank; None when fewer than 10 samples are above it, except for the maximum."""
    count = len(samples)
    if not count or (q < 1 and count * (1 - q) < MIN_ABOVE):
        return None
    return int(np.quantile(np.asarray(samples), q, method="inverted_cdf"))
