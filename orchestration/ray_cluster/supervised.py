"""One node of a cluster on Ray: its process, the actor beside it, and the transitions between its states.

Commands to the process go through the actor (actor.py); link faults and questions go to the node itself, by gRPC
(raft_actor_node/client_probe.py). A node is *up*, *paused* or *down*:

    from      by                                     to
    down      boot, restart                          up
    up        pause                                  paused
    paused    resume                                 up
    up        crash, halt, or an end of its own      down
    paused    crash, halt, or an end of its own      down

An actor may be gone, or silent because its host is. A command to a silent one fails in time and may reach it later. The
actor is given up, and its node is down for good, when it was silent for as long as _SILENCE_S, or when its node is to
be halted. Nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from orchestration.address_book import AddressBook
from orchestration.errors import InfrastructureError, NodeFailed, PlacementRefused
from orchestration.plan import Cause, ClusterPlan, NodeExit, NodeFiles
from orchestration.ray_cluster.actor import NodeSpec, NodeSupervisor, Started
from orchestration.ray_cluster.owner import Leftover
from orchestration.ray_cluster.pool import Pool
from orchestration.ray_cluster.process import Exit
from orchestration.ray_cluster.worker import Worker
from raft_actor_node.addresses import every_interface
from raft_actor_node.client_probe import NodeProbe, ProbeFailed
from raft_actor_node.config import NodeConfig
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.patience import Patience

log = logging.getLogger(__name__)

T = TypeVar("T")
Table = Literal["links", "inside"]
"""A table of faults: those of links, or those inside nodes."""

_POLL_S = 0.02
_ACTOR_MARGIN_S = 10.0
"""How much longer than the node itself its actor may take to answer."""
_FAULT_TIMEOUT_S = 4.0
"""For a command of chaos, which has no more than 5 s for each."""
_TELL_TIMEOUT_S = 2.0
_BRIEFLY_S = 0.5
"""For what a node did not take the last time: its host may be cut off, and the others should not wait long."""
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


@dataclass
class Shared:
    """What the nodes of one cluster share."""

    pool: Pool
    plan: ClusterPlan
    cluster_id: str
    node_ids: tuple[str, ...]
    addresses: AddressBook = field(default_factory=AddressBook)
    """Where the nodes are."""
    exits: list[NodeExit] = field(default_factory=list)
    """Every end of a node so far, in order."""
    links: tuple[LinkRule, ...] = ()
    """The present table of link faults."""
    inside: Mapping[str, NodeFaults] = field(default_factory=dict)
    """The present table of faults inside nodes."""


class SupervisedNode:
    """A node with its actor. Transitions that act return when they did, on the driver's clock, else None."""

    def __init__(self, node_id: str, worker: Worker, shared: Shared) -> None:
        self.node_id = node_id
        self.worker = worker
        self.state: Literal["up", "paused", "down"] = "down"
        self.pid = 0
        """Of its process, in its present or last life."""
        self.probe: NodeProbe | None = None
        """To ask it by gRPC, while its process runs."""
        self.stale: set[Table] = set()
        """The tables of faults that it could not be given as they are now."""
        self._shared = shared
        self._started_ticks = 0
        """When its process was started, by which it is told from a later one with the same pid."""
        self._untold = False
        """True while it could not be told the present addresses."""
        self._host_lost = False
        """True once no other actor could be had on its host either."""
        self._ending: Literal["crash", "stop"] | None = None
        """Why the process is about to end, if that was asked for."""
        self._fatal: set[int] = set()
        """Exit codes that faults inside the node explain in this life."""
        self._watcher: asyncio.Task[None] | None = None
        """Waits for the end of the life that runs."""

    # ------------------------------------------------------------------------------ transitions

    async def create(self) -> None:
        """Have the actor hold the supervisor of this node."""
        await self.worker.create(NodeSupervisor, self._spec())

    async def boot(self, *, bootstrap: bool) -> Started:
        """Down to up: start the process, in the place of one that runs. Its address is published by the caller."""
        links, faults = self._shared.links, self._faults
        started = Started(
            *await self.worker.call(
                "start",
                [rule.model_dump(mode="json") for rule in links],
                faults.model_dump(mode="json"),
                bootstrap=bootstrap,
                seed=self._seed(),
                timeout_s=self._shared.plan.boot_timeout_s + _ACTOR_MARGIN_S,
            )
        )
        self._ending, self.stale, self._fatal = None, set(), set()
        self._expect_end(faults)
        self.state, self.pid, self._started_ticks = "up", started.pid, started.ticks
        self.probe = NodeProbe(started.address, transport=self._shared.plan.transport)
        self._watcher = asyncio.create_task(self._watch(), name=f"end of {self.node_id}")
        # Where they changed while it started: its address is not published, so nothing has leaked.
        await self._catch_up(links, faults)
        return started

    async def until_serving(self) -> None:
        """Wait until the node says that it serves. Raises NodeFailed and InfrastructureError."""
        async with Patience(self._shared.plan.boot_timeout_s, interrupt=False) as patience:
            while self.probe is not None and await self.probe.health() is False:
                if patience.over:
                    raise NodeFailed(self.node_id, f"did not serve within {self._shared.plan.boot_timeout_s:g} s")
                await asyncio.sleep(_POLL_S)
        if self.state == "down":
            end = next(end for end in reversed(self._shared.exits) if end.node_id == self.node_id)
            if end.infrastructure:
                raise InfrastructureError(str(end))
            raise NodeFailed(self.node_id, str(end).partition(" ended ")[2], end.exit_code, end.log_tail)

    async def crash(self) -> int | None:
        """Up or paused to down, by SIGKILL; returns when the process is gone."""
        if self.state == "down":
            return None
        self._ending = "crash"
        sent_ns = await self.worker.call("kill", timeout_s=_FAULT_TIMEOUT_S)
        await self._gone()
        return self.worker.clock.to_driver(sent_ns)

    async def restart(self) -> Started | None:
        """Down to up, on what its disk holds; None when it runs. A crash that was not confirmed is completed first."""
        if self._fatal:
            await self._decided()
        if self.state != "down":
            if self._ending != "crash":
                return None
            await self.crash()  # its actor did not answer: the process may be killed by now, or only later
        await self._knock()
        return await self.boot(bootstrap=False)

    async def pause(self) -> int | None:
        """Up to paused, by SIGSTOP."""
        if self.state != "up":
            return None
        self.state = "paused"  # first, so that a caller who gives up waiting can still resume it
        stopped_ns = await self.worker.call("pause", timeout_s=_FAULT_TIMEOUT_S)
        return self.worker.clock.to_driver(stopped_ns)

    async def resume(self) -> int | None:
        """Paused to up, by SIGCONT, under the link faults in force."""
        if self.state != "paused":
            return None
        # The present table waits in its socket when it wakes up.
        links = asyncio.create_task(self._catch_up())
        try:
            sent_ns = await self.worker.call("resume", timeout_s=_FAULT_TIMEOUT_S)
            if self.state == "paused":
                self.state = "up"  # a table that changes from now on is sent to it
        finally:
            await links
        return self.worker.clock.to_driver(sent_ns)

    async def halt(self) -> None:
        """Up or paused to down, in order. An actor that does not answer is given up, and its node is down for good."""
        if self.state == "down":
            return
        self._ending = "stop"
        try:
            await self.worker.call("terminate", timeout_s=_HALT_TIMEOUT_S)
        except InfrastructureError as error:
            self.worker.give_up(str(error))
            await self._gone()
            raise
        await self._gone()

    async def dismiss(self, *, keep: bool) -> None:
        """Delete the files of the node unless they are to be kept, and give its actor back."""
        try:
            if self.worker.lost is not None:
                await self._replace()
            if not keep:
                await self.worker.call("remove_files")
        except InfrastructureError as error:
            log.warning("%s: its files stay on its host: %s", self.node_id, error)
        finally:
            await self.worker.close()
            if self._watcher is not None and not self._watcher.done():
                with contextlib.suppress(TimeoutError):
                    async with Patience(_END_TIMEOUT_S):
                        await asyncio.wait((self._watcher,))
                self._watcher.cancel()

    # ------------------------------------------------------------------------------ told and asked

    async def push(self, table: Table, *, patient: bool = True) -> int | None:
        """When the present table was in force here, on the driver's clock; None when it is not. With `patient=False` a
        node that missed the last table is waited for only briefly."""
        patience_s = self._shared.plan.transport.probe_timeout
        time_ns = await self._try(table, min(patience_s, _BRIEFLY_S) if self.stale and not patient else patience_s)
        self.stale = self.stale - {table} if time_ns is not None else self.stale | {table}
        return time_ns

    async def tell_address(self) -> None:
        """Send it the address book; where that cannot be done now, its watch does it."""
        try:
            patience_s = _BRIEFLY_S if self._untold else _TELL_TIMEOUT_S
            await self.worker.call("send_addresses", self._shared.addresses.to_json(), timeout_s=patience_s)
            self._untold = False
        except InfrastructureError:
            self._untold = True

    async def ask(self, question: Callable[[NodeProbe], Awaitable[T | None]]) -> T | None:
        """What it answers; None when it is not up or does not answer."""
        if self.state != "up" or self.probe is None:
            return None
        try:
            return await question(self.probe)
        except ProbeFailed:
            return None

    async def collect(self) -> NodeFiles:
        """As RayCluster.collect."""
        try:
            return await self._files()
        except InfrastructureError:
            with contextlib.suppress(InfrastructureError):
                await self.worker.knock()  # tells whether it is gone
            if self.worker.lost is None:
                raise
        await self._replace()
        return await self._files()

    # ------------------------------------------------------------------------------ the end of a life

    async def _watch(self) -> None:
        """Wait for the end of this life of the node and write it down."""
        cause: Cause
        worker, exit_code = self.worker, None
        try:
            end = await self._end_of()
            exit_code, tail = end.exit_code, end.log_tail
            # A signal or an end in order may be what was asked for; an error that it reports is its own.
            own: Cause = "fault" if exit_code in self._fatal else "exit"
            cause = own if exit_code > 0 else self._ending or "exit"
            time_ns = worker.clock.to_driver(end.time_ns)
            if cause == "exit" and exit_code in (0, -signal.SIGTERM):
                await self._stays()
        except InfrastructureError as error:
            worker.give_up(str(error))
            cause, tail, time_ns = "infrastructure", str(error), time.monotonic_ns()
        self.state = "down"
        probe, self.probe = self.probe, None
        self._note_end(cause, exit_code, tail, time_ns)
        if probe is not None:
            await probe.close()

    async def _end_of(self) -> Exit:
        """Wait for the end of its process, and hear from its actor meanwhile. Raises InfrastructureError once that
        is lost."""
        while True:
            if (end := await self._look_after()) is not None:
                return end
            if self._untold:
                await self.tell_address()

    async def _look_after(self) -> Exit | None:
        """The end of its process, None when it runs on; asked again for as long as an actor may be silent."""
        async with Patience(_SILENCE_S, interrupt=False) as patience:
            while True:
                try:
                    end = await self.worker.call("wait", _LOOK_S, timeout_s=_LOOK_S + _SILENCE_S)
                    return None if end is None else Exit(*end)
                except InfrastructureError:
                    if self.worker.lost is not None or patience.over:
                        raise
                await asyncio.sleep(_KNOCK_S)

    async def _stays(self) -> None:
        """Raise InfrastructureError when the host of a node that was told to end, though not by us, goes too: one that
        is shut down tells all of its processes."""
        for _ in range(_FAREWELLS):
            await asyncio.sleep(_KNOCK_S)
            await self.worker.knock()

    async def _knock(self) -> None:
        """Raise InfrastructureError when the actor of a node that is down does not answer. Nobody watches it then: that
        it is gone is seen, and written down, here."""
        try:
            await self.worker.knock()
        except InfrastructureError as error:
            known = any(end.infrastructure for end in self._shared.exits if end.node_id == self.node_id)
            if self.worker.lost is not None and not known:
                self._note_end("infrastructure", None, str(error), time.monotonic_ns())
            raise

    def _note_end(self, cause: Cause, exit_code: int | None, tail: str, time_ns: int) -> None:
        self._shared.exits.append(NodeExit(self.node_id, cause, exit_code, tail, time_ns, self.worker.host.address))

    async def _gone(self) -> None:
        if self._watcher is not None:
            await asyncio.shield(self._watcher)

    # ------------------------------------------------------------------------------ inside

    def _spec(self) -> NodeSpec:
        plan, node_id = self._shared.plan, self.node_id
        config = NodeConfig(
            cluster_id=self._shared.cluster_id,
            node_id=node_id,
            members=list(self._shared.node_ids),
            raft=plan.raft,
            storage=plan.storage,
            limits=plan.limits,
            transport=plan.transport,
            chaos_enabled=plan.chaos_enabled,
            allow_bad_parameters=plan.allow_bad_parameters,
        )
        here = self._shared.pool.private  # then nobody else needs to reach the nodes
        return NodeSpec(
            node_id=node_id,
            run_id=plan.run_id,
            # Unique, so that a cell which runs again does not find what an interrupted run left behind.
            cell_id=f"{plan.cell_id}-{self._shared.cluster_id[-8:]}",
            config=config.model_dump(mode="json"),
            command=plan.command,
            cwd=str(Path.cwd()),
            bind_host="127.0.0.1" if here else every_interface(self.worker.host.address),
            advertise_host="127.0.0.1" if here else self.worker.host.address,
            boot_timeout_s=plan.boot_timeout_s,
            code=self._shared.pool.code["raft_actor_node"],
        )

    def _seed(self) -> int | None:
        """Of the life that begins: a function of the plan's seed, the node, and its epoch in the address book."""
        plan, addresses = self._shared.plan, self._shared.addresses
        if plan.seed is None:
            return None
        epoch = addresses[self.node_id].epoch + 1 if self.node_id in addresses else 1
        return random.Random(f"{plan.seed}/{self.node_id}/{epoch}").getrandbits(63)

    async def _replace(self) -> None:
        """Put another actor of its host in the place of a lost one: what that left running is ended, and the files can
        be had. Raises InfrastructureError; at once when it was tried before."""
        lost = self.worker
        if self._host_lost:
            raise InfrastructureError(str(lost.lost))
        self._host_lost = True
        try:
            async with Patience(_REPLACE_TIMEOUT_S):
                worker = await self._shared.pool.another(lost.host)
                try:
                    await worker.create(NodeSupervisor, self._spec())
                    worker.keep_clock(lost)
                    for leftover in await worker.call("reap", self.pid, self._started_ticks):
                        log.warning("%s: its actor was lost, and left %s", self.node_id, Leftover(*leftover))
                except BaseException:
                    await worker.close()
                    raise
        except (TimeoutError, PlacementRefused, InfrastructureError) as error:
            log.warning("%s: %s; no other actor there: %s", self.node_id, lost.lost, error)
            raise InfrastructureError(str(lost.lost)) from None
        self.worker, self._host_lost = worker, False
        await lost.close()

    async def _files(self) -> NodeFiles:
        await self.worker.compare_clocks()
        return NodeFiles(*await self.worker.call("collect"))

    @property
    def _faults(self) -> NodeFaults:
        """The faults inside this node, by the present table."""
        return self._shared.inside.get(self.node_id, NodeFaults())

    def _expect_end(self, faults: NodeFaults) -> None:
        if faults.exit_code is not None:
            self._fatal.add(faults.exit_code)

    async def _decided(self) -> None:
        """Wait until it is known whether a fault inside the node has ended it: its process may still be ending."""
        async with Patience(_FAULT_TIMEOUT_S, interrupt=False) as patience:
            while self.state == "up" and not patience.over:
                status = await self.ask(lambda probe: probe.status())
                if status is not None and not status.counters.disk_errors:
                    return
                await asyncio.sleep(_POLL_S)

    async def _catch_up(self, links: tuple[LinkRule, ...] | None = None, faults: NodeFaults | None = None) -> None:
        """Bring a node that comes back, and has these tables, to the present ones."""
        while links is not self._shared.links:
            links = self._shared.links
            if await self.push("links") is None:
                break
        while faults != self._faults:
            faults = self._faults
            if await self.push("inside") is None:
                return

    async def _send(self, table: Table, probe: NodeProbe, timeout_s: float) -> tuple[int | None, bool]:
        """Send a table; returns when it was in force on the node's clock (None: it offers no chaos), and whether the
        table has any fault for it."""
        if table == "links":
            return await probe.set_links(self._shared.links, timeout=timeout_s), bool(self._shared.links)
        faults = self._faults
        self._expect_end(faults)
        return await probe.set_node_faults(faults, timeout=timeout_s), faults != NodeFaults()

    async def _try(self, table: Table, patience_s: float) -> int | None:
        # Again and again: the connection may be one that broke while it was paused.
        with contextlib.suppress(TimeoutError):
            async with Patience(patience_s):
                while self.probe is not None:
                    try:
                        applied_ns, faulty = await self._send(table, self.probe, patience_s)
                    except ProbeFailed:
                        await asyncio.sleep(_POLL_S)
                        continue
                    if applied_ns is not None:
                        return self.worker.clock.to_driver(applied_ns)
                    # A program without chaos: no fault is in force there.
                    return None if faulty else time.monotonic_ns()
        return None
