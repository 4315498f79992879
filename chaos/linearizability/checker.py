"""The verdict on a history: key by key, cheap checks first, within bounds of time and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from chaos.history import History, Key, Operation
from chaos.linearizability.bounds import Bounds, OutOfBounds
from chaos.linearizability.pose import pose
from chaos.linearizability.problem import Contradiction, Impossible, matters
from chaos.linearizability.search import BYTES_PER_STEP, Search
from chaos.linearizability.shrink import smallest
from chaos.linearizability.violation import Violation

Verdict = Literal["ok", "violated", "unknown"]

_FIRST_PORTION = 50_000
_PORTION = 10_000
"""Work between two checks of time and memory: about 0.1 s."""
_SHRINK_S = 2.0, 10.0
"""A violation is shrunk in the rest of the time limit, but within these bounds."""


@dataclass(frozen=True)
class Linearizability:
    """The verdict: whether some order of the operations explains what all clients saw."""

    verdict: Verdict
    reason: str
    """One line."""
    keys: int
    """Number of keys in the history."""
    checked_keys: int
    """Number of keys on which the check reached a decision."""
    checked_operations: int
    """Number of operations on those keys that carry information: neither failed ones, nor reads without an answer."""
    seconds: float
    violation: Violation | None = None


def check(history: History, *, time_limit_s: float = 60.0, memory_limit_bytes: int = 2 << 30) -> Linearizability:
    """Judge a history: is each key, taken alone, a linearizable store of one value, as kv/model.py defines it?

    `time_limit_s` and `memory_limit_bytes` bound the check; at a limit the verdict is unknown. The memory in use is an
    estimate and excludes the history itself. A check can exceed its time limit: it completes a started pass over all
    operations on a key, or a started step of the search. Shrinking a violation may take two seconds more. Times are
    assumed to be correct within each operation's `error_ns`.

    Keys are judged separately, because a history is linearizable when each of its objects is (Herlihy, Wing, 1990).
    """
    return _Check(history, time_limit_s, memory_limit_bytes).run()


@dataclass
class _Open:
    """A key without a decision yet."""

    key: Key
    operations: list[Operation]
    search: Search


class _Check:
    def __init__(self, history: History, time_limit_s: float, memory_limit_bytes: int) -> None:
        self._begin = time.monotonic()
        self._bounds = Bounds(self._begin + time_limit_s, memory_limit_bytes)
        self._keys = sorted(history.by_key(), key=lambda pair: len(pair[1]))
        self._decided_keys = self._decided_operations = self._known = 0
        self._why_not = ""

    def run(self) -> Linearizability:
        """Give every key a portion of work; then the undecided keys share the remaining time."""
        undecided: list[_Open] = []
        for found in self._first_look(undecided):
            return found
        portion = _FIRST_PORTION
        while undecided and not self._why_not:
            portion *= 2
            undecided.sort(key=lambda key: key.search.work)
            still_open = []
            for key in undecided:
                others = sum(other.search.bytes for other in undecided if other is not key)
                order = self._search(key.search, portion, others)
                if order is False:
                    return self._violated(key.key, key.operations, key.search)
                if order is None:
                    still_open.append(key)
                else:
                    self._decided(key.operations)
            undecided = still_open
        return self._result()

    def _first_look(self, undecided: list[_Open]) -> Iterator[Linearizability]:
        """Do the cheap checks and a short search of every key; yield a violation as soon as one is found."""
        occupied = 0
        for key, operations in self._keys:
            try:
                self._bounds.room(occupied + BYTES_PER_STEP * len(operations))
                problem = pose(operations, self._bounds)
            except Impossible as error:
                yield self._violated(key, operations, error.contradiction)
                return
            except OutOfBounds as error:
                # Keys are sorted by size, so time or room that is too little for this key is too little for the others.
                self._why_not = error.what
                return
            search = Search(problem)
            order = self._search(search, _FIRST_PORTION + len(operations), occupied)
            if order is False:
                yield self._violated(key, operations, search)
                return
            if order is None:
                undecided.append(_Open(key, operations, search))
                occupied += search.bytes
            else:
                self._decided(operations)

    def _search(self, search: Search, count: int, occupied: int) -> bool | None:
        """Do `count` units of work; return whether there is an order. None: undecided, or `_why_not` names a limit."""
        end = search.work + count
        while search.work < end:
            try:
                room = self._bounds.room(occupied + search.bytes)
            except OutOfBounds as error:
                self._why_not = error.what
                return None
            portion = min(end - search.work, _PORTION, 1 + room // search.bytes_per_work)
            order = search.run(int(portion))
            if order is not None:
                return order
        return None

    def _decided(self, operations: Sequence[Operation]) -> None:
        self._decided_keys += 1
        self._decided_operations += sum(map(matters, operations))
        self._known += sum(operation.outcome == "ok" for operation in operations)

    def _violated(self, key: Key, operations: list[Operation], why: Contradiction | Search) -> Linearizability:
        self._decided(operations)
        now, (least_s, most_s) = time.monotonic(), _SHRINK_S
        end = min(max(self._bounds.end, now + least_s), now + most_s)
        violation = smallest(key, operations, why, end)
        return self._finish("violated", violation.title(), violation)

    def _result(self) -> Linearizability:
        if self._why_not:
            left = len(self._keys) - self._decided_keys
            limit = f"{self._why_not} ran out"
            return self._finish("unknown", f"{limit}: {left} of {len(self._keys)} keys are not decided")
        if not self._known:
            return self._finish("unknown", "there is nothing to judge: no operation is known to have succeeded")
        return self._finish("ok", f"{self._decided_operations} operations on {self._decided_keys} keys have an order")

    def _finish(self, verdict: Verdict, reason: str, violation: Violation | None = None) -> Linearizability:
        seconds = time.monotonic() - self._begin
        counts = len(self._keys), self._decided_keys, self._decided_operations
        return Linearizability(verdict, reason, *counts, seconds, violation)
