"""Expansion of a spec into cells: cases x axes, minus the exclusions, times the repeats, in order.

The functions are pure and use no clock or global randomness: a spec always gives the same cells in the same order.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from chaos import label
from orchestration.targets import TARGETS
from raft_actor_node.errors import ConfigError
from raft_actor_node.names import node_names
from raft_actor_node.units import WRITTEN
from sweeps.spec.cases import Case, expecting, matches, read_cases
from sweeps.spec.parameters import CASE, Parameters, Spec, with_value
from sweeps.spec.rules import cell_faults, cell_warnings
from sweeps.spec.source import Source

MAX_CELLS = 10_000


@dataclass(frozen=True)
class Cell:
    """One combination of the axes, in one repeat."""

    id: str
    """Hash of the parameters and the repeat; the same cell has the same id in every run."""
    parameters: Parameters
    repeat: int
    """From 1."""
    axes: dict[str, Any]
    """Values of the axes, as they were written."""
    seed: int
    """Seed of the cell's load and faults, derived from the seed of the sweep and the id."""
    warnings: tuple[str, ...] = ()
    signature: Mapping[str, str] = field(default_factory=dict)
    """Conditions typical of the cell's case; they are shown and do not affect the verdict."""

    @property
    def label(self) -> str:
        """A short text that distinguishes the cell from the others."""
        chaos = {"chaos": label(self.parameters.chaos)}
        values = [f"{name.rsplit('.', 1)[-1]}={chaos.get(name, show(value))}" for name, value in self.axes.items()]
        return " ".join(values) or f"nodes={self.parameters.cluster.nodes}"


def show(value: Any) -> str:
    """Return a value as it is written in a spec, on one line and without quotes."""
    if isinstance(value, (dict, list)):
        return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip().replace("'", "")
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def cell_id(parameters: Parameters, repeat: int) -> str:
    """Return ten hexadecimal digits, a hash of the resolved parameters and the repeat."""
    text = json.dumps([parameters.model_dump(mode="json"), repeat], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def node_ids(parameters: Parameters) -> tuple[str, ...]:
    """Return the names of the nodes: n1, n2, ..."""
    return node_names(parameters.cluster.nodes)


def make_cells(spec: Spec, source: Source) -> list[Cell]:
    """Return the cells in the order in which they run. Raises ConfigError with one line that names the field."""
    cases = [case for case in read_cases(spec, source) if not case.refused]
    count = math.prod(len(values) for values in (cases, *spec.axes.values())) * spec.repeats
    if count > MAX_CELLS:
        raise source.error(("axes",) if spec.axes else ("repeats",), f"{count} cells are too many; at most {MAX_CELLS}")
    combinations = []
    for case, *values in itertools.product(cases, *spec.axes.values()):
        axes = dict(zip(spec.axes, values, strict=True))
        parameters = _combine(source, {**case.values, **axes})
        if any(matches(source, rule, ("exclude", i), case, parameters) for i, rule in enumerate(spec.exclude)):
            continue
        parameters = expecting(spec, source, case, parameters)
        _check(source, parameters, axes, case)
        combinations.append((parameters, {**case.axis, **axes}, tuple(cell_warnings(parameters)), case.signature))
    if not cases:
        raise source.error(("cases",), "leaves no cell: all cases are `refused`")
    if not combinations:
        raise source.error(("exclude",), "leaves no cell")
    _refuse_twins(source, combinations)
    if len({parameters.target for parameters, *_ in combinations}) > 1:
        path = source.parameter_origin("target")
        raise source.error(path, f"a run has one target ({', '.join(TARGETS)}); make one run for each")
    return [
        Cell(identity, parameters, repeat, axes, _seed(spec.seed, identity), warnings, signature)
        for repeat, (parameters, axes, warnings, signature) in _ordered(spec, combinations)
        for identity in [cell_id(parameters, repeat)]
    ]


def _combine(source: Source, axes: dict[str, Any]) -> Parameters:
    raw = source.data.get("base") or {}
    for name, value in axes.items():
        raw = with_value(raw, name, value)
    # Each part was validated before; cell_faults() checks the whole.
    return Parameters.model_validate(raw, context=WRITTEN)


def _check(source: Source, parameters: Parameters, axes: dict[str, Any], case: Case) -> None:
    for fault in cell_faults(parameters, node_ids(parameters)):
        name, _, message = fault.partition(": ")
        path = source.parameter_origin(name)
        if path[0] == "axes":
            path = (*path, source.data["axes"][path[1]].index(axes[str(path[1])]))
        elif case.name:
            path = ("cases", case.name)
        cell = ", ".join(f"{axis}={show(value)}" for axis, value in {**case.axis, **axes}.items())
        raise ConfigError(f"{source.origin(path)}: {name}: {message}" + (f" [in the cell {cell}]" if cell else ""))


def _refuse_twins(source: Source, combinations: Sequence[Any]) -> None:
    """Refuse two cases with the same value of every parameter: they would be the same cell."""
    seen: dict[str, str] = {}
    for parameters, axes, *_ in combinations:
        case, twin = axes.get(CASE), seen.setdefault(cell_id(parameters, 1), axes.get(CASE, ""))
        if case is not None and twin != case:
            raise source.error(("cases", case), f"is the same as {twin!r} in every parameter")


def _ordered(spec: Spec, combinations: Sequence[Any]) -> list[tuple[int, Any]]:
    repeats = range(1, spec.repeats + 1)
    if spec.order == "sequential":
        return [(repeat, combination) for combination in combinations for repeat in repeats]
    rng = random.Random(spec.seed)
    return [(repeat, chosen) for repeat in repeats for chosen in rng.sample(combinations, len(combinations))]


def _seed(seed: int, identity: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{identity}".encode()).digest()[:6], "big")
