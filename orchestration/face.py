"""The protocols that every kind of cluster satisfies.

    Backend   checks a plan, starts a Cluster, hosts a Worker
    Cluster   is observed, disturbed, collected from and stopped; it satisfies the protocol Target of chaos/target.py
    Worker    holds one object in a process of its own, such as a load generator, and calls its methods

The protocols are structural: a kind of cluster need not inherit from them. targets.py lists the kinds.

Times are nanoseconds on the driver's clock (`Backend.clock`) unless a docstring says otherwise.
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
    from raft_actor_node.client_engine import ClientEngine  # its import would also import gRPC


# ---------------------------------------------------------------------------------- hosts and their clocks


@dataclass(frozen=True)
class Host:
    """A machine that carries nodes or load generators."""

    host_id: str
    """Unique id; on Ray, Ray's id of the host. It changes when the host restarts. Several hosts on one machine
    share an address."""
    address: str
    """The address at which the other hosts reach this host."""
    cpus: float
    """CPUs that Ray offers on this host. No Raft node is placed on a host that offers none."""
    is_driver: bool = False
    """Whether the driver runs on this host."""
    name: str = ""
    """Host name."""

    def __str__(self) -> str:
        return f"{self.address} ({self.name})" if self.name not in ("", self.address) else self.address


@dataclass(frozen=True)
class HostClock:
    """The monotonic clock of a host, compared with the driver's."""

    offset_ns: int = 0
    """The host's clock minus the driver's."""
    error_ns: int = 0
    """Bound on the error of the offset, in either direction; 0 when both read the same clock."""

    def to_driver(self, host_ns: int) -> int:
        """Convert a time stamp of the host to the driver's clock."""
        return host_ns - self.offset_ns


class Now(Protocol):
    """The driver's clock."""

    def now_ns(self) -> int:
        """Return the time in nanoseconds; it never goes back."""


# ---------------------------------------------------------------------------------- what a node reports


class PeerStatus(Protocol):
    """A follower, as its leader sees it."""

    @property
    def node_id(self) -> str: ...
    @property
    def match_index(self) -> int: ...
    @property
    def next_index(self) -> int: ...


class FaultCounts(Protocol):
    """The messages, fsyncs and disk calls that faults affected since the process started."""

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
    """The inner state of a node; inspection.proto (StatusReply) describes each field."""

    @property
    def pid(self) -> int: ...
    @property
    def now_ns(self) -> int:
        """When the node answered, on its host's clock."""

    @property
    def role(self) -> int:
        """A role number of inspection.proto; 3 is the leader."""

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
    """An object in its own process on one of the hosts."""

    @property
    def host(self) -> Host: ...
    @property
    def clock(self) -> HostClock:
        """The host's clock, as estimated from all comparisons so far."""

    async def compare_clocks(self, *, timeout_s: float = ...) -> HostClock:
        """Compare the two clocks again. Raises InfrastructureError."""

    async def call(self, method: str, *args: object, timeout_s: float | None = ..., **kwargs: object) -> object:
        """Call a method of the object, sync or async; the caller knows the type of its result.

        Raises what the method raises, and InfrastructureError when there is no answer within `timeout_s`.
        """

    async def close(self) -> None:
        """Close the object and release its process."""


class Cluster(Protocol):
    """A running cluster. A call acts on all nodes that it names, then raises if any of them failed."""

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
        """All exits of nodes so far, in order."""

    @property
    def unexpected_exits(self) -> Sequence[NodeExit]:
        """The exits that no call of this cluster caused."""

    @property
    def violations(self) -> Sequence[object]:
        """Broken Raft rules that the cluster found at each step; only a simulated cluster checks."""

    def worker(self, node_id: str) -> Worker:
        """Return the process beside a node; it knows the node's host and that host's clock."""

    async def leader(self) -> str | None:
        """Return the leader, or None while there is none."""

    async def status(self, node_id: str, *, hash_index: int = ..., with_state_hash: bool = ...) -> NodeStatus | None:
        """Return the inner state of a node; None when it is not up, does not answer, or offers no inspection."""

    async def samples(self, node_id: str, since_ns: int = ...) -> NodeSamples | None:
        """Return what a node measured since `since_ns` of its own clock; None as for `status`."""

    async def collect(self, node_id: str) -> NodeFiles:
        """Return what a node has written, up or down. Raises InfrastructureError."""

    # disturbed

    async def crash(self, *node_ids: str) -> Applied:
        """Kill the processes (SIGKILL), all at once."""

    async def restart(self, *node_ids: str) -> Applied:
        """Restart nodes that are down, from their disks; returns when they serve. Raises NodeFailed."""

    async def pause(self, *node_ids: str) -> Applied:
        """Stop the processes (SIGSTOP) without ending them."""

    async def resume(self, *node_ids: str) -> Applied:
        """Resume paused processes (SIGCONT)."""

    async def set_links(self, rules: Sequence[LinkRule]) -> Applied:
        """Replace the table of link faults on every live node; a node that is down starts with it."""

    async def set_node_faults(self, faults: Mapping[str, NodeFaults]) -> Applied:
        """Replace the table of faults inside nodes on every live node; a node that is down starts with it.

        A node that the table does not name has no such faults.
        """

    async def heal(self) -> Applied:
        """Remove every link fault and every fault inside a node."""

    # ended

    async def halt(self) -> None:
        """Shut down all processes (SIGTERM). Their files remain, for `collect`."""

    async def stop(self, keep: bool = ...) -> None:
        """End everything; with `keep` the nodes' files remain on their hosts."""


class LoadOptions(TypedDict, total=False):
    """Arguments that bind a load generator to the backend's world; by default the generator uses the real world."""

    engine: Callable[..., ClientEngine]
    clock: Callable[[], int]


class Backend(Protocol):
    """Starts clusters and hosts load generators."""

    @property
    def hosts(self) -> Sequence[Host]: ...
    @property
    def description(self) -> str:
        """The backend, in one line."""

    @property
    def private(self) -> bool:
        """Whether it serves this program only, on this host."""

    @property
    def facts(self) -> Mapping[str, object]:
        """What the result of a cell records about the backend's world; JSON types only."""

    @property
    def clock(self) -> Now: ...
    @property
    def lost(self) -> str | None:
        """Why the backend can no longer be used; None while it can."""

    @property
    def load_options(self) -> LoadOptions: ...
    async def check(self, plan: ClusterPlan) -> Sequence[Host]:
        """Return the host of each node of the planned cluster; start nothing. Raises PlacementRefused."""

    async def start_cluster(self, plan: ClusterPlan) -> Cluster:
        """Start a cluster. Raises ConfigError, PlacementRefused, NodeFailed and InfrastructureError."""

    async def host(
        self, factory: Callable[..., object], *args: object, on: Host | None = None, **kwargs: object
    ) -> Worker:
        """Create an object with `factory` in its own process, on one of `hosts` (default: the driver's)."""
