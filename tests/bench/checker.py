"""Speed of the linearizability checker on one core, and its memory."""

from __future__ import annotations

import resource
import time
from typing import NamedTuple

from chaos.linearizability import check
from tests.chaos.histories import executed

BAR_MANY_KEYS_S = 30.0  # 100 000 operations over 1000 keys
BAR_UNKNOWN_S = 60.0  # 20 000 operations over 5 keys by 16 sessions, 5 % with unknown outcome
BAR_BYTES = 2 << 30


class CheckerSpeed(NamedTuple):
    """Seconds to judge each of two histories, and the largest resident memory of this process so far."""

    many_keys_s: float
    unknown_s: float
    resident_bytes: int

    @property
    def good(self) -> bool:
        """Whether all bars are met."""
        return (
            self.many_keys_s <= BAR_MANY_KEYS_S and self.unknown_s <= BAR_UNKNOWN_S and self.resident_bytes <= BAR_BYTES
        )


def checker_speed() -> CheckerSpeed:
    """Measure the check of two linearizable histories of puts, gets, deletes, compare-and-swaps and appends."""
    many_keys = _seconds(100_000, keys=1000, unknown=0.01)
    unknown = _seconds(20_000, keys=5, unknown=0.05)
    return CheckerSpeed(many_keys, unknown, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _seconds(operations: int, *, keys: int, unknown: float) -> float:
    history = executed(operations, seed=1, sessions=16, keys=keys, unknown=unknown)
    given_up = sum(operation.outcome == "info" for operation in history)
    assert abs(given_up - unknown * operations) <= 0.1 * unknown * operations
    begin = time.perf_counter()
    result = check(history, time_limit_s=120.0)
    elapsed = time.perf_counter() - begin
    assert result.verdict == "ok", result.reason
    return elapsed


if __name__ == "__main__":
    print(checker_speed())
