"""What one asks of a cluster, of whatever kind, and what it tells: plans, ends of nodes, times, files."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from orchestration.errors import describe_exit, last_words, with_remedy
from raft_actor_node.config import LimitSettings, RaftSettings, Section, StorageSettings, TransportSettings
from raft_actor_node.errors import DiskError


class PerHost(Section):
    """So many nodes on one host, then as many on the next."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    per_host: Annotated[int, Field(ge=1, le=99, strict=True)]
    """Nodes on each host; the last one gets what is left."""

    def __str__(self) -> str:
        return f"{{per_host: {self.per_host}}}"


class OnHosts(Section):
    """These hosts, in this order, round and round."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    hosts: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    """Each by its address, its host name, or Ray's id of it. One that stands twice gets twice as much."""

    def __str__(self) -> str:
        return f"{{hosts: [{', '.join(self.hosts)}]}}"


def _placement(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:  # which speaks of one member of the union after the other
        allowed = "spread, strict_spread, pack, majority, {per_host: K} or {hosts: [ADDRESS OR NAME, ...]}"
        raise ValueError(f"must be {allowed}, not {value!r}") from None


Placement = Annotated[
    Literal["spread", "strict_spread", "pack", "majority"] | PerHost | OnHosts, WrapValidator(_placement)
]
"""On which hosts the nodes are; `ray_cluster/placement.py` decides by it.

spread         one node per host as long as there are hosts, then round and round
strict_spread  one per host, or not at all
pack           all on one host
majority       a majority (n // 2 + 1) on one host, the others spread over the other hosts
{per_host: K}  K on each host
{hosts: [...]} on these hosts, round and round
"""

FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class ClusterPlan(Section):
    """What cluster to bring up."""

    nodes: Annotated[int, Field(ge=1, le=99)] = 3
    cluster_id: Annotated[str, Field(min_length=1, max_length=200)] = "raft-lab"
    """Each bring-up adds something unique to it, so that clusters never mistake one another."""
    raft: RaftSettings = RaftSettings()
    storage: StorageSettings = StorageSettings()
    limits: LimitSettings = LimitSettings()
    transport: TransportSettings = TransportSettings()
    chaos_enabled: bool = True
    allow_bad_parameters: bool = False
    seed: int | None = None
    """Seed of the nodes' timeouts, made different for each node and each of its lives (else the first election
    timeout after every restart would be the same); default: from the system."""
    command: str | tuple[str, ...] = "default"
    """What starts a node; `--config FILE` is added. `default`: this project's own node."""
    placement: Placement = "spread"
    run_id: FolderName = Field(default_factory=lambda: f"run-{uuid.uuid4().hex[:8]}")
    """With cell_id: names the folder of the nodes' files on their hosts."""
    cell_id: FolderName = "cell"
    boot_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """From the start of a process to its serving, recovery of its log included."""
    leader_timeout_s: Annotated[float, Field(ge=0)] = 10.0
    """How long bring-up waits for a first leader; none is no error, with bad parameters there may never be one."""


class Applied(NamedTuple):
    """When a change took effect, in ns of the driver's monotonic clock; 0 where no node took it."""

    first_ns: int
    last_ns: int
    failed: tuple[str, ...] = ()
    """Nodes that should have it and do not."""


Cause = Literal["crash", "stop", "fault", "exit", "infrastructure"]
"""Of the end of a node; see NodeExit."""


class NodeExit(NamedTuple):
    """The end of one life of a node."""

    node_id: str
    cause: Cause
    """`crash` and `stop` were asked for. `fault`: a fault inside the node ended it, such as a disk error. `exit`:
    the process ended by itself; an exit code above 0 always counts as that. `infrastructure`: its actor or its host
    ended, and neither the node nor chaos caused it."""
    exit_code: int | None
    """As `subprocess` gives it; None when nobody is left to tell."""
    log_tail: str
    time_ns: int
    """When it was noticed, on the driver's monotonic clock."""
    host: str = ""
    """Address of the host it was on."""

    @property
    def infrastructure(self) -> bool:
        """Whether what the node ran on failed: its actor, its host, or, as it says itself, its disk."""
        return self.cause == "infrastructure" or (self.cause == "exit" and self.exit_code == DiskError.exit_code)

    def __str__(self) -> str:
        how = describe_exit(self.exit_code) if self.exit_code is not None else self.log_tail
        if not self.infrastructure:
            return f"node {self.node_id} ended ({self.cause}): {how}"
        last = last_words(self.log_tail)
        why = with_remedy(how if last in how else f"{how}: {last}")
        return f"node {self.node_id} on host {self.host} ended ({self.cause}): {why}"


@dataclass(frozen=True)
class BringUp:
    """How long each step of a bring-up took, in seconds."""

    place_s: float
    """Until there was an actor for every node."""
    spawn_s: float
    """Until every process had reported its address."""
    serving_s: float
    """Until every node said SERVING."""
    leader_s: float | None
    """Until one led; None when none did within the plan's leader_timeout_s, or none would tell."""


class NodeFiles(NamedTuple):
    """What a node has written."""

    trace: list[str]
    """Trace events, one JSON object each, over all lives of the node; empty for a program that writes none."""
    log: str
    """Standard output and error, over all lives."""
    storage: str
    """The folder, on the node's host, below which its write-ahead log lives."""
