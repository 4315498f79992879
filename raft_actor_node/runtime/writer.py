"""Writers, which make the Persists of the core durable in sequence and report each durable Persist."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from raft_actor_node.core import Persist, Persisted
from raft_actor_node.errors import DiskError
from raft_actor_node.runtime.samples import Samples
from raft_actor_node.runtime.wal import Wal

CLOSE_S = 10.0
"""Maximum seconds that a stopping node waits for a disk that does not answer."""

T = TypeVar("T")
Done = Callable[[Persisted], None]
Failed = Callable[[BaseException], None]


class Writer(Protocol):
    """A writer of the log. It waits for the disk, so that heartbeats need not wait."""

    def start(self) -> None:
        """Start to write."""

    def submit(self, persist: Persist) -> None:
        """Make a Persist durable, after all Persists submitted before."""

    async def close(self) -> None:
        """Finish what was submitted and close the log."""


WriterFactory = Callable[[Wal, Samples, Done, Failed], Writer]
"""Function of (log, samples for fsync latencies, callback per durable Persist, callback once on failure)."""


def write(wal: Wal, persist: Persist) -> None:
    """Make a Persist durable: the hard state first, because a log must never hold a term above the saved term."""
    if persist.hard_state is not None:
        wal.save_hard_state(persist.hard_state.current_term, persist.hard_state.voted_for)
    if persist.terms:
        wal.append(persist.first_index, persist.terms, persist.payloads, persist.commit_index)


class ThreadWriter:
    """A thread that waits for a real disk."""

    def __init__(
        self,
        wal: Wal,
        fsync: Samples,
        done: Done,
        failed: Failed,
        *,
        closing: Callable[[], None] = lambda: None,
        close_s: float = CLOSE_S,
    ) -> None:
        """`closing` is called when the node stops, to release an fsync that a fault holds."""
        wal.on_fsync = fsync.add_ns
        self._wal = wal
        self._loop = asyncio.get_running_loop()
        self._done = done
        self._failed = failed
        self._closing = closing
        self._close_s = close_s
        self._queue: queue.SimpleQueue[Persist | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="wal-writer", daemon=True)

    def start(self) -> None:
        """As in Writer."""
        self._thread.start()

    def submit(self, persist: Persist) -> None:
        """As in Writer; returns at once."""
        self._queue.put(persist)

    async def close(self) -> None:
        """As in Writer. A disk that does not answer within `close_s` is reported as failed and not closed."""
        self._queue.put(None)
        if self._thread.ident is None:
            return
        self._closing()
        await asyncio.to_thread(self._thread.join, self._close_s)
        if self._thread.is_alive():
            self._failed(DiskError(f"the disk did not answer within {self._close_s:g} s while the node was stopping"))

    def _run(self) -> None:
        try:
            while (persist := self._queue.get()) is not None:
                write(self._wal, persist)
                self._tell(self._done, Persisted(persist.number))
            self._wal.close()
        except Exception as error:  # of any kind: this node can no longer promise anything
            self._tell(self._failed, error)

    def _tell(self, callback: Callable[[T], None], value: T) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(callback, value)
