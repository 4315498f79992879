"""Validation of a raw spec."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from raft_actor_node.text import did_you_mean
from raft_actor_node.units import WRITTEN
from sweeps.spec.document import Path
from sweeps.spec.messages import translated
from sweeps.spec.parameters import CASE, PARAMETER_NAMES, Parameters, Spec, parameter, with_value
from sweeps.spec.source import Source
from sweeps.spec.thresholds import parse_threshold


def resolve(source: Source) -> Spec:
    """Validate a raw spec. Raises ConfigError with one line that names the field, and where the value was written."""
    try:
        spec = Spec.model_validate(source.data, context=WRITTEN)
    except ValidationError as error:
        raise translated(error, source, source.data, ()) from None
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
            raise source.error((*path, position), f"{value!r} appears twice")
        seen.append(normal)


def normal_value(source: Source, name: str, value: Any, path: Path) -> Any:
    """Return the normal form of the value of one parameter, written at `path`. Raises ConfigError if it is invalid."""
    if name == CASE and path[0] != "axes":
        cases = source.data.get("cases") or {}
        if value not in cases:
            raise source.error(path, f"there is no case {value!r}{did_you_mean(str(value), list(cases))}")
        return value
    if name not in PARAMETER_NAMES and not name.startswith("load.mix."):
        raise source.error(
            path[:-1] if path[0] == "axes" else path, f"unknown parameter{did_you_mean(name, PARAMETER_NAMES)}"
        )
    raw = with_value(source.data.get("base") or {}, name, value)
    try:
        return parameter(Parameters.model_validate(raw, context=WRITTEN), name)
    except ValidationError as error:
        raise translated(error, source, {"base": raw}, ("base",), origin=path, name=name) from None
