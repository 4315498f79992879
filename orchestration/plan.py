"""Data that every kind of cluster takes and returns: plans, node exits, times, files."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from orchestration.errors import describe_exit, last_words, with_remedy
from raft_actor_node.config import LimitSettings, RaftSettings, Section, StorageSettings, TransportSettings
from raft_actor_node.errors import DiskError


class PerHost(Section):
    """Place a fixed number of nodes on each host."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    per_host: Annotated[int, Field(ge=1, le=99, strict=True)]
    """Nodes on each host; the last host gets the rest."""

    def __str__(self) -> str:
        return f"{{per_host: {self.per_host}}}"


class OnHosts(Section):
    """Place nodes on these hosts, round-robin in this order."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    hosts: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    """Address, host name or Ray id of each host. A host that is listed twice gets twice as many nodes."""

    def __str__(self) -> str:
        return f"{{hosts: [{', '.join(self.hosts)}]}}"


def _placement(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:  # its message lists an error for each member of the union
        allowed = "spread, strict_spread, pack, majority, {per_host: K} or {hosts: [ADDRESS OR NAME, ...]}"
        raise ValueError(f"must be {allowed}, not {value!r}") from None


Placement = Annotated[
    Literal["spread", "strict_spread", "pack", "majority"] | PerHost | OnHosts, WrapValidator(_placement)
]
"""How nodes are assigned to hosts; implemented in `placement.py`.

spread         one node per host, round-robin when there are more nodes than hosts
strict_spread  one node per host; refused if there are too few hosts
pack           all nodes on one host
majority       a majority (n // 2 + 1) on one host, the others spread over the other hosts
{per_host: K}  K nodes on each host
{hosts: [...]} nodes on these hosts, round-robin
"""

FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class ClusterPlan(Section):
    """The cluster to start."""

    nodes: Annotated[int, Field(ge=1, le=99)] = 3
    cluster_id: Annotated[str, Field(min_length=1, max_length=200)] = "raft-lab"
    """Prefix of the cluster's id. Each bring-up adds a unique suffix, so that clusters cannot be confused."""
    raft: RaftSettings = RaftSettings()
    storage: StorageSettings = StorageSettings()
    limits: LimitSettings = LimitSettings()
    transport: TransportSettings = TransportSettings()
    chaos_enabled: bool = True
    allow_bad_parameters: bool = False
    seed: int | None = None
    """Seed of the nodes' timeouts; default: from the system. Each incarnation of each node derives its own seed;
    otherwise the first election timeout after every restart would be the same."""
    command: str | tuple[str, ...] = "default"
    """The command that starts a node; `--config FILE` is added. `default`: this project's own node."""
    placement: Placement = "spread"
    run_id: FolderName = Field(default_factory=lambda: f"run-{uuid.uuid4().hex[:8]}")
    """Run id; together with cell_id it names the folder of the nodes' files on their hosts."""
    cell_id: FolderName = "cell"
    boot_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Time limit in seconds from the start of a process until it serves, including recovery of its log."""
    leader_timeout_s: Annotated[float, Field(ge=0)] = 10.0
    """How long bring-up waits for a first leader, in seconds. No leader is no error: bad parameters may prevent
    every election."""


class Applied(NamedTuple):
    """When a change took effect, in ns of the driver's monotonic clock; 0 if it took effect on no node."""

    first_ns: int
    last_ns: int
    failed: tuple[str, ...] = ()
    """The nodes that should have the change and do not."""


Cause = Literal["crash", "stop", "fault", "exit", "infrastructure"]
"""Why a node exited; see NodeExit.cause."""


class NodeExit(NamedTuple):
    """The end of one incarnation of a node."""

    node_id: str
    cause: Cause
    """`crash` and `stop`: this cluster's caller requested the exit. `fault`: an injected fault inside the node, such as
    a disk error, ended it. `exit`: the process ended by itself; an exit code above 0 without such a fault counts as
    `exit`. `infrastructure`: its actor or its host ended, and neither the node nor chaos caused it."""
    exit_code: int | None
    """As in `subprocess`; None when the code was lost together with the actor."""
    log_tail: str
    time_ns: int
    """When the exit was noticed, on the driver's monotonic clock."""
    host: str = ""
    """Address of the node's host."""

    @property
    def infrastructure(self) -> bool:
        """Whether the infrastructure failed: the actor, the host, or the disk (by the node's exit code)."""
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
    """Until every node had an actor."""
    spawn_s: float
    """Until every process had reported its address."""
    serving_s: float
    """Until every node reported SERVING."""
    leader_s: float | None
    """Until a leader was found; None when none was found within the plan's leader_timeout_s."""


class NodeFiles(NamedTuple):
    """What a node has written."""

    trace: list[str]
    """Trace events of all incarnations, one JSON object each; empty for a program that writes none."""
    log: str
    """Standard output and error of all incarnations."""
    storage: str
    """The folder on the node's host that contains its write-ahead log."""
