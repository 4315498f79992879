"""One node of a cluster on Ray: its process, the actor beside it, and the transitions between its states.

Commands to the process go through the actor (actor.py). Fault tables and questions go to the node itself, by gRPC
(raft_actor_node/client_probe.py). A node is *up*, *paused* or *down*:

    from      by                                     to
    down      boot, restart                          up
    up        pause                                  paused
    paused    resume                                 up
    up        crash, halt, or an exit by itself      down
    paused    crash, halt, or an exit by itself      down

An actor may be gone, or silent because its host is unreachable. A command to a silent actor times out, and may still
reach the actor later. When the regular report of an actor is _SILENCE_S late, or `halt` gets no answer, the actor is
given up and its node is down for good. No other call waits for a silent actor beyond its own timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
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
from raft_actor_node.node_faults import INJECTED, NodeFaults
from raft_actor_node.patience import Patience

log = logging.getLogger(__name__)

T = TypeVar("T")
Table = Literal["links", "inside"]
"""The name of a table of faults: link faults, or faults inside nodes."""

_POLL_S = 0.02
_ACTOR_MARGIN_S = 10.0
"""Extra time for the actor to answer, beyond the node's boot timeout."""
_FAULT_TIMEOUT_S = 4.0
"""Time limit of a command of chaos; chaos itself allows 5 s."""
_TELL_TIMEOUT_S = 2.0
_BRIEFLY_S = 0.5
"""Time limit for a node that missed the previous message: it may be isolated, and should not delay the others."""
_HALT_TIMEOUT_S = 10.0
"""Time limit of a shutdown; it includes 5 s until the SIGKILL."""
_LOOK_S = 10.0
"""How often an actor reports that its node runs."""
_SILENCE_S = 20.0
"""How late the report of an actor may be before the actor is considered lost."""
_REPLACE_TIMEOUT_S = 10.0
_END_TIMEOUT_S = 5.0
_KNOCK_S = 0.5
_FAREWELLS = 4
"""Number of knocks that an actor must answer, after its node ended, before its host counts as running."""


@dataclass
class Shared:
    """The state that the nodes of one cluster share."""

    pool: Pool
    plan: ClusterPlan
    cluster_id: str
    node_ids: tuple[str, ...]
    addresses: AddressBook = field(default_factory=AddressBook)
    """The address of each node."""
    exits: list[NodeExit] = field(default_factory=list)
    """All exits of nodes so far, in order."""
    links: tuple[LinkRule, ...] = ()
    """The current table of link faults."""
    inside: Mapping[str, NodeFaults] = field(default_factory=dict)
    """The current table of faults inside nodes."""


def error_cause(exit_code: int, log_tail: str, expected: Collection[int]) -> Literal["fault", "exit"]:
    """Return whether a fault inside the node or something else caused an exit with an error code.

    `expected`: the exit codes of all faults since the node started. A real error has the same code, also after a fault
    was healed. So the last lines of the node's log decide: only an injected error names itself there.
    """
    return "fault" if exit_code in expected and INJECTED in log_tail else "exit"


class SupervisedNode:
    """A node with its actor. A transition returns when it took effect, on the driver's clock, or None if it did not."""

    def __init__(self, node_id: str, worker: Worker, shared: Shared) -> None:
        self.node_id = node_id
        self.worker = worker
        self.state: Literal["up", "paused", "down"] = "down"
        self.pid = 0
        """Process id of the current or last incarnation."""
        self.probe: NodeProbe | None = None
        """The gRPC connection to the node while its process runs."""
        self.stale: set[Table] = set()
        """The tables of faults whose current version did not reach the node."""
        self._shared = shared
        self._started_ticks = 0
        """When its process was started; distinguishes it from a later process with the same pid."""
        self._untold = False
        """True while the node lacks the current addresses."""
        self._host_lost = False
        """True once no replacement actor could be started on its host either."""
        self._ending: Literal["crash", "stop"] | None = None
        """The request that is about to end the process, if any."""
        self._fatal: set[int] = set()
        """Exit codes that faults inside the node explain in this incarnation."""
        self._watcher: asyncio.Task[None] | None = None
        """Waits for the end of the current incarnation."""

    # ------------------------------------------------------------------------------ transitions

    async def create(self) -> None:
        """Create the supervisor of this node in the actor."""
        await self.worker.create(NodeSupervisor, self._spec())

    async def boot(self, *, bootstrap: bool) -> Started:
        """Down to up: start the process, after killing one that still runs. The caller publishes the new address."""
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
        # The tables may have changed while the node started. Its address is not published yet, so no message has
        # reached the node without the current faults.
        await self._catch_up(links, faults)
        return started

    async def until_serving(self) -> None:
        """Wait until the node reports that it serves. Raises NodeFailed and InfrastructureError."""
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
        """Up or paused to down, by SIGKILL; returns when the process has ended."""
        if self.state == "down":
            return None
        self._ending = "crash"
        sent_ns = await self.worker.call("kill", timeout_s=_FAULT_TIMEOUT_S)
        await self._gone()
        return self.worker.clock.to_driver(sent_ns)

    async def restart(self) -> Started | None:
        """Down to up, from its disk; None when it runs already. First completes a crash that was not confirmed."""
        if self._fatal:
            await self._decided()
        if self.state != "down":
            if self._ending != "crash":
                return None
            await self.crash()  # its actor did not answer: the process may be dead already, or be killed later
        await self._knock()
        return await self.boot(bootstrap=False)

    async def pause(self) -> int | None:
        """Up to paused, by SIGSTOP."""
        if self.state != "up":
            return None
        self.state = "paused"  # set first, so that the node can be resumed if the caller stops waiting
        stopped_ns = await self.worker.call("pause", timeout_s=_FAULT_TIMEOUT_S)
        return self.worker.clock.to_driver(stopped_ns)

    async def resume(self) -> int | None:
        """Paused to up, by SIGCONT, under the faults in force."""
        if self.state != "paused":
            return None
        # The tables are sent before SIGCONT, so that they wait in the node's socket when it wakes up.
        links = asyncio.create_task(self._catch_up())
        try:
            sent_ns = await self.worker.call("resume", timeout_s=_FAULT_TIMEOUT_S)
            if self.state == "paused":
                self.state = "up"  # from now on `set_links` and `set_node_faults` reach it
        finally:
            await links
        return self.worker.clock.to_driver(sent_ns)

    async def halt(self) -> None:
        """Up or paused to down, by SIGTERM. An actor that does not answer is given up; its node is down for good."""
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
        """Delete the node's files unless `keep`, and return its actor to the pool."""
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

    # ------------------------------------------------------------------------------ messages to the node

    async def push(self, table: Table, *, patient: bool = True) -> int | None:
        """Send the current table of faults; return when it took effect, on the driver's clock, or None if it did not.

        With `patient=False` a node that missed an earlier table gets at most _BRIEFLY_S to answer.
        """
        patience_s = self._shared.plan.transport.probe_timeout
        time_ns = await self._try(table, min(patience_s, _BRIEFLY_S) if self.stale and not patient else patience_s)
        self.stale = self.stale - {table} if time_ns is not None else self.stale | {table}
        return time_ns

    async def tell_address(self) -> None:
        """Send the address book to the node; if that fails now, `_watch` retries it."""
        try:
            patience_s = _BRIEFLY_S if self._untold else _TELL_TIMEOUT_S
            await self.worker.call("send_addresses", self._shared.addresses.to_json(), timeout_s=patience_s)
            self._untold = False
        except InfrastructureError:
            self._untold = True

    async def ask(self, question: Callable[[NodeProbe], Awaitable[T | None]]) -> T | None:
        """Return the node's answer; None when it is not up or does not answer."""
        if self.state != "up" or self.probe is None:
            return None
        try:
            return await question(self.probe)
        except ProbeFailed:
            return None

    async def collect(self) -> NodeFiles:
        """Return what the node has written; see RayCluster.collect."""
        try:
            return await self._files()
        except InfrastructureError:
            with contextlib.suppress(InfrastructureError):
                await self.worker.knock()  # sets `lost` if the actor is gone
            if self.worker.lost is None:
                raise
        await self._replace()
        return await self._files()

    # ------------------------------------------------------------------------------ the end of an incarnation

    async def _watch(self) -> None:
        """Wait for the end of this incarnation and record it."""
        cause: Cause
        worker, exit_code = self.worker, None
        try:
            end = await self._end_of()
            exit_code, tail = end.exit_code, end.log_tail
            # A signal or exit code 0 may be the result of our request; an error code is the node's own.
            cause = error_cause(exit_code, tail, self._fatal) if exit_code > 0 else self._ending or "exit"
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
        """Wait for the end of the process. Raises InfrastructureError once its actor is lost."""
        while True:
            if (end := await self._look_after()) is not None:
                return end
            if self._untold:
                await self.tell_address()

    async def _look_after(self) -> Exit | None:
        """Wait up to _LOOK_S for the end of the process; return None if it still runs.

        Retries calls that fail. Raises InfrastructureError once the actor is lost or its answer is _SILENCE_S late.
        """
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
        """Raise InfrastructureError if the host shuts down, too.

        Called when the node ended as after a SIGTERM that this program did not send. A host that shuts down sends
        SIGTERM to all of its processes.
        """
        for _ in range(_FAREWELLS):
            await asyncio.sleep(_KNOCK_S)
            await self.worker.knock()

    async def _knock(self) -> None:
        """Raise InfrastructureError when the actor of a node that is down does not answer.

        No task watches the actor of such a node, so its loss is recorded here.
        """
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
        here = self._shared.pool.private  # then no other host needs to reach the nodes
        return NodeSpec(
            node_id=node_id,
            run_id=plan.run_id,
            # Unique, so that a repeated cell does not find the files of an interrupted run.
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
        """Derive the seed of the new incarnation from the plan's seed, the node id, and its next epoch."""
        plan, addresses = self._shared.plan, self._shared.addresses
        if plan.seed is None:
            return None
        epoch = addresses[self.node_id].epoch + 1 if self.node_id in addresses else 1
        return random.Random(f"{plan.seed}/{self.node_id}/{epoch}").getrandbits(63)

    async def _replace(self) -> None:
        """Replace a lost actor by another on the same host, which ends leftover processes and can read the files.

        Raises InfrastructureError; immediately if an earlier attempt failed.
        """
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
        """The faults inside this node, from the current table."""
        return self._shared.inside.get(self.node_id, NodeFaults())

    def _expect_end(self, faults: NodeFaults) -> None:
        if faults.exit_code is not None:
            self._fatal.add(faults.exit_code)

    async def _decided(self) -> None:
        """Wait until it is known whether a fault inside the node ends it: the process may still be exiting."""
        async with Patience(_FAULT_TIMEOUT_S, interrupt=False) as patience:
            while self.state == "up" and not patience.over:
                status = await self.ask(lambda probe: probe.status())
                if status is not None and not status.counters.disk_errors:
                    return
                await asyncio.sleep(_POLL_S)

    async def _catch_up(self, links: tuple[LinkRule, ...] | None = None, faults: NodeFaults | None = None) -> None:
        """Send the tables of faults to a node that comes back, until it has the current ones or does not answer.

        `links` and `faults` are the tables with which the node started; None if it has older ones.
        """
        while links is not self._shared.links:
            links = self._shared.links
            if await self.push("links") is None:
                break
        while faults != self._faults:
            faults = self._faults
            if await self.push("inside") is None:
                return

    async def _send(self, table: Table, probe: NodeProbe, timeout_s: float) -> tuple[int | None, bool]:
        """Send a table; return when it took effect, on the node's clock, and whether it has a fault for this node.

        The time is None if the node offers no Chaos.
        """
        if table == "links":
            return await probe.set_links(self._shared.links, timeout=timeout_s), bool(self._shared.links)
        faults = self._faults
        self._expect_end(faults)
        return await probe.set_node_faults(faults, timeout=timeout_s), faults != NodeFaults()

    async def _try(self, table: Table, patience_s: float) -> int | None:
        # Retries, because the connection may have broken while the node was paused.
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
                    # The program offers no Chaos, so an empty table is in force there already.
                    return None if faulty else time.monotonic_ns()
        return None
