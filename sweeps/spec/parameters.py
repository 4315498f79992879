"""The specification of a sweep as typed, validated data.

A spec has a `base` (the parameters of every cell), `axes` (parameters that vary, with their values), and settings
of the sweep. It comes from a YAML file or a preset, and from `-o KEY=VALUE` options. Each error is one line that
begins with its source: the file and line, or the option.

grid.py expands the axes into cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from chaos import ChaosSpec, parse_chaos
from orchestration.plan import OnHosts, Placement
from orchestration.sim_cluster.settings import SimSettings
from orchestration.targets import TARGETS, ClusterKind
from raft_actor_node.config import (
    CallForm,
    ClientSettings,
    LimitSettings,
    RaftSettings,
    Section,
    StorageSettings,
    TransportSettings,
)
from raft_actor_node.links import Probability
from raft_actor_node.units import Duration, Size

CASE = "case"
"""Name of the axis over `cases`; cases.py describes them."""


class _Described(Section):
    """A section whose attribute docstrings become descriptions in the JSON schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def _command(value: Any) -> Any:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"must be `default`, a command, or a list of its words, not {value!r}")
    return value


if TYPE_CHECKING:
    TargetName = str
else:
    TargetName = Literal[tuple(TARGETS)]


def _target(value: Any) -> Any:
    if value in ("etcd", "pysyncobj"):
        raise ValueError(f"{value} is not available in this version; it must be {' or '.join(TARGETS)}")
    return value


class ClusterSettings(_Described):
    """The processes of a cell."""

    nodes: Annotated[int, Field(ge=1, le=99, strict=True)] = 3
    """Number of Raft nodes."""
    placement: Placement = "spread"
    """Which hosts the nodes run on. The driver's host is used last; a host without CPUs gets no node.

    spread         one node per host; with more nodes than hosts, round robin
    strict_spread  one node per host; refused if there are too few hosts
    pack           all on one host
    majority       a majority on one host, the others spread over the other hosts
    {per_host: K}  K on each host
    {hosts: [...]} on these hosts, by address or host name, round robin"""
    command: Annotated[str | list[str], BeforeValidator(_command)] = "default"
    """The node program: `default`, or any program that reads the configuration and serves the KV service."""


class Mix(_Described):
    """Shares of the operation kinds; they sum to 1."""

    put: Probability = 0.0
    get: Probability = 0.0
    delete: Probability = 0.0
    cas: Probability = 0.0
    append: Probability = 0.0

    @model_validator(mode="after")
    def _sums_to_one(self) -> Mix:
        total = sum(self.model_dump().values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares must sum to 1, not {total:g}")
        return self


def _load_on(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:  # pydantic reports each member of the union separately
        allowed = "driver, leader, every_host, own_host or {hosts: [ADDRESS OR NAME, ...]}"
        raise ValueError(f"must be {allowed}, not {value!r}") from None


class LoadSettings(_Described):
    """The load that the clients generate."""

    call: CallForm = "stream"
    """stream: operations travel in batches on one stream per node. unary: one call with its own deadline per
    operation, as in simple clients. This costs the client and the node several times as much."""
    mode: Literal["closed", "open"] = "closed"
    """closed: each client sends its next operation when the previous one returns; this hides outages. open:
    operations become due at `rate`, and latency counts from the due time."""
    clients: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 16
    """Client sessions. In closed mode this many operations are always outstanding; in open mode, at most this many."""
    rate: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """Operations per second, in open mode."""
    think: Duration = 0.0
    """Pause of a client between a response and its next operation, in closed mode."""
    arrivals: Literal["poisson", "constant"] = "poisson"
    """Distribution of the times between operations, in open mode."""
    mix: Mix = Mix(put=0.5, get=0.5)
    """Shares of the operation kinds: put, get, delete, cas, append."""
    keys: Annotated[int, Field(ge=1, le=10_000_000, strict=True)] = 1000
    """Number of keys."""
    key_dist: Literal["uniform", "zipf"] = "uniform"
    """Distribution of the keys; zipf: the k-th key has weight 1/k."""
    key_bytes: Annotated[Size, Field(ge=1)] = 16
    """Length of every key."""
    value_bytes: Size = 64
    """Length of every value. At 8 bytes or more, each written value is unique, as the checker requires."""
    on: Annotated[Literal["driver", "leader", "every_host", "own_host"] | OnHosts, WrapValidator(_load_on)] = "driver"
    """Which hosts the clients run on. Clients and rate are divided evenly among them.

    driver         on the driver's host
    leader         on the leader's host at the start of the load
    every_host     on each host that has a node
    own_host       on each host that has no node and is not the driver's
    {hosts: [...]} on these hosts, by address or host name"""


class PhaseSettings(_Described):
    """Durations of the phases of a cell."""

    boot: Annotated[Duration, Field(gt=0)] = 60.0
    """Time limit for the start of the processes, and again for the election of a leader."""
    warmup: Duration = 2.0
    """Time under load before the measurement."""
    measure: Annotated[Duration, Field(gt=0, le=86_400)] = 10.0
    """Length of the measurement. Faults are injected in this phase."""


class CheckSettings(_Described):
    """Which checks a cell undergoes, when, and within which bounds."""

    linearizable: bool = True
    """Whether to check that the history of the clients is linearizable, key by key."""
    invariants: bool = True
    """Whether to check the invariants of Raft in the traces and reports of all node incarnations, and whether node
    states agree. If this and `linearizable` are both off, the verdict is unknown at best."""
    when: Literal["between-cells", "defer"] = "between-cells"
    """between-cells: check each cell before the next begins. defer: check all cells after the last. Checks never run
    during a measurement."""
    time_limit: Annotated[Duration, Field(gt=0, le=86_400)] = 60.0
    """Time limit for the check of a history. A check that exceeds it is stopped, and its verdict is unknown."""
    memory_limit: Annotated[Size, Field(ge=64 * 2**20)] = 2 * 2**30
    """Memory limit for a check. A check that exceeds it is stopped, and its verdict is unknown."""
    read_back: Annotated[Duration, Field(le=86_400)] = 10.0
    """Time limit for the final reads: after all faults are healed, every key changed by an acknowledged write is read.

    Each key is read once, through the leader, and these reads join the history. So a lost write is found even if
    the load never read its key again. If the reads exceed the limit, the verdict is unknown and gives the number of
    keys that were read. 0s: no such reads."""
    least_operations: Annotated[int, Field(ge=0, strict=True)] = 100
    """Minimum number of successful operations. With fewer, the cell proves nothing and its verdict is unknown. With
    `expect: unavailable`, it is the minimum number of operations that wait without success, and is capped at
    the number of clients."""


class Parameters(_Described):
    """All parameters of one cell."""

    target: Annotated[TargetName, BeforeValidator(_target)] = "raft"
    """The system under test. raft: real processes. sim: the same code in virtual time, in one process, from a seed.
    A simulated cell has at most 5000 operations; a larger load is reduced to that."""
    cluster: ClusterSettings = ClusterSettings()
    raft: RaftSettings = RaftSettings()
    storage: StorageSettings = StorageSettings()
    limits: LimitSettings = LimitSettings()
    transport: TransportSettings = TransportSettings()
    client: ClientSettings = ClientSettings()
    sim: SimSettings = SimSettings()
    """The simulated environment of the nodes, for `target: sim`."""
    load: LoadSettings = LoadSettings()
    phases: PhaseSettings = PhaseSettings()
    chaos: Annotated[ChaosSpec, BeforeValidator(parse_chaos)] = ChaosSpec()
    """Faults during the measurement: none, a single fault, or a list."""
    allow_bad_parameters: bool = False
    """Run cells even if their parameters break a static rule of Raft."""
    checks: CheckSettings = CheckSettings()
    expect: Literal["ok", "available", "unavailable", "safe", "unknown", "violated"] = "ok"
    """What the cell should show. If it shows something else, it fails or its verdict counts as unexpected; see the exit
    codes of `sweep`. If the judge itself fails, no expectation is met.

    ok           the verdict ok: nothing is violated, all checks are ok, and enough happened to prove it
    available    as ok. Also, operations succeed under each fault that lasts longer than 10 times the longest election
                 timeout. After that time, their rate is at least a hundredth of the rate before the first fault.
                 Without faults: operations succeed
    unavailable  the verdict ok, with this coverage: under each such fault no operation succeeds after that time.
                 Meanwhile at least `checks.least_operations` operations wait (capped at the number of clients). For 9
                 tenths of the time at least one client waits. An operation succeeds before the first fault, and
                 another after the last fault is healed. Without faults: clients send operations during the whole
                 measurement and none succeeds. Liveness is then not checked, and empty histories and states need not
                 be compared. Violations count as always
    safe         ok, or an unknown verdict where linearizability and invariants are ok. No fault needs to take effect,
                 no operation needs to succeed, states need not be compared, and liveness is not checked
    unknown      an unknown verdict caused by lack of coverage alone; all other checks are ok
    violated     linearizability, invariants, inspection, exits, state or durability violated (liveness does not
                 count), and coverage ok. If the expected violation is not found, the cell fails"""

    @property
    def kind(self) -> ClusterKind:
        """The kind of cluster that runs the cell."""
        return TARGETS[self.target]

    @property
    def slowest_clock(self) -> float:
        """Seconds on the slowest node's clock per second of true time, at most 1; real clocks count as exact."""
        return min(1.0, self.sim.clock_rate[0]) if self.kind.can.virtual_time else 1.0


class Spec(_Described):
    """A sweep."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "sweep"
    """Name of the results folder."""
    description: str = ""
    """Purpose of the sweep, in one sentence."""
    repeats: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 1
    """Number of runs of each cell."""
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 1
    """Seed of the order, the load and the faults."""
    order: Literal["interleaved", "sequential"] = "interleaved"
    """Order of the cells. interleaved: each repeat visits all cells in a random order, so that a slow minute affects
    all cells alike. sequential: all repeats of a cell run one after the other."""
    base: Parameters = Parameters()
    """Parameters of every cell."""
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    """Parameters that vary, by dotted name, with their values. A mapping as the value of a section replaces
    only the keys that it contains."""
    cases: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Named sets of parameters that vary together, as an axis named `case`. A case may also have a `signature`:
    conditions, in the form of thresholds, shown beside the results. A case with `refused` must instead be refused, with
    the error given there."""
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    """Combinations to leave out."""
    expectations: list[dict[str, Any]] = Field(default_factory=list)
    """Expected outcomes of combinations: parameters (or `case`) with their values, and `expect`. For each cell the last
    match applies."""
    thresholds: dict[str, str] = Field(default_factory=dict)
    """Conditions on the result of a cell, such as `latency.put.p99: "< 100ms"`; a cell that misses one fails.
    Thresholds do not apply to cells with `expect: safe` or `expect: unavailable`."""

    def to_yaml(self) -> str:
        """Return the spec as YAML with every default written out; the YAML parses to the same cells."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


_SECTIONS: dict[str, type[Section]] = {
    name: info.annotation
    for name, info in Parameters.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
}
PARAMETER_NAMES: tuple[str, ...] = tuple(Parameters.model_fields) + tuple(
    f"{section}.{name}" for section, model in _SECTIONS.items() for name in model.model_fields
)
"""All dotted names that an axis, an exclusion or an option can use."""


def with_value(parameters: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return a copy of raw parameters with the parameter of the dotted `name` set to `value`.

    A mapping given for a whole section replaces only the keys that it contains.
    """
    first, _, rest = name.partition(".")
    old = parameters.get(first)
    if rest:
        new: Any = with_value(old if isinstance(old, Mapping) else {}, rest, value)
    elif first in _SECTIONS and isinstance(value, Mapping) and isinstance(old, Mapping):
        new = {**old, **value}
    else:
        new = value
    return {**parameters, first: new}


def parameter(parameters: Parameters, name: str) -> Any:
    """Return the value of the parameter with a dotted name, in the form in which it is written."""
    value: Any = parameters.model_dump(mode="json")
    for part in name.split("."):
        value = value[part]
    return value
