"""The life of one cell: boot, elect, warm up, measure under chaos, drain, inspect, collect.

Here a cluster, a load generator and a monkey are put together. Nothing is written and nothing is judged: what
comes out is a Record. The clusters are known only by the protocols below, and time passes as the backend's clock
and the event loop say: it may be virtual.

What the nodes run on may fail: an actor, a host, a disk, Ray. That is nobody's fault, and no result either: the cell
says what was lost. As long as the load generator lives the measurement goes on to its end, so that what clients saw
of it is in the arrays, and what is left is inspected and collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
import psutil

from chaos import FaultEvent, NotHealed, Target, fault_windows, plan, ran, run
from orchestration import ClusterPlan, InfrastructureError, NodeFailed, PlacementRefused
from raft_actor_node.core.invariants.liveness import LIVENESS_BOUND
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.errors import DiskError, OperationError, RaftLabError
from raft_actor_node.patience import Patience
from raft_actor_node.trace_lines import read_record
from sweeps.analysis.cell_data import CellData
from sweeps.analysis.events import PhaseEvent
from sweeps.load.figures import NodeFigures
from sweeps.load.group import Hosting, LoadGroup, Worker, generator_hosts
from sweeps.load.operations import NO_READER, Operations
from sweeps.load.results import Clock, GroupResult
from sweeps.run.progress import Progress
from sweeps.run.record import NodeDied, Record
from sweeps.spec.grid import Cell

_LOAD_POLL_S = 0.5
_LEADER_POLL_S = 1.0
_CLOCK_POLL_S, _CLOCK_TIMEOUT_S = 5.0, 2.0
"""The bound of a clock is wider by FASTEST_DRIFT times half of the first: 1.25 ms."""
_ELECT_POLL_S = 0.05
_CHECK_S = 0.1
_DRAIN_MARGIN_S = 2.0
_SALVAGE_S = 1.0
_SETTLE_POLL_S = 0.05
_SETTLE_LEAST_S, _SETTLE_MOST_S = 3.0, 60.0
_NOTE_S = 0.2
"""Longest wait for what nodes counted, before something is done to them."""
_HASHES = ("applied_hash", "prefix_hash", "state_hash")
_TOUCHED = ("cut", "dropped", "delayed", "duplicated")
"""What link faults do to messages, as nodes count it."""
_INDEXES = ("durable_index", "commit_index", "last_applied")
_LEADER = 3
"""Role.LEADER of inspection.proto."""
_FORM = {"kind": str, "time_ns": int, "term": int}
"""What every line of a trace has."""


class Now(Protocol):
    """What time it is for the driver."""

    def now_ns(self) -> int:
        """Nanoseconds of a clock that never goes back."""


class Cluster(Target, Protocol):
    """A cluster that runs."""

    @property
    def addresses(self) -> Any: ...
    @property
    def bring_up_times(self) -> Any: ...
    @property
    def unexpected_exits(self) -> Sequence[Any]: ...
    def worker(self, node_id: str) -> Worker: ...
    async def status(self, node_id: str, *, hash_index: int = 0, with_state_hash: bool = False) -> Any: ...
    async def samples(self, node_id: str, since_ns: int = 0) -> Any: ...
    async def collect(self, node_id: str) -> Any: ...
    async def halt(self) -> None: ...
    async def stop(self, keep: bool = False) -> None: ...


class Backend(Hosting, Protocol):
    """What brings up clusters and hosts load generators."""

    @property
    def hosts(self) -> Sequence[Any]: ...
    @property
    def description(self) -> str: ...
    @property
    def clock(self) -> Now: ...
    @property
    def lost(self) -> str | None:
        """Why nothing can be done here any more."""

    async def check(self, plan: ClusterPlan) -> Sequence[Any]:
        """The host of each node of such a cluster. Raises PlacementRefused."""

    async def start_cluster(self, plan: ClusterPlan) -> Cluster: ...


class CellRun:
    """One run of one cell. `run` does everything up to the end of the processes; then `release`."""

    def __init__(self, cell: Cell, backend: Backend, progress: Progress, run_id: str) -> None:
        self._cell, self._backend, self._progress, self._run_id = cell, backend, progress, run_id
        self._parameters = cell.parameters
        self._simulated = cell.parameters.target == "sim"
        self._now_ns = backend.clock.now_ns
        self._cluster: Cluster | None = None
        self._load: LoadGroup | None = None
        self._loaded: GroupResult | None = None
        self._measure_ns = (0, 0)
        self._faults: list[FaultEvent] = []
        self._phases: list[PhaseEvent] = []
        self._bring_up_s: dict[str, float] = {}
        self._cpu: dict[str, tuple[int, float, int]] = {}
        self._nodes: dict[str, NodeFigures] = {}
        self._unavailable: str | None = None
        self._host_busy: float | None = None
        self._statuses: list[dict[str, Any]] = []
        self._aims: dict[str, str] = {}
        self._asked_faults: Counter[str] = Counter()
        self._settled: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}
        self._first_reader = NO_READER
        self._loading = False
        self._refused = False
        self._leader_moved = False
        self._node_died = False

    async def run(self) -> Record:
        """Live the cell. What goes wrong is in the record; only a cancellation is raised, after the record
        was made: it is then in `interrupted`."""
        error, detail, lost = None, "", None
        try:
            await self._live()
        except asyncio.CancelledError:
            await self._salvage()
            self.interrupted = await self._record("interrupted", "")
            raise
        except RaftLabError as failure:
            error, detail = str(failure).splitlines()[0], str(failure)
            lost = error if _is_loss(failure) else None
            self._refused = isinstance(failure, PlacementRefused)
            self._node_died = isinstance(failure, NodeDied)
        except Exception as failure:  # a bug, here or in what we call, must not cost the cells to come
            first = next(iter(str(failure).splitlines()), "")
            error, detail = f"{type(failure).__name__}: {first}", traceback.format_exc()
        if error is not None:
            await self._salvage()
        # What was measured is not lost to an interruption that comes while it is fetched.
        record = asyncio.ensure_future(self._record(error, detail, lost))
        try:
            return await asyncio.shield(record)
        except asyncio.CancelledError:
            self.interrupted = await record
            raise

    interrupted: Record | None = None

    async def release(self, *, keep: bool) -> None:
        """End what is left. With `keep` the files of the nodes stay on their hosts."""
        load, self._load = self._load, None
        cluster, self._cluster = self._cluster, None
        try:
            if load is not None:
                await load.close()
        finally:
            if cluster is not None:
                await cluster.stop(keep=keep)

    # ------------------------------------------------------------------------------ the phases

    async def _live(self) -> None:
        cluster = await self._boot()
        elected = await self._elect(cluster)
        if self._load is None:
            await self._open_load(await self._generator_hosts(cluster))
        if not (elected and await self._connect(cluster)):
            if self._parameters.expect not in ("unavailable", "safe") or self._parameters.chaos:
                return
            if not await self._ask_in_vain(cluster):
                await self._settle(cluster)
                return
        assert self._load is not None
        async with self._watched(cluster):
            phases = self._parameters.phases
            self._enter("warm up", phases.warmup)
            await self._load.start()
            self._loading = True
            await self._pass(cluster, phases.warmup)
            await self._measure(cluster, phases.measure)
            self._enter("drain")
            budget_s = self._parameters.client.rpc_timeout + self._parameters.client.retry_budget + _DRAIN_MARGIN_S
            await self._load.drain(budget_s)
        await self._settle(cluster)
        await self._read_back()
        self._loaded = await self._load.result()
        self._check(cluster)
        if lost := self._load.lost:
            raise InfrastructureError("; ".join(lost))

    async def _boot(self) -> Cluster:
        self._enter("boot")
        parameters, command = self._parameters, self._parameters.cluster.command
        if parameters.load.on == "driver":
            await self._open_load([None])
        cluster = await self._backend.start_cluster(
            ClusterPlan(
                nodes=parameters.cluster.nodes,
                raft=parameters.raft,
                storage=parameters.storage,
                limits=parameters.limits,
                transport=parameters.transport,
                chaos_enabled=bool(parameters.chaos),
                allow_bad_parameters=parameters.allow_bad_parameters,
                seed=self._cell.seed,
                command=command if isinstance(command, str) else tuple(command),
                placement=parameters.cluster.placement,
                run_id=self._run_id,
                cell_id=self._cell.id,
                boot_timeout_s=parameters.phases.boot,
                leader_timeout_s=0,
            )
        )
        self._cluster = cluster
        times = cluster.bring_up_times
        self._bring_up_s |= {"place": times.place_s, "spawn": times.spawn_s, "serving": times.serving_s}
        return cluster

    async def _open_load(self, hosts: Sequence[Any]) -> None:
        self._load = LoadGroup(self._backend, self._parameters, self._cell.seed, hosts)
        await self._load.open()

    async def _generator_hosts(self, cluster: Cluster) -> Sequence[Any]:
        """Where the load comes from; that of the leader is that of the first node where none leads."""
        hosts = {node_id: cluster.worker(node_id).host for node_id in cluster.node_ids}
        leader = await cluster.leader() or cluster.node_ids[0]
        return generator_hosts(self._parameters.load.on, self._backend.hosts, list(hosts.values()), hosts[leader])

    async def _elect(self, cluster: Cluster) -> bool:
        self._enter("elect")
        limit_s = self._parameters.phases.boot
        begin_ns = self._now_ns()
        async with Patience(limit_s, interrupt=False) as patience:
            while (leader := await cluster.leader()) is None:
                self._check(cluster)
                if patience.over:
                    self._unavailable = f"no leader was elected within {limit_s:g} s"
                    return False
                await asyncio.sleep(_ELECT_POLL_S)
        self._bring_up_s["leader"] = (self._now_ns() - begin_ns) / 1e9
        self._progress.leads(leader, None)
        return True

    async def _connect(self, cluster: Cluster) -> bool:
        parameters = self._parameters
        load = self._load
        assert load is not None
        limit_s = parameters.client.rpc_timeout + parameters.client.retry_budget
        try:
            await load.connect(cluster.addresses.addresses(), limit_s + 30)
        except OperationError as error:
            self._unavailable = f"no session could be opened: {error}"
            return False
        cluster.addresses.subscribe(lambda book: load.update_addresses(book.addresses()))
        return True

    async def _ask_in_vain(self, cluster: Cluster) -> bool:
        """Where nobody needs to be served at any time: go on asking for sessions for as long as a measurement lasts.
        Returns whether there are some after all."""
        measure_s = self._parameters.phases.measure
        self._enter("measure", measure_s)
        begin_ns = self._now_ns()
        end_ns = begin_ns + int(measure_s * 1e9)
        attempts_ns: list[tuple[int, int]] = []
        psutil.cpu_percent()  # the next call tells of the time since this one
        while (asked_ns := self._now_ns()) < end_ns:
            if await self._connect(cluster):
                self._unavailable = None
                return True
            attempts_ns.append((asked_ns, self._now_ns()))
            self._check(cluster)
            await asyncio.sleep(_ELECT_POLL_S)
        self._host_busy = None if self._simulated else psutil.cpu_percent() / 100
        self._asked = {"window_ns": (begin_ns, end_ns), "attempts_ns": attempts_ns}
        return False

    async def _measure(self, cluster: Cluster, measure_s: float) -> None:
        self._enter("measure", measure_s)
        schedule = plan(self._parameters.chaos, duration_s=measure_s, nodes=cluster.node_ids, seed=self._cell.seed)
        self._leader_moved = self._parameters.load.on == "leader" and await self._is_elsewhere(cluster)
        self._aims = {str(i): each.where for i, each in enumerate(schedule.faults) if isinstance(each.where, str)}
        self._asked_faults = Counter(each.kind for each in schedule.faults)
        self._progress.asks(len(schedule.faults))
        if not self._simulated:
            await self._note_cpu(cluster)
            psutil.cpu_percent()  # the next call tells of the time since this one
        begin_ns = self._now_ns()
        self._measure_ns = (begin_ns, begin_ns + int(measure_s * 1e9))
        target = cast("Target", _Watched(cluster, self._note))
        monkey = asyncio.create_task(run(target, schedule, clock=_MonkeyClock(self._now_ns), on_event=self._fault))
        try:
            await self._pass(cluster, measure_s, begin_ns)
            assert self._load is not None
            if self._simulated:
                await self._load.stop()
            else:
                self._host_busy = psutil.cpu_percent() / 100
                await self._load.stop()
                await self._take_samples(cluster)
            try:
                await monkey
            except NotHealed:
                if not _losses(cluster):
                    raise
                # What is lost cannot be healed; it is told, and the rest is as it should be.
        finally:
            if not monkey.done():
                monkey.cancel()
                with contextlib.suppress(asyncio.CancelledError, NotHealed):
                    await monkey

    async def _is_elsewhere(self, cluster: Cluster) -> bool:
        """Whether the leader is on no host that has load."""
        assert self._load is not None
        leader = await cluster.leader()
        return leader is not None and cluster.worker(leader).host not in [each.host for each in self._load.workers]

    async def _pass(self, cluster: Cluster, seconds: float, begin_ns: int | None = None) -> None:
        """Let time pass, and look after the nodes meanwhile."""
        end_ns = (begin_ns or self._now_ns()) + int(seconds * 1e9)
        while (left_s := (end_ns - self._now_ns()) / 1e9) > 0:
            await asyncio.sleep(min(left_s, _CHECK_S))
            self._check(cluster)

    async def _settle(self, cluster: Cluster) -> None:
        """Wait, within bounds, until a leader leads and all nodes have applied the same; then ask for their states
        at the highest index that all have applied."""
        self._enter("inspect")
        bound_s = min(max(LIVENESS_BOUND * self._parameters.raft.election_timeout[1], _SETTLE_LEAST_S), _SETTLE_MOST_S)
        begin_ns = self._now_ns()
        leader_ns = None
        async with Patience(bound_s / self._parameters.slowest_clock, interrupt=False) as patience:
            while True:
                leader = await cluster.leader()
                if leader is not None and leader_ns is None:
                    leader_ns = self._now_ns()
                    # Where this program stood still it did not look for one.
                    begin_ns = min(begin_ns + int(patience.paused_s * 1e9), leader_ns)
                statuses = await _of_each(cluster, cluster.status)
                applied = {int(status.last_applied) for status in statuses if status is not None}
                gone = {end.node_id for end in _losses(cluster)}
                silent = [
                    n for n, status in zip(cluster.node_ids, statuses, strict=True) if status is None and n not in gone
                ]
                told = not silent or not applied  # a program that tells nothing of itself is not waited for
                if (leader_ns is not None and told and len(applied) <= 1) or patience.over:
                    break
                await asyncio.sleep(_SETTLE_POLL_S)
                self._check(cluster)
        index = min(applied, default=0)

        async def state(node_id: str) -> Any:
            status = await self._ask(cluster, node_id, hash_index=index, with_state_hash=True)
            # Over very many keys the hash takes longer than one waits for an answer.
            return status if status is not None else await self._ask(cluster, node_id, hash_index=index)

        statuses = await _of_each(cluster, state)
        self._settled = {
            "begin_ns": begin_ns,
            "end_ns": self._now_ns(),
            "leader_ns": leader_ns,
            "hash_index": index,
            "nodes": {
                node_id: {
                    "role": int(status.role),
                    "term": int(status.current_term),
                    "last_applied": int(status.last_applied),
                    **{name: bytes(getattr(status, name)).hex() for name in _HASHES},
                }
                for node_id, status in zip(cluster.node_ids, statuses, strict=True)
                if status is not None
            },
        }

    async def _read_back(self) -> None:
        """Have every key read that was written: what was acknowledged and is lost shows, though the load never read it
        again."""
        checks, load = self._parameters.checks, self._load
        assert load is not None
        if checks.linearizable and checks.read_back:
            self._first_reader = self._parameters.load.clients
            await load.read_back(checks.read_back)

    async def _note(self, cluster: Cluster, node_ids: Sequence[str]) -> None:
        """Ask these nodes, in haste: somebody waits to disturb them."""
        with contextlib.suppress(Exception):
            async with Patience(_NOTE_S):
                await _of_each(cluster, partial(self._ask, cluster), node_ids)

    async def _ask(self, cluster: Cluster, node_id: str, **request: Any) -> Any:
        """The status of a node, None when it tells none; kept for the check."""
        status = await cluster.status(node_id, **request)
        if status is not None:
            self._statuses.append(
                {
                    "node": node_id,
                    "life": int(status.pid),
                    "time_ns": int(status.now_ns),
                    "term": int(status.current_term),
                    "leads": status.role == _LEADER,
                    "last_index": int(status.last_log_index),
                    **{name: int(getattr(status, name)) for name in _INDEXES},
                    "peers": {peer.node_id: [int(peer.match_index), int(peer.next_index)] for peer in status.peers},
                    "touched": {name: int(getattr(status.counters, f"messages_{name}")) for name in _TOUCHED},
                }
            )
        return status

    def _check(self, cluster: Cluster) -> None:
        """Raise NodeDied when a node ended that should not have, and InfrastructureError when Ray is lost as a whole;
        what else is lost is looked at when the cell is over."""
        lost = _losses(cluster)
        for end in cluster.unexpected_exits:
            if end not in lost:
                raise NodeDied(str(end))
        if self._backend.lost:
            raise InfrastructureError(self._backend.lost)

    def _enter(self, phase: str, length_s: float | None = None) -> None:
        self._progress.enter(phase, None if self._simulated else length_s)
        self._phases.append(PhaseEvent(self._now_ns(), phase))

    def _fault(self, event: FaultEvent) -> None:
        self._faults.append(event)
        injected = event.action == "inject"
        words = event.kind if injected else f"{event.action} {event.kind}"
        self._progress.fault(f"{words} {','.join(event.nodes)}", counts=injected and event.took_effect is True)

    # ------------------------------------------------------------------------------ watching

    @contextlib.asynccontextmanager
    async def _watched(self, cluster: Cluster) -> AsyncIterator[None]:
        """Keep the progress up to date meanwhile. A watcher that fails must not cost the cell."""
        watches = (self._watch_load(), self._watch_leader(cluster), self._watch_clocks(cluster))
        watchers = list(map(asyncio.create_task, watches))
        try:
            yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _watch_load(self) -> None:
        while self._load is not None:
            await asyncio.sleep(_LOAD_POLL_S)
            self._progress.load(await self._load.snapshot())

    async def _watch_leader(self, cluster: Cluster) -> None:
        leader: str | None = None
        while True:
            # Ask the one node that led a moment ago; all of them only when it does not lead any more.
            status = await self._ask(cluster, leader) if leader is not None else None
            if status is None or status.role != _LEADER:
                leader = await cluster.leader()
                status = await self._ask(cluster, leader) if leader is not None else None
            self._progress.leads(leader, None if status is None else int(status.current_term))
            await asyncio.sleep(_LEADER_POLL_S)

    async def _watch_clocks(self, cluster: Cluster) -> None:
        """Compare the clocks of all hosts again and again, so that they have no time to drift far."""
        while self._load is not None and not self._simulated:
            await asyncio.sleep(_CLOCK_POLL_S)
            silent = set()
            # One after the other: while many ask, each waits for its answer, which is then worth less.
            for worker in [*self._load.workers, *map(cluster.worker, cluster.node_ids)]:
                if worker.host not in silent:
                    try:
                        await worker.compare_clocks(timeout_s=_CLOCK_TIMEOUT_S)
                    except InfrastructureError:
                        silent.add(worker.host)

    async def _note_cpu(self, cluster: Cluster) -> None:
        for node_id, status in zip(cluster.node_ids, await _of_each(cluster, partial(self._ask, cluster)), strict=True):
            if status is not None:
                self._cpu[node_id] = (status.pid, status.cpu_s, status.now_ns)

    async def _take_samples(self, cluster: Cluster) -> None:
        """What the nodes that run now measured about themselves during the measurement."""
        statuses = await _of_each(cluster, partial(self._ask, cluster))
        since = {node_id: self._measure_ns[0] + _clock(cluster, node_id).offset_ns for node_id in cluster.node_ids}
        samples = await _of_each(cluster, lambda node_id: cluster.samples(node_id, since[node_id]))
        for node_id, status, sample in zip(cluster.node_ids, statuses, samples, strict=True):
            share = None
            pid, cpu_s, then_ns = self._cpu.get(node_id, (0, 0.0, 0))
            if status is not None and status.pid == pid and status.now_ns > then_ns:
                share = (status.cpu_s - cpu_s) * 1e9 / (status.now_ns - then_ns)
            self._nodes[node_id] = NodeFigures(
                cpu_share=share,
                resident_bytes=None if status is None else int(status.resident_bytes),
                fsync_us=() if sample is None else tuple(sample.fsync_us),
                loop_lag_us=() if sample is None else tuple(sample.loop_lag_us),
                round_trip_us=() if sample is None else tuple(sample.round_trip_us),
            )

    # ------------------------------------------------------------------------------ the record

    async def _salvage(self) -> None:
        """Of a cell that ends early, get what was measured so far."""
        if self._load is None or self._loaded is not None or not self._loading:
            return
        begin_ns, end_ns = self._measure_ns
        now_ns = self._now_ns()
        # Before the measurement its span is empty; what clients saw while they warmed up is judged all the same.
        self._measure_ns = (begin_ns, min(end_ns, now_ns)) if end_ns else (now_ns, now_ns)
        with contextlib.suppress(Exception):  # what ended the cell early is the reason to tell
            await self._load.drain(_SALVAGE_S)
            self._loaded = await self._load.result()

    async def _record(self, error: str | None, detail: str, lost: str | None = None) -> Record:
        """The record, whatever happens: an error while it is made costs what it would have told."""
        record = Record(
            CellData(self._parameters, None, ()),
            error=error,
            detail=detail,
            unavailable=self._unavailable,
            lost=lost,
            over=self._backend.lost or (lost if self._refused else None),
        )
        try:
            self._enter("collect")
            trace = await self._collect(record)
            record.inspection = self._inspected()
            record.facts |= self._placement() | self._generators()
            record.evidence, record.schedule = self._evidence(trace), self._schedule()
        except Exception as failure:
            record.fails(failure, "recording")
        self._tell_losses(record)
        return record

    def _tell_losses(self, record: Record) -> None:
        """Put into the record what was lost, now that all is over. A node that ended by itself stays the reason, for
        that may be a bug of ours."""
        losses = [] if self._cluster is None else list(map(str, _losses(self._cluster)))
        if self._node_died:
            record.lost = None
        elif losses:
            others = f" (and {len(losses) - 1} more)" if len(losses) > 1 else ""
            record.lost = f"{losses[0]}{others}"
        if losses:
            record.detail = "\n".join(filter(None, (*losses, record.detail)))

    async def _collect(self, record: Record) -> list[TraceRecord]:
        """Halt the nodes, note their logs in the record, and return what they traced. A host that is gone
        takes the files of its own nodes with it, and no others."""
        trace: list[TraceRecord] = []
        if (cluster := self._cluster) is None:
            return trace
        try:
            await cluster.halt()
        except Exception as failure:
            record.fails(failure, "halting the nodes")

        async def collect(node_id: str) -> None:
            try:
                files = await cluster.collect(node_id)
                trace.extend(read_trace(files.trace, node_id, _clock(cluster, node_id).offset_ns))
                record.logs[node_id], record.storage[node_id] = files.log, files.storage
                record.traces[node_id] = list(files.trace)
            except Exception as failure:
                record.fails(failure, f"collecting the files of {node_id}")
                record.logs.setdefault(node_id, f"its log could not be had: {failure}\n")

        # All at once: one whose host is silent costs its time, and only once.
        await _of_each(cluster, collect)
        return trace

    def _inspected(self) -> dict[str, Any]:
        """All that a check needs to know beside the arrays, events and traces; JSON types only."""
        if (cluster := self._cluster) is None:
            return {}
        clocks = {node_id: _clock(cluster, node_id) for node_id in cluster.node_ids}
        return {
            "settled": self._settled or None,
            "asked": self._asked or None,
            "statuses": self._statuses,
            "aims": self._aims,
            "faults_asked": dict(self._asked_faults),
            "exits": [
                {"exit_code": getattr(end, "exit_code", None), "text": str(end)} for end in cluster.unexpected_exits
            ],
            "lost": sorted({end.node_id for end in _losses(cluster)}),
            "clocks": {
                node_id: {"offset_ns": clock.offset_ns, "error_ns": clock.error_ns} for node_id, clock in clocks.items()
            },
            "violations": [str(each) for each in getattr(cluster, "violations", ())],
        }

    def _placement(self) -> dict[str, Any]:
        """On which host each node was."""
        if self._cluster is None or self._simulated:
            return {}
        hosts = {node_id: self._cluster.worker(node_id).host for node_id in self._cluster.node_ids}
        return {
            "placement": {node_id: {"host": host.address, "hostname": host.name} for node_id, host in hosts.items()}
        }

    def _schedule(self) -> dict[str, Any] | None:
        if not self._measure_ns[1]:
            return None
        planned = plan(
            self._parameters.chaos,
            duration_s=self._parameters.phases.measure,
            nodes=self._cluster.node_ids if self._cluster is not None else (),
            seed=self._cell.seed,
        )
        return ran(planned, self._faults).model_dump(mode="json")

    def _evidence(self, trace: Sequence[TraceRecord]) -> CellData:
        return CellData(
            parameters=self._parameters,
            operations=self._operations(),
            events=sorted([*self._phases, *self._faults, *trace], key=lambda event: event.time_ns),
            faults_asked=self._asked_faults.total(),
            nodes=self._nodes,
            loads=self._load_figures(),
            notes=self._notes(),
            cores=os.cpu_count() if len(self._backend.hosts) == 1 and not self._simulated else None,
            host_busy=self._host_busy if len(self._backend.hosts) == 1 else None,
            clock_error_ms=self._clock_error_ms(),
            phases_s=_durations(self._phases),
            bring_up_s=self._bring_up_s,
        )

    def _operations(self) -> Operations | None:
        if self._loaded is None:
            return None
        rows = self._loaded.merge()
        return Operations(
            rows.columns,
            self._measure_ns,
            rows.dropped_ns,
            rows.dropped_kind,
            np.array(fault_windows(self._faults), np.int64).reshape(-1, 2),
            rows.composite_ids,
            rows.composite_end,
            self._loaded.error_ns,
            self._first_reader,
        )

    def _load_figures(self) -> list[NodeFigures]:
        """Of each load generator."""
        generators = () if self._loaded is None or self._simulated else self._loaded.generators
        return [each.figures(self._measure_ns) for each in generators]

    def _generators(self) -> dict[str, Any]:
        """Where the load came from."""
        if self._loaded is None or self._simulated:
            return {}
        return {"generators": [each.as_json(self._measure_ns) for each in self._loaded.generators]}

    def _notes(self) -> list[str]:
        notes = []
        if self._load is not None and self._load.left_out:
            clients, hosts = self._parameters.load.clients, self._parameters.load.clients + self._load.left_out
            notes.append(f"load.on: {clients} of {hosts} hosts have a load generator, for there are {clients} clients")
        if self._leader_moved:
            notes.append("load.on: leader: when the measurement began the leader was on another host than the load")
        return notes

    def _clock_error_ms(self) -> float:
        if self._cluster is None:
            return 0.0
        clocks = [_clock(self._cluster, node_id) for node_id in self._cluster.node_ids]
        clocks += [each.clock for each in self._loaded.generators] if self._loaded is not None else []
        return float(max(clock.error_ns for clock in clocks)) / 1e6


class _MonkeyClock:
    """The backend's time, and sleep on the event loop."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Watched:
    """The cluster as the monkey has it. Nodes are asked before they are killed or stopped, and all that answer before
    a table of faults takes the place of another: what each table did is the difference of what they counted."""

    def __init__(self, cluster: Cluster, note: Callable[[Cluster, Sequence[str]], Awaitable[None]]) -> None:
        self._cluster, self._note = cluster, note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    async def crash(self, *node_ids: str) -> Any:
        await self._note(self._cluster, node_ids)
        return await self._cluster.crash(*node_ids)

    async def pause(self, *node_ids: str) -> Any:
        await self._note(self._cluster, node_ids)
        return await self._cluster.pause(*node_ids)

    async def set_links(self, rules: Any) -> Any:
        await self._note(self._cluster, self._cluster.node_ids)
        return await self._cluster.set_links(rules)

    async def set_node_faults(self, faults: Any) -> Any:
        await self._note(self._cluster, self._cluster.node_ids)
        return await self._cluster.set_node_faults(faults)

    async def heal(self) -> Any:
        await self._note(self._cluster, self._cluster.node_ids)
        return await self._cluster.heal()


async def _of_each(cluster: Cluster, ask: Callable[[str], Any], node_ids: Sequence[str] | None = None) -> list[Any]:
    return await asyncio.gather(*(ask(node_id) for node_id in node_ids or cluster.node_ids))


def _losses(cluster: Cluster) -> list[Any]:
    """The ends of nodes that come of what the nodes run on."""
    return [end for end in cluster.unexpected_exits if getattr(end, "infrastructure", False)]


def _is_loss(failure: RaftLabError) -> bool:
    """Whether it is no fault of a node: it has no place, what it would run on is gone, or its disk fails."""
    disk = isinstance(failure, NodeFailed) and failure.node_exit_code == DiskError.exit_code
    return disk or isinstance(failure, (InfrastructureError, PlacementRefused))


def _clock(cluster: Cluster, node_id: str) -> Clock:
    return cluster.worker(node_id).clock


def _durations(events: Sequence[PhaseEvent]) -> dict[str, float]:
    """How long each phase lasted but the last one, which still runs."""
    return {event.phase: (after.time_ns - event.time_ns) / 1e9 for event, after in itertools.pairwise(events)}


def read_trace(lines: Iterable[str], node_id: str, offset_ns: int) -> list[TraceRecord]:
    """The trace events of a node, on the driver's clock. Of the commits only the first of each term in each
    life of the process: there is one per step of the node, and nothing here looks at the others. Lines of
    another form are left out: a foreign program may write what it likes."""
    events = []
    committed = -math.inf
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if not isinstance(event, dict) or any(type(event.get(key)) is not form for key, form in _FORM.items()):
            continue
        if event["kind"] == "started":
            committed = -math.inf
        if event["kind"] == "commit":
            if event["term"] <= committed:
                continue
            committed = event["term"]
        events.append(read_record(node_id, event, offset_ns))
    return events
