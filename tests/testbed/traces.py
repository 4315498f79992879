"""What nodes on hosts are doing, by the traces on their disks: there is no way to them over the network from here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


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
