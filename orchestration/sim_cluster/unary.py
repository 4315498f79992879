"""Unary calls to a simulated process, served by this project's own handlers without gRPC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from orchestration.sim_cluster.story import describe_results
from raft_actor_node.channels import ERROR_DETAIL_KEY
from raft_actor_node.client_calls import call_of, refusal_of, result_of
from raft_actor_node.pb import kv_pb2


@dataclass(frozen=True)
class CallEnd:
    """The end of a unary call: a result or an ErrorDetail (both in `result`), or only a status."""

    operation_id: int
    result: kv_pb2.OperationResult | None
    status: str = "OK"
    message: str = ""

    def __str__(self) -> str:
        return f"#{self.operation_id} {self.status}" if self.result is None else describe_results([self.result])


class Aborted(Exception):
    """A handler ended its call with an error."""

    def __init__(self, status: str, message: str, detail: bytes | None) -> None:
        super().__init__(message)
        self.status, self.message, self.detail = status, message, detail


class CallContext:
    """The part of gRPC's ServicerContext that handlers of unary calls use."""

    def __init__(self) -> None:
        self.done: list[Callable[[CallContext], object]] = []

    def add_done_callback(self, callback: Callable[[CallContext], object]) -> None:
        """Call `callback` when the call has ended."""
        self.done.append(callback)

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with an error."""
        raise Aborted(code.name, details, dict(trailing_metadata).get(ERROR_DETAIL_KEY))


async def serve(service: Any, operation: kv_pb2.Operation, client_id: str) -> CallEnd:
    """Serve a unary call with the handlers of a KVService."""
    name, request = call_of(operation, client_id)
    context = CallContext()
    try:
        reply = await getattr(service, name)(request, context)
    except Aborted as error:
        return CallEnd(operation.id, refusal_of(operation.id, error.detail), error.status, error.message)
    finally:
        for callback in context.done:
            callback(context)
    return CallEnd(operation.id, result_of(operation.id, reply))
