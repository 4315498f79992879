"""The result of a cell from its raw data: counts, percentiles, elections, failovers, flags, expectation.

Pure functions turn arrays, events and samples into the content of result.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chaos import label
from raft_actor_node.core.trace import TraceRecord
from sweeps.analysis.availability import availability
from sweeps.analysis.cell_data import CellData
from sweeps.analysis.events import faults_of, traced_of
from sweeps.analysis.failover import failovers
from sweeps.analysis.flags import flags
from sweeps.analysis.latency import percentiles
from sweeps.load.node_stats import NodeStats
from sweeps.load.operations import FAIL, KINDS, OK, UNKNOWN, Operations
from sweeps.spec.metrics import LOWER_BOUNDS, lower_bounds, metrics


def summarise(evidence: CellData) -> dict[str, Any]:
    """Return the result of a cell, of JSON types only, without `status` and `reason`."""
    operations = evidence.operations
    lost = failovers(evidence.events, operations.success_ns()) if operations is not None else []
    elections = count_elections(traced_of(evidence.events), operations.measure_ns if operations is not None else None)
    longest_timeout_s = evidence.parameters.raft.election_timeout.max_s / evidence.parameters.slowest_clock
    result: dict[str, Any] = {
        "chaos": label(evidence.parameters.chaos),
        "phases_s": {phase: round(seconds, 3) for phase, seconds in evidence.phases_s.items()},
        "bring_up_s": {step: round(seconds, 3) for step, seconds in evidence.bring_up_s.items()},
        "elections": elections,
        "faults": sum(event.struck for event in faults_of(evidence.events)),
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
    if evidence.parameters.kind.can.real_processes:  # a simulated cell has no machine to report
        result |= {
            "host_busy": evidence.host_busy,
            "nodes": {node_id: figures.as_json() for node_id, figures in evidence.nodes.items()},
            "load": _worst(evidence.loads),
            "clock_error_ms": evidence.clock_error_ms,
        }
    if operations is not None:
        result |= _of_operations(operations)
    result["metrics"] = metrics(result)
    result[LOWER_BOUNDS] = lower_bounds(result)
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


def count_elections(traced: Sequence[TraceRecord], window_ns: tuple[int, int] | None) -> dict[str, int | None]:
    """Return the elections begun and won, and the first and last term, in `window_ns`; all None without traces."""
    if not traced:
        return {"started": None, "won": None, "first_term": None, "last_term": None}
    begin, end = window_ns if window_ns is not None else (0, 2**63)
    inside = [event for event in traced if begin <= event.time_ns < end]
    before = [event.term for event in traced if event.time_ns < begin]
    terms = [event.term for event in inside]
    first = max(before, default=min(terms, default=0))
    return {
        "started": sum(event.kind == "became_candidate" for event in inside),
        "won": sum(event.kind == "became_leader" for event in inside),
        "first_term": first,
        "last_term": max(terms, default=first),
    }


def _worst(loads: Sequence[NodeStats]) -> dict[str, Any]:
    """Return the largest value of each figure over the load generators."""
    each = [figures.as_json() for figures in loads] or [NodeStats().as_json()]
    return {name: max((one[name] for one in each if one[name] is not None), default=None) for name in each[0]}
