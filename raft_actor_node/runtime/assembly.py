"""Assembly of a node from its parts; the caller supplies clock, transport and disk.

A process (process.py) supplies the host's clock, the host's disk and gRPC. A simulator supplies simulated ones. Tests
replace a part by a broken part and check that the failure is detected.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Generic, TypeVar

from raft_actor_node.config import NodeConfig
from raft_actor_node.core import HardState, Log, Message, RaftNode, RaftParameters, Receive
from raft_actor_node.errors import DataCorrupt, DiskError, InvariantViolated, RaftLabError
from raft_actor_node.kv.store import Store
from raft_actor_node.runtime.clock import Clock
from raft_actor_node.runtime.disk import REAL_DISK, Disk
from raft_actor_node.runtime.disk_faults import DiskFaults
from raft_actor_node.runtime.driver import Driver, Watch
from raft_actor_node.runtime.faults import LinkFaults
from raft_actor_node.runtime.gate import Gate
from raft_actor_node.runtime.mail import Mail
from raft_actor_node.runtime.samples import Samples
from raft_actor_node.runtime.services import InspectionService, KVService
from raft_actor_node.runtime.tracer import Tracer
from raft_actor_node.runtime.wal import Wal
from raft_actor_node.runtime.writer import ThreadWriter, WriterFactory

MailT = TypeVar("MailT", bound=Mail)


@dataclass(frozen=True)
class Parts:
    """Parts of a node: classes, or functions that return such objects."""

    node: Callable[..., RaftNode] = RaftNode
    store: Callable[..., Store] = Store
    wal: type[Wal] = Wal
    driver: Callable[..., Driver] = Driver
    gate: Callable[..., Gate] = Gate


STANDARD = Parts()


class Node(Generic[MailT]):
    """The assembled parts of one incarnation of a node."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        clock: Clock,
        tracer: Callable[[], Tracer],
        mail: Callable[[LinkFaults, Callable[[Message], None]], MailT],
        fail: Callable[[BaseException], None],
        disk: Disk = REAL_DISK,
        disk_faults: DiskFaults | None = None,
        writer: WriterFactory = ThreadWriter,
        watch: Watch | None = None,
        parts: Parts = STANDARD,
    ) -> None:
        """Recover what the disk holds. `fail` is called once if the node cannot continue.

        `disk_faults` holds the faults of `disk`, if that disk supports any. The faults take effect only after the
        recovery of the log. `tracer` is called after this node has locked its directory, so a refused node leaves no
        trace file.

        Raises ConfigError, DirectoryLocked, DataCorrupt or DiskError.
        """
        self._config = config
        self.wal, recovered = parts.wal.open(
            Path(config.storage.dir) / config.node_id,
            cluster_id=config.cluster_id,
            node_id=config.node_id,
            members=config.members,
            bootstrap=config.bootstrap,
            fsync=config.storage.fsync == "always",
            allow_memory_fs=config.storage.allow_memory_fs,
            disk=disk,
        )
        self.warnings = recovered.warnings
        """Repairs of the log during recovery, one line each."""
        self.disk_faults = disk_faults or DiskFaults()
        try:
            self.tracer = tracer()
        except BaseException:
            self.wal.close()
            raise
        # Not before: closing the log after a failure must not wait on a stalled disk, which nothing could heal yet.
        self.disk_faults.replace(config.node_faults.disk)
        self.loop_lag = Samples(clock.now_ns)
        self.faults = LinkFaults(config.node_id, config.members, config.links, _stream(config, "links"), clock.now)
        self.mail = mail(self.faults, lambda message: self.driver.deliver(Receive(message)))
        core = parts.node(
            config.node_id,
            config.members,
            _parameters(config),
            rng=_stream(config, "elections"),
            now=clock.now(),
            hard_state=HardState(recovered.current_term, recovered.voted_for),
            log=Log(recovered.terms, recovered.payloads),
            commit_index=recovered.commit_index,
        )
        self.driver = parts.driver(
            core,
            self.wal,
            parts.store(value_bytes=config.limits.value_bytes),
            self.tracer,
            send=self.mail.send,
            fail=fail,
            clock=clock,
            writer=writer,
            watch=watch,
            apply_bytes=config.limits.turn_apply_bytes,
        )
        self.gate = parts.gate(config, self.driver)
        self.kv = KVService(config, self.gate, self.faults, clock)
        self.inspection = InspectionService(
            config, self.driver, self.gate, self.mail, self.faults, self.disk_faults, self.tracer, self.loop_lag, clock
        )

    def start(self) -> None:
        """Rebuild the state from the log. Raises DataCorrupt."""
        try:
            self.driver.start()
        except ValueError as error:  # the checksums are valid, but an entry is not a command
            raise DataCorrupt(f"{self._config.storage.dir}: {error}") from None

    def take_part(self) -> None:
        """Begin to act on messages and time, now that peers can reach this node."""
        self.driver.take_part()


def exit_code(error: BaseException) -> int:
    """Return the exit code of a process that this error ends."""
    usual = DiskError if isinstance(error, OSError) else InvariantViolated
    return error.exit_code if isinstance(error, RaftLabError) else usual.exit_code


def _stream(config: NodeConfig, purpose: str) -> random.Random:
    """Return a random generator for one purpose, independent of the draws for other purposes."""
    return random.Random(None if config.seed is None else f"{config.seed}/{purpose}")


def _parameters(config: NodeConfig) -> RaftParameters:
    raft = config.raft
    return RaftParameters(
        election_timeout_min=raft.election_timeout.min_s,
        election_timeout_max=raft.election_timeout.max_s,
        heartbeat_interval=raft.heartbeat_interval,
        rpc_timeout=raft.rpc_timeout,
        pre_vote=raft.pre_vote,
        check_quorum=raft.check_quorum,
        max_batch_entries=raft.max_batch_entries,
        max_batch_bytes=raft.max_batch_bytes,
        max_inflight=raft.max_inflight,
        max_inflight_bytes=raft.max_inflight_bytes,
        max_persist_bytes=raft.max_persist_bytes,
        unsynced_bytes=config.limits.unsynced_bytes,
        yield_after=inf if raft.yield_after is None else raft.yield_after,
    )
