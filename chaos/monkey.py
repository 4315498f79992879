"""Carry out a schedule on a Target, record what happened, and always heal.

Actions never overlap: a slow action delays the later ones, and their time stamps show the delay. If a fault is planned
to begin after another one ends, it waits until the earlier fault is actually healed, and then lasts as long as planned.
So a slow restart postpones the faults after it. A fault is skipped if less than half of its planned time is left before
the end of the schedule.

Each call of the target has a timeout in the event loop's time. The monkey records an error of the target and continues
with the schedule. It heals the cluster however the run ends; a cancelled run ends only after healing.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Literal, Protocol, TypeVar

from chaos.events import FaultEvent
from chaos.faults import Effect, Fault
from chaos.faults.base import Table, Undo
from chaos.faults.inside import compose_inside
from chaos.schedule import Schedule, tidy_s
from chaos.shapes import compose
from chaos.spec import BadChaos
from chaos.target import Applied, Target
from raft_actor_node.errors import RaftLabError
from raft_actor_node.patience import Patience

log = logging.getLogger(__name__)

_HEAL, _ADVANCE, _INJECT = range(3)
"""The kinds of action, in the order in which they happen when due at the same time."""
LEAST_LEFT = 0.5
"""A fault is skipped if less than this share of its planned time is left before the end."""
_SAME_S = 1e-5
"""Times closer than this count as equal, because the times of a schedule are rounded to the microsecond."""
LEADER_POLL_S = 0.02
"""Interval at which the target is polled for a leader while there is none."""


class ScheduleClock(Protocol):
    """The clock of a schedule; it may be virtual."""

    def now_ns(self) -> int:
        """Return the time in nanoseconds; it never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Let this much time pass."""


class MonotonicClock:
    """Real time: the monotonic clock of this host."""

    def now_ns(self) -> int:
        """Return CLOCK_MONOTONIC, which the nodes of this host use too."""
        return time.monotonic_ns()

    async def sleep(self, seconds: float) -> None:
        """Sleep in the event loop."""
        await asyncio.sleep(seconds)


class NotHealed(RaftLabError):
    """Faults remain in force although healing was tried; measurements from now on are worthless."""

    def __init__(self, message: str, events: Sequence[FaultEvent]) -> None:
        super().__init__(message)
        self.events = tuple(events)
        """All events of the run."""


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for a target, in seconds."""

    call_s: float = 5.0
    """For the answer to any call."""
    restart_s: float = 30.0
    """For nodes to serve again; they recover their log first."""
    leader_s: float = 2.0
    """For a leader, when a fault needs one; after that the seed chooses a node instead."""


async def run(
    target: Target,
    schedule: Schedule,
    *,
    clock: ScheduleClock | None = None,
    on_event: Callable[[FaultEvent], None] | None = None,
    timeouts: Timeouts = Timeouts(),
) -> list[FaultEvent]:
    """Carry out the schedule, starting now, and return what happened; no fault is in force afterwards.

    Returns when the last fault is healed, which may be before the end of the schedule. `on_event` receives each event
    as it happens; after a cancellation the caller has no other way to get the events. Raises NotHealed when the target
    cannot be healed; other failures of the target are in the events. Raises BadChaos, before it acts, for a schedule
    that does not fit this cluster.
    """
    for fault in schedule.faults:
        if reason := fault.refusal(target.node_ids):
            raise BadChaos(reason)
    monkey = _Monkey(target, schedule, clock or MonotonicClock(), on_event, timeouts)
    await monkey.run()
    return monkey.events


@dataclass
class _Active:
    """A fault that is in force, or may be: its injection was tried, and it has not been healed since."""

    fault: Fault
    nodes: tuple[str, ...]
    """Its nodes, without those that another fault held when it struck, and without those that were brought back."""
    effect: Effect
    heal_at_s: float
    """When it is due to be healed, in seconds after the start."""
    ending: bool = False
    """Whether healing it was tried; it may have failed."""


@dataclass
class _Outcome:
    """How a call of the target ended."""

    first_ns: int
    last_ns: int
    failed: tuple[str, ...] = ()
    error: str = ""
    took_effect: bool | None = True


class _Monkey:
    def __init__(
        self,
        target: Target,
        schedule: Schedule,
        clock: ScheduleClock,
        on_event: Callable[[FaultEvent], None] | None,
        timeouts: Timeouts,
    ) -> None:
        self.target = target
        self.nodes = target.node_ids
        self.schedule = schedule
        self.clock = clock
        self.on_event = on_event
        self.timeouts = timeouts
        self.events: list[FaultEvent] = []
        self.active: dict[int, _Active] = {}
        self.stale: dict[Table, set[str]] = {}
        """By table that was set: the nodes that missed its last state."""
        self.start_ns = 0

    async def run(self) -> None:
        self.start_ns = self.clock.now_ns()
        try:
            await self._follow_schedule()
        finally:
            await _to_the_end(self._heal_everything())
        if self.active or self._missed_tables():
            raise NotHealed(self._not_healed(), self.events)

    async def _follow_schedule(self) -> None:
        # (when it is due, what, position in the schedule)
        agenda = [(float(fault.at), _INJECT, index) for index, fault in enumerate(self.schedule.faults)]
        while agenda:
            at_s, act, index = heapq.heappop(agenda)
            await self._sleep_until(at_s)
            if act == _HEAL:
                await self._heal(index)
            elif act == _ADVANCE:
                await self._advance(index, at_s)
            elif (healed_s := self._waits_for(index)) is not None:
                heapq.heappush(agenda, (healed_s, _INJECT, index))
            elif await self._inject(index):
                active = self.active[index]
                if active.heal_at_s < self.schedule.duration_s:
                    heapq.heappush(agenda, (active.heal_at_s, _HEAL, index))
                if prepares_s := active.fault.prepares_s:
                    heapq.heappush(agenda, (self._elapsed_s() + prepares_s, _ADVANCE, index))
        if self.active:
            await self._sleep_until(self.schedule.duration_s)

    async def _sleep_until(self, at_s: float) -> None:
        due_ns = self.start_ns + round(at_s * 1e9)
        while (left_ns := due_ns - self.clock.now_ns()) > 0:
            await self.clock.sleep(left_ns / 1e9)

    def _elapsed_s(self) -> float:
        return (self.clock.now_ns() - self.start_ns) / 1e9

    def _held(self, but: _Active | None = None) -> set[str]:
        """Return the nodes whose processes a fault holds down or stopped, or may hold; `but`: leave out this fault."""
        faults = [active for active in self.active.values() if active is not but and active.effect.undo]
        return {node for active in faults for node in active.nodes}

    def _holders(self, nodes: Sequence[str]) -> str:
        """Return which faults hold these nodes, as text."""
        holding = [active for active in self.active.values() if active.effect.undo]
        faults = [active.fault for active in holding if set(active.nodes).intersection(nodes)]
        others = dict.fromkeys(fault.kind for fault in faults if not fault.silences)
        return f"down because of {' and '.join(others)}, or about to be" if others else "crashed or paused already"

    def _lasts_s(self, index: int) -> float:
        """Return how long a fault was planned to be in force, at most until the end of the schedule."""
        fault, end_s = self.schedule.faults[index], self.schedule.duration_s
        left_s = end_s - float(fault.at)
        return left_s if fault.lasts is None else min(float(fault.lasts), left_s)

    def _waits_for(self, index: int) -> float | None:
        """Return when to try again: the earliest healing time of the faults that should have ended before this fault.

        None: no such fault is in force, or too little time is left for this fault. A fault whose healing failed does
        not delay others.
        """
        at_s = float(self.schedule.faults[index].at)
        healed_s = [
            active.heal_at_s
            for other, active in self.active.items()
            if not active.ending and float(self.schedule.faults[other].at) + self._lasts_s(other) <= at_s + _SAME_S
        ]
        return min(healed_s) if healed_s and self._fits(index) else None

    def _fits(self, index: int) -> bool:
        """Return whether enough time is left for a fault."""
        left_s = self.schedule.duration_s - self._elapsed_s()
        return left_s > 0 and left_s >= LEAST_LEFT * self._lasts_s(index)

    async def _inject(self, index: int) -> bool:
        planned = self.schedule.faults[index]
        end_s, too_late = self.schedule.duration_s, "it did not fit before the end of the schedule"
        lasts_s = None if planned.lasts is None else float(planned.lasts)
        if not self._fits(index):
            return self._skip(index, planned, too_late)
        fault, note = await self._resolve(index)
        if not self._fits(index):
            return self._skip(index, fault, too_late)
        # The fault is recorded with its actual time, so that a replay uses that time.
        fault = fault.timed(tidy_s(min(self._elapsed_s(), end_s - 1e-6)), lasts_s)
        nodes = fault.ids
        if fault.effect(self.nodes).undo:
            held = self._held()
            nodes = tuple(node for node in nodes if node not in held)
            if not nodes:
                return self._skip(index, fault, self._holders(fault.ids))
            fault = fault.placed(nodes)
        # From here on the fault may be in force: a call that fails or is cancelled may still have taken effect.
        effect = fault.effect(self.nodes, preparing=fault.prepares_s > 0)
        active = self.active[index] = _Active(fault, nodes, effect, end_s)
        begin_ns = self.clock.now_ns()
        outcome = _Outcome(begin_ns, begin_ns, error="cancelled before it was answered", took_effect=None)
        try:
            outcome = await self._put_in_force(active)
        finally:
            self._record(index, "inject", fault, float(planned.at), outcome, note)
        active.heal_at_s = end_s if lasts_s is None else min(self._elapsed_s() + lasts_s, end_s)
        return True

    async def _advance(self, index: int, at_s: float) -> None:
        """Begin the second stage of a fault that was prepared, unless it is healed already."""
        active = self.active.get(index)
        if active is None or self._elapsed_s() >= active.heal_at_s:
            return
        active.effect = active.fault.effect(self.nodes)
        self._record(index, "advance", active.fault, at_s, _together(await self._set_tables(active)))

    def _skip(self, index: int, fault: Fault, reason: str) -> Literal[False]:
        now_ns = self.clock.now_ns()
        self._record(index, "skip", fault, float(fault.at), _Outcome(now_ns, now_ns, took_effect=False), reason)
        return False

    async def _resolve(self, index: int) -> tuple[Fault, str]:
        fault, note, leader = self.schedule.faults[index], "", None
        rng = Random(f"{self.schedule.seed}/{index}")
        if fault.needs_leader:
            leader = await self._find_leader()
            if leader is None:
                held = self._held()
                leader = rng.choice([node for node in self.nodes if node not in held] or self.nodes)
                note = f"there was no leader, so the seed chose {leader} instead"
        return fault.resolved(self.nodes, leader, rng), note

    async def _find_leader(self) -> str | None:
        until_s = min(self._elapsed_s() + self.timeouts.leader_s, self.schedule.duration_s)
        while (left_s := until_s - self._elapsed_s()) > 0:
            try:
                leader = await _bounded(self.target.leader, left_s)
            except Exception:  # a target that fails here has no known leader
                leader = None
            if leader in self.nodes and leader not in self._held():
                return leader
            await self.clock.sleep(LEADER_POLL_S)
        return None

    async def _put_in_force(self, active: _Active) -> _Outcome:
        outcomes = await self._set_tables(active)
        if (strike := active.effect.strike) is not None:
            act = {"crash": self.target.crash, "pause": self.target.pause}[strike]
            outcomes.append(await self._call(lambda: act(*active.nodes), self.timeouts.call_s))
        return _together(outcomes)

    async def _set_tables(self, active: _Active) -> list[_Outcome]:
        """Set the tables to which a fault contributes, or contributed."""
        return [await self._set_table(table, active) for table in active.effect.tables]

    async def _set_table(self, table: Table, changed: _Active | None = None) -> _Outcome:
        effects = [active.effect for active in self.active.values() if not active.ending]
        rules = compose(effect.links for effect in effects if effect.links is not None)
        inside = compose_inside(effect.inside for effect in effects if effect.inside is not None)
        call: dict[Table, Callable[[], Awaitable[Applied | None]]] = {
            "links": lambda: self.target.set_links(rules),
            "inside": lambda: self.target.set_node_faults(inside),
        }
        return await self._call_tables((table,), call[table], changed)

    async def _call_tables(
        self, tables: Sequence[Table], call: Callable[[], Awaitable[Applied | None]], changed: _Active | None = None
    ) -> _Outcome:
        """Change tables. Nodes that another fault holds, or that this fault held until now, need not answer."""
        for table in tables:
            self.stale.setdefault(table, set())
        excused = self._held() if changed is None or changed.ending else self._held(but=changed)
        outcome = await self._call(call, self.timeouts.call_s, excused)
        for table in tables:
            self.stale[table] = set(outcome.failed or (self.nodes if outcome.error else ()))
        return outcome

    async def _call(
        self, call: Callable[[], Awaitable[Applied | None]], timeout_s: float, excused: Collection[str] = ()
    ) -> _Outcome:
        """Call the target and return the outcome; an error of the target becomes part of the outcome.

        If only `excused` nodes fail, the outcome has no error.
        """
        begin_ns = self.clock.now_ns()
        try:
            applied = await _bounded(call, timeout_s)
            if applied is None:
                return _Outcome(begin_ns, self.clock.now_ns())
            missing = [node for node in applied.failed if node not in excused]
            return _Outcome(
                int(applied.first_ns) or begin_ns,
                int(applied.last_ns) or self.clock.now_ns(),
                tuple(applied.failed),
                f"not on {', '.join(missing)}" if missing else "",
                took_effect=not missing or bool(applied.first_ns),
            )
        except Exception as error:
            text = " ".join(str(error).split())
            return _Outcome(begin_ns, self.clock.now_ns(), error=text or type(error).__name__, took_effect=None)

    async def _heal(self, index: int) -> None:
        active = self.active[index]
        active.ending = True
        outcomes, nodes = await self._set_tables(active), set(active.nodes)
        if undo := active.effect.undo:
            back = await self._bring_back(active, undo)
            for table, stale in list(self.stale.items()):
                if stale & nodes:
                    # These nodes missed the table while they were down or stopped, and the links that they still cut
                    # are cut for their peers, too.
                    back.last_ns = max(back.last_ns, (await self._set_table(table)).last_ns)
            outcomes.append(back)
        self._healed(index, _together(outcomes))

    async def _bring_back(self, active: _Active, undo: Undo) -> _Outcome:
        """Restart or resume nodes, each by its own call, so that one failure does not keep the others down."""
        act = {"restart": self.target.restart, "resume": self.target.resume}[undo]
        timeout_s = {"restart": self.timeouts.restart_s, "resume": self.timeouts.call_s}[undo]
        outcomes = await asyncio.gather(*(self._call(partial(act, node), timeout_s) for node in active.nodes))
        errors = {node: outcome.error for node, outcome in zip(active.nodes, outcomes, strict=True) if outcome.error}
        active.nodes = tuple(errors)
        return _Outcome(
            min(outcome.first_ns for outcome in outcomes),
            max(outcome.last_ns for outcome in outcomes),
            error="; ".join(f"{node}: {error}" for node, error in errors.items()),
        )

    def _healed(self, index: int, outcome: _Outcome) -> None:
        active = self.active[index]
        if not outcome.error:
            del self.active[index]
        self._record(index, "heal", active.fault, active.heal_at_s, outcome)

    async def _heal_everything(self) -> None:
        # Paused nodes come first, because they cannot take a table. Tables come before nodes that are down, because
        # those start with the tables in force. A second healing of the tables is for nodes that missed the first.
        await self._bring_all_back("resume")
        healed = await self._heal_tables()
        await self._bring_all_back("restart", healed)
        if self._missed_tables():
            await self._heal_tables()
        if self.active or self._missed_tables():
            log.error("%s", self._not_healed())

    def _missed_tables(self) -> bool:
        return any(self.stale.values())

    async def _bring_all_back(self, undo: Undo, tables: _Outcome | None = None) -> None:
        """Bring back the nodes that each fault holds down or stopped.

        `tables` is the outcome of emptying the tables, if that came before: it is the other half of healing a fault
        that also has a part in a table.
        """

        async def bring_back(index: int) -> None:
            active = self.active[index]
            halves = [tables] if tables and active.effect.tables else []
            self._healed(index, _together([*halves, await self._bring_back(active, undo)]))

        held = [index for index, active in self.active.items() if active.effect.undo == undo and active.nodes]
        await asyncio.gather(*map(bring_back, held))

    async def _heal_tables(self) -> _Outcome | None:
        """Empty all tables. Faults that still hold nodes are not healed yet."""
        if not self.stale:
            return None
        outcome = await self._call_tables(tuple(self.stale), self.target.heal)
        parts = {index: active for index, active in self.active.items() if active.effect.tables}
        for index, active in parts.items():
            if not (active.effect.undo and active.nodes):
                self._healed(index, outcome)
        if not parts:
            self._record(None, "heal", None, self.schedule.duration_s, outcome)
        return outcome

    def _not_healed(self) -> str:
        failed = [event for event in self.events if event.action == "heal" and event.error]
        causes = dict.fromkeys(f"{event.kind}: {event.error}" for event in failed)
        return f"the cluster could not be healed: {'; '.join(causes)}"

    def _record(
        self,
        index: int | None,
        action: Literal["inject", "advance", "heal", "skip"],
        fault: Fault | None,
        planned_at_s: float,
        outcome: _Outcome,
        note: str = "",
    ) -> None:
        event = FaultEvent(
            time_ns=outcome.first_ns,
            done_ns=outcome.last_ns,
            kind=fault.kind if fault else "links",
            action=action,
            nodes=fault.ids if fault else self.nodes,
            detail="; ".join(part for part in (fault.describe() if fault else "all links", note) if part),
            error=outcome.error,
            took_effect=outcome.took_effect,
            planned_at_s=planned_at_s,
            index=index,
            fault=fault,
        )
        self.events.append(event)
        if self.on_event:
            try:
                self.on_event(event)
            except Exception:  # a failing listener must not prevent healing
                log.exception("a listener to fault events failed")


def _together(outcomes: Sequence[_Outcome]) -> _Outcome:
    """Combine the outcomes of the calls of one action: it took effect where any of them did."""
    effects = {outcome.took_effect for outcome in outcomes}
    return _Outcome(
        min(outcome.first_ns for outcome in outcomes),
        max(outcome.last_ns for outcome in outcomes),
        tuple(dict.fromkeys(node for outcome in outcomes for node in outcome.failed)),
        "; ".join(outcome.error for outcome in outcomes if outcome.error),
        took_effect=True if True in effects else None if None in effects else False,
    )


T = TypeVar("T")


async def _bounded(call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    """Return the result of a call, or raise TimeoutError; a call that ignores its cancellation is abandoned."""

    async def attempt() -> T:
        return await call()

    task = asyncio.ensure_future(attempt())
    try:
        with contextlib.suppress(TimeoutError):
            async with Patience(timeout_s):
                await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(lambda late: late.cancelled() or late.exception())
    if not task.done():
        raise TimeoutError(f"no answer within {timeout_s:g}s")
    if task.cancelled():
        raise RuntimeError("the target cancelled the call")
    return task.result()


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await work that must not be interrupted; a cancellation takes effect afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
