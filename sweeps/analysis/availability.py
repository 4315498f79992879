"""Whether a cluster served its clients while a fault lasted. Pure functions of events and arrays.

A cluster that loses its leader to a fault needs time to elect another. The *bound* allows for this time: it is
LIVENESS_BOUND times the longest election timeout after the fault took effect on its last node. Only those operations
count that complete after the bound and before the healing of the fault began. The cluster is available under the fault
if the rate of these operations is at least LEAST_SHARE of the rate before the first fault. It is unavailable if there
are none, and barely available in between. A fault that ends before the bound has no state. A fault of two stages counts
from its second stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from raft_actor_node.core.invariants.liveness import LIVENESS_BOUND
from sweeps.analysis.events import Event, faults_of
from sweeps.load.latencies import Ints
from sweeps.load.operations import Operations

LEAST_SHARE = 0.01
"""Below this share of the rate before the first fault, a cluster is barely available.

A closed loop slows down with its latency, so a rate far below the full one is no outage.
"""

State = Literal["available", "barely available", "unavailable"]


@dataclass(frozen=True)
class UnderFault:
    """What clients experienced under one fault; times in milliseconds."""

    state: State | None
    """None: the fault ended too early to tell."""
    outage_ms: float
    """Longest time under the fault in which no operation completed."""
    completed: int
    """Operations that completed after the bound."""
    share: float | None
    """Operations per second after the bound, as a share of the rate before the first fault."""


def under_faults(events: Iterable[Event], operations: Operations, longest_timeout_s: float) -> list[UnderFault]:
    """Return one result for each fault that was in force, in order of time. `events`: those of events.jsonl."""
    windows = _windows(events, operations)
    ends = operations.success_ns()
    bound_ns = int(LIVENESS_BOUND * longest_timeout_s * 1e9)
    before = _rate(ends, operations.measure_ns[0], windows[0][0]) if windows else None
    return [_under_fault(ends, begin, end, begin + bound_ns, before) for begin, end in windows]


def late_windows(events: Iterable[Event], operations: Operations, longest_timeout_s: float) -> list[tuple[int, int]]:
    """Return [begin, end) of each fault that lasted beyond the bound, from the bound on, in nanoseconds."""
    bound_ns = int(LIVENESS_BOUND * longest_timeout_s * 1e9)
    windows = _windows(events, operations)
    return [(begin + bound_ns, end) for begin, end in windows if begin + bound_ns < end]


def waiting(begin_ns: Ints, end_ns: Ints, windows: Sequence[tuple[int, int]]) -> tuple[int, float]:
    """Return the least number of waiting requests in any window, and the largest share of a window without any.

    Each request waits for an answer from `begin_ns` to `end_ns`. Without windows the result is (0, 1.0).
    """
    counts, shares = [], []
    order = np.argsort(begin_ns)
    for begin, end in windows:
        inside = order[(begin_ns[order] < end) & (end_ns[order] > begin)]
        since, until = np.maximum(begin_ns[inside], begin), np.minimum(end_ns[inside], end)
        # Between the latest end so far and the next begin, no request waited.
        covered = np.maximum.accumulate(np.concatenate(([begin], until)))
        gaps = np.concatenate((since, [end])) - covered
        counts.append(len(inside))
        shares.append(float(gaps[gaps > 0].sum()) / (end - begin) if end > begin else 1.0)
    return min(counts, default=0), max(shares, default=1.0)


def availability(
    events: Iterable[Event], operations: Operations | None, longest_timeout_s: float
) -> dict[str, Any] | None:
    """Return the availability under all faults of a cell, for its result; None when it had no faults.

    Its `state` is the one that all faults beyond the bound have in common. It is None if these faults differ, or if no
    fault lasted that long.
    """
    faults = under_faults(events, operations, longest_timeout_s) if operations is not None else []
    if not faults:
        return None
    states = {fault.state for fault in faults if fault.state is not None}
    shares = [fault.share for fault in faults if fault.state is not None and fault.share is not None]
    return {
        "state": states.pop() if len(states) == 1 else None,
        "outage_ms": max(fault.outage_ms for fault in faults),
        "share": min(shares, default=None),
        "faults": [{"state": fault.state, "outage_ms": fault.outage_ms} for fault in faults],
    }


def _windows(events: Iterable[Event], operations: Operations) -> list[tuple[int, int]]:
    """Return [begin, end) of each fault, shortened at both ends by the clock error.

    A window begins when the fault takes effect on the last node (in its second stage, if it has one) and ends when it
    is healed on the first.
    """
    end_ns, error_ns = operations.measure_ns[1], operations.error_ns
    opened: dict[int | None, int] = {}
    closed: dict[int | None, int] = {}
    for event in sorted(faults_of(events), key=lambda event: event.time_ns):
        if event.action in ("inject", "advance") and event.took_effect is not False:
            opened[event.index] = event.done_ns
        elif event.action == "heal" and event.index in opened:
            closed.setdefault(event.index, event.time_ns)
    windows = [(begin + error_ns, min(closed.get(index, end_ns), end_ns) - error_ns) for index, begin in opened.items()]
    return sorted(window for window in windows if window[0] < window[1])


def _under_fault(ends: Ints, begin: int, end: int, late: int, before: float | None) -> UnderFault:
    inside = ends[(ends >= begin) & (ends < end)]
    completed = int(np.count_nonzero(inside >= late))
    rate = _rate(ends, late, end)
    share = round(rate / before, 3) if rate is not None and before else None
    served: State = "barely available" if share is not None and share < LEAST_SHARE else "available"
    return UnderFault(
        state=None if late >= end else served if completed else "unavailable",
        outage_ms=round(float(np.diff(np.concatenate(([begin], inside, [end]))).max()) / 1e6, 3),
        completed=completed,
        share=share,
    )


def _rate(ends: Ints, begin: int, end: int) -> float | None:
    """Return the operations per second that completed in [begin, end)."""
    if end <= begin:
        return None
    first, last = np.searchsorted(ends, (begin, end))
    return float(last - first) * 1e9 / (end - begin)


def refutes(found: Mapping[str, Any] | None, expected: State) -> str | None:
    """Return in one line why the availability under faults is not `expected`, or None if it is."""
    state = found["state"] if found is not None else None
    if state is None:
        states: Sequence[Any] = [fault["state"] for fault in found["faults"]] if found is not None else []
        if not any(states):
            return f"expected to be {expected}, and no fault lasted more than {LIVENESS_BOUND} election timeouts"
        return f"expected to be {expected}, but was not under at least one fault"
    return None if state == expected else f"expected to be {expected}, and was {state}"
