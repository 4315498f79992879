"""The gRPC services of a node other than Raft: KV for clients, Inspection for observers, and Chaos.

Only this module chooses the status codes of these services. A request that link faults drop is never answered, so the
client's deadline expires. Link faults do not affect Chaos and Inspection.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import resource
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from time import monotonic_ns
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from pydantic import ValidationError

from raft_actor_node.channels import ERROR_DETAIL_KEY
from raft_actor_node.config import ANSWER_BYTES, CLIENT_ID_BYTES, MESSAGE_OVERHEAD_BYTES, NodeConfig, describe
from raft_actor_node.core import Role
from raft_actor_node.kv.commands import ErrorCode
from raft_actor_node.links import CLIENTS
from raft_actor_node.pb import (
    chaos_pb2,
    chaos_pb2_grpc,
    inspection_pb2,
    inspection_pb2_grpc,
    kv_pb2,
    kv_pb2_grpc,
)
from raft_actor_node.runtime.batches import parts
from raft_actor_node.runtime.budget import TURN_OPERATIONS, Answer, Caller, Respond
from raft_actor_node.runtime.clock import Clock
from raft_actor_node.runtime.codec import decode_node_faults, decode_rule, encode_rule
from raft_actor_node.runtime.disk_faults import DiskFaults
from raft_actor_node.runtime.driver import Driver
from raft_actor_node.runtime.faults import ONCE, Fate, LinkFaults, MessageKind
from raft_actor_node.runtime.gate import Gate, Operation
from raft_actor_node.runtime.mail import Mail
from raft_actor_node.runtime.samples import Samples
from raft_actor_node.runtime.tracer import Tracer

logger = logging.getLogger(__name__)

LOG_PAGE = 1000
"""Maximum number of entries in one LogReply."""

STATUS = {
    ErrorCode.NOT_LEADER: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.OVERLOADED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.BAD_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.OUTCOME_UNKNOWN: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.SESSION_UNKNOWN: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.SEQUENCE_STALE: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.SEQUENCE_REUSED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.VALUE_TOO_LARGE: grpc.StatusCode.FAILED_PRECONDITION,
}

MESSAGE_BYTES = 128 * 1024
"""Approximate maximum size of a message with answers. A larger answer is sent alone. The message stays in memory until
the client reads it or disconnects."""
SENT_COPIES = 2
"""Copies of a message in memory while it is sent: here and in gRPC."""
UNREAD_S = 1.0
"""A client that reads nothing for so many seconds loses its stream if other clients need the memory of its answers."""

_FULL = "too many clients have not read their answers (limits.pending_bytes)"

M = TypeVar("M", Operation, Answer)


class Visitor(Caller):
    """A caller, with the state that link faults need."""

    __slots__ = ("changed", "client", "delayed", "lost")

    def __init__(self, respond: Respond, *, unary: bool = False) -> None:
        super().__init__(respond, unary=unary)
        self.client = CLIENTS
        """Id of the client, by which link faults select it."""
        self.delayed = 0
        """Number of deliveries still due. Each is a group of delayed copies of one operation or answer."""
        self.lost = 0
        """Number of operations and answers that never arrive."""
        self.changed: Callable[[], object] = lambda: None
        """Called when answers were lost."""


class KVService(kv_pb2_grpc.KVServicer):
    """The KV service of proto/kv.proto. Unary calls are batches of one operation, through the same gate as streams."""

    def __init__(self, config: NodeConfig, gate: Gate, faults: LinkFaults, clock: Clock) -> None:
        self._config = config
        self._gate = gate
        self._faults = faults
        self._clock = clock
        self._streams: set[_Stream] = set()
        self._looks_for_room = False
        self._given_up_bytes = 0
        """Bytes of messages on ended streams and of abandoned answers to unary calls. They stay in memory until the
        client reads them, but no longer count in the budget."""
        self._answered: dict[Visitor, float] = {}
        """Unary calls whose answers are being sent, with the start time in seconds of the monotonic clock."""
        self._given_up: dict[Visitor, int] = {}
        """Unary calls whose answers were abandoned, with their bytes."""
        gate.shortage = self._want_room

    def register(self, server: grpc.aio.Server) -> None:
        """Register the service with a server."""
        kv_pb2_grpc.add_KVServicer_to_server(self, server)
        # Register Execute again without serializers: this service then parses large messages part by part, and keeps
        # only the bytes of unread messages.
        execute: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self.Execute)
        name = kv_pb2.DESCRIPTOR.services_by_name["KV"].full_name
        server.add_registered_method_handlers(name, {"Execute": execute})

    async def Execute(  # noqa: N802 - the proto file defines the names of methods
        self,
        _: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext[bytes, bytes],
    ) -> None:
        """Handle encoded batches. Answers leave as they become ready, and all of them before the stream ends."""
        if self._is_full():
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _FULL)
        stream = _Stream(self._gate, self._config.limits.turn_answer_bytes, min(self._room(), MESSAGE_BYTES))
        caller = stream.caller = self.caller(stream.put)
        caller.changed = stream.changed
        writer = asyncio.create_task(stream.write_to(context))
        fault = ""
        self._streams.add(stream)
        try:
            fault = await self._take_in(context, stream, writer)
            await stream.all_answered(writer)
        except asyncio.CancelledError:
            handler = asyncio.current_task()
            if not stream.given_up or handler is None:
                raise
            handler.uncancel()
        finally:
            self._streams.discard(stream)
            self._gate.close(caller)
            if not stream.given_up:
                writer.cancel()
        if stream.given_up:
            await self._abandon(stream, writer, context)
        if fault:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an OperationBatch: {fault}")

    async def _take_in(self, context: Any, stream: _Stream, writer: asyncio.Task[None]) -> str:
        """Handle all messages of a stream, as long as its client reads the answers.

        Return the error in the last message, or an empty string.
        """
        # Do not use gRPC's iterator: it keeps each message in memory until the next one arrives.
        while (message := await context.read()) is not grpc.aio.EOF:
            try:
                await self._take_message(message, stream, writer)
            except DecodeError as error:
                return str(error)
            del message
            # Do not read from a client that does not read its answers.
            await stream.room_for_more()
            if writer.done():
                return ""  # answers can no longer leave
        return ""

    async def _take_message(self, message: bytes, stream: _Stream, writer: asyncio.Task[None]) -> None:
        more = False
        for batch in parts(message):
            for operations in _slices(batch.operations):
                if more:
                    await asyncio.sleep(0)  # continue in the next turn
                    await stream.room_for_more(len(message))
                    if writer.done():
                        return
                self.take(batch.client_id, operations, stream.caller)
                more = True

    async def _abandon(self, stream: _Stream, writer: asyncio.Task[None], context: Any) -> None:
        """Send a client the reason why its stream ended, once the client has read the message being written.

        gRPC can cancel neither that message nor the call.
        """
        size = SENT_COPIES * stream.writing_bytes
        self._given_up_bytes += size
        try:
            await asyncio.wait([writer])
        finally:
            self._given_up_bytes -= size
            writer.cancel()
        why = f"answers were not read for {UNREAD_S:g} s, and other clients needed the memory (limits.pending_bytes)"
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)

    def _want_room(self, in_s: float = 0.0) -> None:
        """Schedule `_make_room`, once for all requests in one turn."""
        if not self._looks_for_room:
            self._looks_for_room = True
            self._clock.call_later(in_s, self._make_room)

    def _make_room(self) -> None:
        """Reclaim the budget of answers that clients have not read for UNREAD_S.

        Abandon all such answers to unary calls. Of the streams, end only the stream whose client has not read for the
        longest time. If that time is below UNREAD_S and budget is wanted, check again when it reaches UNREAD_S.
        """
        self._looks_for_room = False
        now = time.monotonic()
        while self._answered:
            caller, since = next(iter(self._answered.items()))
            if now - since < UNREAD_S:
                break
            self._give_up(caller)
        writing = [stream for stream in self._streams if stream.writing_since is not None and not stream.given_up]
        if not writing:
            return
        slowest = min(writing, key=lambda stream: stream.writing_since or 0.0)
        unread_s = now - (slowest.writing_since or 0.0)
        if unread_s >= UNREAD_S:
            slowest.give_up()
        elif self._gate.budget.wanted:
            self._want_room(UNREAD_S - unread_s)

    def _give_up(self, caller: Visitor) -> None:
        """Release the budget of a unary call whose client does not read its answer. gRPC keeps the answer."""
        del self._answered[caller]
        self._given_up[caller] = SENT_COPIES * caller.unread
        self._given_up_bytes += self._given_up[caller]
        self._gate.close(caller)

    def _is_full(self) -> bool:
        """Return whether new streams and calls are refused: unread messages outside the budget exceed the limit."""
        return self._given_up_bytes > self._config.limits.pending_bytes

    def caller(self, put: Respond, *, unary: bool = False) -> Visitor:
        """Return the caller for a stream or a unary call. `put` gets the answers that link faults let through."""
        visitor = Visitor(lambda answers, size: self._leave(visitor, put, answers, size), unary=unary)
        return visitor

    def take(self, client_id: str, operations: Sequence[Operation], caller: Visitor) -> None:
        """Accept operations, subject to link faults."""
        if (name_bytes := len(client_id.encode())) > CLIENT_ID_BYTES:
            why = f"client_id: {name_bytes} bytes, at most {CLIENT_ID_BYTES} are allowed"
            self._gate.turn_away(operations, caller, why)
            return
        caller.client = client_id or CLIENTS
        if self._faults.active:
            # Link faults also act on the answers, when they leave.
            take = functools.partial(self._gate.take, caller=caller, copies=True)
            operations = self._pass(operations, self._faults.arriving, caller, "requests", take)
        if operations:
            self._gate.take(operations, caller)

    def _leave(self, caller: Visitor, put: Respond, answers: list[Answer], size: int) -> None:
        # Apply link faults when the answer leaves: the link may have been cut since the request arrived.
        if self._faults.active:
            late = functools.partial(self._put_late, caller, put)
            passed = self._pass(answers, self._faults.leaving, caller, "replies", late)
            if len(passed) < len(answers):
                # Chaos holds the delayed and lost answers, so they do not count as unread by the client.
                self._gate.left(caller, size)
                self._put_late(caller, put, passed)
                caller.changed()
                return
        put(answers, size)

    def _put_late(self, caller: Visitor, put: Respond, answers: list[Answer]) -> None:
        """Deliver delayed answers. They count in the budget again until the client has read them."""
        if answers and not caller.closed:
            size = sum([answer.ByteSize() for answer in answers])
            self._gate.keep(caller, size)
            put(answers, size)

    def _pass(
        self,
        messages: Sequence[M],
        fate: Fate,
        caller: Visitor,
        kind: MessageKind,
        deliver: Callable[[list[M]], None],
    ) -> list[M]:
        """Return the messages that link faults do not affect. Copies of the others are delivered later, or never."""
        unharmed = []
        for message in messages:
            if (delays := fate(caller.client, kind, message.ByteSize)) is ONCE:
                unharmed.append(message)
                continue
            caller.lost += not delays
            # Copies that arrive at the same time arrive in one call, so that none is refused while another is accepted.
            for delay_s, group in itertools.groupby(delays):
                caller.delayed += 1
                self._clock.call_later(delay_s, self._arrive, caller, deliver, [message] * len(list(group)))
        return unharmed

    def _arrive(self, caller: Visitor, deliver: Callable[[list[M]], None], messages: list[M]) -> None:
        caller.delayed -= 1
        deliver(messages)
        caller.changed()

    def _room(self) -> int:
        return self._config.transport.message_bytes - MESSAGE_OVERHEAD_BYTES

    async def OpenSession(self, request: kv_pb2.OpenSessionRequest, context: Any) -> kv_pb2.OpenSessionReply:  # noqa: N802
        answer = await self._unary(request, Operation(kind=kv_pb2.OPEN_SESSION), context)
        return kv_pb2.OpenSessionReply(session_id=answer.number)

    async def Put(self, request: kv_pb2.PutRequest, context: Any) -> kv_pb2.PutReply:  # noqa: N802
        await self._unary(request, _operation(kv_pb2.PUT, request), context)
        return kv_pb2.PutReply()

    async def Get(self, request: kv_pb2.GetRequest, context: Any) -> kv_pb2.GetReply:  # noqa: N802
        answer = await self._unary(request, Operation(kind=kv_pb2.GET, key=request.key), context)
        return kv_pb2.GetReply(found=answer.found, value=answer.value)

    async def Delete(self, request: kv_pb2.DeleteRequest, context: Any) -> kv_pb2.DeleteReply:  # noqa: N802
        operation = Operation(
            kind=kv_pb2.DELETE, key=request.key, session_id=request.session_id, sequence=request.sequence
        )
        return kv_pb2.DeleteReply(found=(await self._unary(request, operation, context)).found)

    async def CompareAndSwap(  # noqa: N802
        self, request: kv_pb2.CompareAndSwapRequest, context: Any
    ) -> kv_pb2.CompareAndSwapReply:
        operation = _operation(kv_pb2.COMPARE_AND_SWAP, request)
        if request.HasField("expected"):
            operation.expected = request.expected
        answer = await self._unary(request, operation, context)
        current = answer.value if answer.HasField("value") else None
        return kv_pb2.CompareAndSwapReply(swapped=answer.found, current=current)

    async def Append(self, request: kv_pb2.AppendRequest, context: Any) -> kv_pb2.AppendReply:  # noqa: N802
        answer = await self._unary(request, _operation(kv_pb2.APPEND, request), context)
        return kv_pb2.AppendReply(length=answer.number)

    async def _unary(self, request: Any, operation: Operation, context: Any) -> Answer:
        if self._is_full():
            await _abort(context, self._gate.error(0, ErrorCode.OVERLOADED, _FULL))
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def put(answers: list[Answer], _: int) -> None:
            if not answered.done():
                answered.set_result(answers[0])

        # A request or answer that link faults drop is never answered, so the client's deadline expires.
        caller = self.caller(put, unary=True)
        caller.request_bytes = request.ByteSize()
        context.add_done_callback(lambda _: self._end(caller))  # the answer stays in memory until it has left
        self.take(request.client_id, (operation,), caller)
        del operation  # free its copy of the value
        answer = await answered
        if not caller.closed:
            self._answered[caller] = time.monotonic()
        if answer.error:
            await _abort(context, answer)
        return answer

    def _end(self, caller: Visitor) -> None:
        """Release a unary call that has ended: its answer has left."""
        self._answered.pop(caller, None)
        self._given_up_bytes -= self._given_up.pop(caller, 0)
        self._gate.close(caller)


def _operation(kind: Any, request: Any) -> Operation:
    return Operation(
        kind=kind,
        key=request.key,
        value=request.value,
        session_id=request.session_id,
        sequence=request.sequence,
    )


async def _abort(context: Any, answer: Answer) -> NoReturn:
    detail = kv_pb2.ErrorDetail(code=answer.error, leader_hint=answer.leader_hint, message=answer.message)
    code = kv_pb2.ErrorCode.Name(answer.error)
    await context.abort(
        STATUS[ErrorCode(answer.error)],
        f"{code}: {answer.message}",
        ((ERROR_DETAIL_KEY, detail.SerializeToString()),),
    )
    raise AssertionError("abort raises")


class _Stream:
    """Answers that wait for a client stream, or are being written to it."""

    def __init__(self, gate: Gate, turn_bytes: int, message_bytes: int) -> None:
        """One turn sends up to `turn_bytes`, in messages of up to `message_bytes`; a larger answer is sent alone."""
        self.caller: Visitor
        self._gate = gate
        self._turn_bytes = turn_bytes
        self._message_bytes = message_bytes
        self.writing_since: float | None = None
        """Start of the wait for the client to read a message, in seconds of the monotonic clock; None if none waits."""
        self.writing_bytes = 0
        """Size of that message."""
        self.given_up = False
        """Whether the node has ended the stream because its client does not read."""
        self._waiting: deque[tuple[list[Answer], int]] = deque()
        self._sending: list[Answer] = []
        """Answers taken for sending that are in no message yet."""
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        self._handler = asyncio.current_task()

    def changed(self) -> None:
        """Wake the tasks that wait for room or for the last answer."""
        self._changed.set()

    def give_up(self) -> None:
        """End the stream and discard everything kept for its client."""
        self.given_up = True
        logger.warning(
            "client %s does not read its answers, and other clients need the memory: stream ended", self.caller.client
        )
        self._waiting.clear()
        self._sending.clear()
        self._gate.close(self.caller)
        if self._handler is not None:
            self._handler.cancel()

    def put(self, answers: list[Answer], size: int) -> None:
        self._waiting.append((answers, size))
        self._news.set()

    async def room_for_more(self, message_bytes: int = 0) -> None:
        """Wait until the client has read enough answers. `message_bytes` is the size of a message held meanwhile."""
        budget = self._gate.budget
        budget.messages += message_bytes
        try:
            while self._is_behind():
                self._changed.clear()
                await self._changed.wait()
        finally:
            budget.messages -= message_bytes

    def _is_behind(self) -> bool:
        """Return whether the client must read before more is accepted.

        The client must read if confirmed reads wait to be looked up, or if more answers are unread than one turn can
        send. If the budget is exceeded, the client must read all answers.
        """
        caller, budget = self.caller, self._gate.budget
        most = self._turn_bytes if budget.held <= budget.limit else 0
        return (caller.unread > most or bool(caller.ready)) and not caller.closed

    async def all_answered(self, writer: asyncio.Task[None]) -> None:
        """Wait until every operation is answered and every answer has left, or `writer` has ended."""
        caller = self.caller
        # If chaos drops a request or an answer, this waits until the client ends the stream at its own deadline.
        while (caller.waiting or caller.delayed or caller.lost or caller.unread) and not writer.done():
            self._changed.clear()
            await self._changed.wait()

    async def write_to(self, context: Any) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._waiting:
                    answers, size = self._take()
                    self._sending = answers
                    for part in _chunks(answers, size, self._message_bytes):
                        self.writing_bytes = len(part)
                        self.writing_since = time.monotonic()
                        await context.write(part)
                        self.writing_since = None
                        if self.given_up:
                            return
                    self._gate.left(self.caller, size)
                    self._changed.set()
        except (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            pass  # the client has disconnected
        finally:
            self._gate.close(self.caller)
            self._changed.set()

    def _take(self) -> tuple[list[Answer], int]:
        """Remove and return the answers of one turn, and their bytes."""
        answers, size = self._waiting.popleft()
        if self._waiting:
            answers = answers.copy()
        while self._waiting and self._fits(len(answers) + len(self._waiting[0][0]), size + self._waiting[0][1]):
            more, more_bytes = self._waiting.popleft()
            answers += more
            size += more_bytes
        return answers, size

    def _fits(self, count: int, size: int) -> bool:
        """Return whether `count` answers of `size` bytes may leave in one turn."""
        return count <= TURN_OPERATIONS and size <= self._turn_bytes


def _chunks(answers: list[Answer], size: int, room: int) -> Iterator[bytes]:
    """Yield encoded ResultBatches of at most `room` bytes, or of one answer. `size` is an upper bound on all bytes.

    This consumes `answers`, so that only the encoded bytes stay in memory while a message waits for its client.
    """
    answers.reverse()
    while answers:
        count = len(answers)
        if size > room:
            count = used = 0
            for answer in reversed(answers):
                used += ANSWER_BYTES + answer.ByteSize()
                if used > room and count:
                    break
                count += 1
        encoded = kv_pb2.ResultBatch(results=answers[: -count - 1 : -1]).SerializeToString()
        del answers[-count:]
        yield encoded


def _slices(operations: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
    """Yield slices of at most TURN_OPERATIONS operations."""
    if len(operations) <= TURN_OPERATIONS:
        yield operations
        return
    for at in range(0, len(operations), TURN_OPERATIONS):
        yield operations[at : at + TURN_OPERATIONS]


class InspectionService(inspection_pb2_grpc.InspectionServicer):
    """The Inspection service of proto/inspection.proto: the state of a node in any role."""

    def __init__(
        self,
        config: NodeConfig,
        driver: Driver,
        gate: Gate,
        transport: Mail,
        faults: LinkFaults,
        disk_faults: DiskFaults,
        tracer: Tracer,
        loop_lag: Samples,
        clock: Clock,
    ) -> None:
        self._config = config
        self._driver = driver
        self._gate = gate
        self._transport = transport
        self._faults = faults
        self._disk_faults = disk_faults
        self._tracer = tracer
        self._loop_lag = loop_lag
        self._clock = clock

    async def GetStatus(self, request: inspection_pb2.StatusRequest, context: Any) -> inspection_pb2.StatusReply:  # noqa: N802
        hashing = self._driver.store.hash_state() if request.with_state_hash else None
        if hashing is not None:
            next(hashing)  # copies the state now, so that hash and reply describe the same moment
        reply = self._status(request)
        while hashing is not None:
            try:
                next(hashing)
            except StopIteration as done:
                reply.state_hash = done.value
                break
            await asyncio.sleep(0)
        return reply

    def _status(self, request: inspection_pb2.StatusRequest) -> inspection_pb2.StatusReply:
        node, store = self._driver.node, self._driver.store
        now = self._clock.now()
        fsync_p50, fsync_p99, fsync_max = self._driver.fsync.percentiles(0.50, 0.99, 1.0)
        lag_p99, lag_max = self._loop_lag.percentiles(0.99, 1.0)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return inspection_pb2.StatusReply(
            node_id=node.node_id,
            cluster_id=self._config.cluster_id,
            role=inspection_pb2.Role.Name(node.role),
            current_term=node.current_term,
            voted_for=node.voted_for or "",
            leader_id=node.leader_id or "",
            first_log_index=1,
            last_log_index=node.log.last_index,
            last_log_term=node.log.last_term,
            durable_index=node.durable_index,
            commit_index=node.commit_index,
            last_applied=store.last_applied,
            peers=[
                inspection_pb2.PeerStatus(
                    node_id=peer,
                    match_index=progress.match_index,
                    next_index=progress.next_index,
                    probing=progress.probing,
                    silent_ms=(now - progress.last_contact) * 1000,
                )
                for peer, progress in node.progress.items()
                if node.role == Role.LEADER
            ],
            session_count=store.session_count,
            key_count=store.key_count,
            applied_hash=store.applied_hash(),
            prefix_hash=store.prefix_hash(request.hash_index) if request.hash_index else b"",
            counters=self._counters(),
            fsync_p50_us=fsync_p50,
            fsync_p99_us=fsync_p99,
            fsync_max_us=fsync_max,
            loop_lag_p99_us=lag_p99,
            loop_lag_max_us=lag_max,
            cpu_s=usage.ru_utime + usage.ru_stime,
            resident_bytes=_resident_bytes(),
            pid=os.getpid(),
            now_ns=self._clock.now_ns(),
            pending_operations=self._gate.waiting,
            pending_bytes=self._gate.budget.held + self._gate.budget.messages,
            session_bytes=store.kept_bytes,
            unsynced_bytes=node.unsynced_bytes,
        )

    def _counters(self) -> inspection_pb2.Counters:
        core, wire, links = self._driver.node.counters, self._transport.counters, self._faults.counters
        disk = self._disk_faults.counters
        return inspection_pb2.Counters(
            elections_started=core.elections_started,
            elections_won=core.elections_won,
            pre_votes_started=core.pre_votes_started,
            step_downs=core.step_downs,
            leader_changes=core.leader_changes,
            messages_sent=wire.sent,
            messages_received=wire.received,
            messages_refused=wire.refused + core.replies_refused,
            messages_dropped=links.dropped,
            messages_delayed=links.delayed,
            messages_duplicated=links.duplicated,
            messages_cut=links.cut,
            messages_unsent=wire.unsent,
            entries_appended=core.entries_appended,
            entries_erased=core.entries_erased,
            operations_answered=self._gate.answered,
            duplicates_answered=self._driver.store.duplicates_answered,
            operations_refused=self._gate.refused,
            fsyncs=self._driver.fsync.total,
            fsyncs_delayed=disk.fsyncs_delayed,
            fsyncs_stalled=disk.fsyncs_stalled,
            disk_errors=disk.errors,
        )

    async def GetLog(self, request: inspection_pb2.LogRequest, context: Any) -> inspection_pb2.LogReply:  # noqa: N802
        log = self._driver.node.log
        lo = max(request.first_index, 1)
        hi = min(request.end_index or log.last_index + 1, log.last_index + 1, lo + LOG_PAGE)
        if hi <= lo:
            return inspection_pb2.LogReply(first_index=lo)
        hi, _ = log.batch_end(lo, hi - lo, self._config.raft.max_batch_bytes)
        return inspection_pb2.LogReply(first_index=lo, terms=log.terms(lo, hi), payloads=log.payloads(lo, hi))

    async def GetSamples(self, request: inspection_pb2.SamplesRequest, context: Any) -> inspection_pb2.SamplesReply:  # noqa: N802
        return inspection_pb2.SamplesReply(
            fsync_us=self._driver.fsync.since(request.since_ns),
            loop_lag_us=self._loop_lag.since(request.since_ns),
            round_trip_us=self._transport.round_trips.since(request.since_ns),
        )

    async def Trace(  # noqa: N802
        self, request: inspection_pb2.TraceRequest, context: Any
    ) -> AsyncIterator[inspection_pb2.TraceEvent]:
        async for number, time_ns, event in self._tracer.events(request.after, follow=request.follow):
            yield inspection_pb2.TraceEvent(
                number=number,
                time_ns=time_ns,
                kind=event.kind,
                term=event.term,
                index=event.index,
                peer_id=event.peer_id,
                detail=event.detail,
                log_term=event.log_term,
                durable_index=event.durable_index,
            )


class ChaosService(chaos_pb2_grpc.ChaosServicer):
    """The Chaos service of proto/chaos.proto, registered only if the configuration enables it."""

    def __init__(self, faults: LinkFaults, disk_faults: DiskFaults) -> None:
        self._faults = faults
        self._disk_faults = disk_faults

    async def SetLinks(self, request: chaos_pb2.SetLinksRequest, context: Any) -> chaos_pb2.SetLinksReply:  # noqa: N802
        try:
            rules = [decode_rule(rule) for rule in request.rules]
        except ValidationError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, describe(error, "rules"))
        self._faults.replace(rules)
        return chaos_pb2.SetLinksReply(applied_ns=monotonic_ns())

    async def SetNodeFaults(  # noqa: N802
        self, request: chaos_pb2.SetNodeFaultsRequest, context: Any
    ) -> chaos_pb2.SetNodeFaultsReply:
        try:
            faults = decode_node_faults(request.faults)
        except ValidationError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, describe(error, "faults"))
        self._disk_faults.replace(faults.disk)
        return chaos_pb2.SetNodeFaultsReply(applied_ns=monotonic_ns())

    async def GetLinks(self, request: chaos_pb2.GetLinksRequest, context: Any) -> chaos_pb2.GetLinksReply:  # noqa: N802
        counters = self._faults.counters
        return chaos_pb2.GetLinksReply(
            rules=[encode_rule(rule) for rule in self._faults.rules],
            dropped=counters.dropped,
            delayed=counters.delayed,
            duplicated=counters.duplicated,
            cut=counters.cut,
        )


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - read at every status: a Path costs more than the read
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
