"""The face that every kind of cluster shares: what brings it up, the cluster that runs, and objects on hosts.

    Backend   checks a plan, starts a Cluster, hosts a Worker
    Cluster   is observed, disturbed, collected from and ended; its disturbances are those of chaos' Target
    Worker    holds one object in a process of its own, such as a load generator, and calls its methods

A kind of cluster satisfies these protocols by its shape. targets.py lists the kinds there are.

Times are nanoseconds. They are of the driver's clock (`Backend.clock`) unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypedDict

from orchestration.address_book import AddressBook
from orchestration.plan import Applied, BringUp, ClusterPlan, NodeExit, NodeFiles
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import NodeFaults

if TYPE_CHECKING:
    from raft_actor_node.client_engine import ClientEngine  # brings gRPC with it


# ---------------------------------------------------------------------------------- hosts and their clocks


@dataclass(frozen=True)
class Host:
    """A machine that carries nodes or load generators."""

    host_id: str
    """Unique. On Ray it is Ray's id of it. A host that restarts has a new one; several on one machine share an
    address."""
    address: str
    """Under which the other hosts reach it."""
    cpus: float
    """As Ray counts them; where it offers none no Raft node is placed."""
    is_driver: bool = False
    """The driver runs here."""
    name: str = ""
    """Host name."""

    def __str__(self) -> str:
        return f"{self.address} ({self.name})" if self.name not in ("", self.address) else self.address


@dataclass(frozen=True)
class HostClock:
    """The monotonic clock of a host, compared with the driver's."""

    offset_ns: int = 0
    """Host less driver."""
    error_ns: int = 0
    """The offset is right within this much, either way; 0 when both read the same clock."""

    def to_driver(self, host_ns: int) -> int:
        """The driver's time of a host's time stamp."""
        return host_ns - self.offset_ns


class Now(Protocol):
    """The driver's clock."""

    def now_ns(self) -> int:
        """Nanoseconds of a clock that never goes back."""


# ---------------------------------------------------------------------------------- what a node says of itself


class PeerStatus(Protocol):
    """A follower, as its leader sees it."""

    @property
    def node_id(self) -> str: ...
    @property
    def match_index(self) -> int: ...
    @property
    def next_index(self) -> int: ...


class FaultCounts(Protocol):
    """How many messages, fsyncs and calls to the disk faults touched, since the process started."""

    @property
    def messages_cut(self) -> int: ...
    @property
    def messages_dropped(self) -> int: ...
    @property
    def messages_delayed(self) -> int: ...
    @property
    def messages_duplicated(self) -> int: ...
    @property
    def fsyncs_delayed(self) -> int: ...
    @property
    def fsyncs_stalled(self) -> int: ...
    @property
    def disk_errors(self) -> int: ...


class NodeStatus(Protocol):
    """The inner state of a node; inspection.proto (StatusReply) says what each field means."""

    @property
    def pid(self) -> int: ...
    @property
    def now_ns(self) -> int:
        """When it answered, on its host's clock."""

    @property
    def role(self) -> int:
        """As in inspection.proto; 3 leads."""

    @property
    def current_term(self) -> int: ...
    @property
    def last_log_index(self) -> int: ...
    @property
    def durable_index(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def last_applied(self) -> int: ...
    @property
    def applied_hash(self) -> bytes: ...
    @property
    def prefix_hash(self) -> bytes: ...
    @property
    def state_hash(self) -> bytes: ...
    @property
    def peers(self) -> Sequence[PeerStatus]: ...
    @property
    def counters(self) -> FaultCounts: ...
    @property
    def cpu_s(self) -> float: ...
    @property
    def resident_bytes(self) -> int: ...


class NodeSamples(Protocol):
    """What a node measured about itself, in microseconds."""

    @property
    def fsync_us(self) -> Sequence[int]: ...
    @property
    def loop_lag_us(self) -> Sequence[int]: ...
    @property
    def round_trip_us(self) -> Sequence[int]: ...


# ---------------------------------------------------------------------------------- objects, clusters, backends


class Worker(Protocol):
    """An object in a process of its own, on some host."""

    @property
    def host(self) -> Host: ...
    @property
    def clock(self) -> HostClock:
        """The host's clock, as known from all comparisons so far."""

    async def compare_clocks(self, *, timeout_s: float = ...) -> HostClock:
        """Compare the clocks once more. Raises InfrastructureError."""

    async def call(self, method: str, *args: object, timeout_s: float | None = ..., **kwargs: object) -> object:
        """Call a method of the object, sync or async; the caller knows the type of its result.

        Raises what the method raises, and InfrastructureError when there is no answer within `timeout_s`.
        """

    async def close(self) -> None:
        """Close the object and let its process go."""


class Cluster(Protocol):
    """A cluster that runs. A call acts on all the nodes it names, then raises if any of them failed."""

    # observed

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Every node, up or down, in a fixed order."""

    @property
    def addresses(self) -> AddressBook:
        """Where the nodes are; subscribe to it to learn of restarts."""

    @property
    def bring_up_times(self) -> BringUp: ...
    @property
    def exits(self) -> Sequence[NodeExit]:
        """Every end of a node so far, in order."""

    @property
    def unexpected_exits(self) -> Sequence[NodeExit]:
        """The ends of nodes that nothing here asked for."""

    @property
    def violations(self) -> Sequence[object]:
        """Broken rules that the kind of cluster itself found, step by step; only a simulation looks."""

    def worker(self, node_id: str) -> Worker:
        """The process beside a node: its host, and how that host's clock relates to the driver's."""

    async def leader(self) -> str | None:
        """The leader, or None while there is none."""

    async def status(self, node_id: str, *, hash_index: int = ..., with_state_hash: bool = ...) -> NodeStatus | None:
        """The inner state of a node; None when it is not up, does not answer, or offers no inspection."""

    async def samples(self, node_id: str, since_ns: int = ...) -> NodeSamples | None:
        """What a node measured about itself since `since_ns` of its own clock; None as for `status`."""

    async def collect(self, node_id: str) -> NodeFiles:
        """What a node has written, up or down. Raises InfrastructureError."""

    # disturbed

    async def crash(self, *node_ids: str) -> Applied:
        """Kill the processes (SIGKILL), all at once."""

    async def restart(self, *node_ids: str) -> Applied:
        """Start nodes that are down again, on what their disks hold; returns when they serve. Raises NodeFailed."""

    async def pause(self, *node_ids: str) -> Applied:
        """Stop the processes (SIGSTOP) without ending them."""

    async def resume(self, *node_ids: str) -> Applied:
        """Let paused processes go on (SIGCONT)."""

    async def set_links(self, rules: Sequence[LinkRule]) -> Applied:
        """Put this whole table of link faults in force on every live node; a node that is down starts with it."""

    async def set_node_faults(self, faults: Mapping[str, NodeFaults]) -> Applied:
        """Put this whole table of faults inside nodes in force on every live node; a node that is down starts with it.
        A node that the table does not name has none."""

    async def heal(self) -> Applied:
        """Remove every link fault and every fault inside a node."""

    # ended

    async def halt(self) -> None:
        """End all processes in order (SIGTERM). Their files stay, for `collect`."""

    async def stop(self, keep: bool = ...) -> None:
        """End everything; with `keep` the files of the nodes stay on their hosts."""


class LoadOptions(TypedDict, total=False):
    """Arguments by which a load generator lives in the world of a backend; without them, in the real one."""

    engine: Callable[..., ClientEngine]
    clock: Callable[[], int]


class Backend(Protocol):
    """What brings up clusters and hosts load generators."""

    @property
    def hosts(self) -> Sequence[Host]: ...
    @property
    def description(self) -> str:
        """What this is, in one line."""

    @property
    def private(self) -> bool:
        """Whether it is there for this program alone, on this host."""

    @property
    def facts(self) -> Mapping[str, object]:
        """What the result of a cell says of the world in which it ran; JSON types only."""

    @property
    def clock(self) -> Now: ...
    @property
    def lost(self) -> str | None:
        """Why nothing can be done here any more."""

    @property
    def load_options(self) -> LoadOptions: ...
    async def check(self, plan: ClusterPlan) -> Sequence[Host]:
        """The host of each node of such a cluster; nothing is started. Raises PlacementRefused."""

    async def start_cluster(self, plan: ClusterPlan) -> Cluster:
        """Bring up a cluster. Raises ConfigError, PlacementRefused, NodeFailed and InfrastructureError."""

    async def host(
        self, factory: Callable[..., object], *args: object, on: Host | None = None, **kwargs: object
    ) -> Worker:
        """An object of `factory` in a process of its own, on one of `hosts` (default: the driver's)."""
