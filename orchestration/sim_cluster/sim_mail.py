"""Messages between simulated nodes: the counterpart of a real node's transport on the simulated network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orchestration.sim_cluster.process import Process
from orchestration.sim_cluster.story import describe_message
from orchestration.sim_cluster.world import World
from raft_actor_node.config import NodeConfig, TransportSettings
from raft_actor_node.core import AppendEntries, AppendEntriesReply, Message, RequestVote
from raft_actor_node.pb import raft_pb2
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
from raft_actor_node.runtime.outbox import Assembler, Outbox

REMEMBERED_PINGS = 256
"""Empty AppendEntries whose send times are kept to measure round trips; when there are more, all are forgotten."""


class SimMail(Mail):
    """The mail of one incarnation of a node."""

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
        self._lanes: dict[tuple[str, Flow], Lane] = {}
        """The lanes, by receiving node and flow."""
        self._pings: dict[int, int] = {}
        """When each empty AppendEntries left, in ns, by its sequence."""

    def take(self, message: Message) -> None:
        """Process a message from the network."""
        if isinstance(message, AppendEntriesReply) and (sent_ns := self._pings.pop(message.sequence, None)):
            self.round_trips.add_ns(self._world.loop.now_ns() - sent_ns)
        self.arrived(message, "requests" if isinstance(message, AppendEntries | RequestVote) else "replies")

    def _carry(self, message: Message) -> None:
        key = message.to_id, flow_of(message)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(self, self._config.transport, *key)
        lane.outbox.put(message)

    def leave(self, lane: Lane) -> None:
        """Send the waiting messages of a lane, as far as its bandwidth permits."""
        while not lane.leaving and len(lane.outbox):
            lane.leaving = lane.outbox.take()
            size = partial(sum, map(encoded_bytes, lane.leaving))
            if self._faults.active and self._faults.occupy(lane.peer, lane.flow, size):
                self._through(lane, waited=False)
            else:
                self._leave_now(lane, waited=False)

    def _through(self, lane: Lane, *, waited: bool = True) -> None:
        if pause_s := self._faults.busy_s(lane.peer, lane.flow):
            self._clock.call_later(pause_s, self._through, lane)
        else:
            self._leave_now(lane, waited=waited)
            self.leave(lane)

    def _leave_now(self, lane: Lane, *, waited: bool) -> None:
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
        if not world.network.post(world.network.ports.arrive, message, self.members):
            world.story.tell(message.from_id, f"> {message.to_id} lost: {describe_message(message)}")


class Lane:
    """One flow of messages to one peer.

    The parts of a large message leave separately. If they wait for bandwidth, each part counts as a heartbeat when it
    arrives. The message arrives with its last part. The network loses, delays and duplicates only whole messages,
    because a stream cannot lose a single part.
    """

    def __init__(self, mail: SimMail, transport: TransportSettings, peer: str, flow: Flow) -> None:
        self.peer = peer
        self.flow: Flow = flow
        self.outbox = Outbox(transport, mail.counters, lambda: mail.leave(self))
        self.leaving: list[Message | Fragment] = []
        """Messages that were taken from the outbox and wait for bandwidth."""
        self.assembler = Assembler(transport.message_bytes)


def _over_the_wire(message: Message) -> Message:
    """Encode a message as on the wire, and return the decoded copy."""
    if isinstance(message, AppendEntries | RequestVote):
        request = raft_pb2.PeerRequest.FromString(encode_request(message).SerializeToString())
        return decode_request(request, message.from_id, message.to_id)
    reply = raft_pb2.PeerReply.FromString(encode_reply(message).SerializeToString())
    return decode_reply(reply, message.from_id, message.to_id)
