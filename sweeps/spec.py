"""What a sweep is to do, as typed and validated data.

A spec has a `base` (the parameters of every cell), `axes` (parameters that vary, and their values), and what
goes with them. It comes from a YAML file or a preset, and from `-o KEY=VALUE` on the command line. Whatever is
wrong with it is said in one line, which begins with the file and line, or with the option, that brought it in.
How axes become cells is in grid.py.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

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

from chaos import BadChaos, ChaosSpec, parse_chaos, plan
from chaos.faults import Fault, moment_s
from orchestration.plan import OnHosts, Placement
from orchestration.sim_cluster.settings import SimSettings
from raft_actor_node import config as node_config
from raft_actor_node.config import (
    CallForm,
    ClientSettings,
    LimitSettings,
    NodeConfig,
    RaftSettings,
    Section,
    StorageSettings,
    TransportSettings,
    static_faults,
    unwise,
)
from raft_actor_node.core.quorum import quorum_size
from raft_actor_node.errors import ConfigError
from raft_actor_node.links import Probability
from raft_actor_node.units import WRITTEN, Duration, Size
from sweeps.document import Document, Path, dotted, parse_yaml, split_values
from sweeps.thresholds import parse_threshold

PRESETS = FilePath(__file__).parent / "presets"
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

    target: Annotated[Literal["raft", "sim"], BeforeValidator(_target)] = "raft"
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
    def slowest_clock(self) -> float:
        """Seconds that pass on the slowest node's clock in a second of true time, at most 1; real clocks agree."""
        return min(1.0, self.sim.clock_rate[0]) if self.target == "sim" else 1.0


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


def suggestion(name: str, known: Sequence[str]) -> str:
    """`; did you mean ...?` for a mistyped name, or nothing."""
    leaf = name.rsplit(".", 1)[-1]
    same_leaf = [candidate for candidate in known if candidate.rsplit(".", 1)[-1] == leaf]
    close = same_leaf or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        leaves = {candidate.rsplit(".", 1)[-1]: candidate for candidate in known}
        close = [leaves[match] for match in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)]
    return f"; did you mean {close[0]}?" if close else ""


@dataclass(frozen=True)
class Source:
    """A spec as it was written, with the place of each of its values for the messages of errors."""

    data: dict[str, Any]
    origins: dict[Path, str] = field(default_factory=dict)
    name: str = "spec"

    def origin(self, path: Path) -> str:
        """Where the value at `path` was written, or the nearest one around it."""
        return next((self.origins[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.origins), self.name)

    def error(self, path: Path, message: str, at: Path | None = None) -> ConfigError:
        """The error that the value at `path` deserves, in one line; `at`: where else it was written."""
        shown = dotted(path[1:] if path[:1] == ("base",) and len(path) > 1 else path)
        parts = (self.origin(path if at is None else at), shown, " ".join(message.split()))
        return ConfigError(": ".join(part for part in parts if part))

    def parameter_origin(self, name: str) -> Path:
        """The path from which a parameter got its value: the nearest axis, or the base."""
        for axis in self.data.get("axes", {}):
            if name == axis or name.startswith(f"{axis}."):
                return ("axes", axis)
        return ("base", *name.split("."))


def read_source(text: str, source: str) -> Source:
    """The raw spec in a YAML text."""
    document: Document = parse_yaml(text, source)
    if document.data is None:
        raise ConfigError(f"{source}: is empty; a spec is a mapping of parameters")
    if not isinstance(document.data, dict):
        raise ConfigError(f"{source}:1: must be a mapping of parameters")
    data = {key: value for key, value in document.data.items() if value is not None}
    return Source(data, {path: f"{source}:{line}" for path, line in document.lines.items()}, source)


def open_source(preset_or_file: str) -> Source:
    """The raw spec of a preset or of a file. Raises ConfigError when there is neither."""
    preset = PRESETS / f"{preset_or_file}.yaml"
    is_preset = re.fullmatch(r"[\w-]+", preset_or_file) is not None
    path = preset if is_preset and preset.is_file() else FilePath(preset_or_file)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        names = sorted(file.stem for file in PRESETS.glob("*.yaml"))
        kind = f"no preset and no file of this name{suggestion(preset_or_file, names)} (presets: {', '.join(names)})"
        raise ConfigError(f"{preset_or_file}: {kind if is_preset else 'no such file'}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{preset_or_file}: cannot be read: {reason}") from None
    source = read_source(text, path.name if path == preset else preset_or_file)
    source.data.setdefault("name", re.sub(r"[^\w.-]+", "-", path.stem).strip("-._") or "sweep")
    return source


def parse_option(option: str) -> tuple[str, Any]:
    """`KEY=VALUE` or `KEY=A,B,C` as the key and one value, or a list of values: an axis."""
    key, equals, text = option.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"-o {option}: must have the form KEY=VALUE or KEY=VALUE,VALUE")
    if key.startswith("thresholds."):
        return key, text.strip()  # not YAML: there `>` begins a block of text
    values = [parse_yaml(part, f"-o {option}").data for part in split_values(text)]
    if any(value is None for value in values):
        raise ConfigError(f"-o {option}: {key}: a value is missing")
    return key, values if len(values) > 1 else values[0]


def override(source: Source, key: str, value: Any, origin: str) -> Source:
    """The spec with one parameter set, or, when `value` is a list, with an axis over it."""
    data, origins = {**source.data}, {**source.origins}
    here = Source(data, {**origins, (key,): origin}, source.name)
    name = key.removeprefix("base.")
    if name.startswith("thresholds."):
        conditions = data.get("thresholds")
        metric = name.removeprefix("thresholds.")
        data["thresholds"] = {**(conditions if isinstance(conditions, dict) else {}), metric: value}
        return Source(data, {**origins, ("thresholds", metric): origin}, source.name)
    if name == "cases":
        return _only_cases(here, value)
    if name in Spec.model_fields and name not in ("base", "axes", "exclude", "expectations", "thresholds"):
        if isinstance(value, list):
            raise here.error((key,), "takes one value, it cannot be an axis")
        data[name] = value
        return Source(data, {**origins, (name,): origin}, source.name)
    if name not in PARAMETER_NAMES and not name.startswith(("load.mix.", "chaos.")):
        known = (*Spec.model_fields, *PARAMETER_NAMES)
        raise here.error((key,), f"unknown parameter{suggestion(name, known)}")
    axes = data.get("axes") or {}
    around = [axis for axis in axes if name.startswith(f"{axis}.")] if isinstance(axes, dict) else []
    if around:
        raise here.error((key,), f"the spec has an axis over {around[0]}; override that one")
    is_axis = isinstance(value, list) and name != "cluster.command"
    if isinstance(axes, dict):
        kept = {axis: values for axis, values in axes.items() if not axis.startswith(f"{name}.")}
        kept.pop("" if is_axis else name, None)
        data["axes"] = kept | ({name: value} if is_axis else {})
    if is_axis:
        return Source(data, {**_without(origins, ("axes", name)), ("axes", name): origin}, source.name)
    base = data.get("base")
    data["base"] = with_value(base if isinstance(base, dict) else {}, name, value)
    path = ("base", *name.split("."))
    return Source(data, {**_without(origins, path), path: origin}, source.name)


def _only_cases(source: Source, names: Any) -> Source:
    """The spec with these of its cases."""
    wanted = [str(name) for name in (names if isinstance(names, list) else [names])]
    cases = source.data.get("cases")
    cases = cases if isinstance(cases, dict) else {}
    for name in wanted:
        if name not in cases:
            raise source.error(("cases",), f"there is no case {name!r}{suggestion(name, list(cases))}")
    data = {**source.data, "cases": {name: cases[name] for name in wanted}}
    for key in ("exclude", "expectations"):
        rules = data.get(key)
        if isinstance(rules, list):
            gone = [rule for rule in rules if isinstance(rule, dict) and rule.get(CASE, wanted[0]) not in wanted]
            data[key] = [rule for rule in rules if rule not in gone]
    return Source(data, source.origins, source.name)


def _without(origins: Mapping[Path, str], path: Path) -> dict[Path, str]:
    return {known: origin for known, origin in origins.items() if known[: len(path)] != path}


def resolve(source: Source) -> Spec:
    """The validated spec. Raises ConfigError with one line that names the field, and where it was written."""
    try:
        spec = Spec.model_validate(source.data, context=WRITTEN)
    except ValidationError as error:
        raise _translate(error, source, source.data, ()) from None
    for name, values in spec.axes.items():
        _check_axis(source, name, values)
    for metric, condition in spec.thresholds.items():
        try:
            parse_threshold(metric, condition)
        except ValueError as error:
            raise source.error(("thresholds",), str(error), at=("thresholds", metric)) from None
    for position, combination in enumerate(spec.exclude):
        if not combination:
            raise source.error(("exclude", position), "must name at least one parameter")
        for name, value in combination.items():
            normal_value(source, name, value, ("exclude", position, name))
    return spec


def _check_axis(source: Source, name: str, values: list[Any]) -> None:
    path = ("axes", name)
    others = [axis for axis in source.data["axes"] if name.startswith(f"{axis}.")]
    if others:
        raise source.error(path, f"overlaps with the axis over {others[0]}")
    if not values:
        raise source.error(path, "must have at least one value")
    seen: list[Any] = []
    for position, value in enumerate(values):
        normal = normal_value(source, name, value, (*path, position))
        if normal in seen:
            raise source.error((*path, position), f"{value!r} stands twice")
        seen.append(normal)


def normal_value(source: Source, name: str, value: Any, path: Path) -> Any:
    """The validated value of one parameter in its normal form. `path` says where it was written."""
    if name == CASE and path[0] != "axes":
        cases = source.data.get("cases") or {}
        if value not in cases:
            raise source.error(path, f"there is no case {value!r}{suggestion(str(value), list(cases))}")
        return value
    if name not in PARAMETER_NAMES and not name.startswith("load.mix."):
        raise source.error(
            path[:-1] if path[0] == "axes" else path, f"unknown parameter{suggestion(name, PARAMETER_NAMES)}"
        )
    raw = with_value(source.data.get("base") or {}, name, value)
    try:
        return parameter(Parameters.model_validate(raw, context=WRITTEN), name)
    except ValidationError as error:
        raise _translate(error, source, {"base": raw}, ("base",), origin=path, name=name) from None


def parameter(parameters: Parameters, name: str) -> Any:
    """The value of the parameter with a dotted name, in the form in which it is written."""
    value: Any = parameters.model_dump(mode="json")
    for part in name.split("."):
        value = value[part]
    return value


def _translate(
    error: ValidationError, source: Source, raw: Any, prefix: Path, *, origin: Path | None = None, name: str = ""
) -> ConfigError:
    """The first error of pydantic in our words: the field, what is allowed, what was given."""
    first = error.errors(include_url=False)[0]
    path: list[str | int] = list(prefix)
    value: Any = raw
    for part in prefix:
        value = value[part]
    for part in first["loc"]:  # pydantic puts the names of union members into the path; they are not in the data
        inside = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        if part in inside:
            path.append(part)
            value = value[part]
    if first["type"] == "extra_forbidden":
        where = tuple(str(part) for part in path)
        message = f"unknown parameter{suggestion(dotted(where).removeprefix('base.'), _names_beside(where))}"
    else:
        message = _message(first)
    shown = tuple(path) if origin is None or len(path) > 1 else (*path, *name.split("."))
    return source.error(shown, message, origin)


_MESSAGES = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of parameters",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
}


def _message(error: Any) -> str:
    """What is allowed, and what was given, in our words where we have them."""
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    template = _MESSAGES.get(error["type"], str(error["msg"]).replace("Input should be", "must be").replace("{", "{{"))
    bounds = {key: f"{value:g}" if isinstance(value, float) else value for key, value in error.get("ctx", {}).items()}
    return f"{template.format(**bounds)}, not {error['input']!r}"


def _names_beside(path: tuple[str, ...]) -> list[str]:
    """The names that could have been meant by an unknown one at `path`."""
    if path[0] != "base":
        return [*Spec.model_fields, *(f"base.{name}" for name in Parameters.model_fields)]
    siblings = [name for name in PARAMETER_NAMES if name.split(".")[:-1] == list(path[1:-1])]
    return siblings + [name for name in PARAMETER_NAMES if name not in siblings]


def cell_faults(parameters: Parameters, node_ids: Sequence[str]) -> Iterator[str]:
    """What is wrong with the parameters of a cell as a whole, each beginning with the field."""
    load, limits = parameters.load, parameters.limits
    if parameters.target == "sim" and parameters.cluster.command != "default":
        yield "cluster.command: only this project's own node can be simulated"
    if parameters.target == "sim" and load.on != "driver":
        yield "load.on: must be driver in a simulation, which has no hosts"
    if load.mode == "open" and load.rate is None:
        yield "load.rate: is needed in open mode"
    if load.value_bytes > limits.value_bytes:
        yield f"load.value_bytes: at most limits.value_bytes, that is {limits.value_bytes}, not {load.value_bytes}"
    if load.key_bytes > limits.key_bytes:
        yield f"load.key_bytes: at most limits.key_bytes, that is {limits.key_bytes}, not {load.key_bytes}"
    if len(str(load.keys - 1)) > load.key_bytes:
        yield f"load.key_bytes: {load.keys} keys need at least {len(str(load.keys - 1))} bytes"
    try:
        plan(parameters.chaos, duration_s=parameters.phases.measure, nodes=node_ids, seed=0)
    except BadChaos as error:
        yield f"chaos: {error}"
    if not parameters.allow_bad_parameters:
        for fault in static_faults(parameters.raft, limits, parameters.transport):
            yield f"{fault} (allow_bad_parameters: true runs it all the same)"


def longest_outage_s(parameters: Parameters) -> float:
    """For about how long the faults of a cell may keep clients waiting: until another leader is found, and before that,
    where a fault takes the quorum, until it is healed; but not longer than until clients give up. 0 without faults."""
    lasts_s = [_takes_service_s(item, parameters) for item in parameters.chaos.root if isinstance(item, Fault)]
    election_s = 2 * parameters.raft.election_timeout.max_s + parameters.client.rpc_timeout
    give_up_s = parameters.client.rpc_timeout + parameters.client.retry_budget
    return min(max(lasts_s, default=0.0) + election_s, give_up_s) if parameters.chaos else 0.0


def _takes_service_s(fault: Fault, parameters: Parameters) -> float:
    """How long no operation can succeed because of a fault, whoever leads."""
    many = fault.where in ("majority", "all", "followers") or len(fault.ids) >= quorum_size(parameters.cluster.nodes)
    if parameters.expect != "unavailable" and not (fault.disables and many):
        return 0.0
    measure_s = parameters.phases.measure
    return measure_s if fault.lasts is None else moment_s(fault.lasts, measure_s)


def cell_warnings(parameters: Parameters) -> list[str]:
    """What is legal about the parameters of a cell and rarely wanted."""
    members = [f"n{number}" for number in range(1, parameters.cluster.nodes + 1)]
    config = NodeConfig(
        cluster_id="cell",
        node_id="n1",
        members=members,
        raft=parameters.raft,
        storage=parameters.storage,
        limits=parameters.limits,
        transport=parameters.transport,
        allow_bad_parameters=True,
    )
    warnings = [re.sub(r"^members:", "cluster.nodes:", line) for line in unwise(config)]
    if parameters.allow_bad_parameters:
        warnings += static_faults(parameters.raft, parameters.limits, parameters.transport)
    if parameters.client.dedupe == "off":
        warnings.append("client.dedupe: off lets a retry take effect a second time")
    if parameters.load.mode == "closed" and parameters.load.rate is not None:
        warnings.append("load.rate: has no effect in closed mode")
    waiting = round((parameters.load.rate or 0.0) * longest_outage_s(parameters))
    if parameters.load.mode == "open" and parameters.load.clients < waiting:
        warnings.append(
            f"load.clients: about {waiting} operations are due in the longest outage that the faults may cause, and "
            f"those that find none of {parameters.load.clients} clients free are dropped; raise it to {waiting}"
        )
    if parameters.load.mode == "open" and parameters.load.think:
        warnings.append("load.think: has no effect in open mode")
    if parameters.target != "sim" and parameters.sim != SimSettings():
        warnings.append("sim: has no effect on real processes")
    if parameters.target == "sim" and parameters.cluster.placement != "spread":
        warnings.append("cluster.placement: has no effect in simulation")
    if parameters.load.value_bytes < 8:
        warnings.append("load.value_bytes: values below 8 bytes are not unique")
    return warnings


def check_bounds(time_limit: str | None, memory_limit: str | None) -> dict[str, Any]:
    """Bounds of a check as on the command line, as fields of CheckSettings. Raises ConfigError."""
    given = {"time_limit": time_limit, "memory_limit": memory_limit}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None:
            try:
                found[name] = getattr(CheckSettings.model_validate({name: value}, context=WRITTEN), name)
            except ValidationError as error:
                raise ConfigError(f"--{name.replace('_', '-')}: {_message(error.errors()[0])}") from None
    return found


def json_schema() -> dict[str, Any]:
    """The spec's JSON schema, for editors; every axis is known by its dotted name."""
    schema = Spec.model_json_schema()
    definitions = schema["$defs"]
    _describe(definitions)

    def of(name: str) -> Any:
        properties = definitions["Parameters"]["properties"]
        for part in name.split("."):
            found = properties[part]
            reference = found.get("$ref") or next((option["$ref"] for option in found.get("allOf", [])), None)
            properties = definitions[reference.rsplit("/", 1)[-1]].get("properties", {}) if reference else {}
        return {key: value for key, value in found.items() if key != "default"}

    axes = {name: {"type": "array", "minItems": 1, "items": of(name)} for name in PARAMETER_NAMES}
    schema["properties"]["axes"] |= {"properties": axes, "additionalProperties": False}
    schema["properties"]["exclude"]["items"] = {
        "type": "object",
        "minProperties": 1,
        "properties": {name: of(name) for name in PARAMETER_NAMES},
        "additionalProperties": False,
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Sweep"}


def _describe(definitions: Mapping[str, Any]) -> None:
    """Give the fields of the node's configuration their attribute docstrings as descriptions. A node does
    without these docstrings, which take time to read whenever it starts."""
    for section in ast.parse(inspect.getsource(node_config)).body:
        if not isinstance(section, ast.ClassDef) or section.name not in definitions:
            continue
        properties = definitions[section.name]["properties"]
        for each, after in itertools.pairwise(section.body):
            match each, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    if name in properties:
                        properties[name].setdefault("description", inspect.cleandoc(text))
