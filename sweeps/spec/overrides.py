"""Values from the command line that replace those of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from raft_actor_node.errors import ConfigError
from raft_actor_node.text import did_you_mean
from raft_actor_node.units import WRITTEN
from sweeps.spec.document import Path, parse_yaml, split_values
from sweeps.spec.messages import message_of
from sweeps.spec.parameters import CASE, PARAMETER_NAMES, CheckSettings, Spec, with_value
from sweeps.spec.source import Source


def parse_option(option: str) -> tuple[str, Any]:
    """Split `KEY=VALUE` or `KEY=A,B,C` into the key and a value; a list of values is an axis. Raises ConfigError."""
    key, equals, text = option.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"-o {option}: must have the form KEY=VALUE or KEY=VALUE,VALUE")
    if key.startswith("thresholds."):
        return key, text.strip()  # not YAML, in which `>` begins a block scalar
    values = [parse_yaml(part, f"-o {option}").data for part in split_values(text)]
    if any(value is None for value in values):
        raise ConfigError(f"-o {option}: {key}: a value is missing")
    return key, values if len(values) > 1 else values[0]


def override(source: Source, key: str, value: Any, origin: str) -> Source:
    """Return the spec with one parameter set, or with an axis over it if `value` is a list.

    `origin`: where the option was written, for error messages. Raises ConfigError.
    """
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
            raise here.error((key,), "takes one value; it cannot be an axis")
        data[name] = value
        return Source(data, {**origins, (name,): origin}, source.name)
    if name not in PARAMETER_NAMES and not name.startswith(("load.mix.", "chaos.")):
        if name in Spec.model_fields:
            raise here.error(
                (key,), "cannot be set by an option; name a parameter, as in cluster.nodes=3, or edit the file"
            )
        known = (*Spec.model_fields, *PARAMETER_NAMES)
        raise here.error((key,), f"unknown parameter{did_you_mean(name, known)}")
    axes = data.get("axes") or {}
    around = [axis for axis in axes if name.startswith(f"{axis}.")] if isinstance(axes, dict) else []
    if around:
        raise here.error((key,), f"the spec has an axis over {around[0]}; override that axis")
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
    """Return the spec with only the named cases, and without the rules about other cases."""
    wanted = [str(name) for name in (names if isinstance(names, list) else [names])]
    cases = source.data.get("cases")
    cases = cases if isinstance(cases, dict) else {}
    for name in wanted:
        if name not in cases:
            raise source.error(("cases",), f"there is no case {name!r}{did_you_mean(name, list(cases))}")
    data = {**source.data, "cases": {name: cases[name] for name in wanted}}
    for key in ("exclude", "expectations"):
        rules = data.get(key)
        if isinstance(rules, list):
            gone = [rule for rule in rules if isinstance(rule, dict) and rule.get(CASE, wanted[0]) not in wanted]
            data[key] = [rule for rule in rules if rule not in gone]
    return Source(data, source.origins, source.name)


def _without(origins: Mapping[Path, str], path: Path) -> dict[Path, str]:
    return {known: origin for known, origin in origins.items() if known[: len(path)] != path}


def check_bounds(time_limit: str | None, memory_limit: str | None) -> dict[str, Any]:
    """Parse the bounds of a check from the command line into fields of CheckSettings. Raises ConfigError."""
    given = {"time_limit": time_limit, "memory_limit": memory_limit}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None:
            try:
                found[name] = getattr(CheckSettings.model_validate({name: value}, context=WRITTEN), name)
            except ValidationError as error:
                raise ConfigError(f"--{name.replace('_', '-')}: {message_of(error.errors()[0])}") from None
    return found
