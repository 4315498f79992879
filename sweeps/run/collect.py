"""The files of the nodes of a cell: their logs and traces, fetched when the cell is over."""

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
"""What every line of a trace has."""


async def collect(cluster: Cluster, record: Record) -> list[TraceRecord]:
    """Halt the nodes, put their logs and traces into the record, and return the trace events on the driver's clock.

    A host that is gone costs the files of its own nodes only.
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
            record.logs.setdefault(node_id, f"its log could not be had: {failure}\n")

    # All at once, so that a silent host costs its timeout only once.
    await asyncio.gather(*map(fetch, cluster.node_ids))
    return events


def read_trace(lines: Iterable[str], node_id: str, offset_ns: int) -> list[TraceRecord]:
    """Return the trace events of a node on the driver's clock.

    Of the commits only the first of each term in each incarnation is kept: there is one per step of the node, and no
    reader of events.jsonl looks at the others. Lines of another form, which a foreign program may write, are left out.
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
