"""Parse the lines of trace files. runtime/tracer.py writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from raft_actor_node.core.trace import TraceRecord

_values = itemgetter("number", "time_ns", "kind", "term", "index", "log_term", "durable_index", "peer", "detail")
_TYPES = (int, int, str, int, int, int, int, str, str)


def parse_trace(lines: Iterable[str | bytes], node_id: str, offset_ns: int = 0) -> Iterator[TraceRecord]:
    """Return the events in the lines of a node's trace file, on the reader's clock.

    `offset_ns`: how far the node's clock is ahead of the reader's. Lines without an event are skipped, because a
    foreign program may write anything. A SIGKILL may tear a line. The first event of the next incarnation then follows
    on the same line, and is returned.
    """
    for line in lines:
        try:
            fields = json.loads(line)
        except ValueError:
            text = line if isinstance(line, str) else line.decode(errors="replace")
            try:
                fields = json.loads(text[text.rindex("{") :])
            except ValueError:
                continue
        if isinstance(fields, dict):
            yield read_record(node_id, fields, offset_ns)


def read_record(node_id: str, fields: Mapping[str, object], offset_ns: int = 0) -> TraceRecord:
    """Return the event with the decoded fields of one line. Fields of the wrong type are left out."""
    try:
        values: tuple[Any, ...] = _values(fields)
    except KeyError:
        return _partial(node_id, fields, offset_ns)
    # With hundreds of thousands of lines, comparing all types at once saves time. It also excludes bool as int.
    if tuple(map(type, values)) != _TYPES:
        return _partial(node_id, fields, offset_ns)
    number, time_ns, *rest = values
    return TraceRecord(node_id, number, time_ns - offset_ns, *rest)


def _partial(node_id: str, fields: Mapping[str, object], offset_ns: int) -> TraceRecord:
    def number(name: str) -> int | None:
        value = fields.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(name: str) -> str:
        value = fields.get(name)
        return value if isinstance(value, str) else ""

    time_ns, term, index = number("time_ns"), number("term"), number("index")
    wrong = [name for name in ("time_ns", "log_term") if name in fields and number(name) is None]
    return TraceRecord(
        node_id,
        number("number"),
        0 if time_ns is None else time_ns - offset_ns,
        text("kind"),
        term or 0,
        index or 0,
        number("log_term"),
        number("durable_index"),
        text("peer"),
        text("detail"),
        damaged=bool(wrong) or term is None or index is None or not isinstance(fields.get("peer", ""), str),
    )
