"""One incarnation of a simulated node: the node of runtime/assembly.py on the simulated clock, network and disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from orchestration.sim_cluster.disk import SimDisk
from orchestration.sim_cluster.faulty_disk import SimFaultyDisk
from orchestration.sim_cluster.ports import ClientEnd
from orchestration.sim_cluster.process import Process
from orchestration.sim_cluster.sim_mail import SimMail
from orchestration.sim_cluster.story import describe_message, describe_operations
from orchestration.sim_cluster.unary import CallEnd, serve
from orchestration.sim_cluster.watch import SimTracer, SimWatch
from orchestration.sim_cluster.world import World
from orchestration.sim_cluster.writer import SimWriter
from raft_actor_node.config import NodeConfig
from raft_actor_node.core import Message, Persist
from raft_actor_node.pb import kv_pb2
from raft_actor_node.runtime.assembly import Node
from raft_actor_node.runtime.disk_faults import DiskFaults
from raft_actor_node.runtime.services import Visitor


class Life:
    """One incarnation of a node, from its recovery to its end; satisfies ports.Listener."""

    def __init__(
        self,
        world: World,
        config: NodeConfig,
        number: int,
        *,
        disk: SimDisk,
        clock_rate: float,
        trace: list[str],
        failed: Callable[[Life, BaseException], None],
        disk_broke: Callable[[], None],
    ) -> None:
        """Recover from the disk. Raises what runtime's Node raises.

        Lines of the trace file are appended to `trace`. `failed` is called with the error that ends this incarnation,
        `disk_broke` when a random disk failure begins.
        """
        node_id = config.node_id
        self.number = number
        self._fail = partial(failed, self)
        reading = world.stream("reading", node_id, number)
        self.process = Process(
            world.loop,
            clock_rate,
            self._fail,
            lambda: reading.uniform(*world.network.settings.reading),
        )
        self.links: dict[ClientEnd, Visitor] = {}
        """Connections of clients, oldest first."""
        self.calls: dict[asyncio.Task[None], None] = {}
        """Unary calls in progress, oldest first."""
        self.failure: BaseException | None = None
        """The error that ends this incarnation, if any."""
        self.ending: asyncio.Task[None] | None = None
        """The task that shuts it down after a failure."""
        self._node_id, self._world = node_id, world
        disk_faults = DiskFaults()
        faulty = SimFaultyDisk(disk, disk_faults)
        self.watch = SimWatch(world, self.process, lambda: self.runtime.driver)
        self.runtime = Node(
            config,
            clock=self.process,
            tracer=partial(SimTracer, node_id, world, trace),
            mail=partial(SimMail, config, clock=self.process, world=world),
            fail=self._fail,
            disk=faulty,
            disk_faults=disk_faults,
            writer=partial(
                SimWriter,
                process=self.process,
                disk=disk,
                faults=disk_faults,
                settings=lambda: world.network.settings,
                rng=world.stream("fsync", node_id, number),
                synced=self._synced,
                broken=disk_broke,
                slower_s=config.storage.fsync_latency,
            ),
            watch=self.watch,
            parts=world.parts,
        )

    def receive(self, message: Message, members: Sequence[str]) -> None:
        """Process a peer's message, or refuse it if the peer has other members."""
        world = self._world
        if fault := self.runtime.mail.other_members(message.from_id, members):
            self.runtime.mail.refuse(message.from_id, 1, fault)
            world.story.tell(message.to_id, f"< {message.from_id} refused: {fault}")
            return
        world.story.tell(message.to_id, f"< {message.from_id} {describe_message(message)}")
        world.observer.delivered(message, world.loop.time())
        self.runtime.mail.take(message)

    def take(self, batch: kv_pb2.OperationBatch, link: ClientEnd) -> None:
        """Process a client's batch of operations."""
        self.tell(f"< {batch.client_id} {describe_operations(batch.operations)}")
        if link in self.links:
            self.runtime.kv.take(batch.client_id, batch.operations, self.links[link])

    def attach(self, link: ClientEnd) -> None:
        """Register the connection of a client."""

        def put(answers: list[kv_pb2.OperationResult], size: int) -> None:
            link.answer(self, answers)
            self.runtime.gate.left(visitor, size)

        self.links[link] = visitor = self.runtime.kv.caller(put)

    def detach(self, link: ClientEnd) -> None:
        """Remove a connection that its client has closed."""
        if (visitor := self.links.pop(link, None)) is not None:
            self.runtime.gate.close(visitor)

    def call(
        self, operation: kv_pb2.Operation, client_id: str, timeout_s: float, done: Callable[[CallEnd], None]
    ) -> None:
        """Process a unary call for at most `timeout_s`."""
        self.tell(f"< {client_id} {describe_operations([operation])}")
        task = self._world.loop.create_task(self._serve(operation, client_id, done))
        self.calls[task] = None
        task.add_done_callback(self.calls.pop)
        self._world.network.after(timeout_s, task.cancel)

    async def _serve(self, operation: kv_pb2.Operation, client_id: str, done: Callable[[CallEnd], None]) -> None:
        try:
            end = await serve(self.runtime.kv, operation, client_id)
        except Exception as error:
            self._fail(error)
        else:
            # The process may be paused by now; then its answer leaves when it is resumed.
            self.process.run(done, end)

    def tell(self, what: str) -> None:
        """Add an event of this node to the story."""
        self._world.story.tell(self._node_id, what)

    def _synced(self, persist: Persist) -> None:
        self._world.observer.synced(self._node_id, persist, self._world.loop.time())
