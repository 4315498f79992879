"""A cluster, a backend and a client engine that live in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any

from chaos import MonotonicClock
from orchestration import ClusterPlan, PlacementRefused
from orchestration.face import Host, HostClock
from orchestration.plan import NodeExit
from orchestration.ray_cluster.doctor import Examination
from orchestration.sim_cluster import SimLoop
from raft_actor_node.client_engine import OK, OPEN, UNKNOWN, Operation, Session
from raft_actor_node.errors import OperationFailed, RaftLabError
from raft_actor_node.kv.commands import Kind
from raft_actor_node.names import node_names
from tests.sweeps.examinations import examination, host

MS = 1_000_000
CLOCK = HostClock()
HOST = Host("h1", "10.0.0.1", 2.0, is_driver=True, name="here")


class FakeEngine:
    """Completes every operation after `delay_s`, as one key-value store would; with `silent` it completes none."""

    delay_s = 0.002

    def __init__(
        self,
        addresses: Mapping[str, str],
        *,
        on_done: Callable[[list[Operation]], None],
        clock: Callable[[], int] = time.monotonic_ns,
        **_: Any,
    ) -> None:
        self.addresses = dict(addresses)
        self.on_done = on_done
        self.clock = clock
        self.batches: list[list[Operation]] = []
        self.open: list[Operation] = []
        self.store: dict[bytes, bytes] = {}
        self.silent = False
        self.closed = False

    def start(self) -> None:
        pass

    async def open_sessions(self, count: int) -> list[Session]:
        return [Session(number) for number in range(1, count + 1)]

    def update_addresses(self, addresses: Mapping[str, str]) -> None:
        self.addresses = dict(addresses)

    def submit(self, operations: Sequence[Operation]) -> None:
        batch = list(operations)
        self.batches.append(batch)
        self.open += batch
        for operation in batch:
            operation.start_ns = self.clock()
            operation.attempts = 1
        if not self.silent:
            asyncio.get_running_loop().call_later(self.delay_s, self._complete, batch)

    async def close(self) -> None:
        self.closed = True
        for operation in self.open:
            operation.outcome, operation.end_ns = UNKNOWN, self.clock()
        given_up, self.open = self.open, []
        if given_up:
            self.on_done(given_up)

    def _complete(self, batch: list[Operation]) -> None:
        done = [operation for operation in batch if operation.outcome == OPEN]
        for operation in done:
            self._apply(operation)
            operation.outcome, operation.end_ns = OK, self.clock()
            self.open.remove(operation)
        if done:
            self.on_done(done)

    def _apply(self, operation: Operation) -> None:
        current = self.store.get(operation.key)
        match operation.kind:
            case Kind.GET:
                operation.result, operation.found = current, current is not None
            case Kind.PUT:
                self.store[operation.key] = operation.value
            case Kind.DELETE:
                operation.found = self.store.pop(operation.key, None) is not None
            case Kind.APPEND:
                self.store[operation.key] = (current or b"") + operation.value
                operation.number = len(self.store[operation.key])
            case Kind.COMPARE_AND_SWAP:
                operation.found = current == operation.expected
                operation.result = None if operation.found else current
                if operation.found:
                    self.store[operation.key] = operation.value


class RefusingEngine(FakeEngine):
    """Grants no session."""

    async def open_sessions(self, count: int) -> list[Session]:
        raise OperationFailed("no leader within 10 s", "NOT_LEADER")


class FakeWorker:
    """An object that a test holds in place of an actor."""

    clock, host = CLOCK, HOST

    def __init__(self, held: Any) -> None:
        self.held = held
        self.closed = False
        self.compared = 0
        """How often its clock was compared."""

    async def compare_clocks(self, *, timeout_s: float = 1.0) -> Any:
        self.compared += 1
        return self.clock

    async def call(self, method: str, *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
        assert not self.closed
        return await asyncio.wait_for(getattr(self.held, method)(*args, **kwargs), timeout_s)

    async def close(self) -> None:
        self.closed = True
        await self.held.close()


class FakeBook:
    """An address book that never changes."""

    def addresses(self) -> dict[str, str]:
        return {"n1": "127.0.0.1:1"}

    def subscribe(self, listener: Any) -> Callable[[], None]:
        return lambda: None


class FakeCluster:
    """n1 leads; when the leader is crashed, the next node takes over."""

    def __init__(self, plan: ClusterPlan, now_ns: Callable[[], int]) -> None:
        self.plan, self.now_ns = plan, now_ns
        self.node_ids = node_names(plan.nodes)
        self.addresses = FakeBook()
        self.bring_up_times = SimpleNamespace(place_s=0.1, spawn_s=0.2, serving_s=0.3, leader_s=None)
        self.exits: list[NodeExit] = []
        self.unexpected_exits: list[NodeExit] = []
        self.violations: list[str] = []
        self.down: set[str] = set()
        self.elects = True
        self.calls: list[str] = []
        self.applied = dict.fromkeys(self.node_ids, 7)
        self.hashes: dict[str, bytes] = {}
        self.dropped = dict.fromkeys(self.node_ids, 0)
        self.trace: dict[str, list[dict[str, Any]]] = {node_id: [] for node_id in self.node_ids}
        self.workers = {node_id: FakeWorker(None) for node_id in self.node_ids}
        self._lead(1)

    def _lead(self, term: int) -> None:
        up = [node_id for node_id in self.node_ids if node_id not in self.down]
        self.term, self.leads = term, up[0] if up else None
        for node_id in up[:1]:
            for kind in ("became_candidate", "became_leader", "commit", "commit"):
                self.trace[node_id].append({"time_ns": self.now_ns(), "kind": kind, "term": term, "index": term})

    def worker(self, node_id: str) -> Any:
        return self.workers[node_id]

    async def leader(self) -> str | None:
        return self.leads if self.elects else None

    async def status(self, node_id: str, *, hash_index: int = 0, with_state_hash: bool = False) -> Any:
        if node_id in self.down:
            return None
        role = 3 if node_id == self.leads else 0
        now_ns = self.now_ns()
        return SimpleNamespace(
            role=role,
            current_term=self.term,
            last_log_index=self.applied[node_id],
            durable_index=self.applied[node_id],
            commit_index=self.applied[node_id],
            last_applied=self.applied[node_id],
            peers=[],
            applied_hash=bytes([self.applied[node_id]]),
            prefix_hash=self.hashes.get(node_id, bytes([hash_index])),
            state_hash=b"state" if with_state_hash else b"",
            counters=SimpleNamespace(
                messages_cut=0,
                messages_dropped=self.dropped[node_id],
                messages_delayed=0,
                messages_duplicated=0,
                fsyncs_delayed=0,
                fsyncs_stalled=0,
                disk_errors=0,
            ),
            pid=1,
            cpu_s=now_ns / 4e9,
            now_ns=now_ns,
            resident_bytes=1000,
        )

    async def samples(self, node_id: str, since_ns: int = 0) -> Any:
        return SimpleNamespace(fsync_us=[200] * 100, loop_lag_us=[50] * 100, round_trip_us=[300] * 100)

    async def crash(self, *node_ids: str) -> None:
        self.calls.append(f"crash {' '.join(node_ids)}")
        self.down |= set(node_ids)
        self._lead(self.term + 1)

    async def restart(self, *node_ids: str) -> None:
        self.calls.append(f"restart {' '.join(node_ids)}")
        self.down -= set(node_ids)

    async def pause(self, *node_ids: str) -> None:
        self.calls.append("pause")

    async def resume(self, *node_ids: str) -> None:
        self.calls.append("resume")

    async def set_links(self, rules: Sequence[Any]) -> None:
        self.calls.append("set_links")

    async def set_node_faults(self, faults: Mapping[str, Any]) -> None:
        self.calls.append("set_node_faults")

    async def heal(self) -> None:
        self.calls.append("heal")

    async def collect(self, node_id: str) -> Any:
        lines = [json.dumps(event) for event in self.trace[node_id]]
        return SimpleNamespace(trace=lines, log=f"log of {node_id}\n", storage="/logs/cell")

    async def halt(self) -> None:
        self.calls.append("halt")

    async def stop(self, keep: bool = False) -> None:
        self.calls.append(f"stop keep={keep}")


class FakeBackend:
    """Hands out fake clusters, one per cell; `prepare` may spoil each of them."""

    hosts: tuple[Host, ...] = (HOST,)
    description = "a fake"
    private = True
    clock: Any = MonotonicClock()
    load_options: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self, prepare: Callable[[FakeCluster], None] = lambda cluster: None, engine: type[FakeEngine] = FakeEngine
    ) -> None:
        self.prepare, self.engine = prepare, engine
        self.clusters: list[FakeCluster] = []
        self.workers: list[FakeWorker] = []
        self.refusals: dict[int, RaftLabError] = {}
        """Position of a cell, from 0 -> the reason why its cluster does not come up."""
        self.lost: str | None = None
        self.checked: list[ClusterPlan] = []
        self.most_nodes = 99
        self.started = asyncio.Event()
        self.examination = examination(host())
        self.storage_dirs: list[str] = []
        """The storage directories that were examined, in order."""

    async def check(self, plan: ClusterPlan) -> list[Any]:
        self.checked.append(plan)
        if plan.nodes > self.most_nodes:
            raise PlacementRefused(f"placement: {plan.placement} of {plan.nodes} nodes needs more hosts")
        return [self.hosts[i % len(self.hosts)] for i in range(plan.nodes)]

    async def start_cluster(self, plan: ClusterPlan) -> FakeCluster:
        position = len(self.clusters) + sum(position < len(self.clusters) for position in self.refusals)
        if position in self.refusals:
            raise self.refusals.pop(position)
        cluster = FakeCluster(plan, self.clock.now_ns)
        self.prepare(cluster)
        self.clusters.append(cluster)
        self.started.set()
        return cluster

    async def examine(self, storage_dir: str = "auto", *, quick: bool = False) -> Examination:
        self.storage_dirs.append(storage_dir)
        return self.examination

    async def host(self, factory: Callable[..., Any], *args: Any, on: Any = None, **kwargs: Any) -> FakeWorker:
        worker = FakeWorker(factory(*args, engine=self.engine, **kwargs))
        self.workers.append(worker)
        return worker

    def connect(self) -> contextlib.AbstractAsyncContextManager[FakeBackend]:
        @contextlib.asynccontextmanager
        async def connected() -> AsyncIterator[FakeBackend]:
            yield self

        return connected()


class VirtualBackend(FakeBackend):
    """A fake backend on a SimLoop: events happen at their virtual time, however slow the machine is."""

    def connect(self) -> contextlib.AbstractAsyncContextManager[FakeBackend]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        self.clock, self.load_options = loop, {"clock": loop.now_ns}
        return super().connect()
