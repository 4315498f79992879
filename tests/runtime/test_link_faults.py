"""What the table of link faults makes of a message."""

from __future__ import annotations

from random import Random

from raft_actor_node.links import CLIENTS, LinkRule
from raft_actor_node.runtime.faults import LinkFaults

DRAWS = 20_000


def test_a_heavy_tail_is_late_once_in_a_hundred_times_and_very_late_once_in_a_thousand() -> None:
    rule = LinkRule(from_id="n1", to_id="n2", delay_ms=5, tail_ms=100)
    faults = LinkFaults("n1", ("n1", "n2"), [rule], Random(1))
    late_s = [faults.leaving("n2", "requests")[0] - 0.005 for _ in range(DRAWS)]
    assert all(0.001 - 1e-9 <= each <= 1.0 + 1e-9 for each in late_s), "from a hundredth to ten times the tail"
    shares = [sum(each >= bound - 1e-9 for each in late_s) / DRAWS for bound in (0.002, 0.01, 0.1, 1.0)]
    # Expected are 1/2, 1/10, 1/100 and 1/1000; each within five standard errors.
    for share, expected in zip(shares, (0.5, 0.1, 0.01, 0.001), strict=True):
        assert abs(share - expected) < 5 * (expected * (1 - expected) / DRAWS) ** 0.5
    assert faults.counters.delayed == DRAWS


def test_the_copies_of_a_doubled_request_of_a_client_arrive_together() -> None:
    """Were one refused for want of a leader, and the other taken later, the refusal would have been a lie."""
    rule = LinkRule(from_id=CLIENTS, to_id="n1", duplicate=1.0, delay_ms=5, jitter_ms=50)
    faults = LinkFaults("n1", ("n1", "n2"), [rule], Random(1))
    fates = [faults.arriving("load-1", "requests") for _ in range(100)]
    assert all(len(fate) == 2 and fate[0] == fate[1] for fate in fates)
    assert len({fate[0] for fate in fates}) > 50


def test_what_a_cut_takes_is_counted_apart_from_what_is_lost_by_chance() -> None:
    """Otherwise nobody could tell whether a partition beside a lossy link cut anything."""
    lossy = LinkRule(from_id="n1", to_id="n2", drop=1.0)
    cut = [LinkRule(from_id="n1", to_id="n3", cut=True), LinkRule(from_id="n3", to_id="n1", cut=True)]
    faults = LinkFaults("n1", ("n1", "n2", "n3"), [*cut, lossy], Random(1))
    assert faults.leaving("n2", "requests") == ()
    assert (faults.counters.cut, faults.counters.dropped) == (0, 1)
    assert faults.leaving("n3", "requests") == faults.arriving("n3", "replies") == ()
    assert (faults.counters.cut, faults.counters.dropped) == (2, 1)
