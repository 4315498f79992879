"""Every runtime parameter of a node and of its clients, typed and validated.

The sections are shared: a sweep specification uses the same models for its `raft`, `storage`,
`limits`, `transport` and `client` sections, so that there is one definition of each parameter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from raft_actor_node.addresses import checked_host
from raft_actor_node.core.quorum import largest_minority
from raft_actor_node.errors import ConfigError
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.units import WRITTEN, Duration, DurationOrOff, DurationRange, Range, Size

NODE_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
NodeId = Annotated[str, Field(pattern=f"^{NODE_ID_PATTERN}$")]
CallForm = Literal["stream", "unary"]
"""How clients call the KV service: batches of operations on a stream, or one unary call for each operation."""

MESSAGE_OVERHEAD_BYTES = 64 * 1024
"""Room that a gRPC message leaves for everything in it that is not key, value or entry payload."""
ANSWER_BYTES = 64
"""Bound of what an answer weighs beside its value."""
VALUE_COPIES = 3
"""How often an answer lies in memory on its way to a client: as a result, in a message, and encoded."""
OPERATION_BYTES = 64 + VALUE_COPIES * ANSWER_BYTES
"""What an operation that waits takes of `limits.pending_bytes` beside its key and values, its answer included."""

CLIENT_ID_BYTES = 256
"""Longest name of a client."""


def _off(value: Any) -> Any:
    """A plain `off` is false to a reader of YAML 1.1."""
    return "off" if value is False else value


class Section(BaseModel):
    """Base of all configuration models: unknown keys are errors, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RaftSettings(Section):
    """Parameters of the Raft protocol (paper, sections 5 and 9.3; dissertation, chapter 9)."""

    election_timeout: DurationRange = Range(0.150, 0.300)
    """A follower that hears nothing for a time drawn uniformly from this range starts an election."""
    heartbeat_interval: Duration = 0.050
    """Time between two heartbeats of an idle leader."""
    rpc_timeout: Duration = 0.100
    """A request between peers that is not answered for this long is sent again. For entries that take longer to cross
    the link, the time counts from the last part that the peer has acknowledged."""
    pre_vote: bool = True
    """Ask whether an election could be won before raising the term (dissertation, section 9.6)."""
    check_quorum: bool = True
    """A leader that hears from no quorum for an election timeout steps down, and voters that hear from a
    leader ignore candidates (dissertation, sections 6.2 and 4.2.3)."""
    max_batch_entries: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Most entries in one AppendEntries request."""
    max_batch_bytes: Size = 1024 * 1024
    """Most payload bytes in one AppendEntries request; a single larger entry travels alone."""
    max_inflight: Annotated[int, Field(ge=1, le=4096)] = 64
    """Most AppendEntries requests with entries that may be unanswered per follower."""
    max_inflight_bytes: Size = 8 * 1024 * 1024
    """Most payload bytes in such requests; one request is always allowed."""
    max_persist_bytes: Size = 4 * 1024 * 1024
    """Most payload bytes that are made durable by one fsync, as one unit of the log; a single larger entry is written
    alone."""
    yield_after: DurationOrOff = None
    """A leader whose own write to disk takes longer than this steps down, and stands for election again only when its
    disk has answered. `off`: a leader whose disk hangs leads on, and commits what its followers hold durably."""


class StorageSettings(Section):
    """Where and how a node keeps its log."""

    dir: str = "auto"
    """Directory below which each node's write-ahead log lives, on the node's own host; `auto` is a
    persistent temporary folder."""
    fsync: Annotated[Literal["always", "off"], BeforeValidator(_off)] = "always"
    """`off` breaks the promise of durability under power loss; it exists as a control."""
    unsynced: Literal["kept", "lost"] = "kept"
    """What becomes of bytes that were not synced when the node is killed: `kept` by the kernel, as usual, or `lost`,
    which makes of SIGKILL a power failure."""
    fsync_latency: Duration = 0.0
    """Time that each fsync of the log, the term and the vote takes before it does anything: a slow device. What a
    power failure meets in this time is not durable."""
    allow_memory_fs: bool = False
    """Accept a directory on a memory file system, where fsync costs nothing and proves nothing."""


Host = Annotated[str, AfterValidator(checked_host)]
"""Name or IP address of a host, without a port; IPv6 with or without brackets."""


class LimitSettings(Section):
    """Bounds on what a client may ask."""

    key_bytes: Annotated[Size, Field(ge=1)] = 1024
    """Longest key."""
    value_bytes: Annotated[Size, Field(ge=1)] = 1024 * 1024
    """Longest value. For an append the limit of the leader that logs it counts, on all nodes."""
    pending_operations: Annotated[int, Field(ge=1)] = 65536
    """Operations that may wait on one node; more are refused as OVERLOADED."""
    pending_bytes: Size = 64 * 1024 * 1024
    """Bytes that operations may take on one node: keys and values of those that wait, the longest answers that writes
    and unary gets may get, and answers that clients have not read. Operations may take three quarters of it; more is
    refused as OVERLOADED. One stream or call takes at most as much as it leaves for others."""
    session_bytes: Size = 32 * 1024 * 1024
    """Bytes of the values that the session table keeps: the retry of a compare-and-swap that failed gets the value that
    it saw. A compare-and-swap that might add to more is refused as OVERLOADED."""
    unsynced_bytes: Size = 64 * 1024 * 1024
    """Bytes of entries that may be in the log of a node and not yet on its disk. A leader refuses writes beyond it as
    OVERLOADED, before it appends them; a follower takes no more entries until its disk has caught up. A single larger
    batch is taken alone."""
    turn_answer_bytes: Annotated[Size, Field(ge=1024)] = 1024 * 1024
    """Bytes of answers to gets that are made in one turn of the event loop, and that wait for the client of one stream;
    a single longer answer is made alone."""
    turn_apply_bytes: Annotated[Size, Field(ge=1024)] = 2 * 1024 * 1024
    """Bytes that are touched while entries are applied in one turn of the event loop: payloads, values that appends
    and compare-and-swaps read and make; a single entry that needs more is applied alone."""


class TransportSettings(Section):
    """gRPC channels between nodes, and from clients to nodes."""

    message_bytes: Annotated[Size, Field(ge=64 * 1024)] = 8 * 1024 * 1024
    """Largest gRPC message."""
    connect_timeout: Duration = 1.0
    """An attempt to connect that takes longer is given up."""
    reconnect_backoff: DurationRange = Range(0.1, 0.5)
    """Pause before connecting again: the first, and the longest."""
    silence_timeout: Annotated[Duration, Field(ge=0.1)] = 1.0
    """A connection is given up, and opened anew, when its other end acknowledges nothing for this long though something
    was sent (TCP_USER_TIMEOUT, on Linux). TCP alone tries again after pauses that double, so that a peer would stay
    away about as long again as its network was down. It is the host or the network that is silent then: for a process
    that is paused its kernel acknowledges, until its buffers are full, and what link faults drop has arrived."""
    queue_bytes: Annotated[Size, Field(ge=64 * 1024)] = 32 * 1024 * 1024
    """Bytes that may wait to be sent to one peer; what exceeds them is lost, as on any network. A newer request takes
    the place of those that it makes useless."""
    probe_timeout: Annotated[Duration, Field(gt=0)] = 2.0
    """Deadline of health, inspection and chaos calls."""


class ClientSettings(Section):
    """How a client waits and retries."""

    rpc_timeout: Annotated[Duration, Field(gt=0)] = 1.0
    """Deadline of one attempt."""
    retry_budget: Duration = 10.0
    """An operation is tried again, with the same session and sequence, until this much time has
    passed since it began; 0s means one attempt."""
    retry_backoff: DurationRange = Range(0.005, 0.100)
    """Pause between attempts: the first and the longest; doubled each time, with jitter."""
    dedupe: Literal["on", "off"] = "on"
    """`off` gives each attempt a sequence of its own, so that a retry may take effect a second time; it exists as a
    control."""


class NodeConfig(Section):
    """Everything one node process needs to know."""

    cluster_id: Annotated[str, Field(min_length=1, max_length=200)]
    """Name of the cluster; messages and directories of another one are refused."""
    node_id: NodeId
    """Name of this node; one of `members`."""
    members: Annotated[list[NodeId], Field(min_length=1, max_length=99)]
    """All nodes of the cluster, this one included. Membership is static."""
    bind_host: Host = "127.0.0.1"
    """Interface to listen on. The port is always chosen by the system."""
    advertise_host: Host | None = None
    """Address under which others reach this node; default: bind_host."""
    bootstrap: bool = False
    """Accept an empty directory. Given once in the life of a node: a member whose directory vanished
    must not come back empty, because it would forget its vote."""
    seed: int | None = None
    """Seed of the randomised timeouts; default: from the system."""
    raft: RaftSettings = RaftSettings()
    storage: StorageSettings = StorageSettings()
    limits: LimitSettings = LimitSettings()
    transport: TransportSettings = TransportSettings()
    chaos_enabled: bool = False
    """Serve the Chaos RPCs."""
    links: list[LinkRule] = []
    """Link faults in force from the first moment."""
    node_faults: NodeFaults = NodeFaults()
    """Faults inside this node, in force from when its log is recovered; need chaos_enabled."""
    trace_file: str | None = None
    """Write trace events here, one JSON object per line, each before the messages it led to leave."""
    log_file: str | None = None
    """Write the process's log here; default: stderr."""
    allow_bad_parameters: bool = False
    """Accept what breaks a rule of `static_faults`."""

    @model_validator(mode="after")
    def _consistent(self) -> NodeConfig:
        if self.node_id not in self.members:
            raise ValueError(f"node_id: {self.node_id!r} is not in members {self.members}")
        if len(set(self.members)) != len(self.members):
            raise ValueError("members: the same node twice")
        if self.node_faults != NodeFaults() and not self.chaos_enabled:
            raise ValueError("node_faults: need chaos_enabled: true")
        if not self.allow_bad_parameters:
            for fault in static_faults(self.raft, self.limits, self.transport):
                raise ValueError(fault)
        return self

    @property
    def advertised_host(self) -> str:
        """The host part of the address others use."""
        return self.advertise_host or self.bind_host


def static_faults(raft: RaftSettings, limits: LimitSettings, transport: TransportSettings) -> list[str]:
    """The rules that these settings break, one line each, beginning with the field; empty when sound.

    They are what no measurement is needed for (paper, section 5.6: broadcast time << election timeout).
    """
    faults = []
    low, high = raft.election_timeout
    if high < raft.heartbeat_interval:
        faults.append("raft.election_timeout: the longest must be at least heartbeat_interval, or leaders cannot last")
    elif low < 2 * raft.heartbeat_interval:
        faults.append("raft.election_timeout: the shortest must be at least twice heartbeat_interval")
    if raft.heartbeat_interval <= 0:
        faults.append("raft.heartbeat_interval: must be above 0s")
    if raft.rpc_timeout <= 0:
        faults.append("raft.rpc_timeout: must be above 0s")
    if raft.yield_after is not None and raft.yield_after < low:
        faults.append("raft.yield_after: off, or at least the shortest election_timeout: an election takes as long")
    room = transport.message_bytes - MESSAGE_OVERHEAD_BYTES
    if raft.max_batch_bytes > room:
        faults.append(
            f"raft.max_batch_bytes: at most transport.message_bytes less {MESSAGE_OVERHEAD_BYTES} B, that is {room} B"
        )
    if limits.key_bytes + 2 * limits.value_bytes > room:
        # Twice: a compare-and-swap carries the expected value and the new one.
        faults.append(
            "limits.value_bytes: a compare-and-swap of the largest key and two of the largest values must fit into "
            f"transport.message_bytes less {MESSAGE_OVERHEAD_BYTES} B, that is {room} B"
        )
    need = least_pending_bytes(limits)
    if limits.pending_bytes < need:
        faults.append(
            "limits.pending_bytes: too small for a compare-and-swap of the largest key and values and for its answer; "
            f"at least {need} B, or a smaller limits.value_bytes"
        )
    window = raft.max_inflight_bytes + raft.max_batch_bytes
    if limits.unsynced_bytes < window:
        faults.append(
            "limits.unsynced_bytes: at least raft.max_inflight_bytes and raft.max_batch_bytes together, that is "
            f"{window} B: a leader may send that much before a follower's disk has any of it"
        )
    return faults


def least_pending_bytes(limits: LimitSettings) -> int:
    """The least `limits.pending_bytes` with which every legal operation can be taken in and answered."""
    # Two values and the answer, the former twice in a unary call, whose request also has a name.
    operation = 2 * OPERATION_BYTES + CLIENT_ID_BYTES + 2 * limits.key_bytes + (4 + VALUE_COPIES) * limits.value_bytes
    # One caller may hold half: of three quarters for operations, of a quarter at least for answers (runtime/budget.py).
    return max(operation * 8 // 3 + 8, 8 * VALUE_COPIES * (ANSWER_BYTES + limits.value_bytes))


def unwise(config: NodeConfig) -> list[str]:
    """Warnings, one line each: settings that are legal and that one rarely wants."""
    warnings = []
    low, high = config.raft.election_timeout
    if len(config.members) % 2 == 0:
        n = len(config.members)
        warnings.append(f"members: {n} nodes tolerate {largest_minority(n)} failures, no more than {n - 1} nodes do")
    if round(high - low, 9) <= 0.005:
        warnings.append("raft.election_timeout: a range of 5ms or less leads to split votes")
    if config.raft.rpc_timeout >= low:
        warnings.append("raft.rpc_timeout: at or above the shortest election timeout: what is lost is sent again late")
    if config.advertised_host in ("0.0.0.0", "::"):  # noqa: S104 - that is what it warns of
        warnings.append(f"advertise_host: {config.advertised_host} is every interface, and no address on another host")
    if config.storage.fsync == "off":
        warnings.append("storage.fsync: off loses acknowledged writes when the power fails")
    return warnings


def describe(error: ValidationError, source: str = "") -> str:
    """One line for a validation error: where, what, what is allowed."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in ("value_error", "missing") else f", not {first['input']!r}"
    return ": ".join(part for part in (source, where, message) if part) + given


def load_node_config(path: str | Path) -> NodeConfig:
    """Read a node's configuration, JSON or YAML. Raises ConfigError with one line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    data: Any
    try:
        data = json.loads(text)
    except ValueError:
        # The orchestrator writes JSON; a person writes YAML, and only then is its parser worth loading.
        import yaml  # noqa: PLC0415

        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping of parameters")
    try:
        return NodeConfig.model_validate(data, context=WRITTEN)
    except ValidationError as error:
        raise ConfigError(describe(error, str(path))) from None
