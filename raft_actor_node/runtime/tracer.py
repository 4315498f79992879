"""The node's trace: in memory for the Trace RPC, and in a file that survives the process.

The tracer writes the events of a step to the file, unbuffered, before any effect of the step leaves the node. After a
SIGKILL the page cache still has every line, so no vote is missing from the record.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice
from time import monotonic_ns

from raft_actor_node.core import TraceEvent
from raft_actor_node.errors import ConfigError, DiskError

REMEMBERED = 2048
"""Number of events kept in memory for the Trace RPC."""


class Tracer:
    """The recorder of a node: it numbers, time-stamps and writes events.

    A line is a JSON object: node, number, time_ns, kind, term, index, log_term, durable_index, peer, detail.
    core/trace.py defines them.
    """

    def __init__(self, node_id: str, path: str | None, clock_ns: Callable[[], int] = monotonic_ns) -> None:
        self._node_id = node_id
        self._path, self._clock_ns = path, clock_ns
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if path else None
        except OSError as error:
            raise ConfigError(f"trace_file: {path}: {error.strerror}") from None
        self._events: deque[tuple[int, int, TraceEvent]] = deque(maxlen=REMEMBERED)
        self._number = 0
        self._news = asyncio.Event()

    def record(self, events: Sequence[TraceEvent]) -> None:
        """Record the events of one step.

        Raises DiskError if the file cannot be written: effects without a record must not leave the node.
        """
        now_ns = self._clock_ns()
        lines = []
        for event in events:
            self._number += 1
            self._events.append((self._number, now_ns, event))
            if self._file is not None:
                lines.append(self._line(now_ns, event))
        if self._file is not None:
            data = "".join(lines).encode()
            try:
                while data:
                    data = data[os.write(self._file, data) :]
            except OSError as error:
                raise DiskError(f"trace_file: {self._path}: cannot be written: {error.strerror}") from error
        self._news.set()
        self._news = asyncio.Event()

    def _line(self, now_ns: int, event: TraceEvent) -> str:
        # Formatted by hand, because every batch records a commit. Only the detail could need escaping.
        return (
            f'{{"node":"{self._node_id}","number":{self._number},"time_ns":{now_ns},"kind":"{event.kind}",'
            f'"term":{event.term},"index":{event.index},"log_term":{event.log_term},'
            f'"durable_index":{event.durable_index},"peer":"{event.peer_id}","detail":{json.dumps(event.detail)}}}\n'
        )

    async def events(self, after: int, *, follow: bool) -> AsyncIterator[tuple[int, int, TraceEvent]]:
        """Yield (number, time_ns, event) of every remembered event with a number above `after`, in order.

        With `follow`, wait for new events and yield them too.
        """
        while True:
            news = self._news
            # Numbers are consecutive, so the new events are the last ones.
            new = list(islice(reversed(self._events), max(self._number - after, 0)))
            for number, time_ns, event in reversed(new):
                after = number
                yield number, time_ns, event
            if not follow:
                return
            await news.wait()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
