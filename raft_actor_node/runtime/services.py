"""The gRPC face of a node for everyone but its peers: clients (KV), observers (Inspection), Chaos.

Status codes are chosen here and nowhere else. A request that link faults take away is never answered: its
caller finds out by its deadline. Chaos and Inspection do not pass the faults.
"""

from __future__ import annotations

import asyncio
import functools
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from time import monotonic_ns
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from pydantic import ValidationError

from raft_actor_node.channels import ERROR_DETAIL_KEY
from raft_actor_node.config import MESSAGE_OVERHEAD_BYTES, NodeConfig, describe
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
from raft_actor_node.runtime.clock import Clock
from raft_actor_node.runtime.codec import decode_rule, encode_rule
from raft_actor_node.runtime.driver import Driver
from raft_actor_node.runtime.faults import ONCE, Delays, Fate, LinkFaults, MessageKind
from raft_actor_node.runtime.gate import Answer, Gate, Operation, Respond
from raft_actor_node.runtime.mail import Mail
from raft_actor_node.runtime.samples import Samples
from raft_actor_node.runtime.tracer import Tracer

LOG_PAGE = 1000
"""Most entries in one LogReply."""
RESULT_BYTES = 64
"""Bound of what a result adds to a message beside its own bytes."""

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

M = TypeVar("M", Operation, Answer)


class KVService(kv_pb2_grpc.KVServicer):
    """proto/kv.proto. The unary calls are operations of one, through the same gate as the stream's."""

    def __init__(self, config: NodeConfig, gate: Gate, faults: LinkFaults, clock: Clock) -> None:
        self._config = config
        self._gate = gate
        self._faults = faults
        self._clock = clock

    async def Execute(  # noqa: N802 - the names of methods are the service's
        self,
        request_iterator: AsyncIterator[kv_pb2.OperationBatch],
        context: grpc.aio.ServicerContext[kv_pb2.OperationBatch, kv_pb2.ResultBatch],
    ) -> None:
        """Take in batches until the client hangs up; answers leave as they become ready."""
        answers = _Answers(self._config.transport.message_bytes - MESSAGE_OVERHEAD_BYTES)
        writer = asyncio.create_task(answers.write_to(context))
        try:
            async for batch in request_iterator:
                if writer.done():
                    break  # answers cannot leave any more
                self.take(batch, answers.put)
                # A client that does not read its answers is not read from either.
                await answers.room_for_more()
        finally:
            writer.cancel()

    def take(self, batch: kv_pb2.OperationBatch, put: Respond) -> None:
        """Take in a batch as far as the link faults let it; `put` gets the answers that they let leave."""
        client = batch.client_id or CLIENTS

        def respond(answers: list[Answer]) -> None:
            # Decided when the answer leaves: the link may have been cut since the question came.
            if self._faults.active:
                answers = self._pass(answers, self._faults.leaving, client, "replies", put)
            put(answers)

        operations: Sequence[Operation] = batch.operations
        if self._faults.active:
            take = functools.partial(self._gate.take, respond=respond)
            operations = self._pass(operations, self._faults.arriving, client, "requests", take)
        self._gate.take(operations, respond)

    def _pass(
        self,
        messages: Iterable[M],
        fate: Fate,
        client: str,
        kind: MessageKind,
        deliver: Callable[[list[M]], None],
    ) -> list[M]:
        """The messages that the link faults leave alone; copies of the others are delivered later, or never."""
        unharmed = []
        for message in messages:
            if (delays := fate(client, kind, message.ByteSize)) is ONCE:
                unharmed.append(message)
                continue
            for delay_s in delays:
                self._clock.call_later(delay_s, deliver, [message])
        return unharmed

    async def OpenSession(self, request: kv_pb2.OpenSessionRequest, context: Any) -> kv_pb2.OpenSessionReply:  # noqa: N802
        answer = await self._unary(request.client_id, Operation(kind=kv_pb2.OPEN_SESSION), context)
        return kv_pb2.OpenSessionReply(session_id=answer.number)

    async def Put(self, request: kv_pb2.PutRequest, context: Any) -> kv_pb2.PutReply:  # noqa: N802
        await self._unary(request.client_id, _operation(kv_pb2.PUT, request), context)
        return kv_pb2.PutReply()

    async def Get(self, request: kv_pb2.GetRequest, context: Any) -> kv_pb2.GetReply:  # noqa: N802
        answer = await self._unary(request.client_id, Operation(kind=kv_pb2.GET, key=request.key), context)
        return kv_pb2.GetReply(found=answer.found, value=answer.value)

    async def Delete(self, request: kv_pb2.DeleteRequest, context: Any) -> kv_pb2.DeleteReply:  # noqa: N802
        operation = Operation(
            kind=kv_pb2.DELETE, key=request.key, session_id=request.session_id, sequence=request.sequence
        )
        return kv_pb2.DeleteReply(found=(await self._unary(request.client_id, operation, context)).found)

    async def CompareAndSwap(  # noqa: N802
        self, request: kv_pb2.CompareAndSwapRequest, context: Any
    ) -> kv_pb2.CompareAndSwapReply:
        operation = _operation(kv_pb2.COMPARE_AND_SWAP, request)
        if request.HasField("expected"):
            operation.expected = request.expected
        answer = await self._unary(request.client_id, operation, context)
        current = answer.value if answer.HasField("value") else None
        return kv_pb2.CompareAndSwapReply(swapped=answer.found, current=current)

    async def Append(self, request: kv_pb2.AppendRequest, context: Any) -> kv_pb2.AppendReply:  # noqa: N802
        answer = await self._unary(request.client_id, _operation(kv_pb2.APPEND, request), context)
        return kv_pb2.AppendReply(length=answer.number)

    async def _unary(self, client_id: str, operation: Operation, context: Any) -> Answer:
        client = client_id or CLIENTS
        delays = await self._copies(self._faults.arriving, client, "requests", operation)
        await self._sleep(delays[0])
        answer, *_ = await asyncio.gather(*(self._ask(operation) for _ in delays))
        for delay_s in (await self._copies(self._faults.leaving, client, "replies", answer))[:1]:
            await self._sleep(delay_s)
        if answer.error:
            await _abort(context, answer)
        return answer

    async def _copies(self, fate: Fate, client: str, kind: MessageKind, message: Operation | Answer) -> Delays:
        """The fate of a unary message; a lost one never comes back, so the caller runs into its deadline."""
        delays = fate(client, kind, message.ByteSize) if self._faults.active else ONCE
        if not delays:
            await asyncio.get_running_loop().create_future()
        return delays

    async def _sleep(self, delay_s: float) -> None:
        """Wait on the node's own clock, which a simulator may stop."""
        if delay_s:
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._clock.call_later(delay_s, lambda: None if over.done() else over.set_result(None))
            await over

    def _ask(self, operation: Operation) -> Awaitable[Answer]:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._gate.take((operation,), lambda answers: None if answered.done() else answered.set_result(answers[0]))
        return answered


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


class _Answers:
    """Answers that wait for one client stream, or are being written to it."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._waiting: list[Answer] = []
        self._bytes = 0
        self._news = asyncio.Event()
        self._written = asyncio.Event()

    def put(self, answers: list[Answer]) -> None:
        if answers:
            self._waiting += answers
            self._bytes += sum([len(answer.value) for answer in answers]) + RESULT_BYTES * len(answers)
            self._news.set()

    async def room_for_more(self) -> None:
        """Wait while more than a full message is unread, which a client that reads never sees."""
        while self._bytes > self._room:
            self._written.clear()
            await self._written.wait()

    async def write_to(self, context: Any) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                waiting, self._waiting, taken = self._waiting, [], self._bytes
                batch = kv_pb2.ResultBatch(results=waiting)
                for part in [batch] if batch.ByteSize() <= self._room else _chunks(waiting, self._room):
                    await context.write(part)
                self._bytes -= taken
                self._written.set()
        except (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            pass  # the client is gone
        finally:
            self._bytes = 0
            self._written.set()


def _chunks(answers: list[Answer], room: int) -> list[kv_pb2.ResultBatch]:
    """Answers split so that each part fits into one gRPC message."""
    parts: list[list[Answer]] = [[]]
    used = 0
    for answer in answers:
        size = RESULT_BYTES + answer.ByteSize()
        if used + size > room and parts[-1]:
            parts.append([])
            used = 0
        parts[-1].append(answer)
        used += size
    return [kv_pb2.ResultBatch(results=part) for part in parts]


class InspectionService(inspection_pb2_grpc.InspectionServicer):
    """proto/inspection.proto: what a node knows of itself, in any role."""

    def __init__(
        self,
        config: NodeConfig,
        driver: Driver,
        gate: Gate,
        transport: Mail,
        faults: LinkFaults,
        tracer: Tracer,
        loop_lag: Samples,
        clock: Clock,
    ) -> None:
        self._config = config
        self._driver = driver
        self._gate = gate
        self._transport = transport
        self._faults = faults
        self._tracer = tracer
        self._loop_lag = loop_lag
        self._clock = clock

    async def GetStatus(self, request: inspection_pb2.StatusRequest, context: Any) -> inspection_pb2.StatusReply:  # noqa: N802
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
            state_hash=store.state_hash() if request.with_state_hash else b"",
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
        )

    def _counters(self) -> inspection_pb2.Counters:
        core, wire, links = self._driver.node.counters, self._transport.counters, self._faults.counters
        return inspection_pb2.Counters(
            elections_started=core.elections_started,
            elections_won=core.elections_won,
            pre_votes_started=core.pre_votes_started,
            step_downs=core.step_downs,
            leader_changes=core.leader_changes,
            messages_sent=wire.sent,
            messages_received=wire.received,
            messages_refused=wire.refused,
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
        )

    async def GetLog(self, request: inspection_pb2.LogRequest, context: Any) -> inspection_pb2.LogReply:  # noqa: N802
        log = self._driver.node.log
        lo = max(request.first_index, 1)
        hi = min(request.end_index or log.last_index + 1, log.last_index + 1, lo + LOG_PAGE)
        if hi <= lo:
            return inspection_pb2.LogReply(first_index=lo)
        hi, _ = log.batch_end(lo, hi - lo, self._config.transport.message_bytes - MESSAGE_OVERHEAD_BYTES)
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
    """proto/chaos.proto; registered only where the configuration enables it."""

    def __init__(self, faults: LinkFaults) -> None:
        self._faults = faults

    async def SetLinks(self, request: chaos_pb2.SetLinksRequest, context: Any) -> chaos_pb2.SetLinksReply:  # noqa: N802
        try:
            rules = [decode_rule(rule) for rule in request.rules]
        except ValidationError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, describe(error, "rules"))
        self._faults.replace(rules)
        return chaos_pb2.SetLinksReply(applied_ns=monotonic_ns())

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
