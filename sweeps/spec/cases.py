"""Named cases of a sweep: a case sets several parameters at once, and states the expected outcome.

    cases:
      quorum loss:                                      # a name; `-o cases=NAME,NAME` runs only these
        chaos: {partition: quorum-loss, at: 2s}         # parameters, by name, as on the left side of an axis
        expect: available
        signature: {elections: ">= 1"}                  # typical results, shown beside the measured ones
      batch above the limit:
        raft: {max_batch_bytes: 64MiB}
        refused: transport.message_bytes                # the case must be refused, with this text in the error
    expectations:                                       # for combinations of parameters; the last match counts
      - {case: quorum loss, raft.pre_vote: true, raft.check_quorum: false, expect: unavailable}

The cases form an axis named `case`, which comes before all other axes. The functions are pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from raft_actor_node.config import describe
from raft_actor_node.names import node_names
from raft_actor_node.units import WRITTEN
from sweeps.spec.parameters import CASE, Parameters, Spec, parameter, with_value
from sweeps.spec.resolve import normal_value
from sweeps.spec.rules import cell_faults
from sweeps.spec.source import Source
from sweeps.spec.thresholds import parse_threshold

_SIGNATURE, _REFUSED, _EXPECT = "signature", "refused", "expect"


@dataclass(frozen=True)
class Case:
    """One named case. A sweep without cases runs a single case without a name."""

    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Parameters by name, as written in the spec."""
    signature: Mapping[str, str] = field(default_factory=dict)
    """Conditions on metrics, in the form of thresholds."""
    refused: str = ""
    """Text that the error of the refused case must contain; empty for a case that runs."""

    @property
    def axis(self) -> dict[str, str]:
        """The case as the value of an axis."""
        return {CASE: self.name} if self.name else {}


def read_cases(spec: Spec, source: Source) -> list[Case]:
    """Return the validated cases of a spec, or a single case without a name if it has none. Raises ConfigError."""
    cases = [_read(spec, source, name, dict(written)) for name, written in spec.cases.items()]
    for position, rule in enumerate(spec.expectations):
        path = ("expectations", position)
        if _EXPECT not in rule or len(rule) < 2:
            raise source.error(path, "must have `expect`, and at least one parameter (or `case`) that selects cells")
        for name, value in rule.items():
            normal_value(source, name, value, (*path, name))
    return cases or [Case()]


def _read(spec: Spec, source: Source, name: str, values: dict[str, Any]) -> Case:
    path = ("cases", name)
    signature, refused = values.pop(_SIGNATURE, {}), values.pop(_REFUSED, "")
    if not isinstance(signature, dict):
        raise source.error((*path, _SIGNATURE), "must be a mapping of metrics to conditions")
    for metric, condition in signature.items():
        try:
            parse_threshold(metric, condition)
        except ValueError as error:
            raise source.error((*path, _SIGNATURE), str(error)) from None
    if not isinstance(refused, str) or (refused and signature):
        raise source.error(
            (*path, _REFUSED), "must be text from the error; a case with `refused` cannot have a `signature`"
        )
    for key, value in values.items():
        if key in spec.axes:
            raise source.error((*path, key), "the spec has an axis over this parameter; remove the axis or this value")
        if not refused:
            normal_value(source, key, value, (*path, key))
    return Case(name, values, signature, refused)


def refusals(spec: Spec, source: Source) -> dict[str, str]:
    """Return the error of each case that must be refused. Raises ConfigError if such a case could run."""
    return {case.name: _refusal(source, case) for case in read_cases(spec, source) if case.refused}


def _refusal(source: Source, case: Case) -> str:
    raw = source.data.get("base") or {}
    for name, value in case.values.items():
        raw = with_value(raw, name, value)
    try:
        parameters = Parameters.model_validate(raw, context=WRITTEN)
        nodes = node_names(parameters.cluster.nodes)
        error = next(cell_faults(parameters, nodes), "")
    except ValidationError as invalid:
        error = describe(invalid)
    if case.refused not in error:
        found = f"but the error is: {error}" if error else "but it can run"
        raise source.error(
            ("cases", case.name, _REFUSED), f"must be refused with {case.refused!r} in the error, {found}"
        )
    return error


def matches(source: Source, rule: Mapping[str, Any], path: tuple[str, int], case: Case, parameters: Parameters) -> bool:
    """Return whether a rule of `exclude` or `expectations` applies to a combination."""
    return all(
        normal_value(source, name, value, (*path, name)) == (case.name if name == CASE else parameter(parameters, name))
        for name, value in rule.items()
        if name != _EXPECT
    )


def expecting(spec: Spec, source: Source, case: Case, parameters: Parameters) -> Parameters:
    """Return the parameters of a combination with the `expect` that the expectations give it."""
    for position, rule in reversed(list(enumerate(spec.expectations))):
        if matches(source, rule, ("expectations", position), case, parameters):
            return parameters.model_copy(update={_EXPECT: rule[_EXPECT]})
    return parameters
