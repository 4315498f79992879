"""The search for an order: that of Wing and Gong, with Lowe's memory of tried configurations.

A *configuration* records which steps took effect and the resulting state. The steps are numbered by deadline. All steps
before number `next` took effect. Of the other steps, only those invoked before the deadline of step `next` can have
taken effect. So a small set of bits suffices for them, however long the history is. No configuration is tried twice.

Few choices remain:

* A possible read takes effect at once: waiting gains nothing.
* Of several steps with the same effect, the one with the earliest deadline goes first. If an order begins with another
  of them, the two can be exchanged, unless the next operation of that other's process may take effect between them.
* A state that is entered once is left only after all reads of it have taken effect. If a step is known to replace the
  state, only that step leaves it.
* Operations that may have happened (options) are tried last, and only if a chain of them makes a step possible or
  changes its effect. Any order with other options is still an order without them.

Wing, Gong: Testing and Verifying Concurrent Objects, 1993. Lowe: Testing for Linearizability, 2016. Horn, Kroening:
Faster linearizability checking via P-compositionality, 2015.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from chaos.linearizability.problem import BLIND, EXTEND, MOVE, READ, Option, Problem, Step
from chaos.linearizability.states import ABSENT, NONE

BYTES_PER_STEP = 1500
"""Estimated memory of a step, in bytes, without its bits."""
_BYTES_PER_CONFIGURATION = 150
"""Estimated memory of a configuration, without the bits of the steps and options that took effect."""
_ENTRIES_PER_WORK = 4
"""Number of layer entries, or steps, that are copied or inspected in the time that one configuration takes."""

_STATE_BITS = 32

_Configuration = tuple[int, int, int, int, bool]
"""A configuration.

The number of the next step; the bits of later steps that took effect; the state; the count of used operations of each
option, a few bits each; whether options are to be tried.
"""

_Found = _Configuration | tuple[()]
"""A configuration, or () for none yet. Finding one through options may take long, and () lets the caller stop."""

_Preference = Callable[[Step, int], Any]
"""Sort key of the steps possible in a state; the first is tried first."""

_PREFERENCES: tuple[_Preference, ...] = (
    lambda step, _: step.deadline,
    lambda step, _: (step.kind not in {EXTEND, MOVE}, step.deadline),
    lambda step, state: (step.after != state, step.kind not in {EXTEND, MOVE}, step.deadline),
    lambda step, _: (step.kind in {EXTEND, MOVE}, step.deadline),
)
_TURN = 8_000
"""Units of work in one turn of an attempt."""


class _Attempt:
    """A search with its own preference."""

    def __init__(self, preference: _Preference) -> None:
        self.preference = preference
        self.stack: list[_Configuration | Iterator[_Found]] = [(0, 0, ABSENT, 0, False)]
        self.tried: defaultdict[int, set[int]] = defaultdict(set)
        """Number of the next step -> configurations, each encoded as one number."""


class _Layer(NamedTuple):
    """The pending steps that can take effect before the deadline of a certain step: those invoked by then."""

    deadline: int | float
    bit: int
    reads: dict[int, int]
    """State -> bits of the reads that are possible in it."""
    moves: dict[int, tuple[Step, ...]]
    """State -> steps that are possible only in it, and leave it."""
    free: tuple[Step, ...]
    """All other steps, by deadline."""
    waiting: tuple[tuple[int, int], ...]
    """(bit of a step, bit of the earlier step of its process), where the earlier one may not have taken effect yet."""

    def blocked(self, done: int) -> int:
        """Return the bits of the steps that must wait for an earlier step of their process."""
        bits = 0
        for bit, before in self.waiting:
            if not done & before:
                bits |= bit
        return bits


class Search:
    """A search in portions.

    A wrong early choice may take arbitrarily long to undo. Therefore several attempts with different preferences take
    turns; the first to finish decides.
    """

    def __init__(self, problem: Problem) -> None:
        self.tried = 0
        """Number of configurations tried."""
        self.work = 0
        """Configurations tried, plus equivalent work on layers and steps."""
        self.furthest = 0
        """Number of the first step that no order has passed."""
        self._problem = problem
        self._steps = problem.steps
        self._width = max((step.bit for step in problem.steps), default=0).bit_length()
        self._arrivals = sorted(problem.steps, key=lambda step: step.invoke)
        self._arrived = 0
        self._layers: list[_Layer] = []
        self._attempts = deque(_Attempt(preference) for preference in _PREFERENCES)
        self._turn = _TURN
        self._options = _numbered(problem.options)
        self._longest = max((step.length or 0 for step in problem.steps), default=0)
        self._layer_bytes = 0
        bits = self._width + sum(mask.bit_length() for _, _, mask in self._options)
        self.bytes_per_work = _BYTES_PER_CONFIGURATION + bits // 4
        """Bytes that one unit of work may leave behind."""

    @property
    def bytes(self) -> int:
        """Estimated memory of the search."""
        waiting = sum(len(attempt.stack) for attempt in self._attempts)
        steps = (BYTES_PER_STEP + self._width // 4) * len(self._steps)
        return self.bytes_per_work * (self.tried + waiting) + self._layer_bytes + steps

    @property
    def furthest_deadline(self) -> int | float:
        """The deadline that no order has met."""
        return self._steps[self.furthest].deadline

    def run(self, count: int) -> bool | None:
        """Do about `count` units of work; return whether there is an order, or None while this is unknown."""
        if not self._steps:
            return True
        end = self.work + count
        while self.work < end:
            before = self.work
            order = self._run(self._attempts[0], min(self._turn, end - before))
            if order is not None:
                return order
            self._turn -= self.work - before
            if self._turn <= 0:
                self._attempts.rotate(-1)
                self._turn = _TURN
        return None

    def _run(self, attempt: _Attempt, count: int) -> bool | None:
        stack, tried, holds, options = attempt.stack, attempt.tried, self._problem.holds, self._problem.options
        width, last, end = self._width, len(self._steps) - 1, self.work + count
        while stack:
            if self.work >= end:
                return None
            top = stack.pop()
            if not isinstance(top, tuple):
                self.tried += 1
                self.work += 1
                found = next(top, None)
                stack += [] if found is None else [top, found] if found else [top]
                continue
            at, done, state, used, optional = top
            layer = self._layer(at)
            if optional:
                stack.append(self._by_options(at, done, state, used, layer))
                continue
            while True:
                done = _seen(layer, state, done) if layer.waiting else done | layer.reads.get(state, 0)
                if not done & layer.bit or self.work >= end:
                    break
                if at == last:
                    return True
                done ^= layer.bit
                at += 1
                layer = self._layer(at)
            if done & layer.bit:
                stack.append((at, done, state, used, False))
                return None
            configuration = ((used << _STATE_BITS) | state) << width | done
            if configuration in tried[at] or (layer.waiting and self._stuck(layer, state, done)):
                continue
            tried[at].add(configuration)
            self.tried += 1
            self.work += 1
            self.furthest = max(self.furthest, at)
            hold = holds.get(state)
            if hold is None or hold.free(layer.deadline):
                if options:
                    stack.append((at, done, state, used, True))
                stack.extend(reversed(self._by_steps(attempt.preference, at, done, state, used, layer)))
            elif hold.replaced(layer.deadline) and hold.next is not None and not layer.blocked(done) & hold.next.bit:
                stack.append((at, done | hold.next.bit, hold.next.after, used, False))
        return False

    def _stuck(self, layer: _Layer, state: int, done: int) -> bool:
        """Return whether a read of this once-entered state must wait for a step that needs another state."""
        return state in self._problem.holds and bool(layer.reads.get(state, 0) & ~done)

    def _by_steps(
        self, preference: _Preference, at: int, done: int, state: int, used: int, layer: _Layer
    ) -> list[_Configuration]:
        """Return the configurations after one more step, the most promising first."""
        found: list[_Configuration] = []
        after, out = self._problem.after, done | layer.blocked(done)
        groups: dict[int, int | float] = {}
        """Group -> deadline of its step that goes first."""
        possible = (*layer.moves.get(state, ()), *layer.free)
        self.work += len(possible) // _ENTRIES_PER_WORK
        for step in sorted(possible, key=lambda step: preference(step, state)):
            if out & step.bit or groups.get(step.group, math.inf) < step.next_invoke:
                continue
            groups.setdefault(step.group, step.deadline)
            led_to = step.after if step.kind == BLIND else after(state, step)
            if led_to != NONE:
                found.append((at, done | step.bit, led_to, used, False))
        return found

    # Options

    def _by_options(self, at: int, done: int, state: int, used: int, layer: _Layer) -> Iterator[_Found]:
        """Yield the configurations that a chain of options and one step lead to."""
        after, out = self._problem.after, done | layer.blocked(done)
        for led_to, now_used in self._chains(at, done, state, used, layer.deadline):
            yield ()
            if led_to == NONE:
                continue
            if layer.reads.get(led_to, 0) & ~done:
                yield at, done, led_to, now_used, False
            possible = (*layer.moves.get(led_to, ()), *layer.free)
            self.work += len(possible) // _ENTRIES_PER_WORK
            for step in possible:
                if step.kind == BLIND or out & step.bit:
                    continue
                then = after(led_to, step)
                if then not in (NONE, after(state, step)):
                    yield at, done | step.bit, then, now_used, False

    def _chains(self, at: int, done: int, state: int, used: int, deadline: int | float) -> Iterator[tuple[int, int]]:
        """Yield (state, counts of used options) after one or more options, each of which may enable the next.

        State NONE means nothing yet.
        """
        after = self._problem.after
        found = {(state, used)}
        ends = [(state, used)]
        while ends:
            here, so_far = ends.pop()
            self.work += len(self._options) // _ENTRIES_PER_WORK
            yield NONE, so_far
            for option, shift, mask in self._options:
                if option.step.kind == BLIND and here != state:
                    continue
                before = option.after_step
                if before is not None and before.number >= at and not done & before.bit:
                    continue
                count = so_far >> shift & mask
                if count == len(option.invokes) or option.invokes[count] > deadline:
                    continue
                led_to = after(here, option.step)
                if led_to in (NONE, here) or (here != ABSENT and self._too_long(option, led_to)):
                    continue
                end = led_to, so_far + (1 << shift)
                if end not in found:
                    found.add(end)
                    ends.append(end)
                    yield end

    def _too_long(self, option: Option, state: int) -> bool:
        """Return whether an option led to an unrecognised value that is longer than any append left behind."""
        states = self._problem.states
        size = states.size[state]
        return option.step.kind == EXTEND and states.atom[state] < 0 and size is not None and size > self._longest

    # Layers

    def _layer(self, at: int) -> _Layer:
        """Return the layer of a step; layers are built in order."""
        while len(self._layers) <= at:
            layer = self._next_layer()
            self._layers.append(layer)
            self.work += (len(layer.reads) + len(layer.moves) + len(layer.free)) // _ENTRIES_PER_WORK
        return self._layers[at]

    def _next_layer(self) -> _Layer:
        at = len(self._layers)
        now = self._steps[at]
        reads: dict[int, int] = {}
        moves: dict[int, tuple[Step, ...]] = {}
        free: tuple[Step, ...] = ()
        waiting: tuple[tuple[int, int], ...] = ()
        changed: dict[int, list[Step]] = {}
        if at:
            _, _, reads, moves, free, waiting = self._layers[at - 1]
            reads, moves = reads.copy(), moves.copy()
            gone = self._steps[at - 1]
            if gone.kind == READ:
                reads[gone.after] &= ~gone.bit
                if not reads[gone.after]:
                    del reads[gone.after]
            elif gone.kind == MOVE:
                changed[gone.before] = []
                moves[gone.before] = tuple(step for step in moves[gone.before] if step is not gone)
            else:
                free = tuple(step for step in free if step is not gone)
            waiting = tuple(pair for pair in waiting if gone.bit not in pair)
        for step in self._arriving(now.deadline):
            if step.kind == READ:
                reads[step.after] = reads.get(step.after, 0) | step.bit
            else:
                changed.setdefault(step.before if step.kind == MOVE else NONE, []).append(step)
            before = step.after_step
            if before is not None and before.number >= at:
                waiting = (*waiting, (step.bit, before.bit))
        if fresh := changed.pop(NONE, None):
            free = tuple(sorted((*free, *fresh), key=_deadline))
        for state, fresh in changed.items():
            moves[state] = tuple(sorted((*moves.get(state, ()), *fresh), key=_deadline))
            self._layer_bytes += sys.getsizeof(moves[state])
            if not moves[state]:
                del moves[state]
        self._layer_bytes += sum(map(sys.getsizeof, (reads, moves, free, waiting)))
        return _Layer(now.deadline, now.bit, reads, moves, free, waiting)

    def _arriving(self, deadline: int | float) -> Iterator[Step]:
        """Yield the steps invoked by `deadline` that no earlier layer contains."""
        while self._arrived < len(self._arrivals) and self._arrivals[self._arrived].invoke <= deadline:
            yield self._arrivals[self._arrived]
            self._arrived += 1


def _seen(layer: _Layer, state: int, done: int) -> int:
    """Return the done steps after all reads possible in a state; one read may have to wait for another."""
    while (more := layer.reads.get(state, 0) & ~done & ~layer.blocked(done)) != 0:
        done |= more
    return done


def _deadline(step: Step) -> int | float:
    return step.deadline


def _numbered(options: list[Option]) -> list[tuple[Option, int, int]]:
    """Return (option, shift, mask) for each option: the position of its count in one number for all options."""
    numbered, shift = [], 0
    for option in options:
        bits = len(option.invokes).bit_length()
        numbered.append((option, shift, (1 << bits) - 1))
        shift += bits
    return numbered
