"""A Raft cluster of real processes: brought up, disturbed, repaired, inspected, taken down.

Commands to a process go through the actor beside it (actor.py); questions to a node, and its link faults,
go by gRPC from here (raft_actor_node/client_probe.py). RayCluster has the shape of chaos' Target.

An actor may be gone, or silent because its host is. A command to a silent one fails in time and may reach it later;
it is given up, and its node is down for good, when it was silent for as long as _SILENCE_S, or when its node is to be
halted. Nobody else waits for it.

A node here is *up*, *paused* or *down*:

    from      by                                     to
    down      start, restart                         up
    up        pause                                  paused
    paused    resume                                 up
    up        crash, halt, or an end of its own      down
    paused    crash, halt, or an end of its own      down
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ValidationError

from orchestration.address_book import AddressBook
from orchestration.errors import InfrastructureError, NodeFailed, PlacementRefused
from orchestration.plan import Applied, BringUp, ClusterPlan, NodeExit, NodeFiles
from orchestration.ray_cluster.actor import NodeSpec, NodeSupervisor, Started
from orchestration.ray_cluster.owner import Leftover
from orchestration.ray_cluster.process import Exit
from raft_actor_node.addresses import every_interface
from raft_actor_node.client import KVClient
from raft_actor_node.client_home import Home
from raft_actor_node.client_probe import NodeProbe, ProbeFailed
from raft_actor_node.config import (
    ClientSettings,
    NodeConfig,
    describe,
)
from raft_actor_node.errors import ConfigError, OperationError
from raft_actor_node.links import LinkRule
from raft_actor_node.names import node_names
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.patience import Patience
from raft_actor_node.pb import inspection_pb2

if TYPE_CHECKING:
    from orchestration.ray_cluster.connect import Backend
    from orchestration.ray_cluster.worker import Worker

log = logging.getLogger(__name__)

T = TypeVar("T")
Cause = Literal["crash", "stop", "exit", "infrastructure"]
"""Of the end of a node; see NodeExit."""

_POLL_S = 0.02
_ACTOR_MARGIN_S = 10.0
"""How much longer than the node itself its actor may take to answer."""
_FAULT_TIMEOUT_S = 4.0
"""For a command of chaos, which has no more than 5 s for each."""
_TELL_TIMEOUT_S = 2.0
_HASTE_S = 0.5
"""For what a node could not be told the last time: it is tried again, and nobody waits long for a host that is cut off.
"""
_HALT_TIMEOUT_S = 10.0
"""To end a node in order, or by force after 5 s."""
_LOOK_S = 10.0
"""How often an actor says that its node runs."""
_SILENCE_S = 20.0
"""When an actor that says nothing is lost."""
_REPLACE_TIMEOUT_S = 10.0
_END_TIMEOUT_S = 5.0
_KNOCK_S = 0.5
_FAREWELLS = 4
"""So many knocks tell whether a host goes after its nodes."""


class _Node:
    """One node as the driver sees it."""

    def __init__(self, node_id: str, worker: Worker) -> None:
        self.node_id = node_id
        self.worker = worker
        self.state: Literal["up", "paused", "down"] = "down"
        self.pid = 0
        self.started_ticks = 0
        """When its process started, by which it is told from a later one with the same pid."""
        self.untold = False
        """True while it could not be told the present addresses."""
        self.host_lost = False
        """True once no other actor could be had on its host either."""
        self.probe: NodeProbe | None = None
        self.ending: Literal["crash", "stop"] | None = None
        """Why the process is about to end, if somebody asked for it."""
        self.stale = False
        """True while it could not be given the present table of link faults."""
        self.watch: asyncio.Task[None] | None = None
        """Waits for the end of the life that runs."""


class RayCluster:
    """A cluster that runs. Made by `Backend.start_cluster`, or on its own by `RayCluster.start`.

    It belongs to the event loop on which it was made; on another one its methods raise RuntimeError.
    """

    def __init__(self, backend: Backend, plan: ClusterPlan, workers: Sequence[Worker]) -> None:
        self.plan = plan
        self.cluster_id = f"{plan.cluster_id}-{uuid.uuid4().hex[:8]}"
        self.addresses = AddressBook()
        """Where the nodes are; subscribe to it to hear of restarts."""
        self.exits: list[NodeExit] = []
        """Every end of a node so far, in order."""
        self.bring_up_times: BringUp
        self._backend = backend
        self._home = Home("a RayCluster")
        self._nodes = {
            name: _Node(name, worker) for name, worker in zip(node_names(len(workers)), workers, strict=True)
        }
        self._links: tuple[LinkRule, ...] = ()
        self._clients: list[KVClient] = []
        self._scout: KVClient | None = None
        self._stopped = False

    # ------------------------------------------------------------------------------ life

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, nodes: int = 3, *, address: str | None = None, **settings: Any) -> AsyncIterator[RayCluster]:
        """A cluster of its own for a program: connects to Ray (see Backend.connect), and cleans up at the end.

        `settings` are the fields of ClusterPlan. Raises ConfigError, PlacementRefused, NodeFailed and
        InfrastructureError.
        """
        # Here, because ray takes a second to import, and because connect.py imports this module.
        from orchestration.ray_cluster.connect import Backend  # noqa: PLC0415

        try:
            plan = ClusterPlan.model_validate({"nodes": nodes, **settings})
        except ValidationError as error:
            raise ConfigError(describe(error)) from None
        async with Backend.connect(address) as backend:
            cluster = await backend.start_cluster(plan)
            try:
                yield cluster
            finally:
                await cluster.stop()

    @classmethod
    async def bring_up(cls, backend: Backend, plan: ClusterPlan) -> RayCluster:
        """Place, start, and wait until every node serves. Whatever goes wrong, nothing stays behind.

        Raises PlacementRefused, NodeFailed (with the end of the node's log) and InfrastructureError.
        """
        begin = time.monotonic()
        cluster = cls(backend, plan, await backend.place(plan.nodes, plan.placement))
        placed = time.monotonic()
        try:
            await cluster._each(cluster.node_ids, cluster._create)
            started = await cluster._each(cluster.node_ids, lambda node: cluster._boot(node, bootstrap=True))
            for node_id, life in started.items():
                cluster.addresses.set(node_id, life.address)
            spawned = time.monotonic()
            await cluster._tell_addresses()
            await cluster._each(cluster.node_ids, cluster._until_serving)
            serving = time.monotonic()
            leader = await cluster._first_leader()
        except BaseException:
            await cluster.stop()
            raise
        cluster.bring_up_times = BringUp(
            placed - begin, spawned - placed, serving - spawned, time.monotonic() - serving if leader else None
        )
        return cluster

    async def halt(self) -> None:
        """End all processes in order (SIGTERM; by force if need be). Their files stay, for `collect`."""
        await self._each(self.node_ids, self._halt)

    async def stop(self, keep: bool = False) -> None:
        """End everything, delete the nodes' files unless they are to be kept, give the actors back."""
        if self._stopped:
            return
        self._home.check()
        self._stopped = True
        self._backend.forget(self)
        for client in self._clients:
            await client.close()
        try:
            with contextlib.suppress(InfrastructureError, NodeFailed):
                await self._each(self.node_ids, self._halt)
        finally:
            await self._each(self.node_ids, lambda node: self._dismiss(node, keep))

    # ------------------------------------------------------------------------------ observing

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Every node, up or down."""
        return tuple(self._nodes)

    @property
    def live(self) -> tuple[str, ...]:
        """The nodes that run and are not paused."""
        return tuple(node_id for node_id, node in self._nodes.items() if node.state == "up")

    @property
    def unexpected_exits(self) -> tuple[NodeExit, ...]:
        """The ends that nobody asked for."""
        return tuple(end for end in self.exits if end.cause in ("exit", "infrastructure"))

    def pid(self, node_id: str) -> int:
        """Process id of the node on its host, in its present or last life."""
        return self._node(node_id).pid

    def worker(self, node_id: str) -> Worker:
        """The actor beside a node: its host, and how that host's clock relates to the driver's."""
        return self._node(node_id).worker

    def client(
        self, *, settings: ClientSettings | None = None, client_id: str = "client", follow: bool = True
    ) -> KVClient:
        """A client of this cluster, ready for use; closed with the cluster at the latest.

        With `follow` it hears of restarts.
        """
        self._home.check()
        client = KVClient(
            self.addresses.addresses(), settings=settings, transport=self.plan.transport, client_id=client_id
        )
        client.start()
        self._clients.append(client)
        if follow:
            self.addresses.subscribe(lambda book: client.update_addresses(book.addresses()))
        return client

    async def leader(self) -> str | None:
        """The leader of the highest term among the nodes that run and answer, None while there is none.

        Of a program that offers no Inspection: the node that answers a read, or None.
        """
        self._home.check()
        statuses: dict[str, inspection_pb2.StatusReply | None] = {}
        asked = [asyncio.create_task(self._answer(self._nodes[node_id])) for node_id in self.live]
        try:
            for answer in asyncio.as_completed(asked):
                if (told := await answer) is not None:
                    statuses |= told
                # A quorum of nodes knows of every term that has a leader, so the silent ones are not waited for.
                if 2 * len(statuses) > len(self._nodes) and (leader := _leader_among(statuses, newest=True)):
                    return leader
        finally:
            for task in asked:
                task.cancel()
        if leader := _leader_among(statuses):
            return leader
        silent = statuses and all(status is None for status in statuses.values())
        return await self._leader_by_reading() if silent else None

    async def status(
        self, node_id: str, *, hash_index: int = 0, with_state_hash: bool = False
    ) -> inspection_pb2.StatusReply | None:
        """The inner state of a node; None when it is not up, does not answer, or does not offer that. The hashes
        are as in NodeProbe.status."""
        return await self._ask(
            node_id, lambda probe: probe.status(hash_index=hash_index, with_state_hash=with_state_hash)
        )

    async def samples(self, node_id: str, since_ns: int = 0) -> inspection_pb2.SamplesReply | None:
        """What a node measured about itself since `since_ns` of its own clock; None as for `status`."""
        return await self._ask(node_id, lambda probe: probe.samples(since_ns))

    async def collect(self, node_id: str) -> NodeFiles:
        """What the node has written, up or down; also where its actor is lost and its host is not. For the times in
        that its clock is compared once more. Raises InfrastructureError."""
        node = self._node(node_id)
        try:
            return await self._files(node)
        except InfrastructureError:
            with contextlib.suppress(InfrastructureError):
                await node.worker.knock()  # tells whether it is gone
            if node.worker.lost is None:
                raise
        await self._replace(node)
        return await self._files(node)

    async def _files(self, node: _Node) -> NodeFiles:
        await node.worker.compare_clocks()
        return NodeFiles(*await node.worker.call("collect"))

    # ------------------------------------------------------------------------------ disturbing

    async def crash(self, *node_ids: str) -> Applied:
        """Kill the processes (SIGKILL), all at once; returns when they are gone."""
        return await self._disturb(node_ids, self._crash)

    async def restart(self, *node_ids: str) -> Applied:
        """Start nodes that are down again, on what their disks hold, under the link faults in force.

        Returns when they serve and everybody knows their new addresses. Where the link faults changed meanwhile
        and a node could not be given them, it is among those that failed. Raises NodeFailed with the end of
        the log of a node that does not come up.
        """
        return self._with_stale(await self._disturb(node_ids, self._restart), node_ids)

    async def pause(self, *node_ids: str) -> Applied:
        """Stop the processes (SIGSTOP) without ending them; returns when they stand still."""
        applied = await self._disturb(node_ids, self._pause)
        return applied._replace(failed=tuple(node_id for node_id in node_ids if self._nodes[node_id].state == "down"))

    async def resume(self, *node_ids: str) -> Applied:
        """Let paused processes go on (SIGCONT), under the link faults in force.

        Those that could not be given these are among those that failed, as with `restart`.
        """
        return self._with_stale(await self._disturb(node_ids, self._resume), node_ids)

    async def set_links(self, rules: Sequence[LinkRule]) -> Applied:
        """Put this whole table of link faults in force on every node that runs.

        A node that is down or paused gets it when it comes back. A node that does not offer Chaos is among
        those that failed.
        """
        return await self._spread_links(rules, _HASTE_S)

    async def heal(self) -> Applied:
        """Remove every link fault, also from nodes that need a while to be reached again."""
        return await self._spread_links((), math.inf)

    async def set_node_faults(self, faults: Mapping[str, NodeFaults]) -> Applied:
        """Put this whole table of faults inside nodes in force. Raises NotImplementedError: nodes have none yet."""
        raise NotImplementedError("faults inside nodes cannot be put in force here yet")

    async def _spread_links(self, rules: Sequence[LinkRule], stale_s: float) -> Applied:
        self._links = tuple(rules)
        answers = await self._each(self.live, lambda node: self._push_links(node, stale_s))
        return self._with_stale(_applied(answers.values()), answers)

    # ------------------------------------------------------------------------------ one node

    def _node(self, node_id: str) -> _Node:
        self._home.check()
        if node_id not in self._nodes:
            raise ValueError(f"there is no node {node_id!r}; the nodes are {', '.join(self._nodes)}")
        return self._nodes[node_id]

    async def _create(self, node: _Node) -> None:
        await node.worker.create(NodeSupervisor, self._spec(node))

    def _spec(self, node: _Node) -> NodeSpec:
        plan, node_id = self.plan, node.node_id
        config = NodeConfig(
            cluster_id=self.cluster_id,
            node_id=node_id,
            members=list(self._nodes),
            raft=plan.raft,
            storage=plan.storage,
            limits=plan.limits,
            transport=plan.transport,
            chaos_enabled=plan.chaos_enabled,
            allow_bad_parameters=plan.allow_bad_parameters,
        )
        here = self._backend.private  # then nobody else needs to reach the nodes
        return NodeSpec(
            node_id=node_id,
            run_id=plan.run_id,
            # Unique, so that a cell which runs again does not find what an interrupted run left behind.
            cell_id=f"{plan.cell_id}-{self.cluster_id[-8:]}",
            config=config.model_dump(mode="json"),
            command=plan.command,
            cwd=str(Path.cwd()),
            bind_host="127.0.0.1" if here else every_interface(node.worker.host.address),
            advertise_host="127.0.0.1" if here else node.worker.host.address,
            boot_timeout_s=plan.boot_timeout_s,
            code=self._backend.code["raft_actor_node"],
        )

    def _seed(self, node_id: str) -> int | None:
        """Of the life that begins: a function of the plan's seed, the node, and its epoch in the address book."""
        if self.plan.seed is None:
            return None
        epoch = self.addresses[node_id].epoch + 1 if node_id in self.addresses else 1
        return random.Random(f"{self.plan.seed}/{node_id}/{epoch}").getrandbits(63)

    async def _boot(self, node: _Node, *, bootstrap: bool) -> Started:
        """Start the process. Nobody is told its address yet."""
        links = self._links
        started = Started(
            *await node.worker.call(
                "start",
                [rule.model_dump(mode="json") for rule in links],
                bootstrap=bootstrap,
                seed=self._seed(node.node_id),
                timeout_s=self.plan.boot_timeout_s + _ACTOR_MARGIN_S,
            )
        )
        node.ending, node.stale = None, False
        node.state, node.pid, node.started_ticks = "up", started.pid, started.ticks
        node.probe = NodeProbe(started.address, transport=self.plan.transport)
        node.watch = asyncio.create_task(self._watch(node), name=f"end of {node.node_id}")
        # Where they changed while it started: nobody knows its address, so nothing has leaked.
        await self._catch_up(node, links)
        return started

    async def _watch(self, node: _Node) -> None:
        """Wait for the end of this life of the node and write it down."""
        cause: Cause
        worker, exit_code = node.worker, None
        try:
            end = await self._end_of(node)
            exit_code, tail = end.exit_code, end.log_tail
            # A signal or an end in order may be what was asked for; an error that it reports is its own.
            cause = "exit" if exit_code > 0 else node.ending or "exit"
            time_ns = worker.clock.to_driver(end.time_ns)
            if cause == "exit" and exit_code in (0, -signal.SIGTERM):
                await self._stays(node)
        except InfrastructureError as error:
            worker.give_up(str(error))
            cause, tail, time_ns = "infrastructure", str(error), time.monotonic_ns()
        node.state = "down"
        probe, node.probe = node.probe, None
        self._note_end(node, cause, exit_code, tail, time_ns)
        if probe is not None:
            await probe.close()

    async def _knock(self, node: _Node) -> None:
        """Raise InfrastructureError when the actor of a node that is down does not answer. Nobody watches it then: that
        it is gone is seen, and written down, here."""
        try:
            await node.worker.knock()
        except InfrastructureError as error:
            known = any(end.infrastructure for end in self.exits if end.node_id == node.node_id)
            if node.worker.lost is not None and not known:
                self._note_end(node, "infrastructure", None, str(error), time.monotonic_ns())
            raise

    async def _stays(self, node: _Node) -> None:
        """Raise InfrastructureError when the host of a node that was told to end, though not by us, goes too: one that
        is shut down tells all of its processes."""
        for _ in range(_FAREWELLS):
            await asyncio.sleep(_KNOCK_S)
            await node.worker.knock()

    def _note_end(self, node: _Node, cause: Cause, exit_code: int | None, tail: str, time_ns: int) -> None:
        self.exits.append(NodeExit(node.node_id, cause, exit_code, tail, time_ns, node.worker.host.address))

    async def _end_of(self, node: _Node) -> Exit:
        """Wait for the end of its process, and hear from its actor meanwhile. Raises InfrastructureError once that
        is lost."""
        while True:
            if (end := await self._look_after(node)) is not None:
                return end
            if node.untold:
                await self._tell_address(node)

    async def _look_after(self, node: _Node) -> Exit | None:
        """The end of its process, None when it runs on; asked again for as long as an actor may be silent."""
        async with Patience(_SILENCE_S, interrupt=False) as patience:
            while True:
                try:
                    end = await node.worker.call("wait", _LOOK_S, timeout_s=_LOOK_S + _SILENCE_S)
                    return None if end is None else Exit(*end)
                except InfrastructureError:
                    if node.worker.lost is not None or patience.over:
                        raise
                await asyncio.sleep(_KNOCK_S)

    async def _replace(self, node: _Node) -> None:
        """Put another actor of its host in the place of a lost one: what that left running is ended, and the files can
        be had. Raises InfrastructureError; at once when it was tried before."""
        lost = node.worker
        if node.host_lost:
            raise InfrastructureError(str(lost.lost))
        node.host_lost = True
        try:
            async with Patience(_REPLACE_TIMEOUT_S):
                worker = await self._backend.another(lost.host)
                try:
                    await worker.create(NodeSupervisor, self._spec(node))
                    worker.keep_clock(lost)
                    for leftover in await worker.call("reap", node.pid, node.started_ticks):
                        log.warning("%s: its actor was lost, and left %s", node.node_id, Leftover(*leftover))
                except BaseException:
                    await worker.close()
                    raise
        except (TimeoutError, PlacementRefused, InfrastructureError) as error:
            log.warning("%s: %s; no other actor there: %s", node.node_id, lost.lost, error)
            raise InfrastructureError(str(lost.lost)) from None
        node.worker, node.host_lost = worker, False
        await lost.close()

    async def _until_serving(self, node: _Node) -> None:
        async with Patience(self.plan.boot_timeout_s, interrupt=False) as patience:
            while node.probe is not None and await node.probe.health() is False:
                if patience.over:
                    raise NodeFailed(node.node_id, f"did not serve within {self.plan.boot_timeout_s:g} s")
                await asyncio.sleep(_POLL_S)
        if node.state == "down":
            end = next(end for end in reversed(self.exits) if end.node_id == node.node_id)
            if end.infrastructure:
                raise InfrastructureError(str(end))
            raise NodeFailed(node.node_id, str(end).partition(" ended ")[2], end.exit_code, end.log_tail)

    async def _crash(self, node: _Node) -> int | None:
        if node.state == "down":
            return None
        node.ending = "crash"
        sent_ns = await node.worker.call("kill", timeout_s=_FAULT_TIMEOUT_S)
        await self._gone(node)
        return node.worker.clock.to_driver(sent_ns)

    async def _halt(self, node: _Node) -> None:
        if node.state == "down":
            return
        node.ending = "stop"
        try:
            await node.worker.call("terminate", timeout_s=_HALT_TIMEOUT_S)
        except InfrastructureError as error:
            node.worker.give_up(str(error))
            await self._gone(node)
            raise
        await self._gone(node)

    async def _gone(self, node: _Node) -> None:
        if node.watch is not None:
            await asyncio.shield(node.watch)

    async def _restart(self, node: _Node) -> int | None:
        if node.state != "down":
            if node.ending != "crash":
                return None
            await self._crash(node)  # nobody answered: it may be killed by now, or only later
        await self._knock(node)
        started = await self._boot(node, bootstrap=False)
        self.addresses.set(node.node_id, started.address)
        await self._tell_addresses()
        await self._until_serving(node)
        return node.worker.clock.to_driver(started.spawned_ns)

    async def _pause(self, node: _Node) -> int | None:
        if node.state != "up":
            return None
        node.state = "paused"  # first, so that whoever gives up waiting can still resume it
        stopped_ns = await node.worker.call("pause", timeout_s=_FAULT_TIMEOUT_S)
        return node.worker.clock.to_driver(stopped_ns)

    async def _resume(self, node: _Node) -> int | None:
        if node.state != "paused":
            return None
        # The present table waits in its socket when it wakes up.
        links = asyncio.create_task(self._catch_up(node))
        try:
            sent_ns = await node.worker.call("resume", timeout_s=_FAULT_TIMEOUT_S)
            if node.state == "paused":
                node.state = "up"  # a table that changes from now on is sent to it
        finally:
            await links
        return node.worker.clock.to_driver(sent_ns)

    async def _catch_up(self, node: _Node, links: tuple[LinkRule, ...] | None = None) -> None:
        """Bring a node that comes back, and has the table `links`, to the present one."""
        while links is not self._links:
            links = self._links
            if await self._push_links(node) is None:
                return

    async def _push_links(self, node: _Node, stale_s: float = math.inf) -> int | None:
        """When the table was in force on a node, on the driver's clock; None when it is not. One that missed the last
        table is waited for `stale_s` at most."""
        patience_s = self.plan.transport.probe_timeout
        time_ns = await self._try_links(node, min(patience_s, stale_s) if node.stale else patience_s)
        node.stale = time_ns is None
        return time_ns

    async def _try_links(self, node: _Node, patience_s: float) -> int | None:
        # Again and again: the connection may be one that broke while it was paused.
        with contextlib.suppress(TimeoutError):
            async with Patience(patience_s):
                while node.probe is not None:
                    try:
                        applied_ns = await node.probe.set_links(self._links, timeout=patience_s)
                    except ProbeFailed:
                        await asyncio.sleep(_POLL_S)
                        continue
                    if applied_ns is not None:
                        return node.worker.clock.to_driver(applied_ns)
                    return None if self._links else time.monotonic_ns()  # it knows no link faults: none are in force
        return None

    async def _dismiss(self, node: _Node, keep: bool) -> None:
        try:
            if node.worker.lost is not None:
                await self._replace(node)
            if not keep:
                await node.worker.call("remove_files")
        except InfrastructureError as error:
            log.warning("%s: its files stay on its host: %s", node.node_id, error)
        finally:
            await node.worker.close()
            if node.watch is not None and not node.watch.done():
                with contextlib.suppress(TimeoutError):
                    async with Patience(_END_TIMEOUT_S):
                        await asyncio.wait((node.watch,))
                node.watch.cancel()

    # ------------------------------------------------------------------------------ all nodes

    async def _each(self, node_ids: Iterable[str], act: Callable[[_Node], Coroutine[Any, Any, T]]) -> dict[str, T]:
        """Act on all of these nodes at once; raise the first error only after all were tried."""
        nodes = [self._node(node_id) for node_id in dict.fromkeys(node_ids)]
        results = await asyncio.gather(*map(act, nodes), return_exceptions=True)
        done: dict[str, T] = {}
        errors: list[BaseException] = []
        for node, result in zip(nodes, results, strict=True):
            if isinstance(result, BaseException):
                errors.append(result)
            else:
                done[node.node_id] = result
        if errors:
            for other in errors[1:]:
                errors[0].add_note(str(other))
            raise errors[0]
        return done

    async def _disturb(
        self, node_ids: Sequence[str], act: Callable[[_Node], Coroutine[Any, Any, int | None]]
    ) -> Applied:
        return _applied((await self._each(node_ids, act)).values())

    def _with_stale(self, applied: Applied, node_ids: Iterable[str]) -> Applied:
        """With those that run under another table of link faults than the present one among the failed."""
        nodes = map(self._node, dict.fromkeys(node_ids))
        return applied._replace(failed=tuple(node.node_id for node in nodes if node.stale and node.state == "up"))

    async def _tell_addresses(self) -> None:
        await asyncio.gather(self._each(self.node_ids, self._tell_address), self.addresses.publish())

    async def _tell_address(self, node: _Node) -> None:
        """Send it the address book; where that cannot be done now, its watch does it."""
        try:
            patience_s = _HASTE_S if node.untold else _TELL_TIMEOUT_S
            await node.worker.call("send_addresses", self.addresses.to_json(), timeout_s=patience_s)
            node.untold = False
        except InfrastructureError:
            node.untold = True

    async def _answer(self, node: _Node) -> dict[str, inspection_pb2.StatusReply | None] | None:
        """What it says by its id, which is None where it offers no Inspection; nothing when it does not answer."""
        if node.probe is None:
            return None
        try:
            return {node.node_id: await node.probe.status()}
        except ProbeFailed:
            return None

    async def _ask(self, node_id: str, question: Callable[[NodeProbe], Awaitable[T | None]]) -> T | None:
        node = self._node(node_id)
        if node.state != "up" or node.probe is None:
            return None
        try:
            return await question(node.probe)
        except ProbeFailed:
            return None

    async def _first_leader(self) -> str | None:
        async with Patience(self.plan.leader_timeout_s, interrupt=False) as patience:
            while (leader := await self.leader()) is None and not patience.over:  # noqa: ASYNC110 - remote
                await asyncio.sleep(_POLL_S)
        return leader

    async def _leader_by_reading(self) -> str | None:
        if self._scout is None:
            budget = self.plan.transport.probe_timeout
            settings = ClientSettings(rpc_timeout=budget / 2, retry_budget=budget)
            self._scout = self.client(settings=settings, client_id="scout")
        try:
            await self._scout.get(b"leader")
        except OperationError:
            return None
        return self._scout.leader


def _leader_among(statuses: Mapping[str, inspection_pb2.StatusReply | None], *, newest: bool = False) -> str | None:
    """The leader of the highest term; with `newest` only one that nobody knows a higher term than."""
    known = {node_id: status for node_id, status in statuses.items() if status is not None}
    leaders = [(each.current_term, who) for who, each in known.items() if each.role == inspection_pb2.Role.LEADER]
    if not leaders or (newest and max(leaders)[0] < max(each.current_term for each in known.values())):
        return None
    return max(leaders)[1]


def _applied(times: Iterable[int | None]) -> Applied:
    known = [time_ns for time_ns in times if time_ns is not None]
    return Applied(min(known, default=0), max(known, default=0))
