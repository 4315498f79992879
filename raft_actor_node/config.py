"""Every runtime parameter of a node and of its clients, typed and validated.

A sweep specification uses the same models for its `raft`, `storage`, `limits`, `transport` and `client` sections, so
each parameter has a single definition.
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
"""How clients call the KV service: batches of operations on a stream, or a unary call per operation."""

MESSAGE_OVERHEAD_BYTES = 64 * 1024
"""Room reserved in a gRPC message for everything except keys, values and entry payloads."""
ANSWER_BYTES = 64
"""Upper bound on the size of an answer without its value."""
VALUE_COPIES = 3
"""Copies of an answer in memory on its way to a client: the result, the message and its encoding."""
OPERATION_BYTES = 64 + VALUE_COPIES * ANSWER_BYTES
"""Bytes that a waiting operation takes of `limits.pending_bytes` with its answer, but without its key and values."""

CLIENT_ID_BYTES = 256
"""Longest client name, in bytes."""


def _off(value: Any) -> Any:
    """Undo YAML 1.1, which reads a plain `off` as false."""
    return "off" if value is False else value


class Section(BaseModel):
    """Base of all configuration models: unknown keys are errors, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RaftSettings(Section):
    """Parameters of the Raft protocol (paper, sections 5 and 9.3; dissertation, chapter 9)."""

    election_timeout: DurationRange = Range(0.150, 0.300)
    """A follower that hears no leader for a time drawn uniformly from this range starts an election."""
    heartbeat_interval: Duration = 0.050
    """Time between two heartbeats of an idle leader."""
    rpc_timeout: Duration = 0.100
    """Time after which a node repeats an unanswered vote request, or asks a follower whether unanswered entries
    arrived. For entries that take longer to cross the link, the time counts from the last part that the peer
    acknowledged."""
    pre_vote: bool = True
    """Before raising its term, a node asks its peers whether it could win an election (dissertation, section 9.6)."""
    check_quorum: bool = True
    """A leader that hears from no quorum for the longest election timeout steps down. Voters that hear from a leader
    ignore candidates (dissertation, sections 6.2 and 4.2.3)."""
    max_batch_entries: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Maximum number of entries in one AppendEntries request."""
    max_batch_bytes: Size = 1024 * 1024
    """Maximum payload bytes in one AppendEntries request; a single larger entry travels alone."""
    max_inflight: Annotated[int, Field(ge=1, le=4096)] = 64
    """Maximum number of unanswered AppendEntries requests with entries, per follower."""
    max_inflight_bytes: Size = 8 * 1024 * 1024
    """A leader sends a follower no more entries while its unanswered requests with entries hold this many bytes. The
    last request may exceed the limit."""
    max_persist_bytes: Size = 4 * 1024 * 1024
    """Maximum payload bytes that one fsync makes durable, as one unit of the log; a single larger entry is written
    alone."""
    yield_after: DurationOrOff = None
    """A leader whose own disk write takes longer than this steps down. It stands for election again only after its
    disk has answered. `off`: a leader whose disk hangs keeps leading, and commits what its followers hold durably."""


class StorageSettings(Section):
    """Where and how a node keeps its log."""

    dir: str = "auto"
    """Parent directory of each node's write-ahead log, on the node's host; `auto` is a persistent temporary folder."""
    fsync: Annotated[Literal["always", "off"], BeforeValidator(_off)] = "always"
    """`off` gives up durability under power loss; it exists as a control."""
    unsynced: Literal["kept", "lost"] = "kept"
    """What happens to unsynced bytes when the node is killed. `kept`: the kernel keeps them, as usual. `lost`: they are
    discarded, which turns SIGKILL into a power failure."""
    fsync_latency: Duration = 0.0
    """Delay before each fsync of the log, the term and the vote takes effect, to simulate a slow device. Bytes are not
    durable if a power failure happens during the delay."""
    allow_memory_fs: bool = False
    """Accept a directory on a memory file system, where fsync costs nothing and makes nothing durable."""


Host = Annotated[str, AfterValidator(checked_host)]
"""Name or IP address of a host, without a port; IPv6 with or without brackets."""


class LimitSettings(Section):
    """Bounds on the requests of clients and on the memory they take."""

    key_bytes: Annotated[Size, Field(ge=1)] = 1024
    """Maximum length of a key."""
    value_bytes: Annotated[Size, Field(ge=1)] = 1024 * 1024
    """Maximum length of a value. For an append, all nodes apply the limit of the leader that logged it."""
    pending_operations: Annotated[int, Field(ge=1)] = 65536
    """Maximum number of operations that wait on one node; more are refused as OVERLOADED."""
    pending_bytes: Size = 64 * 1024 * 1024
    """Maximum bytes that operations take on one node: keys and values of waiting operations, the longest possible
    answers to writes and unary gets, and answers that clients have not read. Operations may take three quarters of it;
    more are refused as OVERLOADED. One stream or call may take at most as many bytes as then stay free for others."""
    session_bytes: Size = 32 * 1024 * 1024
    """Maximum bytes of values in the session table, which keeps the value that a failed compare-and-swap saw, for its
    retry. A compare-and-swap that might exceed this limit is refused as OVERLOADED."""
    unsynced_bytes: Size = 64 * 1024 * 1024
    """Maximum bytes of entries in a node's log that are not yet on its disk. Beyond it, a leader refuses writes as
    OVERLOADED before it appends them, and a follower accepts no entries until its disk has caught up. A single larger
    batch is accepted alone."""
    turn_answer_bytes: Annotated[Size, Field(ge=1024)] = 1024 * 1024
    """Maximum bytes of get answers that a node makes in one turn of the event loop, and of get answers that wait for
    the client of one stream; a single longer answer is made alone."""
    turn_apply_bytes: Annotated[Size, Field(ge=1024)] = 2 * 1024 * 1024
    """Maximum bytes touched while applying entries in one turn of the event loop: payloads, and the values that appends
    and compare-and-swaps read and write. A single entry that needs more is applied alone."""


class TransportSettings(Section):
    """gRPC channels between nodes, and from clients to nodes."""

    message_bytes: Annotated[Size, Field(ge=64 * 1024)] = 8 * 1024 * 1024
    """Maximum size of a gRPC message."""
    connect_timeout: Duration = 1.0
    """Maximum time of one attempt to connect."""
    reconnect_backoff: DurationRange = Range(0.1, 0.5)
    """First and longest pause before reconnecting."""
    silence_timeout: Annotated[Duration, Field(ge=0.1)] = 1.0
    """If data was sent and the other end acknowledges nothing for this long, the connection is closed and reopened
    (TCP_USER_TIMEOUT, on Linux). TCP alone doubles its retry pauses, so a peer would stay unreachable for about as long
    again as its network was down. Only a host or a network causes such silence: the kernel of a paused process
    acknowledges until its buffers are full, and it also acknowledges messages that link faults drop."""
    queue_bytes: Annotated[Size, Field(ge=64 * 1024)] = 32 * 1024 * 1024
    """Maximum bytes that wait to be sent to one peer; the excess is lost, as on any network. A newer request replaces
    waiting requests that it makes redundant."""
    probe_timeout: Annotated[Duration, Field(gt=0)] = 2.0
    """Deadline of health, inspection and chaos calls."""


class ClientSettings(Section):
    """How a client waits and retries."""

    rpc_timeout: Annotated[Duration, Field(gt=0)] = 1.0
    """Deadline of one attempt."""
    retry_budget: Duration = 10.0
    """An operation is retried, with the same session and sequence, until this much time has elapsed since it began; 0s
    means one attempt."""
    retry_backoff: DurationRange = Range(0.005, 0.100)
    """First and longest pause between attempts; doubled each time, with jitter."""
    dedupe: Literal["on", "off"] = "on"
    """`off` gives each attempt its own sequence, so a retry may take effect a second time; it exists as a control."""


class NodeConfig(Section):
    """Complete configuration of a node process."""

    cluster_id: Annotated[str, Field(min_length=1, max_length=200)]
    """Name of the cluster; messages and directories of other clusters are refused."""
    node_id: NodeId
    """Name of this node; one of `members`."""
    members: Annotated[list[NodeId], Field(min_length=1, max_length=99)]
    """All nodes of the cluster, this one included. Membership is static."""
    bind_host: Host = "127.0.0.1"
    """Interface to listen on. The operating system chooses the port."""
    advertise_host: Host | None = None
    """Host at which peers and clients reach this node; default: bind_host."""
    bootstrap: bool = False
    """Accept an empty directory. Set it for the first start of a node only: a member whose directory vanished must not
    return empty, because it would forget its vote."""
    seed: int | None = None
    """Seed of the randomised timeouts; default: a seed from the system."""
    raft: RaftSettings = RaftSettings()
    storage: StorageSettings = StorageSettings()
    limits: LimitSettings = LimitSettings()
    transport: TransportSettings = TransportSettings()
    chaos_enabled: bool = False
    """Serve the Chaos RPCs."""
    links: list[LinkRule] = []
    """Link faults in force from the start."""
    node_faults: NodeFaults = NodeFaults()
    """Faults inside this node, in force once its log is recovered; need chaos_enabled."""
    trace_file: str | None = None
    """File for trace events, one JSON object per line. The node writes an event before it sends the messages that the
    event causes."""
    log_file: str | None = None
    """File for the log of the process; default: stderr."""
    allow_bad_parameters: bool = False
    """Accept parameters that break a rule of `static_faults`."""

    @model_validator(mode="after")
    def _consistent(self) -> NodeConfig:
        if self.node_id not in self.members:
            raise ValueError(f"node_id: {self.node_id!r} is not in members {self.members}")
        if len(set(self.members)) != len(self.members):
            raise ValueError(f"members: each node must appear once, not {self.members}")
        if self.node_faults != NodeFaults() and not self.chaos_enabled:
            raise ValueError("node_faults: need chaos_enabled: true")
        if not self.allow_bad_parameters:
            for fault in static_faults(self.raft, self.limits, self.transport):
                raise ValueError(fault)
        return self

    @property
    def advertised_host(self) -> str:
        """Host part of the address at which peers and clients reach this node."""
        return self.advertise_host or self.bind_host


def static_faults(raft: RaftSettings, limits: LimitSettings, transport: TransportSettings) -> list[str]:
    """Return the rules that these settings break, one line each, beginning with the field; empty if there are none.

    Only rules that need no measurement are checked (paper, section 5.6: broadcast time << election timeout).
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
        faults.append("raft.yield_after: off, or at least the shortest election_timeout: no election is quicker")
    room = transport.message_bytes - MESSAGE_OVERHEAD_BYTES
    if raft.max_batch_bytes > room:
        faults.append(
            f"raft.max_batch_bytes: at most transport.message_bytes less {MESSAGE_OVERHEAD_BYTES} B, that is {room} B"
        )
    if limits.key_bytes + 2 * limits.value_bytes > room:
        # Twice, because a compare-and-swap carries both the expected and the new value.
        faults.append(
            "limits.value_bytes: a compare-and-swap of the largest key and two of the largest values must fit into "
            f"transport.message_bytes less {MESSAGE_OVERHEAD_BYTES} B, that is {room} B"
        )
    need = least_pending_bytes(limits)
    if limits.pending_bytes < need:
        faults.append(
            "limits.pending_bytes: too small for a compare-and-swap of the largest key and values and for its answer; "
            f"set at least {need} B, or a smaller limits.value_bytes"
        )
    window = raft.max_inflight_bytes + raft.max_batch_bytes
    if limits.unsynced_bytes < window:
        faults.append(
            f"limits.unsynced_bytes: at least raft.max_inflight_bytes plus raft.max_batch_bytes, that is {window} B: "
            "a leader may send that much before a follower's disk has stored any of it"
        )
    return faults


def least_pending_bytes(limits: LimitSettings) -> int:
    """Return the smallest `limits.pending_bytes` with which a node can accept and answer every legal operation."""
    # Two values and the answer. A unary call holds the two values twice, and a client name.
    operation = 2 * OPERATION_BYTES + CLIENT_ID_BYTES + 2 * limits.key_bytes + (4 + VALUE_COPIES) * limits.value_bytes
    # A caller may hold half of three quarters for operations, and half of at least a quarter for answers
    # (runtime/budget.py).
    return max(operation * 8 // 3 + 8, 8 * VALUE_COPIES * (ANSWER_BYTES + limits.value_bytes))


def unwise(config: NodeConfig) -> list[str]:
    """Return warnings about settings that are legal but rarely wanted, one line each."""
    warnings = []
    low, high = config.raft.election_timeout
    if len(config.members) % 2 == 0:
        n = len(config.members)
        warnings.append(f"members: {n} nodes tolerate {largest_minority(n)} failures, no more than {n - 1} nodes do")
    if round(high - low, 9) <= 0.005:
        warnings.append("raft.election_timeout: a range of 5ms or less leads to split votes")
    if config.raft.rpc_timeout >= low:
        warnings.append("raft.rpc_timeout: at or above the shortest election timeout; lost requests are resent late")
    if config.advertised_host in ("0.0.0.0", "::"):  # noqa: S104 - the warning is about this host
        warnings.append(
            f"advertise_host: {config.advertised_host} means every interface; set an address that other hosts can reach"
        )
    if config.storage.fsync == "off":
        warnings.append("storage.fsync: off loses acknowledged writes when the power fails")
    return warnings


def describe(error: ValidationError, source: str = "") -> str:
    """Describe a validation error in one line: where, what, and what is allowed."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in ("value_error", "missing") else f", not {first['input']!r}"
    return ": ".join(part for part in (source, where, message) if part) + given


def load_node_config(path: str | Path) -> NodeConfig:
    """Read a node's configuration, JSON or YAML. Raises ConfigError with a one-line message."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    data: Any
    try:
        data = json.loads(text)
    except ValueError:
        # The import of the YAML parser is slow. The orchestrator writes JSON, which does not need it.
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
