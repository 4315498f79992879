"""Observe nodes by the traces on their disks, because the tests cannot reach the network of a testbed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestration.testbed.hosts import Testbed

_LOAD = 50
"""The first index of the load; earlier entries come from elections and from clients that open sessions."""


def traces(bed: Testbed) -> list[Path]:
    """Return the trace files of all nodes on a testbed that run, or whose cell is not removed yet."""
    disks = [host.folder / place for host in bed.hosts for place in ("tmp", "var/tmp")]
    return [file for disk in disks for file in disk.glob("raft-lab-*/*/*/*.trace.jsonl")]


def events(trace: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Return all events of a kind, in order; skip an incomplete last line."""
    try:
        lines = trace.read_text().splitlines()
    except FileNotFoundError:
        return
    mark = f'"kind":"{kind}"'
    yield from (json.loads(line) for line in lines if mark in line and line.endswith("}"))


def committed(trace: Path) -> int:
    """Return the highest index that the node knows to be committed."""
    return max((event["index"] for event in events(trace, "commit")), default=0)


def leader(traces: Iterable[Path]) -> Path | None:
    """Return the trace of the node that became leader last."""
    last = [(event["term"], trace) for trace in traces for event in events(trace, "became_leader")]
    return max(last)[1] if last else None


def load_s(traces: Iterable[Path]) -> float:
    """Return for how many seconds of its own clock the leader has committed clients' writes."""
    leads = leader(traces)
    times = [event["time_ns"] for event in events(leads, "commit") if event["index"] >= _LOAD] if leads else []
    return (times[-1] - times[0]) / 1e9 if times else 0.0
