"""What is searched for an order: the operations on one key as steps, and what is known of their states.

An operation becomes a *step* when it certainly happened: it is ok, or nobody knows, but something that only it
writes was seen. A step has an interval in which it took effect, and says which states it is possible in and what
state it leads to. Other operations of unknown outcome are *options*: they may happen after their invocation, or never.

A written value that no other operation writes is worth much. The state in which it was written last is entered once,
by that operation, and left once; so (1) the writer took effect before the first return of an operation that needs
the state, which also gives operations of unknown outcome a deadline; (2) nothing may leave the state before the last
operation that saw it has begun; (3) if an operation replaces it (a cas that expected it, an append whose
result was seen), that one leaves it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chaos.history import Operation, Value
from chaos.linearizability.states import ABSENT, NONE, States

# Kinds of steps: in which states one is possible, and what it leads to.
READ = 0
"""In `before`, and stays there."""
MOVE = 1
"""In `before`, to `after`."""
BLIND = 2
"""In any state, to `after`."""
TAKE = 3
"""In any state but ABSENT, to ABSENT."""
EXTEND = 4
"""In any state, to a longer one, if that has the right length and is the one seen, where these are known."""

_NEVER = math.inf


@dataclass(slots=True)
class Step:
    """An operation that certainly happened."""

    operation: Operation
    invoke: int | float
    deadline: int | float
    """It took effect not later than this."""
    kind: int
    before: int = NONE
    after: int = NONE
    atoms: tuple[int, ...] | None = None
    """EXTEND: what is appended."""
    size: int | None = None
    """EXTEND: its length in bytes, None: not known."""
    length: int | None = None
    """EXTEND: length in bytes of the value after it, None: not known."""
    group: int = 0
    """Steps of one group do the same."""
    number: int = 0
    """Its place in the order of deadlines."""
    bit: int = 0
    """Its place in a set of steps, unique among those whose intervals overlap."""
    after_step: Step | None = None
    """What its process did before, where the intervals do not tell that this came first."""
    next_invoke: int | float = math.inf
    """When that was invoked which comes after this step in the same sense."""


@dataclass(slots=True)
class Option:
    """Operations that may have happened, any number of them, all with the same effect."""

    step: Step
    invokes: list[int | float]
    """When they were invoked, in ascending order."""
    after_step: Step | None = None
    """As of a step; of all of them."""


@dataclass(slots=True)
class Hold:
    """What happens in a state that is entered once."""

    writer: Step | None
    """None: it is the state at the beginning."""
    reads: list[Step] = field(default_factory=list)
    last_read: int | float = -_NEVER
    """When the last of them was invoked."""
    next: Step | None = None
    """The step that certainly leaves it."""

    def free(self, now: int | float) -> bool:
        """Whether any step may leave it."""
        return self.next is None and self.last_read <= now

    def replaced(self, now: int | float) -> bool:
        """Whether the step that certainly leaves it may."""
        return self.next is not None and self.last_read <= now and self.next.invoke <= now


@dataclass(frozen=True)
class Contradiction:
    """Why no order of the operations explains what clients saw."""

    reason: str
    operations: tuple[Operation, ...]
    """Those that contradict one another."""


class Impossible(Exception):
    """A contradiction was found."""

    def __init__(self, reason: str, operations: Iterable[Operation]) -> None:
        super().__init__(reason)
        self.contradiction = Contradiction(reason, tuple({id(o): o for o in operations}.values()))


@dataclass(slots=True)
class Problem:
    """What must be put in order."""

    steps: list[Step]
    """By deadline."""
    options: list[Option]
    holds: dict[int, Hold]
    """The states that are entered once."""
    states: States

    def after(self, state: int, step: Step) -> int:
        """The state after a step in `state`, or NONE when it is not possible there."""
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
    """Whether an operation says anything: it had an effect or may have one, or it saw something."""
    return operation.outcome == "ok" or (operation.outcome == "info" and operation.f != "get")


def span_ns(operation: Operation) -> tuple[int, int | float]:
    """From when to when an operation may have lasted: with the error of its clock on both sides."""
    return operation.invoke_ns - operation.error_ns, operation.return_ns + operation.error_ns


def shown(value: Any) -> str:
    """A written value in a few characters; numbers from 2**40 on as the number above and below bit 40."""
    if type(value) is int and value >= 1 << 40:
        text = f"{value >> 40}:{value & (1 << 40) - 1}"
    else:
        text = f"{value!r}" if isinstance(value, str) else str(value)
    return text if len(text) <= 24 else f"{text[:10]}...{text[-10:]}"


def shown_value(value: Value) -> str:
    """What a key holds, in a few words."""
    if value is None:
        return "nothing"
    if len(value) == 1:
        return shown(value[0])
    atoms = [shown(atom) for atom in value]
    return f"[{' '.join(atoms if len(atoms) <= 8 else [*atoms[:3], f'... {len(atoms) - 6} more ...', *atoms[-3:]])}]"


def who(operation: Operation) -> str:
    """An operation by its name and client."""
    return f"the {operation.f} of client {operation.process}"


def seen(operation: Operation) -> Value:
    """What a get, or a cas that is ok, saw."""
    swapped = operation.f == "cas" and operation.swapped
    value: Value = operation.expected if swapped else operation.observed
    return value
