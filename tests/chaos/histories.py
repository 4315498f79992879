"""Histories that are linearizable by construction: each operation takes effect at one moment."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Mapping
from typing import Any

from chaos.history import History, Operation

MIX = {"put": 0.35, "get": 0.4, "delete": 0.05, "cas": 0.1, "append": 0.1}
PUT_BYTES, APPEND_BYTES = 64, 8
_EFFECT, _RETURN, _INVOKE = 0, 1, 2


def executed(
    operations: int,
    *,
    seed: int,
    sessions: int = 16,
    keys: int = 5,
    unknown: float = 0.05,
    mix: Mapping[str, float] = MIX,
    values: int | None = None,
) -> History:
    """A history of `sessions` clients that never pause, so an operation often begins when another one ends.

    A share `unknown` of the operations is given up. All of these are writes, as an unknown read tells nothing. Half of
    them never take effect; the others do so at once or later. `values` is the number of different values; None makes
    all values unique.
    """
    return _Execution(random.Random(seed), sessions, keys, unknown, mix, values).run(operations)


class _Execution:
    def __init__(
        self, rng: random.Random, sessions: int, keys: int, unknown: float, mix: Mapping[str, float], values: int | None
    ) -> None:
        self.rng, self.sessions, self.keys, self.values = rng, sessions, keys, values
        writes = 1 - mix.get("get", 0.0) / sum(mix.values())
        self.unknown = unknown / writes if writes else 0.0
        """The share of the writes that are given up."""
        # The checker could not know the length of a value that is written with two lengths.
        self.put_bytes = PUT_BYTES if values is None else APPEND_BYTES
        self.kinds, self.shares = list(mix), list(mix.values())
        self.state: dict[int, tuple[tuple[int, ...] | None, int]] = {}
        """Key -> its value, and the length in bytes."""
        self.known: dict[int, tuple[int, ...] | None] = {}
        self.history: list[Operation] = []
        self.events: list[tuple[int, int, int, Any]] = []

    def run(self, count: int) -> History:
        for session in range(self.sessions):
            self.push(self.rng.randrange(1000), _INVOKE, session)
        while self.events:
            now, kind, _, what = heapq.heappop(self.events)
            if kind == _EFFECT:
                self.apply(what)
            elif kind == _RETURN:
                if what.outcome == "ok" and what.f == "get":
                    self.known[what.key] = what.observed
                self.push(now + self.rng.randrange(2), _INVOKE, what.process)
            elif len(self.history) < count:
                self.invoke(now, what)
        return History(self.history)

    def push(self, when: int, kind: int, what: Any) -> None:
        heapq.heappush(self.events, (when, kind, self.rng.getrandbits(32) << 32 | len(self.history), what))

    def invoke(self, now: int, session: int) -> None:
        rng = self.rng
        f, key = rng.choices(self.kinds, self.shares)[0], rng.randrange(self.keys)
        operation = Operation(session, f, key, invoke_ns=now)  # type: ignore[arg-type]
        if f in {"put", "cas", "append"}:
            operation.value = len(self.history) + 1 if self.values is None else rng.randrange(self.values)
            operation.size = APPEND_BYTES if f == "append" else self.put_bytes
        if f == "cas":
            operation.expected = self.known.get(key)
        self.history.append(operation)
        end = now + 1 + int(rng.expovariate(1 / 2_000_000))
        self.push(end, _RETURN, operation)
        if f != "get" and rng.random() < self.unknown:
            operation.outcome, operation.return_ns = "info", math.inf
            if rng.random() < 0.5:
                return
            end += int(rng.expovariate(1 / 10_000_000))
        else:
            operation.return_ns = end
        self.push(rng.randint(now, end), _EFFECT, operation)

    def apply(self, operation: Operation) -> None:
        key, known = operation.key, operation.outcome == "ok"
        assert isinstance(key, int)
        state, length = self.state.get(key, (None, 0))
        match operation.f:
            case "get":
                operation.observed = state
                return
            case "put":
                state, length = (operation.value,), self.put_bytes
            case "delete":
                operation.observed = state is not None if known else None
                state, length = None, 0
            case "cas" if state == operation.expected:
                state, length = (operation.value,), self.put_bytes
            case "cas" if known:
                operation.swapped, operation.observed = False, state
            case "append":
                state, length = (*(state or ()), operation.value), length + APPEND_BYTES
                operation.observed = length if known else None
        self.state[key] = state, length
