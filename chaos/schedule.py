"""Schedules: which fault strikes when. They are made from a `chaos:` value and a seed, saved, loaded and replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from chaos.faults import AnyFault, Fault, Item, Monkey, Replay, fault_kind, format_moment, moment_s
from chaos.spec import BadChaos, ChaosSpec, one_line
from raft_actor_node.config import Section
from raft_actor_node.files import replacing
from raft_actor_node.units import format_duration, parse_duration

MAX_INTERVALS = 10_000
"""Limit on the repetitions of one fault; a larger number is surely a typing error."""


class Schedule(Section):
    """Faults in the order of their times; each strikes once, at a fixed time after the start.

    A fault may name its nodes by a selector such as `leader`; the monkey resolves the selector when the fault strikes.
    """

    duration_s: Annotated[float, Field(gt=0)]
    """Length of the schedule; every fault is healed by its end."""
    seed: int
    """Seed of the choices that are made when a fault strikes."""
    faults: tuple[AnyFault, ...] = ()

    @model_validator(mode="after")
    def _plain(self) -> Schedule:
        for i, fault in enumerate(self.faults):
            if fault.every is not None or not all(isinstance(t, float) for t in (fault.at, fault.lasts or 0.0)):
                raise ValueError(f"faults.{i}: each fault strikes once, at a time such as 2s after the start")
            if fault.at >= self.duration_s:
                raise ValueError(f"faults.{i}: at: must be before the end at {format_duration(self.duration_s)}")
        if list(self.faults) != sorted(self.faults, key=_at):
            raise ValueError("faults: must be in the order of their times")
        return self

    def save(self, path: str | Path) -> None:
        """Write the schedule as JSON, replacing the file atomically. Raises OSError."""
        with replacing(path) as file:
            file.write(json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Read a saved schedule. Raises BadChaos with one line."""
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise BadChaos(f"{path}: cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise BadChaos(f"{path}: {one_line(error, show_position=True)}") from None


def plan(spec: ChaosSpec, *, duration_s: float, nodes: Sequence[str], seed: int) -> Schedule:
    """Return the schedule of a `chaos:` value for a phase of `duration_s` seconds in a cluster of these nodes.

    The same arguments give the same schedule on every host; the only file read is that of a replay. Raises BadChaos
    with one line for what cannot happen in this phase or this cluster.
    """
    faults: list[Fault] = []
    for position, item in enumerate(spec.root):
        # Each item has its own generator, so adding an item does not change the faults of the others.
        rng = Random(f"{seed}/{position}" if not isinstance(item, Monkey) or item.seed is None else str(item.seed))
        for fault in _strikes(item, duration_s, nodes, rng):
            if reason := fault.refusal(nodes):
                raise BadChaos(reason)
            faults.append(fault if fault.needs_leader else fault.resolved(nodes, None, rng))
    return Schedule.model_validate({"duration_s": duration_s, "seed": seed, "faults": sorted(faults, key=_at)})


def _strikes(item: Item, duration_s: float, nodes: Sequence[str], rng: Random) -> Iterator[Fault]:
    if isinstance(item, Replay):
        yield from _replayed(item, duration_s)
    elif isinstance(item, Monkey):
        for start_s in _intervals(0.0, item.every, duration_s, item.kind):
            lasts_s = tidy_s(rng.uniform(0.25, 0.75) * item.every)
            kind = fault_kind(rng.choice(item.monkey))
            # Each fault has its own generator, so the number of draws of a kind does not change the times.
            fault = kind.drawn(nodes, Random(rng.getrandbits(64)))
            at_s = start_s + rng.uniform(0.0, item.every - lasts_s)
            yield fault.timed(_before(duration_s, at_s), lasts_s)
    elif isinstance(item, Fault):
        yield from _timed(item, duration_s, rng)
    else:
        raise TypeError(f"{item.kind} cannot be planned")


def _timed(fault: Fault, duration_s: float, rng: Random) -> Iterator[Fault]:
    first_s = moment_s(fault.at, duration_s)
    lasts_s = None if fault.lasts is None else tidy_s(moment_s(fault.lasts, duration_s))
    if fault.every is None or lasts_s is None:
        _within(f"{fault.kind}.at", fault.at, duration_s)
        yield fault.timed(_before(duration_s, first_s), lasts_s)
        return
    every_s = moment_s(fault.every, duration_s)
    if lasts_s > every_s:
        raise BadChaos(
            f"{fault.kind}.{fault.end_key}: {format_duration(lasts_s)} does not fit into an interval of every: "
            f"{format_duration(every_s)}; shorten it to at most {format_duration(every_s)}, or lengthen every"
        )
    for start_s in _intervals(first_s, every_s, duration_s, fault.kind):
        yield fault.timed(_before(duration_s, start_s + rng.uniform(0.0, every_s - lasts_s)), lasts_s)


def _replayed(item: Replay, duration_s: float) -> Iterator[Fault]:
    for fault in Schedule.load(item.replay).faults:
        _within(f"replay: {item.replay}: {fault.kind}.at", fault.at, duration_s)
        yield fault


def _intervals(first_s: float, every_s: float, duration_s: float, kind: str) -> list[float]:
    # The tolerance is for rounding: three thirds of a phase are three intervals, not two.
    count = int((duration_s - first_s) / every_s + 1e-9)
    if not 1 <= count <= MAX_INTERVALS:
        found = f"more than {MAX_INTERVALS} intervals" if count > 0 else "no interval"
        raise BadChaos(
            f"{kind}.every: {found} of {format_duration(every_s)} in the phase of {format_duration(duration_s)}"
        )
    return [first_s + k * every_s for k in range(count)]


def _within(field: str, moment: float | Fraction, duration_s: float) -> None:
    if moment_s(moment, duration_s) >= duration_s:
        phase = format_duration(duration_s)
        raise BadChaos(f"{field}: {format_moment(moment)} is not before the end of the phase of {phase}")


def _before(end_s: float, time_s: float) -> float:
    return tidy_s(min(time_s, end_s - 1e-6))


def tidy_s(time_s: float) -> float:
    """Round a time to the microsecond, so that writing and reading it gives the same number."""
    return parse_duration(format_duration(time_s))


def _at(fault: Fault) -> float:
    return float(fault.at)
