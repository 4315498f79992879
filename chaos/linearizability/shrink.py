"""Reduce a violation among thousands of operations to the few that contradict one another.

The remaining operations must be impossible whatever the omitted ones did. So each omitted operation is *loosened*. An
omitted read is removed, which can only make more orders possible. An omitted write may take effect at any time after
its invocation, or never. Omitted operations that returned before the remaining ones began may have left any value
behind. Omitted operations invoked after the remaining ones had returned do not matter. If the remaining operations have
no order even so, then the whole history has none, and neither do the remaining operations alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from chaos.history import Key, Operation, Value
from chaos.linearizability.bounds import Bounds, OutOfBounds
from chaos.linearizability.pose import pose
from chaos.linearizability.problem import Contradiction, Impossible, matters, seen, span_ns
from chaos.linearizability.search import Search
from chaos.linearizability.states import Atoms
from chaos.linearizability.violation import Violation

_SOMETHING = {"some": "value"}
"""A placeholder for any value that no operation recognises; its length is unknown."""
_PORTION = 2_000
_PORTIONS = 20
"""Portions of work per attempt. An attempt that needs more counts as failed; the result may then be too large."""


def smallest(key: Key, operations: Sequence[Operation], why: Contradiction | Search, end: float) -> Violation:
    """Return the smallest violation found until the monotonic clock shows `end`, in seconds."""
    return _Shrink(operations, end).run(key, why)


class _Shrink:
    """Shrinks one violation.

    Operations are identified by their position in `self._all`, which is sorted by return, or by invocation for those
    that never returned.
    """

    def __init__(self, operations: Sequence[Operation], end: float) -> None:
        self._all = sorted(filter(matters, operations), key=_ended)
        self._spans = [span_ns(operation) for operation in self._all]
        self._atoms = Atoms()
        self._wrote = [self._numbers(operation.written) for operation in self._all]
        self._mentions = [
            self._numbers(operation.expected) + self._numbers(_read(operation)) for operation in self._all
        ]
        self._bounds = Bounds(end)

    def _numbers(self, value: Value) -> tuple[int, ...]:
        """Return the numbers of the atoms of a value; atoms of different types differ."""
        return tuple(map(self._atoms.number, value or ()))

    @property
    def _time_left(self) -> bool:
        return time.monotonic() < self._bounds.end

    def run(self, key: Key, why: Contradiction | Search) -> Violation:
        """Start from a guess; find its shortest violated prefix, a short suffix of that, and a subset of the suffix."""
        kept = self._fewer(self._suffix(self._prefix(self._guess(why))))
        # Without the operation that returned last there is an order, so that operation is the impossible one.
        impossible = max((self._all[at] for at in kept), key=lambda o: (o.outcome == "ok", o.return_ns))
        kept = self._with_writers(kept)
        found = self._why(self._loosened(kept)[0])
        reason = found.reason if isinstance(found, Contradiction) else "no order of these operations explains them all"
        operations = sorted((self._all[at] for at in kept), key=lambda o: (o.invoke_ns, o.return_ns))
        return Violation(key, tuple(operations), impossible, reason, len(self._all) - len(operations))

    def _guess(self, why: Contradiction | Search) -> list[int]:
        """Return the operations that a contradiction names, or those that returned by the deadline that no order met.

        If these are not certainly violated, return all operations.
        """
        if isinstance(why, Contradiction):
            named = {id(operation) for operation in why.operations}
            guess = [at for at, operation in enumerate(self._all) if id(operation) in named]
        else:
            deadline = why.furthest_deadline
            guess = [at for at, operation in enumerate(self._all) if operation.return_ns <= deadline]
        return guess if self._violated(guess) else list(range(len(self._all)))

    def _prefix(self, kept: list[int]) -> list[int]:
        """Return the shortest prefix, in order of return, that is violated.

        It leaves out operations that had not returned by its end.
        """
        low, high = 0, len(kept)
        while low < high:
            middle = (low + high) // 2
            if self._violated(kept[:middle]):
                high = middle
            else:
                low = middle + 1
        return kept[:high]

    def _suffix(self, kept: list[int]) -> list[int]:
        """Return a short suffix that is violated, whatever happened before it.

        Not every longer suffix is violated: one that begins amid running operations may not be.
        """
        length = 1
        while length < len(kept) and not self._violated(kept[-length:]):
            length += 1 + length // 8
        return kept[-length:]

    def _fewer(self, kept: list[int]) -> list[int]:
        """Leave out halves, quarters, ... and finally single operations, as long as the rest stays violated."""
        size = max(1, len(kept) // 2)
        while True:
            before, at = len(kept), 0
            while at < len(kept) and self._time_left:
                fewer = kept[:at] + kept[at + size :]
                if self._violated(fewer):
                    kept = fewer
                else:
                    at += size
            if (size == 1 and len(kept) == before) or not self._time_left:
                return kept
            size = max(1, size // 2)

    def _with_writers(self, kept: list[int]) -> list[int]:
        """Add, for the reader, the operations that wrote the last part of a value that was seen."""
        values = [_read(self._all[at]) for at in kept]
        last = set().union(*(self._numbers(value[-1:]) for value in values if value))
        return sorted({*kept, *(at for at, wrote in enumerate(self._wrote) if not last.isdisjoint(wrote))})

    def _violated(self, kept: Sequence[int]) -> bool:
        """Return whether these operations certainly have no order, whatever the omitted operations did."""
        return self._time_left and all(self._why(operations) is not None for operations in self._loosened(kept))

    def _why(self, operations: Sequence[Operation]) -> Contradiction | Search | None:
        """Return the evidence that operations have no order; None if they have one, or if it is unknown."""
        try:
            search = Search(pose(operations, self._bounds))
            for _ in range(_PORTIONS):
                order = search.run(_PORTION)
                if order is not None:
                    return search if order is False else None
                self._bounds.look()
        except Impossible as error:
            return error.contradiction
        except OutOfBounds:
            pass
        return None

    def _loosened(self, kept: Sequence[int]) -> list[list[Operation]]:
        """Return the kept operations plus the possible effects of the others, once for each possible initial state."""
        keep, spans = set(kept), self._spans
        begin = min((spans[at][0] for at in kept), default=0)
        end = max((spans[at][1] for at in kept if self._all[at].outcome == "ok"), default=0)
        others = [at for at, o in enumerate(self._all) if at not in keep and spans[at][0] <= end and _writes(o)]
        earlier = [at for at in others if spans[at][1] < begin]
        later = [at for at in others if spans[at][1] >= begin]
        mentioned = set().union(*(self._mentions[at] for at in (*kept, *later)))
        found = [self._all[at] for at in kept] + [_unknown(self._all[at]) for at in later]
        # Earlier values need a name only if a kept or later operation recognises them.
        named = [self._all[at] for at in earlier if not mentioned.isdisjoint(self._wrote[at])]
        found += [_unknown(replace(o, f="put") if o.f == "cas" else o) for o in named]
        if len(named) == len(earlier):
            return [found]
        before = begin - 1
        return [found, [Operation(-1, "put", None, _SOMETHING, invoke_ns=before, return_ns=before), *found]]


def _read(operation: Operation) -> Value:
    """Return the value that a get or a cas saw; None if there is none, or for other operations."""
    return seen(operation) if operation.f in {"get", "cas"} else None


def _unknown(operation: Operation) -> Operation:
    return replace(operation, outcome="info", return_ns=math.inf)


def _ended(operation: Operation) -> int | float:
    """Return when an operation returned, or when it was invoked if it never returned."""
    return operation.invoke_ns if math.isinf(operation.return_ns) else operation.return_ns


def _writes(operation: Operation) -> bool:
    return operation.f != "get" and operation.swapped and not (operation.f == "delete" and operation.observed is False)
