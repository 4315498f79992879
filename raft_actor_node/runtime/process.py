"""A node process from start to end (recover, serve, stop), and its communication with its owner.

The owner (an orchestrator, see `Owner`) holds the other end of stdin and writes the address book there as JSON lines.
When the owner ends, stdin ends, and so does the node. Without an owner, nodes of one host find each other through a
directory (`AddressDirectory`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from raft_actor_node.addresses import checked_address, join_address
from raft_actor_node.channels import server_options
from raft_actor_node.config import NodeConfig, unwise
from raft_actor_node.errors import BindError, RaftLabError
from raft_actor_node.origin import origin
from raft_actor_node.pb import (
    chaos_pb2,
    chaos_pb2_grpc,
    inspection_pb2,
    inspection_pb2_grpc,
    kv_pb2,
    raft_pb2,
)
from raft_actor_node.runtime.assembly import Node, exit_code
from raft_actor_node.runtime.clock import RealClock
from raft_actor_node.runtime.disk import Disk
from raft_actor_node.runtime.disk_faults import DiskFaults
from raft_actor_node.runtime.faulty_disk import FaultyDisk
from raft_actor_node.runtime.samples import measure_loop_lag
from raft_actor_node.runtime.services import ChaosService
from raft_actor_node.runtime.tracer import Tracer
from raft_actor_node.runtime.transport import Transport
from raft_actor_node.runtime.volatile_disk import VolatileDisk
from raft_actor_node.runtime.writer import ThreadWriter
from raft_actor_node.signals import ending_signals

logger = logging.getLogger(__name__)

REPORT_FD_VARIABLE = "RAFT_REPORT_FD"
"""Environment variable with the number of the descriptor on which to report the address."""
STOP_GRACE_S = 1.0
"""Maximum seconds that a stopping node waits until its appended entries are committed."""
SWITCH_INTERVAL_S = 0.0005
"""Python's thread switch interval. With the default, the writer thread may wait 5 ms for the interpreter after an
fsync."""

Addresses = Mapping[str, tuple[str, int]]
"""Node id -> (host:port, epoch). A higher epoch marks a newer address of a node."""


async def run_node(config: NodeConfig, address_directory: Path | None) -> int:
    """Run a node until a signal stops it or it cannot continue. Return its exit code.

    Raises ConfigError, DirectoryLocked, DataCorrupt, DiskError or BindError if it cannot start.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    for warning in unwise(config):
        logger.warning("%s", warning)
    node = _Node(config)
    try:
        port = await node.serve()
        address = join_address(config.advertised_host, port)
        if address_directory is None:
            book: Owner | AddressDirectory = Owner(node.transport.update_addresses)
        else:
            book = AddressDirectory(address_directory, config, node.transport.update_addresses)
        # Objects of the start-up are not garbage: exclude them from every later collection.
        gc.collect()
        gc.freeze()
        book.announce(config.node_id, address)
        node.take_part()
        await node.stopped
    finally:
        await node.close()
    return node.exit_code


class _Node:
    """A node with its gRPC server, started and stopped in the right order."""

    def __init__(self, config: NodeConfig) -> None:
        loop = asyncio.get_running_loop()
        self._config = config
        self.stopped: asyncio.Future[None] = loop.create_future()
        """Resolved when a signal or a failure ends the node."""
        self.exit_code = 0
        clock, disk_faults = RealClock(), DiskFaults()
        disk = (VolatileDisk if config.storage.unsynced == "lost" else Disk)(
            fsync_latency_s=config.storage.fsync_latency
        )
        self._node = Node(
            config,
            clock=clock,
            tracer=lambda: Tracer(config.node_id, config.trace_file),
            mail=lambda faults, deliver: Transport(config, faults, deliver, clock),
            fail=self._fail,
            disk=FaultyDisk(disk, disk_faults) if config.chaos_enabled else disk,
            disk_faults=disk_faults,
            writer=partial(ThreadWriter, closing=disk_faults.end),
        )
        for warning in self._node.warnings:
            logger.warning("%s", warning)
        self.transport = self._node.mail
        self._lag_task = loop.create_task(measure_loop_lag(self._node.loop_lag))
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(options=server_options(config.transport))

    async def serve(self) -> int:
        """Rebuild the state, open a port and return it."""
        config, server, node = self._config, self._server, self._node
        node.start()
        logger.info("%s: recovered %d entries", config.node_id, node.driver.node.log.last_index)
        self.transport.register(server)
        node.kv.register(server)
        inspection_pb2_grpc.add_InspectionServicer_to_server(node.inspection, server)
        services = [raft_pb2.DESCRIPTOR, kv_pb2.DESCRIPTOR, inspection_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR]
        if config.chaos_enabled:
            chaos_pb2_grpc.add_ChaosServicer_to_server(ChaosService(node.faults, node.disk_faults), server)
            services.append(chaos_pb2.DESCRIPTOR)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.full_name for file in services for service in file.services_by_name.values()]
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
        try:
            port = server.add_insecure_port(join_address(config.bind_host, 0))
        except RuntimeError as error:
            raise BindError(f"bind_host: no port could be bound on {config.bind_host}: {error}") from None
        for number in ending_signals():
            asyncio.get_running_loop().add_signal_handler(number, self._finish)
        await server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        return port

    def take_part(self) -> None:
        """Begin to act, now that the address is announced."""
        self._node.take_part()

    async def close(self) -> None:
        """Refuse new operations, answer what can be answered, flush the log and release all resources."""
        node = self._node
        node.gate.closed = True
        failed = self.exit_code != 0
        await self._health.enter_graceful_shutdown()
        await node.driver.stop(0.0 if failed else STOP_GRACE_S)
        await self._server.stop(0.0 if failed else 0.1)
        await self.transport.close()
        self._lag_task.cancel()
        node.tracer.close()

    def _finish(self) -> None:
        if not self.stopped.done():
            self.stopped.set_result(None)

    def _fail(self, error: BaseException) -> None:
        """End the node at once with the exit code of this error."""
        logger.critical("%s: %s: %s", self._config.node_id, type(error).__name__, error)
        self.exit_code = self.exit_code or exit_code(error)
        self._finish()


class Owner:
    """The process that started this one and holds the other end of stdin.

    This process reports its address once, as a JSON line on the descriptor that RAFT_REPORT_FD names, by default on
    stdout. The owner sends lines {"addresses": {node id: {"address": "host:port", "epoch": n}}}. End of file means that
    the owner has ended. A thread then ends this process at once: not even a stuck event loop outlives its owner.
    """

    def __init__(self, on_addresses: Callable[[Addresses], None]) -> None:
        self._on_addresses = on_addresses
        self._loop = asyncio.get_running_loop()

    def announce(self, node_id: str, address: str) -> None:
        """Report the address, then listen to the owner. Raises RaftLabError if stdout cannot be written."""
        report = {"node_id": node_id, "address": address, "pid": os.getpid(), "code": origin("raft_actor_node")}
        descriptor = os.environ.get(REPORT_FD_VARIABLE)
        if descriptor is None:
            _print(report)
        else:
            os.write(int(descriptor), (json.dumps(report) + "\n").encode())
            os.close(int(descriptor))
        threading.Thread(target=self._listen, name="owner", daemon=True).start()

    def _listen(self) -> None:
        for line in _lines(sys.stdin.fileno()):
            try:
                entries = json.loads(line)["addresses"]
                addresses = {i: (checked_address(e["address"]), int(e["epoch"])) for i, e in entries.items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                logger.warning("owner: ignored a line that is not an address book (%s): %r", error, line[:200])
                continue
            self._loop.call_soon_threadsafe(self._on_addresses, addresses)
        logger.info("owner: gone")
        logging.shutdown()
        os._exit(0)


def _print(report: Mapping[str, Any]) -> None:
    """Print a report on stdout, through its descriptor: sys.stdout would retry a failed write at exit."""
    try:
        os.write(sys.stdout.fileno(), (json.dumps(report) + "\n").encode())
    except OSError as error:
        raise RaftLabError(f"stdout: the address {report['address']} cannot be written: {error.strerror}") from None


def _lines(descriptor: int) -> Iterator[bytes]:
    """Yield the lines of a pipe. This thread would hold the lock of sys.stdin when the interpreter ends."""
    rest = b""
    while chunk := os.read(descriptor, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


class AddressDirectory:
    """Address book for manual runs without an owner: nodes of one host find each other by files in a directory.

    The name of a node's file is its id. It contains one line {"address": "host:port", "epoch": n}, with n one higher
    than in the file it replaces. A node does not use the epochs in its peers' files. Instead it counts the changes that
    it has seen in each file. So the directory may be wiped at any time: its present content always counts as newer.

    A running node rewrites its own file with the same line if the file is missing. Peers that have the address see no
    change, and peers that start later find it. While it runs, a node never replaces an existing file, which may belong
    to a later incarnation.
    """

    INTERVAL_S = 0.2

    def __init__(self, directory: Path, config: NodeConfig, on_addresses: Callable[[Addresses], None]) -> None:
        self._directory = directory
        self._own = directory / config.node_id
        self._line = ""
        """Content of this node's file, as announced."""
        self._warned = False
        """Whether a warning was logged that this node's file is missing and cannot be written."""
        self._peers = [member for member in config.members if member != config.node_id]
        self._on_addresses = on_addresses
        self._seen: dict[str, tuple[str, int]] = {}
        """Last address and epoch in the file of each peer."""
        self._changes: dict[str, int] = {}
        """Number of changes of that file seen so far, by peer."""

    def announce(self, node_id: str, address: str) -> None:
        """Write this node's file, then watch the files of peers. Raises RaftLabError if the file cannot be written."""
        # The epoch is a counter and not a time: the wall clock may go back between two incarnations.
        _, epoch = self._read(node_id) or ("", 0)
        self._line = json.dumps({"address": address, "epoch": epoch + 1}) + "\n"
        temporary = self._own.with_suffix(f".{os.getpid()}")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self._line)
            temporary.replace(self._own)
        except OSError as error:
            raise RaftLabError(f"--address-book: {self._own} cannot be written: {error.strerror}") from None
        _print({"node_id": node_id, "address": address, "pid": os.getpid()})
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            self._on_addresses(dict(self._look()))
            self._restore()
            await asyncio.sleep(self.INTERVAL_S)

    def _restore(self) -> None:
        """Rewrite this node's file if it is missing. A failure is logged once and retried at each interval."""
        try:
            if self._own.exists():
                return
            self._directory.mkdir(parents=True, exist_ok=True)
            self._create()
        except OSError as error:
            if not self._warned:
                logger.warning(
                    "--address-book: %s is missing and cannot be written: %s; this node continues, but peers that start"
                    " now cannot find it: make the directory writable",
                    *(self._own, error.strerror),
                )
            self._warned = True

    def _create(self) -> None:
        """Write this node's file unless it exists. If that raises OSError, no partial file is left."""
        try:
            file = self._own.open("x")
        except FileExistsError:
            return  # a later incarnation has written its own file meanwhile
        with file:
            try:
                file.write(self._line)
                file.flush()
            except OSError:
                self._own.unlink(missing_ok=True)
                raise
        logger.warning("--address-book: %s was missing; this node has rewritten it", self._own)
        self._warned = False

    def _look(self) -> Iterator[tuple[str, tuple[str, int]]]:
        """Yield (peer, (address, epoch)) for each peer that has a file."""
        for peer in self._peers:
            entry = self._read(peer)
            if entry is None:
                continue
            if entry != self._seen.get(peer):
                self._seen[peer] = entry
                self._changes[peer] = self._changes.get(peer, 0) + 1
            yield peer, (entry[0], self._changes[peer])

    def _read(self, node_id: str) -> tuple[str, int] | None:
        """Return the address and epoch in a node's file; None if it is missing or invalid."""
        try:
            entry = json.loads((self._directory / node_id).read_bytes())
            return checked_address(entry["address"]), int(entry["epoch"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
