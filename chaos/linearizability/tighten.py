"""Shrink intervals by rules that hold in every order, until nothing changes or no interval is left.

A step needs a state if it enters, reads or leaves the state. A state that is entered once is held without interruption
from the earliest deadline of the steps that need it to their latest invocation. Two such *spans* must not overlap, and
any other step takes effect before or after a span (Gibbons, Korach: Testing shared memories, 1997). The rules are
sound: a reported contradiction excludes every order.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from chaos.linearizability.problem import Hold, Impossible, Step, who

_ROUNDS = 8
"""More rounds would be correct, but hardly ever find more."""


class _Span(NamedTuple):
    """The time for which a state is certainly held."""

    first: int | float
    last: int | float
    state: int
    hold: Hold


def tighten(steps: list[Step], holds: dict[int, Hold], look: Callable[[], None]) -> None:
    """Shrink the intervals of the steps as far as these rules can, in at most 8 rounds.

    Each round calls `look` first. Raises Impossible when an interval becomes empty, and whatever `look` raises.
    """
    for _ in range(_ROUNDS):
        look()
        _before_those_who_need_it(steps, holds)
        _after_what_they_need(steps, holds)
        spans = sorted(_spans(holds), key=lambda span: (span.first, span.last))
        for one, other in pairwise(spans):
            if other.first < one.last:
                raise _replaced(one, *_members(other.hold))
        if not _out_of(spans, steps):
            break


def _before_those_who_need_it(steps: list[Step], holds: dict[int, Hold]) -> None:
    """Tighten deadlines: a state is entered before it is seen, and seen before it is left."""
    for hold in holds.values():
        if hold.next is not None:
            for read in hold.reads:
                read.deadline = min(read.deadline, hold.next.deadline)
    for step in sorted(steps, key=lambda step: step.deadline):
        via, writer = step, _writer(holds, step)
        while writer is not None and writer.deadline > step.deadline:
            writer.deadline = step.deadline
            if writer.deadline < writer.invoke:
                reason = f"{who(step.operation)} depends on {who(writer.operation)}, but ended before the latter began"
                raise Impossible(reason, [writer.operation, via.operation, step.operation])
            via, writer = writer, _writer(holds, writer)


def _writer(holds: dict[int, Hold], step: Step) -> Step | None:
    """Return the step that entered the state that a step needs, if that step is known."""
    hold = holds.get(step.before)
    return None if hold is None else hold.writer


def _after_what_they_need(steps: list[Step], holds: dict[int, Hold]) -> None:
    """Tighten invocations: a state is seen after it is entered, and left after it is seen."""
    for step in sorted(steps, key=lambda step: step.invoke, reverse=True):
        writer: Step | None = step
        while writer is not None:
            hold = holds.get(writer.after)
            if hold is None or hold.writer is not writer:
                break
            for read in hold.reads:
                read.invoke = max(read.invoke, step.invoke)
            writer = hold.next if hold.next is not None and hold.next.invoke < step.invoke else None
            if writer is not None:
                writer.invoke = step.invoke
    for hold in holds.values():
        hold.last_read = max((read.invoke for read in hold.reads), default=-math.inf)
        if hold.next is not None:
            hold.next.invoke = max(hold.next.invoke, hold.last_read)


def _out_of(spans: list[_Span], steps: list[Step]) -> bool:
    """Move steps out of the spans of states that they do not need; return whether any interval changed."""
    begins, told = [span.first for span in spans], False
    for step in steps:
        if spans:
            # With index -1, when no span begins before it, the condition fails too.
            span = spans[bisect_left(begins, step.deadline) - 1]
            if span.first < step.deadline < span.last and span.state not in {step.before, step.after}:
                _end(step, span)
                told = True
            span = spans[bisect_left(begins, step.invoke) - 1]
            if span.first < step.invoke < span.last and span.state not in {step.before, step.after}:
                step.invoke, told = span.last, True
        if step.deadline < step.invoke:
            raise Impossible(f"there is no moment left in which {who(step.operation)} took effect", [step.operation])
    return told


def _end(step: Step, span: _Span) -> None:
    """Move the deadline of a step to the begin of a span, because the step took effect before the span."""
    if span.first < step.invoke:
        raise _replaced(span, step)
    step.deadline = span.first


def _spans(holds: dict[int, Hold]) -> list[_Span]:
    spans = []
    for state, hold in holds.items():
        steps = _members(hold)
        if steps:
            first = -math.inf if hold.writer is None else min(step.deadline for step in steps)
            last = max(step.invoke for step in steps)
            if first < last:
                spans.append(_Span(first, last, state, hold))
    return spans


def _members(hold: Hold) -> list[Step]:
    return [step for step in (hold.writer, *hold.reads, hold.next) if step is not None]


def _replaced(span: _Span, *by: Step) -> Impossible:
    """Return the error that another state was entered while a state was held."""
    steps = _members(span.hold)
    last = max(steps, key=lambda step: step.invoke).operation
    first = min(steps, key=lambda step: step.deadline).operation
    writer = [] if span.hold.writer is None else [span.hold.writer.operation]
    reason = f"{who(last)} found what had been replaced before it began: {who(by[0].operation)} took effect in between"
    return Impossible(reason, [*writer, first, last, *(step.operation for step in by)])
