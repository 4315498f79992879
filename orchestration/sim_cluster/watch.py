"""Report the events of one incarnation of a simulated node to the story and the observer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestration.sim_cluster.process import Process
from orchestration.sim_cluster.story import describe_event
from orchestration.sim_cluster.world import World
from raft_actor_node.core import Effects, Event, TraceEvent
from raft_actor_node.core.invariants import Snapshot
from raft_actor_node.kv.store import Result
from raft_actor_node.runtime.driver import Driver
from raft_actor_node.runtime.tracer import Tracer


class SimTracer(Tracer):
    """A tracer that keeps the lines of the trace file in memory."""

    def __init__(self, node_id: str, world: World, lines: list[str]) -> None:
        super().__init__(node_id, None, world.loop.now_ns)
        self._story = world.story
        self._lines = lines

    def record(self, events: Sequence[TraceEvent]) -> None:
        """As in Tracer."""
        now_ns = self._clock_ns()
        for event in events:
            self._number += 1
            self._lines.append(self._line(now_ns, event).rstrip())
            self._story.tell(self._node_id, describe_event(event))


class Ended(Exception):
    """The observer ended this incarnation; no more of its code may run."""


class SimWatch:
    """Reports the driver's actions to the observer, which may crash the node at that point; satisfies driver.Watch."""

    def __init__(self, world: World, process: Process, driver: Callable[[], Driver]) -> None:
        """Create the watch; `driver` returns the driver, which is created only after its watch."""
        self._observer = world.observer
        self._loop = world.loop
        self._process = process
        self._driver = driver

    def stepping(self) -> None:
        """As in Watch."""
        self._before: Snapshot = self._driver().node.snapshot()

    def stepped(self, events: Sequence[Event], effects: Effects) -> None:
        """As in Watch."""
        node = self._driver().node
        self._observer.stepped(node, self._before, events, effects, self._loop.time())
        self._go_on()

    def applied(self, first_index: int, results: Sequence[Result]) -> None:
        """As in Watch."""
        driver = self._driver()
        self._observer.applied(driver.node.node_id, first_index, results, driver.store, self._loop.time())
        self._go_on()

    def answered(self, read_index: int) -> None:
        """As in Watch."""
        driver = self._driver()
        self._observer.answered(driver.node.node_id, read_index, driver.store.last_applied, self._loop.time())
        self._go_on()

    def _go_on(self) -> None:
        if self._process.ended:
            raise Ended
