"""The search problem: the operations on one key as steps, and what is known about their states.

An operation becomes a *step* when it certainly happened: it is ok, or its outcome is unknown but a value that only it
writes was seen. A step has an interval in which it took effect, the states in which it is possible, and the state it
leads to. Other operations of unknown outcome are *options*: they may happen after their invocation, or never.

A written value that no other operation writes restricts the order most. A state that ends with such a value is entered
once, by the operation that writes the value, and is left once. Three rules follow:

1. The writer took effect before the first return of an operation that needs the state. This rule also gives a deadline
to operations of unknown outcome.

2. No operation leaves the state before the last operation that saw the state has begun.

3. If an operation replaces the state (a cas that expected it, an append whose result was seen), only that operation
leaves the state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chaos.history import Operation, Value
from chaos.linearizability.states import ABSENT, NONE, States

# Kinds of steps: the states in which a step is possible, and what it leads to.
READ = 0
"""Possible in `before`; the state stays."""
MOVE = 1
"""From `before` to `after`."""
BLIND = 2
"""From any state to `after`."""
TAKE = 3
"""From any state except ABSENT to ABSENT."""
EXTEND = 4
"""From any state to a longer one. If the length or the state afterwards was seen, the result must match it."""

_NEVER = math.inf


@dataclass(slots=True)
class Step:
    """An operation that certainly happened."""

    operation: Operation
    invoke: int | float
    deadline: int | float
    """The latest time at which it took effect."""
    kind: int
    before: int = NONE
    after: int = NONE
    atoms: tuple[int, ...] | None = None
    """EXTEND: the appended atoms."""
    size: int | None = None
    """EXTEND: length of the atoms in bytes; None: unknown."""
    length: int | None = None
    """EXTEND: length in bytes of the value afterwards; None: unknown."""
    group: int = 0
    """Steps of one group have the same effect."""
    number: int = 0
    """Position of the step in the order of deadlines."""
    bit: int = 0
    """Bit of the step in a set of steps, unique among steps with overlapping intervals."""
    after_step: Step | None = None
    """The earlier step of its process that it must follow, where the intervals do not imply this order."""
    next_invoke: int | float = math.inf
    """When the next step of its process was invoked, where the intervals do not imply their order."""


@dataclass(slots=True)
class Option:
    """Operations that may have happened, any number of them, all with the same effect."""

    step: Step
    invokes: list[int | float]
    """When they were invoked, in ascending order."""
    after_step: Step | None = None
    """As in Step; the same for all of them."""


@dataclass(slots=True)
class Hold:
    """What is known about a state that is entered once."""

    writer: Step | None
    """The step that enters it; None: it is the initial state."""
    reads: list[Step] = field(default_factory=list)
    last_read: int | float = -_NEVER
    """When the last of `reads` was invoked."""
    next: Step | None = None
    """The step that certainly leaves it."""

    def free(self, now: int | float) -> bool:
        """Return whether any step may leave the state."""
        return self.next is None and self.last_read <= now

    def replaced(self, now: int | float) -> bool:
        """Return whether the step that certainly leaves the state may do so now."""
        return self.next is not None and self.last_read <= now and self.next.invoke <= now


@dataclass(frozen=True)
class Contradiction:
    """Why no order of the operations explains what clients saw."""

    reason: str
    operations: tuple[Operation, ...]
    """The operations that contradict one another."""


class Impossible(Exception):
    """A contradiction was found."""

    def __init__(self, reason: str, operations: Iterable[Operation]) -> None:
        super().__init__(reason)
        self.contradiction = Contradiction(reason, tuple({id(o): o for o in operations}.values()))


@dataclass(slots=True)
class Problem:
    """The operations to put in order."""

    steps: list[Step]
    """By deadline."""
    options: list[Option]
    holds: dict[int, Hold]
    """The states that are entered once."""
    states: States

    def after(self, state: int, step: Step) -> int:
        """Return the state after a step in `state`, or NONE when the step is not possible there."""
        kind = step.kind
        if kind == BLIND:
            return step.after
        if kind == TAKE:
            return NONE if state == ABSENT else ABSENT
        if kind != EXTEND:
            return step.after if state == step.before else NONE
        after = self.states.extended(state, step.atoms or (), step.size)
        if step.length is not None and self.states.size[after] not in (None, step.length):
            return NONE
        return NONE if step.after not in (NONE, after) else after


def matters(operation: Operation) -> bool:
    """Return whether an operation carries information: it had an effect, or may have one, or it saw something."""
    return operation.outcome == "ok" or (operation.outcome == "info" and operation.f != "get")


def span_ns(operation: Operation) -> tuple[int, int | float]:
    """Return the longest interval that an operation may have lasted, with the error of its clock on both sides."""
    return operation.invoke_ns - operation.error_ns, operation.return_ns + operation.error_ns


def shown(value: Any) -> str:
    """Return a written value in at most 24 characters. Numbers from 2**40 on are shown as HIGH:LOW, split at bit 40."""
    if type(value) is int and value >= 1 << 40:
        text = f"{value >> 40}:{value & (1 << 40) - 1}"
    else:
        text = f"{value!r}" if isinstance(value, str) else str(value)
    return text if len(text) <= 24 else f"{text[:10]}...{text[-10:]}"


def shown_value(value: Value) -> str:
    """Return the value of a key in a few words."""
    if value is None:
        return "nothing"
    if len(value) == 1:
        return shown(value[0])
    atoms = [shown(atom) for atom in value]
    return f"[{' '.join(atoms if len(atoms) <= 8 else [*atoms[:3], f'... {len(atoms) - 6} more ...', *atoms[-3:]])}]"


def who(operation: Operation) -> str:
    """Return the name and client of an operation."""
    return f"the {operation.f} of client {operation.process}"


def seen(operation: Operation) -> Value:
    """Return what a get, or a cas that is ok, saw."""
    swapped = operation.f == "cas" and operation.swapped
    value: Value = operation.expected if swapped else operation.observed
    return value
