"""What a sweep is to do, as typed and validated data.

A spec has a `base` (the parameters of every cell), `axes` (parameters that vary, and their values), and what
goes with them. It comes from a YAML file or a preset, and from `-o KEY=VALUE` on the command line. Whatever is
wrong with it is said in one line, which begins with the file and line, or with the option, that brought it in.
How axes become cells is in grid.py.
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
"""Name of the axis over `cases`; cases.py says what they are."""


class _Described(Section):
    """A section whose attribute docstrings become the descriptions of the JSON schema."""

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
        raise ValueError(f"{value} is not available in this version; it must be raft or sim")
    return value


class ClusterSettings(_Described):
    """The processes of a cell."""

    nodes: Annotated[int, Field(ge=1, le=99, strict=True)] = 3
    """Number of Raft nodes."""
    placement: Placement = "spread"
    """On which hosts the nodes are; the driver's comes last, and one that offers no CPU carries none.

    spread         one node per host as long as there are hosts, then round and round
    strict_spread  one node per host, or not at all
    pack           all on one host
    majority       a majority on one host, the others spread over the other hosts
    {per_host: K}  K on each host
    {hosts: [...]} on these hosts, by address or host name, round and round"""
    command: Annotated[str | list[str], BeforeValidator(_command)] = "default"
    """The node program: ours, or any other that reads the configuration and serves the KV service."""


class Mix(_Described):
    """Shares of the kinds of operation; they sum to 1."""

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
    except ValidationError:  # which speaks of one member of the union after the other
        allowed = "driver, leader, every_host, own_host or {hosts: [ADDRESS OR NAME, ...]}"
        raise ValueError(f"must be {allowed}, not {value!r}") from None


class LoadSettings(_Described):
    """What the clients do."""

    call: CallForm = "stream"
    """stream: operations travel in batches on a stream to each node. unary: each is a call of its own, with a deadline
    of its own, as simple clients do it; that costs both ends several times as much."""
    mode: Literal["closed", "open"] = "closed"
    """closed: each client sends its next operation when the last one returned; it hides outages. open:
    operations are due at a rate, and latency counts from when they were due."""
    clients: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 16
    """Client sessions: in closed mode so many operations are always outstanding, in open mode at most so many."""
    rate: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """Operations per second, in open mode."""
    think: Duration = 0.0
    """Pause of a client between an answer and its next operation, in closed mode."""
    arrivals: Literal["poisson", "constant"] = "poisson"
    """Distribution of the times between two operations, in open mode."""
    mix: Mix = Mix(put=0.5, get=0.5)
    """Shares of the kinds of operation: put, get, delete, cas, append."""
    keys: Annotated[int, Field(ge=1, le=10_000_000, strict=True)] = 1000
    """Number of keys."""
    key_dist: Literal["uniform", "zipf"] = "uniform"
    """How keys are chosen; zipf: the k-th with a weight of 1/k."""
    key_bytes: Annotated[Size, Field(ge=1)] = 16
    """Length of every key."""
    value_bytes: Size = 64
    """Length of every value. From 8 bytes on each written value is unique, which a checker needs."""
    on: Annotated[Literal["driver", "leader", "every_host", "own_host"] | OnHosts, WrapValidator(_load_on)] = "driver"
    """On which hosts the clients are, evenly divided, as is the rate.

    driver         on the driver's host
    leader         on the host that has the leader when the load begins
    every_host     on each host that has a node
    own_host       on each host that has no node and is not the driver's
    {hosts: [...]} on these hosts, by address or host name"""


class PhaseSettings(_Described):
    """How long the phases of a cell last."""

    boot: Annotated[Duration, Field(gt=0)] = 60.0
    """Longest wait for the processes, and then for a leader."""
    warmup: Duration = 2.0
    """Load before the measurement begins."""
    measure: Annotated[Duration, Field(gt=0, le=86_400)] = 10.0
    """Load that is measured; the chaos happens here."""


class CheckSettings(_Described):
    """What of a cell is checked, when, and within which bounds."""

    linearizable: bool = True
    """Whether the history of the clients is linearizable, key by key."""
    invariants: bool = True
    """Whether the invariants of Raft hold in the traces of all lives of all nodes and in what they say of themselves,
    and their states agree. Without this and `linearizable` the verdict is unknown."""
    when: Literal["between-cells", "defer"] = "between-cells"
    """between-cells: after each cell, before the next one begins; defer: after the last one. Nothing is ever
    checked beside a measurement."""
    time_limit: Annotated[Duration, Field(gt=0, le=86_400)] = 60.0
    """A check of a history that takes longer is given up: its verdict is unknown."""
    memory_limit: Annotated[Size, Field(ge=64 * 2**20)] = 2 * 2**30
    """One that takes more memory is given up too."""
    read_back: Annotated[Duration, Field(le=86_400)] = 10.0
    """When all is healed, each key that an acknowledged write has changed is read once more, through the leader, and
    these reads join the history: a write that was lost shows, though the load never read its key again. Where they take
    longer than this the verdict is unknown, and says how many keys could be read. 0s: not at all."""
    least_operations: Annotated[int, Field(ge=0, strict=True)] = 100
    """A cell in which fewer operations succeed proves nothing: its verdict is unknown. With `expect: unavailable` so
    many must wait in vain instead, but no more than there are clients."""


class Parameters(_Described):
    """Everything that describes one cell."""

    target: Annotated[TargetName, BeforeValidator(_target)] = "raft"
    """The system under test. raft: real processes. sim: the same code in virtual time, in one process, from a seed;
    it takes at most 5000 operations per cell, and its load is made so small."""
    cluster: ClusterSettings = ClusterSettings()
    raft: RaftSettings = RaftSettings()
    storage: StorageSettings = StorageSettings()
    limits: LimitSettings = LimitSettings()
    transport: TransportSettings = TransportSettings()
    client: ClientSettings = ClientSettings()
    sim: SimSettings = SimSettings()
    """What is simulated around the nodes, with `target: sim`."""
    load: LoadSettings = LoadSettings()
    phases: PhaseSettings = PhaseSettings()
    chaos: Annotated[ChaosSpec, BeforeValidator(parse_chaos)] = ChaosSpec()
    """Faults during the measurement: none, one, or a list of them."""
    allow_bad_parameters: bool = False
    """Run cells whose parameters break a static rule of Raft."""
    checks: CheckSettings = CheckSettings()
    expect: Literal["ok", "available", "unavailable", "safe", "unknown", "violated"] = "ok"
    """What the cell should show. A cell that shows something else fails, or its verdict counts as unexpected: see the
    exit codes of `sweep`. A judge that fails meets no expectation.

    ok           the verdict ok: nothing is violated, all that was checked is ok, and enough happened to say so
    available    as ok; and under each fault that lasted longer than 10 of the longest election timeouts operations
                 succeeded later than that, at no less than a hundredth of the rate before; without faults: operations
                 succeeded
    unavailable  the verdict ok, where enough is: under each such fault no operation succeeded later than that, though
                 at least `checks.least_operations` (but no more than there are clients) waited, and somebody did for
                 9 tenths of the time; one succeeded before the first fault, and one after the last was healed. Without
                 faults: nothing succeeded, though clients asked for the whole measurement; then liveness is not
                 checked, and histories and states with nothing in them need not be compared. Violations count as ever
    safe         ok, or an unknown verdict where linearizability and invariants are ok: no fault needs to bite, nobody
                 needs to be served, states need not be compared, and liveness is not checked
    unknown      an unknown verdict for lack of coverage alone, with all other checks ok
    violated     linearizability, invariants, inspection, state or exits violated (liveness does not count), and
                 coverage ok. An expected violation that was not found is a failure"""

    @property
    def kind(self) -> ClusterKind:
        """The kind of cluster that it asks for."""
        return TARGETS[self.target]

    @property
    def slowest_clock(self) -> float:
        """Seconds that pass on the slowest node's clock in a second of true time, at most 1; real clocks agree."""
        return min(1.0, self.sim.clock_rate[0]) if self.kind.can.virtual_time else 1.0


class Spec(_Described):
    """A sweep."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "sweep"
    """Names the folder of the results."""
    description: str = ""
    """What the sweep is for, in a sentence."""
    repeats: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 1
    """How often each cell runs."""
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 1
    """Seed of the order, the load and the faults."""
    order: Literal["interleaved", "sequential"] = "interleaved"
    """interleaved: each repeat visits all cells in a random order, so that a slow minute hits all alike."""
    base: Parameters = Parameters()
    """Parameters of every cell."""
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    """Parameters that vary, by dotted name, with their values. A mapping as the value of a section replaces
    only the keys it has."""
    cases: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Named sets of parameters that vary together: an axis of the name `case`. A case may also have a `signature`,
    conditions as in thresholds that are shown beside what was seen, or say why it must be `refused`."""
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    """Combinations that are left out."""
    expectations: list[dict[str, Any]] = Field(default_factory=list)
    """What combinations are expected to show: parameters (or `case`) with their values, and `expect`. The last one
    that matches a cell counts."""
    thresholds: dict[str, str] = Field(default_factory=dict)
    """Conditions on a cell's result, such as `latency.put.p99: "< 100ms"`; a cell that misses one fails."""

    def to_yaml(self) -> str:
        """The spec with every default written out; reading it again gives the same cells."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


_SECTIONS: dict[str, type[Section]] = {
    name: info.annotation
    for name, info in Parameters.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
}
PARAMETER_NAMES: tuple[str, ...] = tuple(Parameters.model_fields) + tuple(
    f"{section}.{name}" for section, model in _SECTIONS.items() for name in model.model_fields
)
"""Every dotted name that an axis, an exclusion or an option can use."""


def with_value(parameters: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """A copy of raw parameters in which the one with the dotted `name` is replaced by `value`. A mapping
    given for a whole section replaces only the keys it has."""
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
    """The value of the parameter with a dotted name, in the form in which it is written."""
    value: Any = parameters.model_dump(mode="json")
    for part in name.split("."):
        value = value[part]
    return value
