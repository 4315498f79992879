"""A Raft cluster of real processes: started, disturbed, repaired, inspected and stopped.

This module handles what concerns several nodes: acting on many at once, the table of link faults, the address book,
the leader. supervised.py handles one node. RayCluster satisfies chaos' Target protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestration.address_book import AddressBook
from orchestration.errors import InfrastructureError, NodeFailed
from orchestration.plan import Applied, BringUp, ClusterPlan, NodeExit, NodeFiles
from orchestration.ray_cluster.actor import Started
from orchestration.ray_cluster.pool import Pool
from orchestration.ray_cluster.session import connect
from orchestration.ray_cluster.supervised import Shared, SupervisedNode, Table
from orchestration.ray_cluster.worker import Worker
from raft_actor_node.client import KVClient
from raft_actor_node.client_home import Home
from raft_actor_node.client_probe import ProbeFailed
from raft_actor_node.config import ClientSettings, describe
from raft_actor_node.errors import ConfigError, OperationError
from raft_actor_node.links import LinkRule
from raft_actor_node.names import node_names
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.patience import Patience
from raft_actor_node.pb import inspection_pb2

T = TypeVar("T")

_POLL_S = 0.02


class RayCluster:
    """A running cluster. Created by `RayBackend.start_cluster`, or for one program by `RayCluster.start`.

    It belongs to the event loop on which it was created; on another loop its methods raise RuntimeError.
    """

    def __init__(self, pool: Pool, plan: ClusterPlan, workers: Sequence[Worker]) -> None:
        self.plan = plan
        self.cluster_id = f"{plan.cluster_id}-{uuid.uuid4().hex[:8]}"
        self.bring_up_times = BringUp(0.0, 0.0, 0.0, None)
        self.stopped = False
        self._home = Home("a RayCluster")
        by_id = dict(zip(node_names(len(workers)), workers, strict=True))
        self._shared = Shared(pool, plan, self.cluster_id, tuple(by_id))
        self._nodes = {node_id: SupervisedNode(node_id, worker, self._shared) for node_id, worker in by_id.items()}
        self._clients: list[KVClient] = []
        self._scout: KVClient | None = None

    # ------------------------------------------------------------------------------ starting and stopping

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, nodes: int = 3, *, address: str | None = None, **settings: Any) -> AsyncIterator[RayCluster]:
        """Start a cluster for one program: connect to Ray (see session.connect), and clean up at exit.

        `settings` are the fields of ClusterPlan. Raises ConfigError, PlacementRefused, NodeFailed and
        InfrastructureError.
        """
        try:
            plan = ClusterPlan.model_validate({"nodes": nodes, **settings})
        except ValidationError as error:
            raise ConfigError(describe(error)) from None
        async with connect(address) as session, Pool(session) as pool:
            cluster = await cls.bring_up(pool, plan)
            try:
                yield cluster
            finally:
                await cluster.stop()

    @classmethod
    async def bring_up(cls, pool: Pool, plan: ClusterPlan) -> RayCluster:
        """Place and start the nodes, wait until every node serves, then wait for a leader.

        On any error it stops what it started. Raises PlacementRefused, NodeFailed (with the end of the node's log) and
        InfrastructureError, but no error when there is no leader within `plan.leader_timeout_s`.
        """
        begin = time.monotonic()
        cluster = cls(pool, plan, await pool.place(plan.nodes, plan.placement))
        placed = time.monotonic()
        try:
            await cluster._each(cluster.node_ids, SupervisedNode.create)
            started = await cluster._each(cluster.node_ids, cluster._boot)
            for node_id, life in started.items():
                cluster.addresses.set(node_id, life.address)
            spawned = time.monotonic()
            await cluster._tell_addresses()
            await cluster._each(cluster.node_ids, SupervisedNode.until_serving)
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
        """Shut down all processes (SIGTERM, then SIGKILL if needed). Their files remain, for `collect`."""
        await self._each(self.node_ids, SupervisedNode.halt)

    async def stop(self, keep: bool = False) -> None:
        """End all processes, delete the nodes' files unless `keep`, and return the actors to the pool."""
        if self.stopped:
            return
        self._home.check()
        self.stopped = True
        for client in self._clients:
            await client.close()
        try:
            with contextlib.suppress(InfrastructureError, NodeFailed):
                await self._each(self.node_ids, SupervisedNode.halt)
        finally:
            await self._each(self.node_ids, lambda node: node.dismiss(keep=keep))

    # ------------------------------------------------------------------------------ observing

    @property
    def addresses(self) -> AddressBook:
        """The address of each node; subscribers learn of restarts."""
        return self._shared.addresses

    @property
    def exits(self) -> list[NodeExit]:
        """All exits of nodes so far, in order."""
        return self._shared.exits

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Every node, up or down."""
        return tuple(self._nodes)

    @property
    def live(self) -> tuple[str, ...]:
        """The nodes that are up: running and not paused."""
        return tuple(node_id for node_id, node in self._nodes.items() if node.state == "up")

    @property
    def violations(self) -> tuple[()]:
        """Always empty: real processes are not checked at each step; the judge reads their traces."""
        return ()

    @property
    def unexpected_exits(self) -> tuple[NodeExit, ...]:
        """The exits that were neither requested nor caused by an injected fault."""
        return tuple(end for end in self.exits if end.cause in ("exit", "infrastructure"))

    def pid(self, node_id: str) -> int:
        """Return the process id of the node on its host, of the current or last incarnation."""
        return self._node(node_id).pid

    def worker(self, node_id: str) -> Worker:
        """Return the actor that supervises a node; its `host` and `clock` are those of the node."""
        return self._node(node_id).worker

    def client(
        self, *, settings: ClientSettings | None = None, client_id: str = "client", follow: bool = True
    ) -> KVClient:
        """Create and start a client of this cluster; `stop` closes it.

        With `follow` the client gets the new addresses after restarts.
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
        """Return the leader of the highest term among the nodes that are up and answer; None while there is none.

        If the node program offers no Inspection: the node that answers a read, or None.
        """
        self._home.check()
        statuses: dict[str, inspection_pb2.StatusReply | None] = {}
        asked = [asyncio.create_task(self._answer(self._nodes[node_id])) for node_id in self.live]
        try:
            for answer in asyncio.as_completed(asked):
                if (told := await answer) is not None:
                    statuses |= told
                # Every quorum contains a node that knows the newest term with a leader. So answers of a quorum suffice.
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
        """Return the inner state of a node; None when it is not up, does not answer, or offers no inspection.

        The hashes are as in NodeProbe.status.
        """
        node = self._node(node_id)
        return await node.ask(lambda probe: probe.status(hash_index=hash_index, with_state_hash=with_state_hash))

    async def samples(self, node_id: str, since_ns: int = 0) -> inspection_pb2.SamplesReply | None:
        """Return what a node measured since `since_ns` of its own clock; None in the same cases as `status`."""
        return await self._node(node_id).ask(lambda probe: probe.samples(since_ns))

    async def collect(self, node_id: str) -> NodeFiles:
        """Return what a node has written, whether the node is up or down.

        If its actor is lost, another actor on the same host reads the files. Compares the clocks again, because the
        files contain times. Raises InfrastructureError when the host cannot be reached.
        """
        return await self._node(node_id).collect()

    # ------------------------------------------------------------------------------ disturbing

    async def crash(self, *node_ids: str) -> Applied:
        """Kill the processes (SIGKILL), all at once; returns when they have ended."""
        return await self._disturb(node_ids, SupervisedNode.crash)

    async def restart(self, *node_ids: str) -> Applied:
        """Restart nodes that are down, from their disks, under the faults in force.

        Returns when they serve and their new addresses are published. If a table of faults changed meanwhile and did
        not reach a node, that node is listed in `failed`. Raises NodeFailed, with the end of the log, for a node that
        does not start.
        """
        return self._with_stale(await self._disturb(node_ids, self._restart), node_ids)

    async def pause(self, *node_ids: str) -> Applied:
        """Stop the processes (SIGSTOP) without ending them; returns when they are stopped.

        Nodes that are down are listed in `failed`.
        """
        applied = await self._disturb(node_ids, SupervisedNode.pause)
        return applied._replace(failed=tuple(node_id for node_id in node_ids if self._nodes[node_id].state == "down"))

    async def resume(self, *node_ids: str) -> Applied:
        """Resume paused processes (SIGCONT), under the faults in force.

        As with `restart`, nodes that the current tables of faults did not reach are listed in `failed`.
        """
        return self._with_stale(await self._disturb(node_ids, SupervisedNode.resume), node_ids)

    async def set_links(self, rules: Sequence[LinkRule]) -> Applied:
        """Replace the table of link faults on every node that is up.

        A node that is down or paused gets it when it comes back. A node that does not offer Chaos is listed in
        `failed`.
        """
        self._shared.links = tuple(rules)
        return await self._spread("links", patient=False)

    async def heal(self) -> Applied:
        """Remove all link faults and all faults inside nodes.

        Waits longer than `set_links` and `set_node_faults` for nodes that missed an earlier table.
        """
        self._shared.links, self._shared.inside = (), {}
        links, inside = await asyncio.gather(self._spread("links", patient=True), self._spread("inside", patient=True))
        times = [each for each in (links, inside) if each.first_ns]
        return Applied(
            min((each.first_ns for each in times), default=0),
            max((each.last_ns for each in times), default=0),
            tuple(dict.fromkeys((*links.failed, *inside.failed))),
        )

    async def set_node_faults(self, faults: Mapping[str, NodeFaults]) -> Applied:
        """Replace the table of faults inside nodes on every node that is up.

        A node that is down or paused gets it when it comes back. A node that does not offer Chaos is listed in
        `failed` if the table names it.
        """
        self._shared.inside = dict(faults)
        return await self._spread("inside", patient=False)

    async def _spread(self, table: Table, *, patient: bool) -> Applied:
        answers = await self._each(self.live, lambda node: node.push(table, patient=patient))
        return self._with_stale(_applied(answers.values()), answers)

    # ------------------------------------------------------------------------------ one node

    def _node(self, node_id: str) -> SupervisedNode:
        self._home.check()
        if node_id not in self._nodes:
            raise ValueError(f"there is no node {node_id!r}; the nodes are {', '.join(self._nodes)}")
        return self._nodes[node_id]

    async def _boot(self, node: SupervisedNode) -> Started:
        return await node.boot(bootstrap=True)

    async def _restart(self, node: SupervisedNode) -> int | None:
        started = await node.restart()
        if started is None:
            return None
        self.addresses.set(node.node_id, started.address)
        await self._tell_addresses()
        await node.until_serving()
        return node.worker.clock.to_driver(started.spawned_ns)

    # ------------------------------------------------------------------------------ all nodes

    async def _each(
        self, node_ids: Iterable[str], act: Callable[[SupervisedNode], Coroutine[Any, Any, T]]
    ) -> dict[str, T]:
        """Act on all these nodes concurrently; raise the first error after all were tried."""
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
        self, node_ids: Sequence[str], act: Callable[[SupervisedNode], Coroutine[Any, Any, int | None]]
    ) -> Applied:
        return _applied((await self._each(node_ids, act)).values())

    def _with_stale(self, applied: Applied, node_ids: Iterable[str]) -> Applied:
        """Return `applied` with `failed` set to the nodes that are up and lack a current table of faults."""
        nodes = map(self._node, dict.fromkeys(node_ids))
        return applied._replace(failed=tuple(node.node_id for node in nodes if node.stale and node.state == "up"))

    async def _tell_addresses(self) -> None:
        await asyncio.gather(self._each(self.node_ids, SupervisedNode.tell_address), self.addresses.publish())

    async def _answer(self, node: SupervisedNode) -> dict[str, inspection_pb2.StatusReply | None] | None:
        """Return {node id: status}, where status is None if the node offers no Inspection; None without an answer."""
        if node.probe is None:
            return None
        try:
            return {node.node_id: await node.probe.status()}
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
    """Return the leader of the highest term; with `newest` only if no status has a higher term."""
    known = {node_id: status for node_id, status in statuses.items() if status is not None}
    leaders = [(each.current_term, who) for who, each in known.items() if each.role == inspection_pb2.Role.LEADER]
    if not leaders or (newest and max(leaders)[0] < max(each.current_term for each in known.values())):
        return None
    return max(leaders)[1]


def _applied(times: Iterable[int | None]) -> Applied:
    known = [time_ns for time_ns in times if time_ns is not None]
    return Applied(min(known, default=0), max(known, default=0))
