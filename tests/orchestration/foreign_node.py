"""A foreign program that implements the contract of `cluster.command`: what a foreign system must offer.

There is no Raft: the node with the lowest id holds everything in memory and is the "leader"; the others refer to it.
It implements the whole contract: read `--config`, bind any port, serve KV and health, report the address on
$RAFT_REPORT_FD, read address books from standard input, exit at its end-of-file and on SIGTERM.

    python foreign_node.py [--misbehave die|silent|stumble] --config FILE
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from raft_actor_node.addresses import join_address
from raft_actor_node.pb import kv_pb2, kv_pb2_grpc


class Store(kv_pb2_grpc.KVServicer):
    """The key-value service, without memory of sessions."""

    def __init__(self, node_id: str, leader: str) -> None:
        self._node_id = node_id
        self._leader = leader
        self._values: dict[bytes, bytes] = {}
        self._sessions = 0

    async def Execute(  # noqa: N802 - gRPC's name
        self, batches: AsyncIterator[kv_pb2.OperationBatch], _: Any
    ) -> AsyncIterator[kv_pb2.ResultBatch]:
        async for batch in batches:
            yield kv_pb2.ResultBatch(results=[self._result(operation) for operation in batch.operations])

    def _result(self, operation: kv_pb2.Operation) -> kv_pb2.OperationResult:
        result = kv_pb2.OperationResult(id=operation.id)
        if self._node_id != self._leader:
            result.error, result.leader_hint = kv_pb2.NOT_LEADER, self._leader
        elif operation.kind == kv_pb2.OPEN_SESSION:
            self._sessions += 1
            result.number = self._sessions
        elif operation.kind == kv_pb2.PUT:
            self._values[operation.key] = operation.value
        elif operation.kind == kv_pb2.GET:
            result.found = operation.key in self._values
            if result.found:
                result.value = self._values[operation.key]
        else:
            result.error = kv_pb2.BAD_ARGUMENT
        return result


def obey_owner() -> None:
    """Print every address book; exit when the owner is gone."""
    for line in sys.stdin:
        print("addresses", json.dumps(json.loads(line)["addresses"]), flush=True)
    os._exit(0)


async def serve(config: dict[str, Any], exit_code: int) -> None:
    """Serve until SIGTERM; return the exit code."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    kv_pb2_grpc.add_KVServicer_to_server(Store(config["node_id"], min(config["members"])), server)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    port = server.add_insecure_port(join_address(config["bind_host"], 0))
    await server.start()
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    address = join_address(config["advertise_host"], port)
    report = {"node_id": config["node_id"], "address": address, "pid": os.getpid()}
    with os.fdopen(int(os.environ["RAFT_REPORT_FD"]), "w") as owner:
        owner.write(json.dumps(report) + "\n")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    threading.Thread(target=obey_owner, daemon=True).start()
    await stop.wait()
    await server.stop(0.1)
    print("stopped", flush=True)
    os._exit(exit_code)  # the control thread may still be reading


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--misbehave", choices=["die", "silent", "stumble"])
    arguments = parser.parse_args()
    config = json.loads(arguments.config.read_text())
    print(f"foreign node {config['node_id']}, bootstrap {config['bootstrap']}", flush=True)
    if arguments.misbehave == "die":
        print("the disk is on fire", flush=True)
        sys.exit(5)
    if arguments.misbehave == "silent":
        signal.pause()
    asyncio.run(serve(config, exit_code=7 if arguments.misbehave == "stumble" else 0))


if __name__ == "__main__":
    main()
