"""The driver of the core: it gathers events, steps the core and performs the effects in order.

Everything that arrives within one turn of the event loop becomes one step: one message per peer, one fsync, one answer
per client stream. Batches therefore grow under load.

Path of a request: services -> propose() -> [event] -> core.step -> Persist -> writer thread (fdatasync)
-> Persisted -> core: commit -> store.apply -> the proposal's callback -> services.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from raft_actor_node.core import Effects, Event, Message, Paused, Propose, RaftNode, Reachable, Read, Role
from raft_actor_node.core.invariants import require
from raft_actor_node.kv.store import Result, Store
from raft_actor_node.runtime.budget import TURN_OPERATIONS
from raft_actor_node.runtime.clock import TIMER_GRAIN_S, Clock, Timer
from raft_actor_node.runtime.samples import Samples
from raft_actor_node.runtime.tracer import Tracer
from raft_actor_node.runtime.wal import Wal
from raft_actor_node.runtime.writer import ThreadWriter, WriterFactory

LEAST_LOOK_S = 0.010
"""Minimum time between looks at the clock, which otherwise happen twice per heartbeat interval."""
LATE = 1.5
"""Intervals between looks at the clock after which the next look is late. Shorter pauses are harmless: a live leader is
heard once per heartbeat interval, and the shortest election timeout is at least two heartbeat intervals."""


class ProposalSink(Protocol):
    """Receiver of the outcomes of a proposal's payloads."""

    def applied(self, offset: int, results: Sequence[Result]) -> None:
        """Take the results of payloads from `offset` on: they were committed and applied."""

    def refused(self) -> None:
        """Note that nothing was appended: this node does not lead."""

    def overloaded(self) -> None:
        """Note that nothing was appended: too many bytes wait for this node's disk (limits.unsynced_bytes)."""

    def lost(self, offset: int) -> None:
        """Note that the outcome of payloads from `offset` on is unknown: they may be appended, and may be committed."""


class ReadSink(Protocol):
    """Receiver of the permission to read."""

    def readable(self) -> None:
        """Note that every read of this sink may now be answered from the store."""

    def refused(self) -> None:
        """Note that the reads cannot be answered, because this node does not lead, or no longer leads."""


class Watch(Protocol):
    """An observer of a driver, called as things happen. An exception from it ends the node."""

    def stepping(self) -> None:
        """Note that the core is about to step."""

    def stepped(self, events: Sequence[Event], effects: Effects) -> None:
        """Note that the core handled these events. No effect is performed yet."""

    def applied(self, first_index: int, results: Sequence[Result]) -> None:
        """Note the results of applied entries from `first_index` on."""

    def answered(self, read_index: int) -> None:
        """Note that reads with this read index are about to be answered."""


@dataclass(slots=True)
class _Pending:
    """An appended proposal with payloads that are not applied yet."""

    term: int
    next_index: int
    end_index: int
    offset: int
    sink: ProposalSink


class Driver:
    """The core, log and state of a node, on one event loop."""

    def __init__(
        self,
        node: RaftNode,
        wal: Wal,
        store: Store,
        tracer: Tracer,
        *,
        send: Callable[[Sequence[Message]], None],
        fail: Callable[[BaseException], None],
        clock: Clock,
        writer: WriterFactory = ThreadWriter,
        watch: Watch | None = None,
        apply_bytes: int = 2 << 20,
    ) -> None:
        """`send` takes messages that may leave now; `fail` is called once if the node cannot continue.

        In one turn of the loop, applying touches at most `apply_bytes`, or a single entry.
        """
        self.node = node
        self.store = store
        self.fsync = Samples(clock.now_ns)
        self.after_step: Callable[[], None] = lambda: None
        """Called at the end of each step, for work done a turn at a time. It requests the next turn with wake()."""
        self.at_end: Callable[[], None] = lambda: None
        """Called after the last step."""
        self._apply_bytes = apply_bytes
        self._send = send
        self._fail = fail
        self._tracer = tracer
        self._clock = clock
        self._watch = watch
        self._events: list[Event] = []
        self._scheduled = False
        self._timer: Timer | None = None
        self._timer_due = inf
        self._look_s = max(node.parameters.heartbeat_interval / 2, LEAST_LOOK_S)
        """Interval between looks at the clock, even if nothing is due: this reveals pauses of the process."""
        self._looked_at = -inf
        self._reachable = False
        self._stopped = False
        self._progressed = asyncio.Event()
        self._number = 0
        self._proposals: dict[int, tuple[int, ProposalSink]] = {}
        self._pending: deque[_Pending] = deque()
        self._new_reads: list[ReadSink] = []
        self._reads: dict[int, list[ReadSink]] = {}
        self._readable: deque[tuple[int, list[ReadSink]]] = deque()
        self._writer = writer(wal, self.fsync, self.deliver, self._die)

    def start(self) -> None:
        """Rebuild the state up to the known commit index. Events that arrive wait for `take_part`."""
        while self.store.last_applied < self.node.commit_index:
            self._apply_chunk()
        self._tracer.record(self.node.take_trace())
        self._writer.start()

    def take_part(self) -> None:
        """Begin to step: peers can reach this node now, so their silence is meaningful."""
        self._reachable = True
        self._events.insert(0, Reachable())
        self._looked_at = self._clock.now()
        self.wake()

    async def stop(self, grace_s: float) -> None:
        """Answer what can be answered within `grace_s`, report the true outcome of the rest, and close the log."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while not self._stopped and (self._pending or self._proposals):
                    self._progressed.clear()
                    await self._progressed.wait()
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._give_up()
        self.at_end()
        await self._writer.close()

    # ------------------------------------------------------------------------------ inputs

    def deliver(self, event: Event) -> None:
        """Hand an event to the next step."""
        self._events.append(event)
        self.wake()

    def propose(self, payloads: Sequence[bytes], sink: ProposalSink) -> None:
        """Append these payloads if this node leads, and report their outcomes to the sink."""
        self._number += 1
        self._proposals[self._number] = (len(payloads), sink)
        self.deliver(Propose(self._number, payloads))

    def read(self, sink: ReadSink) -> None:
        """Request a linearizable read. All requests of one turn of the loop share a read index."""
        self._new_reads.append(sink)
        self.wake()

    # ------------------------------------------------------------------------------ a step

    def wake(self) -> None:
        """Schedule a step for the next turn of the loop."""
        if not self._scheduled and self._reachable and not self._stopped:
            self._scheduled = True
            self._clock.call_soon(self._step)

    def _step(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        if self._new_reads:
            self._number += 1
            self._reads[self._number], self._new_reads = self._new_reads, []
            self._events.append(Read(self._number))
        now = self._look_at_clock()
        events, self._events = self._events, []
        try:
            if self._watch is not None:
                self._watch.stepping()
            effects = self.node.step(events, now)
            if self._watch is not None:
                self._watch.stepped(events, effects)
            self._perform(effects)
            self.after_step()
        except Exception as error:  # of any kind: the core assumes that its effects were performed
            self._die(error)
            return
        self._progressed.set()
        self._set_timer()

    def _perform(self, effects: Effects) -> None:
        """Perform the effects of a step, in the order of core/effects.py."""
        if effects.trace:
            self._tracer.record(effects.trace)
        if effects.persist is not None:
            self._writer.submit(effects.persist)
        if effects.messages:
            self._send(effects.messages)
        for accepted in effects.accepted:
            count, sink = self._proposals.pop(accepted.proposal_id)
            self._pending.append(_Pending(accepted.term, accepted.first_index, accepted.first_index + count, 0, sink))
        for proposal_id in effects.refused:
            self._proposals.pop(proposal_id)[1].refused()
        for proposal_id in effects.overloaded:
            self._proposals.pop(proposal_id)[1].overloaded()
        if self.store.last_applied < self.node.commit_index:
            self._apply_chunk()
        if effects.leadership_lost:
            self._lose_pending()
        self._answer_reads(effects)

    def _answer_reads(self, effects: Effects) -> None:
        for ready in effects.reads:
            self._readable.append((ready.index, self._reads.pop(ready.read_id)))
        for read_id in effects.reads_refused:
            for read_sink in self._reads.pop(read_id):
                read_sink.refused()
        while self._readable and self._readable[0][0] <= self.store.last_applied:
            read_index, read_sinks = self._readable.popleft()
            if self._watch is not None:
                self._watch.answered(read_index)
            for read_sink in read_sinks:
                read_sink.readable()

    def _apply_chunk(self) -> None:
        lo = self.store.last_applied + 1
        hi, _ = self.node.log.batch_end(lo, min(self.node.commit_index + 1 - lo, TURN_OPERATIONS), self._apply_bytes)
        terms = self.node.log.terms(lo, hi)
        results = self.store.apply(lo, terms, self.node.log.payloads(lo, hi), self._apply_bytes)
        hi = lo + len(results)
        last = self.store.last_applied
        require(last <= self.node.commit_index, f"last_applied {last} beyond commit_index {self.node.commit_index}")
        if self._watch is not None:
            self._watch.applied(lo, results)
        while self._pending and self._pending[0].next_index < hi:
            pending = self._pending[0]
            at, end = pending.next_index - lo, min(pending.end_index, hi) - lo
            # Another leader may have replaced a suffix. By log matching, our entries are the prefix with our term.
            ours = terms[at:end].count(pending.term)
            if ours:
                pending.sink.applied(pending.offset, results[at : at + ours])
            pending.offset += ours
            pending.next_index += ours
            if at + ours < end:
                pending.sink.lost(pending.offset)
            elif pending.next_index < pending.end_index:
                continue
            self._pending.popleft()
        if hi <= self.node.commit_index:
            self.wake()

    def _lose_pending(self) -> None:
        """Report uncommitted proposals as lost with the leadership: a later leader may or may not commit them."""
        last = self.node.commit_index
        while self._pending and self._pending[-1].end_index - 1 > last:
            pending = self._pending.pop()
            known = max(last + 1 - pending.next_index, 0)
            pending.sink.lost(pending.offset + known)
            if known:
                # The rest is committed. It is answered once it is applied.
                pending.end_index = last + 1
                self._pending.append(pending)
                return

    def _set_timer(self) -> None:
        # A timer that fires too early is set again: that is cheaper than a new timer per message.
        deadline = self.node.next_deadline()
        if self._timer is None or deadline < self._timer_due:
            self._arm(deadline)

    def _arm(self, deadline: float) -> None:
        """Schedule _ring for the deadline. A leader's heartbeat may be slightly late, an election may not."""
        if self._timer is not None:
            self._timer.cancel()
        look_at = self._looked_at + self._look_s
        # No look shortly before the deadline: the imprecise timer of that look could fire after the deadline.
        looks = look_at + 2 * TIMER_GRAIN_S < deadline
        self._timer_due = look_at if looks else deadline
        precise = not looks and self.node.role != Role.LEADER
        self._timer = self._clock.call_at(self._timer_due, self._ring, precise=precise)

    def _ring(self) -> None:
        self._timer = None
        if self._stopped:
            return
        now, deadline = self._look_at_clock(), self.node.next_deadline()
        if self._events or deadline <= now:
            self.wake()
        else:
            self._arm(deadline)

    def _look_at_clock(self) -> float:
        """Return the time. After a long interval since the last look, report a pause of this process to the core."""
        now = self._clock.now()
        away_s, self._looked_at = now - self._looked_at, now
        if away_s > LATE * self._look_s:
            self._events.insert(0, Paused(away_s - self._look_s))
        return now

    # ------------------------------------------------------------------------------ endings

    def _give_up(self) -> None:
        for pending in self._pending:
            pending.sink.lost(pending.offset)
        for _, sink in self._proposals.values():
            sink.refused()  # the core never saw it, so it was certainly not appended
        for sinks in (self._new_reads, *self._reads.values(), *(sinks for _, sinks in self._readable)):
            for read_sink in sinks:
                read_sink.refused()
        self._pending.clear()
        self._proposals.clear()
        self._new_reads.clear()
        self._reads.clear()
        self._readable.clear()

    def _die(self, error: BaseException) -> None:
        """Stop acknowledging: the process is about to end."""
        self._stopped = True
        for _, sink in self._proposals.values():
            sink.lost(0)  # the failed step may have appended it
        self._proposals.clear()
        self._progressed.set()
        self._fail(error)
