"""A cluster that only records calls, and an event loop in virtual time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from raft_actor_node.links import LinkRule
from raft_actor_node.names import node_names
from raft_actor_node.node_faults import NodeFaults


class _VirtualSelector(selectors.SelectSelector):
    """Jumps to the next timer of the loop instead of waiting for it."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("everybody waits, and nobody for a time: a deadlock")
        self.now_s += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


class VirtualClock:
    def now_ns(self) -> int:
        return round(asyncio.get_running_loop().time() * 1e9)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Applied:
    first_ns: int
    last_ns: int
    failed: tuple[str, ...] = ()


class FakeTarget:
    """Records each call as (seconds since the first call, what, nodes), and fails as a test asks."""

    def __init__(self, n: int = 5) -> None:
        self.node_ids = node_names(n)
        self.leads: str | None = "n1"
        self.calls: list[tuple[float, str, tuple[str, ...]]] = []
        self.down: set[str] = set()
        self.paused: set[str] = set()
        self.table: list[LinkRule] = []
        self.tables: dict[str, list[LinkRule]] = {node: [] for node in self.node_ids}
        self.inside: dict[str, NodeFaults] = {}
        self.insides: dict[str, NodeFaults | None] = dict.fromkeys(self.node_ids)
        self.misbehave: Callable[[str, tuple[str, ...]], Coroutine[Any, Any, None]] | None = None
        self.start_s = asyncio.get_running_loop().time()

    async def _note(self, what: str, *nodes: str) -> None:
        self.calls.append((round(asyncio.get_running_loop().time() - self.start_s, 6), what, nodes))
        if self.misbehave:
            await self.misbehave(what, nodes)

    async def leader(self) -> str | None:
        if self.misbehave:
            await self.misbehave("leader", ())
        return self.leads

    async def crash(self, *nodes: str) -> None:
        await self._note("crash", *nodes)
        self.down |= set(nodes)
        if self.leads in nodes:
            self.leads = next((node for node in self.node_ids if node not in self.down), None)

    async def restart(self, *nodes: str) -> None:
        await self._note("restart", *nodes)
        self.down -= set(nodes)
        for node in nodes:
            self.tables[node] = self.table
            self.insides[node] = self.inside.get(node)

    async def pause(self, *nodes: str) -> None:
        await self._note("pause", *nodes)
        self.paused |= set(nodes)

    async def resume(self, *nodes: str) -> None:
        await self._note("resume", *nodes)
        self.paused -= set(nodes)

    async def set_links(self, rules: Sequence[LinkRule]) -> Applied:
        await self._note("links" if rules else "no links")
        self.table = list(rules)
        for node in self.node_ids:
            if node not in self.down | self.paused:
                self.tables[node] = self.table
        now_ns = VirtualClock().now_ns()
        return Applied(now_ns, now_ns + 1000, tuple(node for node in self.node_ids if node in self.paused))

    async def set_node_faults(self, faults: Mapping[str, NodeFaults]) -> Applied:
        await self._note("inside" if faults else "nothing inside", *faults)
        return self._inside(faults)

    def _inside(self, faults: Mapping[str, NodeFaults]) -> Applied:
        self.inside = dict(faults)
        for node in self.node_ids:
            if node not in self.down | self.paused:
                self.insides[node] = self.inside.get(node)
        now_ns = VirtualClock().now_ns()
        return Applied(now_ns, now_ns + 1000, tuple(node for node in self.node_ids if node in self.paused))

    async def heal(self) -> Applied:
        await self._note("heal")
        self._inside({})
        return await self.set_links([])

    def assert_healed(self) -> None:
        assert not self.down
        assert not self.paused
        assert not any(self.tables.values())
        assert not any(self.insides.values())


@pytest.fixture
def virtual() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine to its end in virtual time, and cancel the tasks that it leaves behind."""

    def run_virtual(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(work)

    return run_virtual


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def cluster() -> type[FakeTarget]:
    """The class of the fake cluster; an instance must be created inside the loop that it is used in."""
    return FakeTarget
