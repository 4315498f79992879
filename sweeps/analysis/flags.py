"""Flags: signs that a measurement reflects the machine and not the protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from chaos.events import FaultEvent
from chaos.faults import FAULTS, Fault
from sweeps.analysis.cell_data import CellData
from sweeps.analysis.events import faults_of
from sweeps.load.node_stats import percentile
from sweeps.load.operations import FAIL, UNKNOWN, Operations

_BUSY = 0.9
"""Share of the CPU from which the measurement may reflect the machine and not the protocol."""
_MOST_OF_TIMEOUT = 0.1
"""Largest broadcast time, as a share of the election timeout (an order of magnitude smaller: paper, section 5.6)."""
_MOST_OF_HEARTBEAT = 0.1
"""Largest clock error, as a share of the heartbeat interval. The stages of a failover last some tenths of an interval;
a larger error may reorder them."""


def flags(evidence: CellData) -> list[str]:
    """Return warnings about the figures of a cell, one short line each.

    A flag reports a fault that was not put in force, operations that did not succeed in a cell without chaos, or a sign
    that the measurement reflects the machine and not the protocol.
    """
    found = [*evidence.notes, *(f"fault: {problem}" for problem in _fault_problems(faults_of(evidence.events)))]
    raft, operations = evidence.parameters.raft, evidence.operations
    if operations is not None and not evidence.parameters.chaos:
        bad = {"failed": operations.count(FAIL), "unknown": operations.count(UNKNOWN)}
        found += [f"{name}: {count} operations, without chaos" for name, count in bad.items() if count]
    figures = [*evidence.nodes.values(), *evidence.loads]
    used = sum(each.cpu_share or 0.0 for each in figures)
    if evidence.cores is not None and max(used / evidence.cores, evidence.host_busy or 0.0) >= _BUSY:
        busy = "" if evidence.host_busy is None else f"the host was {evidence.host_busy:.0%} busy; "
        found.append(f"cpu: {busy}this cell used {used:.1f} of {evidence.cores} cores")
    busiest = max((each.cpu_share or 0.0 for each in evidence.loads), default=0.0)
    if busiest >= _BUSY:
        which = "" if len(evidence.loads) < 2 else f", the busiest of {len(evidence.loads)}"
        found.append(f"load generator: {busiest:.0%} of a core{which}")
    # False elections begin when a stall lasts half the gap between a heartbeat and the shortest timeout.
    bearable_us = max(raft.heartbeat_interval, raft.election_timeout[0] - raft.heartbeat_interval) * 1e6 / 2
    paused, slowed = _struck(evidence, lambda fault: fault.suspends()), _slowed(evidence)
    stalls = {name: max(each.loop_lag_us, default=0) for name, each in evidence.nodes.items() if name not in paused}
    writes = {name: percentile(each.fsync_us, 0.99) for name, each in evidence.nodes.items() if name not in slowed}
    for name, worst_us in sorted(stalls.items(), key=lambda item: -item[1])[:1]:
        if worst_us > bearable_us:
            found.append(f"lag: the event loop of {name} was blocked for up to {worst_us / 1e3:.0f} ms")
    for name, p99_us in sorted(writes.items(), key=lambda item: -(item[1] or 0))[:1]:
        if p99_us is not None and p99_us > bearable_us:
            found.append(f"fsync: p99 on {name} was {p99_us / 1e3:.0f} ms")
    if evidence.clock_error_ms > _MOST_OF_HEARTBEAT * raft.heartbeat_interval * 1e3:
        found.append(f"clock: times of different hosts are accurate only to {evidence.clock_error_ms:.3g} ms")
    return found + _timing_problems(evidence)


def _timing_problems(evidence: CellData) -> list[str]:
    """Return which timeouts are too short for the measured times. Only a measurement can show this."""
    found, parameters, slowed = [], evidence.parameters, _slowed(evidence)
    nodes = [each for name, each in evidence.nodes.items() if name not in slowed]
    round_trip_us = max((percentile(each.round_trip_us, 0.5) or 0 for each in evidence.nodes.values()), default=0)
    fsync_us = max((percentile(each.fsync_us, 0.5) or 0 for each in nodes), default=0)
    shortest_s, broadcast_s = parameters.raft.election_timeout[0], (round_trip_us + fsync_us) / 1e6
    if round_trip_us and broadcast_s > _MOST_OF_TIMEOUT * shortest_s:
        text = f"election timeout: the shortest is {shortest_s * 1e3:g} ms, and a broadcast (round trip and fsync)"
        found.append(f"{text} took {broadcast_s * 1e3:.3g} ms, more than a tenth of it")
    limit_s = parameters.client.rpc_timeout
    commit_s = _commit_s(evidence.operations) if evidence.operations is not None else None
    if commit_s is not None and commit_s >= limit_s:
        text = f"client deadline: client.rpc_timeout is {limit_s * 1e3:g} ms"
        found.append(f"{text}, and half of the writes took {commit_s * 1e3:.3g} ms or more")
    return found


def _struck(evidence: CellData, chosen: Callable[[type[Fault]], bool]) -> set[str]:
    """Return the nodes that were struck by a fault of the chosen kinds."""
    kinds = {kind for kind, fault in FAULTS.items() if chosen(fault)}
    return {node for event in faults_of(evidence.events) if event.kind in kinds for node in event.nodes}


def _slowed(evidence: CellData) -> set[str]:
    """Return the nodes whose fsyncs a fault delayed; their fsync times do not describe the machine."""
    return _struck(evidence, lambda fault: any(proof.subject == "fsync" for proof in fault.proof))


def _commit_s(operations: Operations) -> float | None:
    """Return the median time from the start of a write to its end; None when there were too few writes.

    Writes under faults are excluded, unless every write was under a fault. A write that the client gave up counts with
    the time until the client gave up.
    """
    writes = operations.measured & ~operations.of_kind("get")
    calm = writes & ~operations.under_fault
    chosen = calm if calm.any() else writes
    median_ns = percentile(operations["end_ns"][chosen] - operations["start_ns"][chosen], 0.5)
    return None if median_ns is None else median_ns / 1e9


def _fault_problems(faults: Iterable[FaultEvent]) -> list[str]:
    """Return the faults that were not put in force as planned, and why."""
    problems = []
    for event in faults:
        if event.action == "skip":
            where, _, reason = event.detail.rpartition("; ")
            problems.append(f"{event.kind} {where} was skipped: {reason}")
        elif event.action == "inject" and event.error:
            effects = {True: "took effect in part", False: "did not take effect", None: "may not have taken effect"}
            problems.append(f"{event.kind} {', '.join(event.nodes)} {effects[event.took_effect]}: {event.error}")
    return [f"{problem} ({count} times)" if count > 1 else problem for problem, count in Counter(problems).items()]
