"""A simulated node: lives of a process, one after the other, on one disk.

What is in a life is the node of runtime/node.py, with the simulated clock, network and disk.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from orchestration.sim_cluster.client_link import CallEnd, SimLink, serve
from orchestration.sim_cluster.disk import SimDisk
from orchestration.sim_cluster.loop import Call, SimLoop
from orchestration.sim_cluster.network import Network
from orchestration.sim_cluster.observer import Observer
from orchestration.sim_cluster.process import Process
from orchestration.sim_cluster.story import (
    Story,
    describe_event,
    describe_message,
    describe_operations,
)
from orchestration.sim_cluster.writer import SimWriter
from raft_actor_node.config import NodeConfig, TransportSettings
from raft_actor_node.core import (
    AppendEntries,
    AppendEntriesReply,
    Effects,
    Event,
    Message,
    Persist,
    RaftNode,
    RequestVote,
    TraceEvent,
)
from raft_actor_node.core.invariants import Snapshot
from raft_actor_node.errors import DiskError
from raft_actor_node.kv.store import Result, Store
from raft_actor_node.links import LinkRule
from raft_actor_node.pb import kv_pb2, raft_pb2
from raft_actor_node.runtime.codec import (
    Fragment,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    encoded_bytes,
)
from raft_actor_node.runtime.faults import Flow, LinkFaults
from raft_actor_node.runtime.mail import Mail, flow_of
from raft_actor_node.runtime.node import Node, Parts, exit_code
from raft_actor_node.runtime.outbox import Assembler, Outbox
from raft_actor_node.runtime.services import Visitor
from raft_actor_node.runtime.tracer import Tracer

STOP_GRACE_S = 1.0
"""How long a stopping node waits for what it has appended to be committed."""
REMEMBERED_PINGS = 256
KILLED = -9
"""Exit code of a process that was killed."""
RECOVERY_CALLS = 12
"""About so many calls that change something a recovery makes of its disk."""


def stream(seed: int, *purpose: object) -> random.Random:
    """Random numbers for one purpose, a function of the seed."""
    return random.Random("/".join(map(str, (seed, *purpose))))


class BootCrash(Exception):
    """A process came to its end while it recovered."""


@dataclass(frozen=True)
class Violation:
    """A rule that was broken, or a bug that showed itself as an exception."""

    time_s: float
    node_id: str
    error: BaseException

    def __str__(self) -> str:
        return f"{self.time_s:.6f} s: {self.node_id}: {type(self.error).__name__}: {self.error}"


@dataclass
class World:
    """What all nodes of a simulation share."""

    loop: SimLoop
    seed: int
    network: Network
    story: Story
    observer: Observer
    parts: Parts
    links: tuple[LinkRule, ...] = ()
    """The link faults in force."""
    nodes: dict[str, SimNode] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def stream(self, *purpose: object) -> random.Random:
        """Random numbers for one purpose, a function of the seed."""
        return stream(self.seed, *purpose)

    def violated(self, node_id: str, error: BaseException) -> None:
        """Note a violation, and go on."""
        violation = Violation(self.loop.time(), node_id, error)
        self.violations.append(violation)
        self.story.tell(node_id, f"! {type(error).__name__}: {error}")

    def arrive(self, message: Message, members: Sequence[str]) -> None:
        """A message, of a node with these members, is at its destination; it is lost while that node is down."""
        life = self.nodes[message.to_id].life
        if life is not None:
            life.process.run(life.receive, message, members)


class Life:
    """One life of a node, from its recovery to its end."""

    def __init__(self, node: SimNode, config: NodeConfig, number: int) -> None:
        """Recover. Raises what runtime's Node raises."""
        world, node_id = node.world, node.node_id
        self.number = number
        self._fail = partial(node.fail, self)
        reading = world.stream("reading", node_id, number)
        self.process = Process(
            world.loop,
            node.rate,
            self._fail,
            lambda: reading.uniform(*world.network.settings.reading),
        )
        self.links: dict[SimLink, Visitor] = {}
        """Connections of clients, in the order of their making."""
        self.calls: dict[asyncio.Task[None], None] = {}
        """Unary calls that it works on, likewise."""
        self.failure: BaseException | None = None
        """Why it cannot go on."""
        self.ending: asyncio.Task[None] | None = None
        """Its last work, when it ends by itself."""
        self._node_id, self._world = node_id, world
        self.watch = _Watch(world, self)
        self.runtime = Node(
            config,
            clock=self.process,
            tracer=partial(_Tracer, node_id, world, node.trace),
            mail=partial(_Mail, config, clock=self.process, world=world),
            fail=self._fail,
            disk=node.disk,
            writer=partial(
                SimWriter,
                process=self.process,
                disk=node.disk,
                settings=lambda: world.network.settings,
                rng=world.stream("fsync", node_id, number),
                synced=self._synced,
                broken=node.disk_broke,
                slower_s=config.storage.fsync_latency,
            ),
            watch=self.watch,
            parts=world.parts,
        )

    def receive(self, message: Message, members: Sequence[str]) -> None:
        """Take in what a peer sent, if it has the same members."""
        world = self._world
        if fault := self.runtime.mail.other_members(message.from_id, members):
            self.runtime.mail.refuse(message.from_id, 1, fault)
            world.story.tell(message.to_id, f"< {message.from_id} refused: {fault}")
            return
        world.story.tell(message.to_id, f"< {message.from_id} {describe_message(message)}")
        world.observer.delivered(message, world.loop.time())
        self.runtime.mail.take(message)

    def take(self, batch: kv_pb2.OperationBatch, link: SimLink) -> None:
        """Take in what a client asks."""
        self.tell(f"< {batch.client_id} {describe_operations(batch.operations)}")
        if link in self.links:
            self.runtime.kv.take(batch.client_id, batch.operations, self.links[link])

    def attach(self, link: SimLink) -> None:
        """A client connects."""

        def put(answers: list[kv_pb2.OperationResult], size: int) -> None:
            link.answer(self, answers)
            self.runtime.gate.left(visitor, size)

        self.links[link] = visitor = self.runtime.kv.caller(put)

    def detach(self, link: SimLink) -> None:
        """A client has closed its connection."""
        if (visitor := self.links.pop(link, None)) is not None:
            self.runtime.gate.close(visitor)

    def call(
        self, operation: kv_pb2.Operation, client_id: str, timeout_s: float, done: Callable[[CallEnd], None]
    ) -> None:
        """Take in a unary call, and work on it for `timeout_s` at most."""
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
            # The process may have been stopped by now: what it says leaves when it runs again.
            self.process.run(done, end)

    def tell(self, what: str) -> None:
        """Add to the story."""
        self._world.story.tell(self._node_id, what)

    def _synced(self, persist: Persist) -> None:
        self._world.observer.synced(self._node_id, persist, self._world.loop.time())


class SimNode:
    """One node through all its lives. A life is up, or paused; between two lives the node is down."""

    def __init__(
        self,
        world: World,
        config: NodeConfig,
        on_end: Callable[[str, Literal["crash", "stop", "exit"], int, str], None],
    ) -> None:
        """`on_end` is told node, cause, exit code and last words of each life."""
        node_id = config.node_id
        self.world = world
        self.node_id = node_id
        self.disk = SimDisk(world.stream("disk", node_id), capacity_bytes=world.network.settings.disk_capacity)
        self.disk.whole_sectors = world.network.settings.whole_sectors
        self.rate = world.stream("clock", node_id).uniform(*world.network.settings.clock_rate)
        """Seconds of its clock per second."""
        self.life: Life | None = None
        self.lives = 0
        """How many began so far."""
        self.state: Literal["up", "paused", "down"] = "down"
        self.trace: list[str] = []
        """Lines of the trace file, over all lives."""
        self.log: list[str] = []
        self.config = config
        """Of the lives to come."""
        self._on_end = on_end
        self._disk_broke = False
        self._stalls = world.stream("stalls", node_id)
        self._next_stall: Call | None = None
        self._boots = world.stream("boots", node_id)
        self._dark: Life | None = None
        """The last life, when its host went down with it and is not back yet."""
        self._failures = 0
        """Of the disk, before this life."""

    @property
    def core(self) -> RaftNode | None:
        """The Raft node of the present life."""
        return self.life.runtime.driver.node if self.life is not None else None

    @property
    def store(self) -> Store | None:
        """The state machine of the present life."""
        return self.life.runtime.driver.store if self.life is not None else None

    @property
    def address(self) -> str:
        """Where the present or last life is reached."""
        return f"{self.node_id}.sim:{self.lives}"

    def boot(self, *, bootstrap: bool) -> None:
        """Begin a life, under the link faults in force. Raises what runtime's Node raises when it cannot recover."""
        assert self.life is None
        world = self.world
        if self._disk_broke:  # it was repaired meanwhile
            self._disk_broke, self.disk.fail_writes, self.disk.fail_syncs = False, None, None
        self._power_returns()
        self.lives += 1
        self._failures = self.disk.failures
        seed = world.stream("node", self.node_id, self.lives).getrandbits(63)
        config = self.config.model_copy(update={"bootstrap": bootstrap, "seed": seed, "links": list(world.links)})
        try:
            with self._perhaps_interrupted():
                life = Life(self, config, self.lives)
            world.observer.started(life.runtime.driver.node, world.loop.time())
            life.runtime.start()
        except BootCrash as error:
            self._lose(power=self._boots.random() < world.network.settings.power_loss)
            self._on_end(self.node_id, "crash", KILLED, self.log[-1])
            raise error from None
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}")
            if not self._disk_failed(error):
                world.violated(self.node_id, error)
            self.disk.kill()
            self._on_end(self.node_id, "exit", exit_code(error), self.log[-1])
            raise
        for warning in life.runtime.warnings:
            self._say(warning)
        self.life, self.state = life, "up"
        world.network.listening[self.address] = life
        life.runtime.take_part()
        world.story.tell(self.node_id, f"* life {self.lives} begins")
        self.stall_later()

    def crash(self, *, power: bool, silent: bool = False) -> bool:
        """Kill the process, or cut the power: what was not synced is gone then. False when it is down.

        `silent`: the host is gone too, and nobody tells its clients until it is back.
        """
        life = self.life
        if life is None:
            return False
        if silent:
            self._dark = life
            self.world.network.dark.add(self.address)
        self._end(life)
        self._lose(power=power)
        self._tell_end("crash", KILLED)
        return True

    def pause(self) -> bool:
        """Stop the process without ending it. False when it does not run."""
        if self.life is None or self.state == "paused":
            return False
        self.state = "paused"
        self.life.process.hold()
        self._say("paused")
        return True

    def resume(self) -> bool:
        """Let it go on, under the link faults in force. False when it is not paused."""
        if self.life is None or self.state != "paused":
            return False
        self.state = "up"
        self.take_links()
        self.life.process.release()
        self._say("resumed")
        return True

    def take_links(self) -> bool:
        """Put the link faults in force on this node; False when it does not run."""
        if self.life is None or self.state != "up":
            return False
        self.life.runtime.faults.replace(self.world.links)
        return True

    async def halt(self) -> None:
        """End the process in order (SIGTERM)."""
        self.resume()
        if self.life is not None:
            await self._stop(self.life, STOP_GRACE_S)

    def fail(self, life: Life, error: BaseException) -> None:
        """The node cannot go on: it ends with the error's exit code, whatever waits."""
        if self.life is not life or life.failure is not None:
            return
        life.failure = error
        self._say(f"{type(error).__name__}: {error}")
        if not self._disk_failed(error):
            self.world.violated(self.node_id, error)
        if not life.runtime.gate.closed:  # it does not stop already
            life.ending = self.world.loop.create_task(self._stop(life, 0.0))

    def stall_later(self) -> None:
        """Draw anew when it stands still next, at the rate in force: the time until then has no memory."""
        if self._next_stall is not None:
            self._next_stall.cancel()
            self._next_stall = None
        rate = self.world.network.settings.stalls_per_s
        if self.life is not None and rate > 0:
            self._next_stall = self.world.network.after(self._stalls.expovariate(rate), self._stall, self.life)

    def disk_broke(self) -> None:
        """A failure of the disk was put in force by chance."""
        self._disk_broke = True

    # ------------------------------------------------------------------------------ inside

    def _lose(self, *, power: bool) -> None:
        """What the end of the process, or of the power, does to its disk."""
        if power:
            loss = self.disk.lose_power()
            how = f"power lost: {loss.writes_lost} writes gone, {loss.writes_torn} torn, {loss.names_lost} names gone"
        else:
            self.disk.kill()
            how = "killed"
        self._say(how)

    @contextmanager
    def _perhaps_interrupted(self) -> Iterator[None]:
        """Raise BootCrash out of a call on the disk, as chance has it."""
        disk, chance = self.disk, self.world.network.settings.boot_crash
        if not chance or self._boots.random() >= chance or disk.on_call is not None:
            yield
            return
        left = iter(range(self._boots.randrange(RECOVERY_CALLS)))

        def count(_: str) -> None:
            if next(left, None) is None:
                raise BootCrash("killed while it recovered")

        disk.on_call = count
        try:
            yield
        finally:
            disk.on_call = None

    def _disk_failed(self, error: BaseException) -> bool:
        """Whether an error is the answer to a failure of the disk in this life: without one there is none to tell."""
        return isinstance(error, DiskError | OSError) and self.disk.failures > self._failures

    async def _stop(self, life: Life, grace_s: float) -> None:
        life.runtime.gate.closed = True
        try:
            await life.runtime.driver.stop(grace_s)
        except Exception as error:
            self.fail(life, error)
        if self.life is life:  # nobody killed it meanwhile
            self._end(life)
            self.disk.kill()
            if life.failure is None:
                self._tell_end("stop", 0)
            else:
                self._tell_end("exit", exit_code(life.failure))

    def _end(self, life: Life) -> None:
        life.process.end()
        for call in life.calls:
            call.cancel()
        del self.world.network.listening[self.address]
        if life is not self._dark:
            for link in life.links:
                link.lost(life)
        self.life, self.state = None, "down"

    def _power_returns(self) -> None:
        """The host is back, and answers that it knows nothing of the connections it had."""
        life, self._dark = self._dark, None
        if life is not None:
            self.world.network.dark.discard(self.address)
            for link in life.links:
                link.lost(life)

    def _tell_end(self, cause: Literal["crash", "stop", "exit"], code: int) -> None:
        world = self.world
        world.story.tell(self.node_id, f"* life {self.lives} ended: {cause} {code}")
        self._on_end(self.node_id, cause, code, "\n".join(self.log[-10:]))
        try:
            world.observer.crashed(self.node_id, world.loop.time())
        except Exception as error:
            world.violated(self.node_id, error)

    def _say(self, line: str) -> None:
        self.log.append(f"{self.world.loop.time():.6f} {self.node_id} {line}")
        self.world.story.tell(self.node_id, f"* {line}")

    def _stall(self, life: Life) -> None:
        if life.process.ended:
            return
        lasts_s = self._stalls.uniform(*self.world.network.settings.stall)
        life.process.hold()
        self.world.story.tell(self.node_id, f"* stalls for {lasts_s:.6f} s")
        self.world.network.after(lasts_s, self._stalled, life, lasts_s)
        self.stall_later()

    def _stalled(self, life: Life, lasts_s: float) -> None:
        life.process.release()
        life.runtime.loop_lag.add_ns(round(lasts_s * 1e9))


class _Mail(Mail):
    """Messages between simulated nodes."""

    def __init__(
        self,
        config: NodeConfig,
        faults: LinkFaults,
        deliver: Callable[[Message], None],
        *,
        clock: Process,
        world: World,
    ) -> None:
        super().__init__(config, faults, deliver, clock)
        self._process = clock
        self._world = world
        self._config = config
        self._lanes: dict[tuple[str, Flow], _Lane] = {}
        """By receiving node and flow."""
        self._pings: dict[int, int] = {}
        """When empty AppendEntries left, by their sequence."""

    def take(self, message: Message) -> None:
        """A message came from the network."""
        if isinstance(message, AppendEntriesReply) and (sent_ns := self._pings.pop(message.sequence, None)):
            self.round_trips.add_ns(self._world.loop.now_ns() - sent_ns)
        self.arrived(message, "requests" if isinstance(message, AppendEntries | RequestVote) else "replies")

    def _carry(self, message: Message) -> None:
        key = message.to_id, flow_of(message)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(self, self._config.transport, *key)
        lane.outbox.put(message)

    def leave(self, lane: _Lane) -> None:
        """Let what waits leave, as far as bandwidth permits."""
        while not lane.leaving and len(lane.outbox):
            lane.leaving = lane.outbox.take()
            size = partial(sum, map(encoded_bytes, lane.leaving))
            if self._faults.active and self._faults.occupy(lane.peer, lane.flow, size):
                self._through(lane, waited=False)
            else:
                self._leave_now(lane, waited=False)

    def _through(self, lane: _Lane, *, waited: bool = True) -> None:
        if pause_s := self._faults.busy_s(lane.peer, lane.flow):
            self._clock.call_later(pause_s, self._through, lane)
        else:
            self._leave_now(lane, waited=waited)
            self.leave(lane)

    def _leave_now(self, lane: _Lane, *, waited: bool) -> None:
        leaving, lane.leaving = lane.leaving, []
        for piece in leaving:
            if isinstance(piece, Fragment):
                message = lane.assembler.add(piece)
                if message is not None:
                    self._post(message)
                elif waited:
                    self._post(piece.head)
            else:
                self._post(piece)

    def _post(self, message: Message) -> None:
        world = self._world
        if self._process.ended:
            return
        if isinstance(message, AppendEntries) and not message.entry_payloads:
            if len(self._pings) > REMEMBERED_PINGS:
                self._pings.clear()
            self._pings[message.sequence] = world.loop.now_ns()
        world.observer.sent(message, world.loop.time())
        self.counters.sent += 1
        if world.network.settings.wire:
            message = _over_the_wire(message)
        if not world.network.post(world.arrive, message, self.members):
            world.story.tell(message.from_id, f"> {message.to_id} lost: {describe_message(message)}")


class _Lane:
    """One flow of messages to one peer.

    The parts of a large message leave one by one, each as the heartbeat that it is on its arrival; the message arrives
    with the last of them. The network loses, delays and doubles whole messages: on a stream no part gets lost alone.
    """

    def __init__(self, mail: _Mail, transport: TransportSettings, peer: str, flow: Flow) -> None:
        self.peer = peer
        self.flow: Flow = flow
        self.outbox = Outbox(transport, mail.counters, lambda: mail.leave(self))
        self.leaving: list[Message | Fragment] = []
        """What has been taken from the outbox and is not through yet."""
        self.assembler = Assembler(transport.message_bytes)


def _over_the_wire(message: Message) -> Message:
    """The message as it comes out of the bytes in which it travels."""
    if isinstance(message, AppendEntries | RequestVote):
        request = raft_pb2.PeerRequest.FromString(encode_request(message).SerializeToString())
        return decode_request(request, message.from_id, message.to_id)
    reply = raft_pb2.PeerReply.FromString(encode_reply(message).SerializeToString())
    return decode_reply(reply, message.from_id, message.to_id)


class _Tracer(Tracer):
    """Keeps the lines of the trace file in memory."""

    def __init__(self, node_id: str, world: World, lines: list[str]) -> None:
        super().__init__(node_id, None, world.loop.now_ns)
        self._story = world.story
        self._lines = lines

    def record(self, events: Sequence[TraceEvent]) -> None:
        """As in Tracer."""
        now_ns = self._clock_ns()
        for event in events:
            self._number += 1
            self._lines.append(self._line(now_ns, event).rstrip())
            self._story.tell(self._node_id, describe_event(event))


class _Ended(Exception):
    """The observer has ended this life: nothing more of it may happen."""


class _Watch:
    """Tells the observer what a driver does, who may crash the node then and there; satisfies driver.Watch."""

    def __init__(self, world: World, life: Life) -> None:
        self._observer = world.observer
        self._loop = world.loop
        self._life = life

    def stepping(self) -> None:
        self._before: Snapshot = self._life.runtime.driver.node.snapshot()

    def stepped(self, events: Sequence[Event], effects: Effects) -> None:
        node = self._life.runtime.driver.node
        self._observer.stepped(node, self._before, events, effects, self._loop.time())
        self._go_on()

    def applied(self, first_index: int, results: Sequence[Result]) -> None:
        driver = self._life.runtime.driver
        self._observer.applied(driver.node.node_id, first_index, results, driver.store, self._loop.time())
        self._go_on()

    def answered(self, read_index: int) -> None:
        driver = self._life.runtime.driver
        self._observer.answered(driver.node.node_id, read_index, driver.store.last_applied, self._loop.time())
        self._go_on()

    def _go_on(self) -> None:
        if self._life.process.ended:
            raise _Ended
