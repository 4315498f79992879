"""Fetch the logs and traces of a cell's nodes when the cell is over."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable

from orchestration.face import Cluster
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.trace_lines import read_record
from sweeps.run.record import Record

_FORM = {"kind": str, "time_ns": int, "term": int}
"""Fields that every line of a trace has, and their types."""


async def collect(cluster: Cluster, record: Record) -> list[TraceRecord]:
    """Halt the nodes, put their logs and traces into the record, and return the trace events on the driver's clock.

    A lost host costs only the files of its own nodes.
    """
    events: list[TraceRecord] = []
    try:
        await cluster.halt()
    except Exception as failure:
        record.fails(failure, "halting the nodes")

    async def fetch(node_id: str) -> None:
        try:
            files = await cluster.collect(node_id)
            events.extend(read_trace(files.trace, node_id, cluster.worker(node_id).clock.offset_ns))
            record.logs[node_id], record.storage[node_id] = files.log, files.storage
            record.traces[node_id] = list(files.trace)
        except Exception as failure:
            record.fails(failure, f"collecting the files of {node_id}")
            record.logs.setdefault(node_id, f"its log could not be fetched: {failure}\n")

    # All hosts at once, so that several silent ones cost only one timeout.
    await asyncio.gather(*map(fetch, cluster.node_ids))
    return events


def read_trace(lines: Iterable[str], node_id: str, offset_ns: int) -> list[TraceRecord]:
    """Return the trace events of a node on the driver's clock.

    Of the commits, only the first of each term in each incarnation is kept: a node traces a commit per step, and
    readers of events.jsonl do not use the others. Lines of another form, which a foreign program may write, are
    skipped.
    """
    events = []
    committed = -math.inf
    for line in lines:
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if not isinstance(fields, dict) or any(type(fields.get(key)) is not form for key, form in _FORM.items()):
            continue
        event = read_record(node_id, fields, offset_ns)
        if event.kind == "started":
            committed = -math.inf
        if event.kind == "commit":
            if event.term <= committed:
                continue
            committed = event.term
        events.append(event)
    return events
