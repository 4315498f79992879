"""The reference of the benchmark: a server of the KV stream without Raft, in a separate process.

It answers every operation at once, with the same messages as a node. Its throughput is the limit that gRPC, the client
and the machine allow. The throughput of a cluster is measured as a share of this limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import uvloop

from raft_actor_node.channels import server_options
from raft_actor_node.config import TransportSettings
from raft_actor_node.pb import kv_pb2, kv_pb2_grpc


class Echo(kv_pb2_grpc.KVServicer):
    """A KV service that answers each operation without performing it."""

    async def Execute(self, request_iterator: AsyncIterator[kv_pb2.OperationBatch], context: Any) -> None:  # noqa: N802
        value = bytes(64)
        async for batch in request_iterator:
            results = [
                kv_pb2.OperationResult(id=o.id, found=True, value=value if o.kind == kv_pb2.GET else None, number=o.id)
                for o in batch.operations
            ]
            await context.write(kv_pb2.ResultBatch(results=results))


async def main() -> None:
    """Serve until stdin ends."""
    server = grpc.aio.server(options=server_options(TransportSettings()))
    kv_pb2_grpc.add_KVServicer_to_server(Echo(), server)
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    gc.freeze()
    with contextlib.suppress(EOFError):
        await asyncio.to_thread(input)
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(main())
