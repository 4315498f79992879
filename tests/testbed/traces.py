"""What nodes are doing, by the traces on their disks: from here the network of a testbed cannot be reached."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestration.testbed.hosts import Testbed

_LOAD = 50
"""From this index on entries are of load; the first are of elections, and of clients that open their sessions."""


def traces(bed: Testbed) -> list[Path]:
    """Of all nodes that run, or whose cell is about to be cleared away, on a testbed."""
    disks = [host.folder / place for host in bed.hosts for place in ("tmp", "var/tmp")]
    return [file for disk in disks for file in disk.glob("raft-lab-*/*/*/*.trace.jsonl")]


def events(trace: Path, kind: str) -> Iterator[dict[str, Any]]:
    """All of a kind, in order. A line that is being written is passed over."""
    try:
        lines = trace.read_text().splitlines()
    except FileNotFoundError:
        return
    mark = f'"kind":"{kind}"'
    yield from (json.loads(line) for line in lines if mark in line and line.endswith("}"))


def committed(trace: Path) -> int:
    """The last index that the node knows to be committed."""
    return max((event["index"] for event in events(trace, "commit")), default=0)


def leader(traces: Iterable[Path]) -> Path | None:
    """The trace of the node that was the last to become leader."""
    last = [(event["term"], trace) for trace in traces for event in events(trace, "became_leader")]
    return max(last)[1] if last else None


def load_s(traces: Iterable[Path]) -> float:
    """For how many seconds the leader has committed what clients write, on its own clock."""
    leads = leader(traces)
    times = [event["time_ns"] for event in events(leads, "commit") if event["index"] >= _LOAD] if leads else []
    return (times[-1] - times[0]) / 1e9 if times else 0.0
