"""Turn the operations on one key into a problem that can be searched, or a contradiction that needs no search."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

from chaos.history import Operation
from chaos.linearizability.bounds import Bounds
from chaos.linearizability.problem import (
    BLIND,
    EXTEND,
    MOVE,
    READ,
    TAKE,
    Hold,
    Impossible,
    Option,
    Problem,
    Step,
    matters,
    seen,
    shown,
    shown_value,
    span_ns,
    who,
)
from chaos.linearizability.states import ABSENT, EMPTY, NONE, Atoms, States
from chaos.linearizability.tighten import tighten

_UNSEEN = (-2,)
"""A placeholder for an appended value that no observed value contains."""


def pose(operations: Sequence[Operation], bounds: Bounds | None = None) -> Problem:
    """Return the search problem that the operations on one key pose.

    Raises Impossible when a contradiction is obvious, and OutOfBounds when time or memory runs out.
    """
    return _Builder(operations, bounds or Bounds()).build()


class _Builder:
    """Builds the problem of one key. Operations are identified by their position in `self.operations`."""

    def __init__(self, operations: Sequence[Operation], bounds: Bounds) -> None:
        self.operations = [operation for operation in operations if matters(operation)]
        self.bounds = bounds
        self.atoms = Atoms()
        self.states = States(self.atoms)
        self.wrote: list[tuple[int, ...] | None] = [self._written(operation) for operation in self.operations]
        self.writer = {
            wrote[-1]: at for at, wrote in enumerate(self.wrote) if wrote and self.atoms.writes[wrote[-1]] == 1
        }
        """Atom that only one operation wrote, as the last of its atoms -> that operation."""
        self.entry: dict[int, int] = {}
        """State that was certainly reached, and entered once -> the operation that entered it."""
        self.entered: dict[int, int] = {}
        """The reverse of `entry`: operation -> the state that it entered."""
        self.witness: dict[int, int] = {}
        """State that certainly existed, or that is a prefix of one that did -> an operation that proves it."""
        self.saw: dict[int, int] = {}
        """Get or ok cas -> the state that it saw."""
        self.has_empty = any(
            wrote == () and operation.f in {"put", "cas"}
            for wrote, operation in zip(self.wrote, self.operations, strict=True)
        )

    def _written(self, operation: Operation) -> tuple[int, ...] | None:
        written = operation.written
        return None if written is None else self.atoms.written(written, operation.size)

    def build(self) -> Problem:
        """Build the problem in passes, each linear in the number of operations and in the size of what they saw."""
        look = self.bounds.look
        look()
        self._observe()
        look()
        steps, optional = self._classify()
        self._complete(steps + optional)
        look()
        holds = self._holds(steps, optional)
        tighten(steps, holds, look)
        look()
        _in_turn(steps, optional, self._previous())
        look()
        steps.sort(key=lambda step: step.deadline)
        _place(steps)
        return Problem(steps, _options(optional), holds, self.states)

    # What was seen, and what that proves

    def _observe(self) -> None:
        """Register every value that was seen or expected, and derive what the seen values prove."""
        for at, operation in enumerate(self.operations):
            if operation.outcome == "ok" and operation.f in {"get", "cas"}:
                state = self.saw[at] = self.states.add(seen(operation))
                self._prove(state, at)
            elif operation.f == "cas":
                self.states.add(operation.expected)
        reachable = self._reachable()
        for at, state in self.saw.items():
            if state not in reachable:
                operation = self.operations[at]
                raise Impossible(
                    f"{who(operation)} saw {shown_value(seen(operation))}, which no client wrote", [operation]
                )

    def _prove(self, state: int, by: int) -> None:
        """Derive what the fact proves that an operation saw a state.

        If only one operation writes the last atom of the state, or of a prefix of it, that operation entered it.
        """
        todo = [(state, by)]
        while todo:
            state, by = todo.pop()
            while state > EMPTY and state not in self.witness:
                self.witness[state] = by
                writer = self.writer.get(self.states.atom[state])
                if writer is not None:
                    other = self.entered.setdefault(writer, state)
                    if other != state:
                        self._seen_twice(writer, other, state)
                    self.entry[state] = writer
                    operation = self.operations[writer]
                    if operation.outcome == "info" and operation.f == "cas":
                        todo.append((self.states.add(operation.expected), writer))
                state = self.states.parent[state]

    def _seen_twice(self, writer: int, one: int, other: int) -> None:
        by = [self.operations[at] for at in (writer, self.witness[one], self.witness[other])]
        what = shown(self.operations[writer].written[-1])  # type: ignore[index]
        reason = f"{who(by[0])} wrote {what} once, but it was seen in two places: by {who(by[1])}"
        raise Impossible(reason + (f" and {who(by[2])}" if by[1] is not by[2] else ""), by)

    def _reachable(self) -> set[int]:
        """Return the states that some order of some of the writes reaches, ignoring all other observations."""
        reachable = {ABSENT, EMPTY} if self.has_empty else {ABSENT}
        appended: set[tuple[int, ...]] = set()
        for wrote, operation in zip(self.wrote, self.operations, strict=True):
            if wrote and operation.f == "append":
                appended.add(wrote)
            elif wrote:
                reachable.add(self.states.extended(ABSENT, wrote, None))
        lengths = sorted({len(wrote) for wrote in appended})
        for state in range(EMPTY + 1, len(self.states)):
            for length in lengths:
                at, wrote = self._stem(state, length)
                if (at in reachable or at == EMPTY) and wrote in appended:
                    reachable.add(state)
        return reachable

    def _stem(self, state: int, length: int) -> tuple[int, tuple[int, ...]]:
        """Return a state without its last `length` atoms, and these atoms."""
        wrote: list[int] = []
        while len(wrote) < length and state > EMPTY:
            wrote.append(self.states.atom[state])
            state = self.states.parent[state]
        return state, tuple(reversed(wrote))

    # Operations become steps

    def _classify(self) -> tuple[list[Step], list[Step]]:
        """Return the operations that certainly happened, and those that may have happened."""
        steps: list[Step] = []
        optional: list[Step] = []
        for at, operation in enumerate(self.operations):
            known = operation.outcome == "ok"
            begin, end = span_ns(operation)
            end = max(begin, end) if known else math.inf
            step = Step(operation, begin, end, *self._effect(at), self.wrote[at], operation.size)
            if known and operation.f == "append" and step.kind == EXTEND:
                step.length = operation.observed
            (steps if known or at in self.entered else optional).append(step)
        return steps, optional

    def _effect(self, at: int) -> tuple[int, int, int]:
        """Return kind, before and after. The state after a put or a cas is found later, when lengths are known."""
        operation = self.operations[at]
        match operation.f:
            case "get":
                return READ, self.saw[at], self.saw[at]
            case "put":
                return BLIND, NONE, NONE
            case "delete":
                found = operation.observed if operation.outcome == "ok" else None
                return (
                    (BLIND, NONE, ABSENT) if found is None else (TAKE, NONE, NONE) if found else (READ, ABSENT, ABSENT)
                )
            case "cas" if operation.outcome == "ok" and not operation.swapped:
                if self.saw[at] == self.states.add(operation.expected):
                    raise Impossible(f"{who(operation)} saw what it expected, but did not swap", [operation])
                return READ, self.saw[at], self.saw[at]
            case "cas":
                return MOVE, self.states.add(operation.expected), NONE
            case "append":
                return self._append(at)

    def _append(self, at: int) -> tuple[int, int, int]:
        state = self.entered.get(at)
        if state is None:
            return EXTEND, NONE, NONE
        operation, size = self.operations[at], self.states.size[state]
        before, wrote = self._stem(state, len(self.wrote[at] or ()))
        if wrote != self.wrote[at]:
            self._not_so(at, state)
        if operation.outcome == "ok" and None not in (size, operation.observed) and size != operation.observed:
            by = self.operations[self.witness[state]]
            reason = (
                f"{who(operation)} made a value of {operation.observed} bytes, but {who(by)} saw {size} up to there"
            )
            raise Impossible(reason, [operation, by])
        if before == EMPTY and self.has_empty:
            return EXTEND, NONE, state
        return MOVE, ABSENT if before == EMPTY else before, state

    def _not_so(self, at: int, state: int) -> None:
        by = self.operations[self.witness[state]]
        raise Impossible(f"what {who(self.operations[at])} wrote was seen behind something else by {who(by)}",
                         [self.operations[at], by])  # fmt: skip

    def _complete(self, steps: list[Step]) -> None:
        """Find the states that puts and cas lead to, and group the steps with the same effect."""
        states, seen = self.states, set(self.states.atom)
        states.sized = any(step.kind == EXTEND and step.length is not None for step in steps)
        groups: dict[tuple[Any, ...], int] = {}
        for step in steps:
            if step.kind == EXTEND:
                step.size = step.size if states.sized else None
                step.atoms = step.atoms if step.atoms and seen.issuperset(step.atoms) else _UNSEEN
            else:
                if step.operation.f in {"put", "cas"} and step.kind != READ:
                    step.after = ABSENT if step.atoms is None else states.extended(ABSENT, step.atoms, step.size)
                if step.kind == MOVE and step.before == step.after:
                    step.kind = READ  # a cas that writes what it expects replaces nothing
                step.atoms = step.size = None
            group = step.kind, step.before, step.after, step.atoms, step.size, step.length
            step.group = groups.setdefault(group, len(groups))

    # States that are entered once

    def _holds(self, steps: list[Step], optional: list[Step]) -> dict[int, Hold]:
        by_operation = {id(step.operation): step for step in steps}
        holds: dict[int, Hold] = {}
        for state, at in self.entry.items():
            writer = by_operation[id(self.operations[at])]
            if writer.after != state:
                self._not_so(at, state)
            holds[state] = Hold(writer)
        if not any(step.kind == TAKE or step.after == ABSENT != step.before for step in steps + optional):
            holds[ABSENT] = Hold(None)
        for step in steps:
            hold = holds.get(step.before)
            if hold is not None and step.kind == READ:
                hold.reads.append(step)
            elif hold is not None:
                if hold.next is not None:
                    pair = [hold.next.operation, step.operation]
                    reason = f"{who(pair[0])} and {who(pair[1])} both directly replaced the same value"
                    raise Impossible(reason, pair + ([hold.writer.operation] if hold.writer else []))
                hold.next = step
        return holds

    # The order within a process

    def _previous(self) -> dict[int, Operation]:
        """Return id() of an operation -> the previous ended operation of its process.

        A process has one operation at a time: the next one begins after the last has ended, even where a coarse clock
        shows the same time for both. An operation with an unknown end may take effect beside the next one. Its order is
        unknown also relative to an operation of the same moment that took no time.
        """
        previous: dict[int, Operation] = {}
        ended: dict[int, list[Operation]] = {}
        for operation in sorted(self.operations, key=lambda o: (o.invoke_ns, o.return_ns)):
            earlier = ended.setdefault(operation.process, [])
            at = bisect_right(earlier, _invoked(operation), key=_returned)
            if operation.outcome != "ok":
                at = min(at, bisect_left(earlier, _invoked(operation), key=_invoked))
            if at:
                previous[id(operation)] = earlier[at - 1]
            if operation.outcome == "ok" and (not earlier or _returned(earlier[-1]) <= operation.return_ns):
                earlier.append(operation)
        return previous


def _invoked(operation: Operation) -> float:
    return operation.invoke_ns


def _returned(operation: Operation) -> float:
    return operation.return_ns


def _in_turn(steps: list[Step], optional: list[Step], previous: dict[int, Operation]) -> None:
    """Record for each step the step that it must follow, where the intervals do not imply this order.

    An option with such an order gets its own group. Raises Impossible if an interval becomes empty.
    """
    by_operation = {id(step.operation): step for step in steps + optional}
    groups = len(by_operation)
    pairs: list[tuple[Step, Step]] = []
    for number, (name, operation) in enumerate(previous.items()):
        step, before = by_operation[name], by_operation[id(operation)]
        if before.deadline >= step.invoke:
            step.after_step = before
            step.invoke = max(step.invoke, before.invoke)
            before.next_invoke = min(before.next_invoke, step.invoke)
            pairs.append((before, step))
            if math.isinf(step.deadline):
                step.group = groups + number
    for before, step in reversed(pairs):
        before.deadline = min(before.deadline, step.deadline)
        for one in (before, step):
            if one.deadline < one.invoke:
                pair = [before.operation, step.operation]
                raise Impossible(f"there is no moment left in which {who(one.operation)} took effect", pair)


def _place(steps: list[Step]) -> None:
    """Number steps, which are in the order of deadlines, and give steps with overlapping intervals different bits."""
    for number, step in enumerate(steps):
        step.number = number
    free: list[int] = []
    width = ended = 0
    for step in sorted(steps, key=lambda step: step.invoke):
        while steps[ended].deadline < step.invoke:
            free.append(steps[ended].bit)
            ended += 1
        if not free:
            free.append(1 << width)
            width += 1
        step.bit = free.pop()


def _options(optional: list[Step]) -> list[Option]:
    found: dict[int, Option] = {}
    for step in sorted(optional, key=lambda step: step.invoke):
        found.setdefault(step.group, Option(step, [], step.after_step)).invokes.append(step.invoke)
    return list(found.values())
