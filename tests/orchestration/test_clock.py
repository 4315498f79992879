"""The estimate of a host's clock, compared with its true time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestration.face import HostClock
from orchestration.ray_cluster.clock import FASTEST_DRIFT, Sample, TrackedClock

MS, S = 10**6, 10**9
WAYS = st.integers(0, 30 * MS)
STEPS = st.tuples(st.integers(1, 10 * S), st.floats(-FASTEST_DRIFT, FASTEST_DRIFT), WAYS, WAYS)
"""The time until the next question, the drift of the clock meanwhile, and the delays of question and answer."""


def sample(now_ns: int, offset_ns: int, there_ns: int, back_ns: int) -> Sample:
    """Return the sample of a question that arrives now."""
    return Sample(now_ns - there_ns, now_ns + offset_ns, now_ns + back_ns)


@given(st.integers(-(2**60), 2**60), WAYS, WAYS, st.lists(STEPS, max_size=12), st.floats(0, 1))
def test_the_bound_holds_however_long_the_ways_take_and_however_the_clock_turns(
    offset_ns: int, there_ns: int, back_ns: int, steps: list[tuple[int, float, int, int]], when: float
) -> None:
    """The drift may change at any moment, also between two questions."""
    now_ns = 10**12
    under_test = TrackedClock(sample(now_ns, offset_ns, there_ns, back_ns))
    true = [offset_ns]
    for pause_ns, drift, there, back in steps:
        turned_ns = int(when * pause_ns)  # then it goes the other way
        true.append(true[-1] + int(drift * turned_ns))
        true.append(true[-1] - int(drift * (pause_ns - turned_ns)))
        now_ns += pause_ns
        under_test.add(sample(now_ns, true[-1], there, back))
    clock = under_test.clock
    assert max(abs(clock.offset_ns - each) for each in true) <= clock.error_ns + len(steps)  # ns lost in rounding
    assert clock.offset_ns == TrackedClock(sample(10**12, offset_ns, there_ns, back_ns)).clock.offset_ns


def test_a_busy_host_widens_the_bound_by_drift_alone() -> None:
    under_test = TrackedClock(sample(S, 7 * S, MS, MS))
    errors = [under_test.clock.error_ns]
    for number in range(1, 4):
        under_test.add(sample(S + number * 5 * S, 7 * S, 40 * MS, 0))
        errors.append(under_test.clock.error_ns)
    assert errors[0] == MS
    assert all(0 < later - earlier < 4 * MS for earlier, later in pairwise(errors))
    before = under_test.clock
    under_test.add(sample(21 * S, 7 * S, 0, 0))
    under_test.add(sample(26 * S, 7 * S, MS, MS))
    assert under_test.clock.error_ns <= before.error_ns + 2 * MS, "and a good answer makes all well again"


def test_a_clock_that_is_set_is_seen() -> None:
    under_test = TrackedClock(sample(S, 0, 0, 0))
    under_test.add(sample(2 * S, S, 0, 0))
    assert under_test.clock.offset_ns == 0
    assert S <= under_test.clock.error_ns < S + 2 * MS
    assert HostClock(5, 0).to_driver(12) == 7
