"""A leader in time, after the faults and at the end."""

from __future__ import annotations

import pytest

from chaos.checks.liveness import judge_liveness, leader_signs_ns
from tests.chaos.checks.told import LED, SECOND


@pytest.mark.parametrize(
    ("signs_s", "end_s", "verdict"),
    [
        ([5.0, 12.9], 20.0, "ok"),
        ([5.0, 13.1], 20.0, "violated"),
        ([5.0], 20.0, "violated"),
        ([5.0], 12.9, "unknown"),
        ([20.5], 20.0, "violated"),
    ],
)
def test_a_leader_within_ten_of_the_longest_timeouts(signs_s: list[float], end_s: float, verdict: str) -> None:
    signs = [int(sign * SECOND) for sign in signs_s]
    finding = judge_liveness(signs, calm_ns=10 * SECOND, end_ns=int(end_s * SECOND), election_timeout_max_s=0.3)
    assert (finding.check, finding.verdict) == ("liveness", verdict)


@pytest.mark.parametrize(
    ("found_s", "end_s", "verdict"),
    [(14.2, 14.3, "ok"), (None, 16.9, "unknown"), (None, 17.1, "violated"), (17.1, 18.0, "violated")],
)
def test_a_leader_that_is_lost_later_is_missed(found_s: float | None, end_s: float, verdict: str) -> None:
    """An early sign of a leader does not prove that there still is one."""
    found_ns = None if found_s is None else int(found_s * SECOND)
    moments = {"calm_ns": 10 * SECOND, "end_ns": int(end_s * SECOND), "asked_ns": 14 * SECOND, "found_ns": found_ns}
    assert judge_liveness([11 * SECOND], election_timeout_max_s=0.3, **moments).verdict == verdict


def test_signs_of_a_leader() -> None:
    assert leader_signs_ns(LED) == [12, 13]
