"""A Raft cluster in virtual time: this project's own nodes and clients on a simulated network and simulated disks.

It satisfies face.Cluster, as RayCluster does. Everything that happens is a function of plan, settings and seed.
It must be created and used on a SimLoop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from orchestration.address_book import AddressBook
from orchestration.errors import NodeFailed
from orchestration.face import Host, HostClock
from orchestration.plan import Applied, BringUp, Cause, ClusterPlan, NodeExit, NodeFiles
from orchestration.sim_cluster.client_link import LINKS
from orchestration.sim_cluster.loop import SimLoop
from orchestration.sim_cluster.network import Network, NetworkCounters
from orchestration.sim_cluster.observer import Clockwork, Observer, Observers
from orchestration.sim_cluster.settings import SimSettings
from orchestration.sim_cluster.sim_node import KILLED, BootCrash, SimNode
from orchestration.sim_cluster.story import Story
from orchestration.sim_cluster.world import SimViolation, World, stream
from raft_actor_node.client import KVClient
from raft_actor_node.client_engine import ClientEngine
from raft_actor_node.config import CallForm, ClientSettings, NodeConfig
from raft_actor_node.core import Role
from raft_actor_node.links import LinkRule
from raft_actor_node.names import node_names
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.pb import inspection_pb2
from raft_actor_node.runtime.assembly import Parts, exit_code

_POLL_S = 0.005
SIMULATION = Host("simulation", "simulation", 1.0, is_driver=True)
"""The only host: the process of the simulation."""


class SimCluster:
    """A cluster in one process and on one event loop."""

    def __init__(
        self,
        plan: ClusterPlan,
        settings: SimSettings | None = None,
        seed: int = 0,
        observer: Observer | None = None,
        *,
        parts: Parts | None = None,
        story: bool = False,
    ) -> None:
        """Create the nodes; `start` boots them.

        `parts` are the components of the nodes. With `story` the lines of the story are kept.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, SimLoop):
            raise TypeError("a SimCluster needs a SimLoop: use run_virtual")
        settings = settings or SimSettings()
        self.plan = plan
        self.cluster_id = plan.cluster_id
        self.addresses = AddressBook()
        """Addresses of the nodes; it notifies its subscribers of restarts."""
        self.exits: list[NodeExit] = []
        """All exits of nodes so far, in order."""
        self.bring_up_times = BringUp(0.0, 0.0, 0.0, None)
        self.loop = loop
        self._clients: list[KVClient] = []
        self._engines = 0
        self._booting: set[str] = set()
        network = Network(loop, settings, stream(seed, "network"))
        watched = Clockwork() if observer is None else Observers(Clockwork(), observer)
        self._world = World(loop, seed, network, Story(loop, keep=story), watched, parts or Parts())
        self._boot_stream, self._power_stream = self._world.stream("boot"), self._world.stream("power")
        self.nodes: dict[str, SimNode] = {}
        """The nodes, for callers that need their inner state."""
        members = list(node_names(plan.nodes))
        for node_id in members:
            config = NodeConfig(
                cluster_id=self.cluster_id,
                node_id=node_id,
                members=members,
                raft=plan.raft,
                storage=plan.storage.model_copy(update={"dir": "/raft"}),
                limits=plan.limits,
                transport=plan.transport,
                chaos_enabled=plan.chaos_enabled,
                allow_bad_parameters=plan.allow_bad_parameters,
            )
            self.nodes[node_id] = SimNode(self._world, config, self._ended)
        loop.set_exception_handler(self._bug)

    # ------------------------------------------------------------------------------ starting and stopping

    async def start(self) -> None:
        """Boot all nodes. When they serve, wait for a leader, for at most the plan's leader_timeout_s.

        Raises NodeFailed if a node does not start. If no leader is elected in time, it returns without an error.
        """
        begin = self.loop.time()
        await asyncio.gather(*(self._boot(node_id, bootstrap=True) for node_id in self.node_ids))
        await self.addresses.publish()
        serving = self.loop.time()
        deadline = serving + self.plan.leader_timeout_s
        while (leader := self.leader_now()) is None and self.loop.time() < deadline:  # noqa: ASYNC110 - it is cheap here
            await asyncio.sleep(_POLL_S)
        self.bring_up_times = BringUp(0.0, serving - begin, 0.0, self.loop.time() - serving if leader else None)

    async def halt(self) -> None:
        """Shut down all nodes (SIGTERM). Their files remain for `collect`."""
        await asyncio.gather(*(node.halt() for node in self.nodes.values()))

    async def stop(self, keep: bool = False) -> None:
        """Close all clients and shut down all nodes; `keep` has no effect, because all files are in memory."""
        for client in self._clients:
            await client.close()
        await self.halt()

    # ------------------------------------------------------------------------------ observing

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Every node, up or down."""
        return tuple(self.nodes)

    @property
    def live(self) -> tuple[str, ...]:
        """The nodes that are up: running and not paused."""
        return tuple(node_id for node_id, node in self.nodes.items() if node.state == "up")

    @property
    def unexpected_exits(self) -> tuple[NodeExit, ...]:
        """The exits that were neither requested nor caused by an injected fault."""
        return tuple(end for end in self.exits if end.cause == "exit")

    @property
    def violations(self) -> list[SimViolation]:
        """Broken rules and exceptions that observers, nodes and disks reported, in order."""
        return self._world.violations

    @property
    def settings(self) -> SimSettings:
        """The simulated world; may be replaced at any time.

        `clock_rate`, `disk_capacity` and `whole_sectors` are read only when the cluster is created.
        """
        return self._world.network.settings

    @settings.setter
    def settings(self, settings: SimSettings) -> None:
        self._world.network.settings = settings
        for node in self.nodes.values():
            node.stall_later()

    @property
    def network(self) -> NetworkCounters:
        """Counts of the network's messages so far."""
        return self._world.network.counters

    @property
    def log(self) -> list[str]:
        """The lines of the story, if they are kept."""
        return self._world.story.text().splitlines()

    def digest(self) -> str:
        """Return the SHA-256 of everything that happened: each trace event and each message, with its time."""
        return self._world.story.digest()

    def worker(self, node_id: str) -> SimWorker:
        """Return the simulated counterpart of the process beside a node; its clock is the driver's."""
        return SimWorker(self.nodes[node_id])

    def engine_factory(
        self, addresses: Mapping[str, str] | Iterable[str], *, call: CallForm = "stream", **settings: Any
    ) -> ClientEngine:
        """Create a ClientEngine with the given arguments on the simulated network."""
        self._engines += 1
        usual = {
            "rng": self._world.stream("client", self._engines),
            "clock": self.loop.now_ns,
            "link": partial(LINKS[call], self._world.network),
        }
        return ClientEngine(addresses, **{**usual, **settings})

    def client(
        self, *, settings: ClientSettings | None = None, client_id: str = "client", follow: bool = True
    ) -> KVClient:
        """Create and start a client of this cluster; it is closed with the cluster at the latest.

        With `follow` it gets the new addresses after restarts.
        """
        client = KVClient(
            self.addresses.addresses(),
            settings=settings,
            transport=self.plan.transport,
            client_id=client_id,
            engine=self.engine_factory,
        )
        client.start()
        self._clients.append(client)
        if follow:
            self.addresses.subscribe(lambda book: client.update_addresses(book.addresses()))
        return client

    def leader_now(self) -> str | None:
        """Return the leader as `leader` does, without awaiting."""
        leaders = [
            (core.current_term, node_id)
            for node_id, node in self.nodes.items()
            if node.state == "up" and (core := node.core) is not None and core.role == Role.LEADER
        ]
        return max(leaders)[1] if leaders else None

    async def leader(self) -> str | None:
        """Return the leader of the highest term among the nodes that are up; None while there is none."""
        return self.leader_now()

    async def status(
        self, node_id: str, *, hash_index: int = 0, with_state_hash: bool = False
    ) -> inspection_pb2.StatusReply | None:
        """Return the inner state of a node; None when it is not up. The hashes are as in NodeProbe.status."""
        node = self.nodes[node_id]
        if node.life is None or node.state != "up":
            return None
        request = inspection_pb2.StatusRequest(hash_index=hash_index, with_state_hash=with_state_hash)
        status = await node.life.runtime.inspection.GetStatus(request, None)
        # The CPU time and memory of the simulator's process are not those of the node.
        status.pid, status.now_ns, status.cpu_s, status.resident_bytes = node.lives, self.loop.now_ns(), 0.0, 0
        return status

    async def samples(self, node_id: str, since_ns: int = 0) -> inspection_pb2.SamplesReply | None:
        """Return what a node measured since `since_ns`; None when it is not up."""
        node = self.nodes[node_id]
        if node.life is None or node.state != "up":
            return None
        return await node.life.runtime.inspection.GetSamples(inspection_pb2.SamplesRequest(since_ns=since_ns), None)

    async def collect(self, node_id: str) -> NodeFiles:
        """Return what a node has written, up or down."""
        node = self.nodes[node_id]
        return NodeFiles(list(node.trace), "".join(f"{line}\n" for line in node.log), "")

    # ------------------------------------------------------------------------------ disturbing

    async def crash(self, *node_ids: str) -> Applied:
        """Kill nodes, all at once; with probability `power_loss` of the settings the power fails instead."""
        lost = self.plan.storage.unsynced == "lost"  # the process is killed, and unsynced data is lost as well
        fails = [not lost and self._power_stream.random() < self.settings.power_loss for _ in node_ids]
        return self._applied(
            self.nodes[node_id].crash(power=lost or power, silent=power)
            for node_id, power in zip(node_ids, fails, strict=True)
        )

    async def power_loss(self, *node_ids: str) -> Applied:
        """Cut the power of nodes, all at once."""
        return self._applied(self.nodes[node_id].crash(power=True, silent=True) for node_id in node_ids)

    async def restart(self, *node_ids: str) -> Applied:
        """Restart nodes that are down, from their disks, under the link faults in force.

        Raises NodeFailed for a node that does not start.
        """
        for node_id in node_ids:
            await self.nodes[node_id].decided()
        down = [each for each in node_ids if self.nodes[each].state == "down" and each not in self._booting]
        self._booting.update(down)
        try:
            boots = [self._boot(node_id, bootstrap=False) for node_id in down]
            results = await asyncio.gather(*boots, return_exceptions=True)
        finally:
            self._booting.difference_update(down)
        await self.addresses.publish()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return self._applied([True] * len(down))

    async def pause(self, *node_ids: str) -> Applied:
        """Pause processes, as SIGSTOP does."""
        applied = self._applied([self.nodes[node_id].pause() for node_id in node_ids])
        return applied._replace(failed=tuple(each for each in node_ids if self.nodes[each].state == "down"))

    async def resume(self, *node_ids: str) -> Applied:
        """Resume paused processes, under the link faults in force."""
        return self._applied([self.nodes[node_id].resume() for node_id in node_ids])

    async def set_links(self, rules: Sequence[LinkRule]) -> Applied:
        """Replace the table of link faults on every node that is up; other nodes get it when they come back."""
        self._world.links = tuple(rules)
        self._world.story.tell("links", "; ".join(map(_describe_rule, rules)) or "whole")
        return self._applied([node.take_faults() for node in self.nodes.values()])

    async def heal(self) -> Applied:
        """Remove every link fault and every fault inside a node."""
        if self._world.inside:
            await self.set_node_faults({})
        return await self.set_links(())

    async def set_node_faults(self, faults: Mapping[str, NodeFaults]) -> Applied:
        """Replace the table of faults inside nodes on every node that is up; others get it when they come back."""
        self._world.inside = dict(faults)
        self._world.story.tell("inside", "; ".join(f"{node}: {each}" for node, each in faults.items()) or "whole")
        return self._applied([node.take_faults() for node in self.nodes.values()])

    # ------------------------------------------------------------------------------ inside

    async def _boot(self, node_id: str, *, bootstrap: bool) -> None:
        await asyncio.sleep(self._boot_stream.uniform(*self.settings.boot))
        node = self.nodes[node_id]
        try:
            node.boot(bootstrap=bootstrap)
        except Exception as error:
            code = KILLED if isinstance(error, BootCrash) else exit_code(error)
            raise NodeFailed(node_id, str(error), code) from error
        self.addresses.set(node_id, node.address)

    def _ended(self, node_id: str, cause: Cause, code: int, log_tail: str) -> None:
        self.exits.append(NodeExit(node_id, cause, code, log_tail, self.loop.now_ns()))

    def _bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Record an exception outside the nodes, such as in a client, as a violation, so that it is noticed."""
        if (error := context.get("exception")) is not None:
            self._world.violated("simulation", error)
        else:
            loop.default_exception_handler(context)

    def _applied(self, acted: Iterable[bool]) -> Applied:
        now_ns = self.loop.now_ns()
        return Applied(now_ns, now_ns) if any(list(acted)) else Applied(0, 0)


class SimWorker:
    """An object that is called and closed as if it were in its own process."""

    host = SIMULATION

    def __init__(self, held: object) -> None:
        self.clock = HostClock()
        self._held = held

    async def call(self, method: str, *args: object, timeout_s: float | None = None, **kwargs: object) -> Any:
        """Call a method of the object, sync or async."""
        answer = getattr(self._held, method)(*args, **kwargs)
        return await answer if asyncio.iscoroutine(answer) else answer

    async def compare_clocks(self, *, timeout_s: float = 0.0) -> HostClock:
        """Return the clock; there is nothing to compare, because the driver's clock is the same."""
        return self.clock

    async def close(self) -> None:
        """Close the object if it has a `close()`."""
        if hasattr(self._held, "close"):
            await self.call("close")


def _describe_rule(rule: LinkRule) -> str:
    faults = rule.model_dump(exclude_defaults=True, exclude={"from_id", "to_id"})
    return f"{rule.from_id} > {rule.to_id}: {', '.join(f'{name} {value}' for name, value in faults.items())}"
