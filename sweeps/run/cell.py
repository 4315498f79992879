"""The phases of one cell: boot, elect, warm up, measure under faults, drain, inspect, collect.

A cell combines a cluster, load generators and a monkey. It writes nothing and judges nothing: its result is a Record.
It uses clusters only through orchestration/face.py. It takes time from the backend's clock and the event loop; both may
be virtual.

    inspector.py   inspects the nodes                    machine.py   CPU, stalls, clocks; not in simulation
    faults.py      the schedule and what happened        collect.py   logs and traces of the nodes

The infrastructure may fail: an actor, a host, a disk, Ray. A cell whose infrastructure failed has no result; it reports
the loss. As long as the load generators run, the measurement continues to its end, so that the arrays show the loss as
clients saw it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from chaos import NotHealed
from orchestration import ClusterPlan, InfrastructureError
from orchestration.face import Backend, Cluster, Host, Worker
from raft_actor_node.core.invariants.liveness import LIVENESS_BOUND
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.errors import OperationError
from raft_actor_node.patience import Patience
from sweeps.analysis.cell_data import CellData
from sweeps.analysis.events import PhaseEvent
from sweeps.load.group import LoadGroup, generator_hosts
from sweeps.load.operations import NO_READER, Operations
from sweeps.load.results import GroupResult
from sweeps.run.collect import collect
from sweeps.run.faults import CellFaults, WatchedCluster
from sweeps.run.inspector import Inspector, losses
from sweeps.run.machine import Machine
from sweeps.run.progress import Progress
from sweeps.run.record import Ending, NodeDied, Record
from sweeps.spec.grid import Cell

_LOAD_POLL_S = 0.5
_ELECT_POLL_S = 0.05
_CHECK_S = 0.1
_DRAIN_MARGIN_S = 2.0
_SALVAGE_S = 1.0
_SETTLE_LEAST_S, _SETTLE_MOST_S = 3.0, 60.0


class CellRun:
    """One run of one cell: `run` covers everything until the processes end, then `release` cleans up."""

    interrupted: Record | None = None
    """The record up to a cancellation; None if the cell was not cancelled."""

    def __init__(self, cell: Cell, backend: Backend, machine: Machine, progress: Progress, run_id: str) -> None:
        self._cell, self._backend, self._machine = cell, backend, machine
        self._progress, self._run_id = progress, run_id
        self._parameters = cell.parameters
        self._now_ns = backend.clock.now_ns
        self._phases: list[PhaseEvent] = []
        """When each phase began."""
        self._bring_up_s: dict[str, float] = {}
        self._cluster: Cluster | None = None
        self._inspector: Inspector | None = None
        self._faults = CellFaults(cell, progress)
        self._load: LoadGroup | None = None
        self._loading = False
        self._loaded: GroupResult | None = None
        self._first_reader = NO_READER
        self._measure_ns = (0, 0)
        self._unavailable: str | None = None
        """Why no load could begin although all nodes ran."""
        self._asked: dict[str, Any] | None = None
        """When clients asked for sessions in vain; None if they did not, or if the load began after all."""
        self._leader_moved = False

    async def run(self) -> Record:
        """Run the cell; failures are in the record.

        Raises only CancelledError; the record is then in `interrupted`.
        """
        ending, interrupted = Ending(), False
        try:
            await self._live()
        except asyncio.CancelledError:
            ending, interrupted = Ending("interrupted"), True
        except Exception as failure:
            ending = Ending.of(failure)
        # The record is completed even if the cell is cancelled meanwhile, also more than once.
        finishing = asyncio.ensure_future(self._finish(ending))
        while not finishing.done():
            try:
                await asyncio.wait({finishing})
            except asyncio.CancelledError:
                interrupted = True
        record = finishing.result()
        if interrupted:
            self.interrupted = record
            raise asyncio.CancelledError
        return record

    async def _finish(self, ending: Ending) -> Record:
        if ending.error is not None:
            await self._salvage()
        return await self._record(ending)

    async def release(self, *, keep: bool) -> None:
        """Close the load generators and stop the cluster. With `keep` the files of the nodes stay on their hosts."""
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
        inspector = self._inspector = Inspector(cluster, self._now_ns)
        elected = await self._elect(cluster)
        load = self._load or await self._open_load(await self._generator_hosts(cluster))
        if not (elected and await self._connect(cluster, load)):
            if self._parameters.expect not in ("unavailable", "safe") or self._parameters.chaos:
                return
            if not await self._ask_in_vain(cluster, load):
                await self._settle(inspector, cluster)
                return
        async with self._watched(inspector, cluster, load):
            phases = self._parameters.phases
            self._enter("warm up", phases.warmup)
            await load.start()
            self._loading = True
            await self._pass(cluster, phases.warmup)
            await self._measure(inspector, cluster, load, phases.measure)
            self._enter("drain")
            budget_s = self._parameters.client.rpc_timeout + self._parameters.client.retry_budget + _DRAIN_MARGIN_S
            await load.drain(budget_s)
        await self._settle(inspector, cluster)
        await self._read_back(load)
        self._loaded = await load.result()
        self._check(cluster)
        if lost := load.lost:
            raise InfrastructureError("; ".join(lost))

    async def _boot(self) -> Cluster:
        self._enter("boot")
        parameters, command = self._parameters, self._parameters.cluster.command
        if parameters.load.on == "driver":
            await self._open_load([None])
        cluster = self._cluster = await self._backend.start_cluster(
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
        times = cluster.bring_up_times
        self._bring_up_s |= {"place": times.place_s, "spawn": times.spawn_s, "serving": times.serving_s}
        return cluster

    async def _open_load(self, hosts: Sequence[Host | None]) -> LoadGroup:
        self._load = LoadGroup(self._backend, self._parameters, self._cell.seed, hosts)
        await self._load.open()
        return self._load

    async def _generator_hosts(self, cluster: Cluster) -> Sequence[Host | None]:
        """Return the hosts of the load generators. Without a leader, the first node's host counts as the leader's."""
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

    async def _connect(self, cluster: Cluster, load: LoadGroup) -> bool:
        limit_s = self._parameters.client.rpc_timeout + self._parameters.client.retry_budget
        try:
            await load.connect(cluster.addresses.addresses(), limit_s + 30)
        except OperationError as error:
            self._unavailable = f"no session could be opened: {error}"
            return False
        cluster.addresses.subscribe(lambda book: load.update_addresses(book.addresses()))
        return True

    async def _ask_in_vain(self, cluster: Cluster, load: LoadGroup) -> bool:
        """Ask for sessions for as long as a measurement lasts, in a cell that is expected to be unavailable.

        Return whether sessions could be opened after all.
        """
        measure_s = self._parameters.phases.measure
        self._enter("measure", measure_s)
        begin_ns = self._now_ns()
        end_ns = begin_ns + int(measure_s * 1e9)
        attempts_ns: list[tuple[int, int]] = []
        self._machine.begin_busy()
        while (asked_ns := self._now_ns()) < end_ns:
            if await self._connect(cluster, load):
                self._unavailable = None
                return True
            attempts_ns.append((asked_ns, self._now_ns()))
            self._check(cluster)
            await asyncio.sleep(_ELECT_POLL_S)
        self._machine.end_busy()
        self._asked = {"window_ns": (begin_ns, end_ns), "attempts_ns": attempts_ns}
        return False

    async def _measure(self, inspector: Inspector, cluster: Cluster, load: LoadGroup, measure_s: float) -> None:
        self._enter("measure", measure_s)
        schedule = self._faults.plan(cluster.node_ids)
        self._leader_moved = self._parameters.load.on == "leader" and await self._is_elsewhere(cluster, load)
        await self._machine.begin(inspector)
        self._machine.begin_busy()
        begin_ns = self._now_ns()
        self._measure_ns = (begin_ns, begin_ns + int(measure_s * 1e9))
        target = WatchedCluster(cluster, inspector)
        monkey = asyncio.create_task(self._faults.run(target, schedule, self._now_ns))
        try:
            await self._pass(cluster, measure_s, begin_ns)
            self._machine.end_busy()
            await load.stop()
            await self._machine.end(inspector, cluster, begin_ns)
            try:
                await monkey
            except NotHealed:
                if not losses(cluster):
                    raise
                # Lost nodes cannot be healed. The loss is reported, and everything else is healed.
        finally:
            if not monkey.done():
                monkey.cancel()
                with contextlib.suppress(asyncio.CancelledError, NotHealed):
                    await monkey

    async def _is_elsewhere(self, cluster: Cluster, load: LoadGroup) -> bool:
        """Return whether the leader is on a host without load."""
        leader = await cluster.leader()
        return leader is not None and cluster.worker(leader).host not in [each.host for each in load.workers]

    async def _pass(self, cluster: Cluster, seconds: float, begin_ns: int | None = None) -> None:
        """Wait until `seconds` after `begin_ns`, by default now, and check the nodes repeatedly."""
        end_ns = (begin_ns or self._now_ns()) + int(seconds * 1e9)
        while (left_s := (end_ns - self._now_ns()) / 1e9) > 0:
            await asyncio.sleep(min(left_s, _CHECK_S))
            self._check(cluster)

    async def _settle(self, inspector: Inspector, cluster: Cluster) -> None:
        self._enter("inspect")
        bound_s = min(max(LIVENESS_BOUND * self._parameters.raft.election_timeout[1], _SETTLE_LEAST_S), _SETTLE_MOST_S)
        await inspector.settle(bound_s / self._parameters.slowest_clock, lambda: self._check(cluster))

    async def _read_back(self, load: LoadGroup) -> None:
        """Read every written key, so that a lost acknowledged write shows even if the load never read its key again."""
        checks = self._parameters.checks
        if checks.linearizable and checks.read_back:
            self._first_reader = self._parameters.load.clients
            await load.read_back(checks.read_back)

    def _check(self, cluster: Cluster) -> None:
        """Raise NodeDied when a node ended unexpectedly, and InfrastructureError when Ray as a whole is lost.

        All other losses are reported when the cell is over.
        """
        lost = losses(cluster)
        for end in cluster.unexpected_exits:
            if end not in lost:
                raise NodeDied(str(end))
        if self._backend.lost:
            raise InfrastructureError(self._backend.lost)

    def _enter(self, phase: str, length_s: float | None = None) -> None:
        self._progress.enter(phase, self._machine.wall_s(length_s))
        self._phases.append(PhaseEvent(self._now_ns(), phase))

    # ------------------------------------------------------------------------------ watching

    @contextlib.asynccontextmanager
    async def _watched(self, inspector: Inspector, cluster: Cluster, load: LoadGroup) -> AsyncIterator[None]:
        """Keep the progress and the clocks up to date within the block. A failing watcher does not fail the cell."""

        def workers() -> Iterator[Worker]:
            return iter([*load.workers, *map(cluster.worker, cluster.node_ids)])

        watches = (
            self._watch_load(load),
            inspector.watch_leader(self._progress),
            self._machine.watch_clocks(workers),
        )
        watchers = list(map(asyncio.create_task, watches))
        try:
            yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _watch_load(self, load: LoadGroup) -> None:
        while True:
            await asyncio.sleep(_LOAD_POLL_S)
            self._progress.load(await load.snapshot())

    # ------------------------------------------------------------------------------ the record

    async def _salvage(self) -> None:
        """Fetch what a cell that ends early has measured so far."""
        if self._load is None or self._loaded is not None or not self._loading:
            return
        begin_ns, end_ns = self._measure_ns
        now_ns = self._now_ns()
        # If the measurement has not begun, its span is empty; the judge still sees the operations of the warm-up.
        self._measure_ns = (begin_ns, min(end_ns, now_ns)) if end_ns else (now_ns, now_ns)
        with contextlib.suppress(Exception):  # the error that ended the cell early is the one to report
            await self._load.drain(_SALVAGE_S)
            self._loaded = await self._load.result()

    async def _record(self, ending: Ending) -> Record:
        """Make the record. If a part cannot be made, record the error and keep the parts made before it."""
        record = Record(
            CellData(self._parameters, None, ()),
            error=ending.error,
            detail=ending.detail,
            unavailable=self._unavailable,
            lost=ending.lost,
            over=self._backend.lost or (ending.lost if ending.refused else None),
        )
        try:
            self._enter("collect")
            trace = await collect(self._cluster, record) if self._cluster is not None else []
            record.inspection = self._inspected()
            record.facts |= self._machine.facts(self._cluster, self._loaded, self._measure_ns)
            record.evidence = self._data(trace)
            if self._measure_ns[1] and self._cluster is not None:
                record.schedule = self._faults.ran(self._cluster.node_ids)
        except Exception as failure:
            record.fails(failure, "recording")
        self._tell_losses(record, ending)
        return record

    def _tell_losses(self, record: Record, ending: Ending) -> None:
        """Put the losses into the record.

        If a node exited unexpectedly, its exit remains the reason of the cell, because it may be a bug.
        """
        lost = [] if self._cluster is None else list(map(str, losses(self._cluster)))
        if ending.node_died:
            record.lost = None
        elif lost:
            others = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
            record.lost = f"{lost[0]}{others}"
        if lost:
            record.detail = "\n".join(filter(None, (*lost, record.detail)))

    def _inspected(self) -> dict[str, Any]:
        """Return inspection.json: what the checks need in addition to arrays, events and traces."""
        cluster, inspector = self._cluster, self._inspector
        if cluster is None or inspector is None:
            return {}
        clocks = {node_id: cluster.worker(node_id).clock for node_id in cluster.node_ids}
        return {
            "settled": inspector.settled,
            "asked": self._asked,
            "statuses": inspector.statuses,
            "aims": self._faults.aims,
            "faults_asked": dict(self._faults.asked),
            "exits": [{"exit_code": end.exit_code, "text": str(end)} for end in cluster.unexpected_exits],
            "fault_exits": [
                {"node": end.node_id, "exit_code": end.exit_code, "time_ns": end.time_ns}
                for end in cluster.exits
                if end.cause == "fault"
            ],
            "lost": sorted({end.node_id for end in losses(cluster)}),
            "clocks": {
                node_id: {"offset_ns": clock.offset_ns, "error_ns": clock.error_ns} for node_id, clock in clocks.items()
            },
            "violations": [str(each) for each in cluster.violations],
        }

    def _data(self, trace: Sequence[TraceRecord]) -> CellData:
        load_figures = () if self._loaded is None else self._machine.load_figures(self._loaded, self._measure_ns)
        return CellData(
            parameters=self._parameters,
            operations=self._operations(),
            events=sorted([*self._phases, *self._faults.events, *trace], key=lambda event: event.time_ns),
            faults_asked=self._faults.asked.total(),
            nodes=self._machine.nodes,
            loads=load_figures,
            notes=self._notes(),
            cores=self._machine.cores,
            host_busy=self._machine.host_busy,
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
            self._faults.windows_ns,
            rows.composite_ids,
            rows.composite_end,
            self._loaded.error_ns,
            self._first_reader,
        )

    def _notes(self) -> list[str]:
        notes = []
        if self._load is not None and self._load.left_out:
            clients, hosts = self._parameters.load.clients, self._parameters.load.clients + self._load.left_out
            notes.append(
                f"load.on: {clients} of {hosts} hosts have a load generator, because there are only {clients} clients"
            )
        if self._leader_moved:
            notes.append("load.on: leader: when the measurement began, the leader was on another host than the load")
        return notes

    def _clock_error_ms(self) -> float:
        if self._cluster is None:
            return 0.0
        clocks = [self._cluster.worker(node_id).clock for node_id in self._cluster.node_ids]
        clocks += [each.clock for each in self._loaded.generators] if self._loaded is not None else []
        return float(max(clock.error_ns for clock in clocks)) / 1e6


def _durations(phases: Sequence[PhaseEvent]) -> dict[str, float]:
    """Return the seconds that each phase lasted; the last one is still running and left out."""
    return {event.phase: (after.time_ns - event.time_ns) / 1e9 for event, after in itertools.pairwise(phases)}
