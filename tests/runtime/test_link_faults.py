"""The effect of the table of link faults on messages."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from raft_actor_node.core import AppendEntries, AppendEntriesReply
from raft_actor_node.links import CLIENTS, LinkRule
from raft_actor_node.runtime.codec import Fragment, decode_rule, encode_rule, encoded_bytes
from raft_actor_node.runtime.faults import NEVER, ONCE, QUEUE_S, RECHECK_S, LinkFaults

DRAWS = 20_000


def test_a_heavy_tail_is_late_once_in_a_hundred_times_and_very_late_once_in_a_thousand() -> None:
    rule = LinkRule(from_id="n1", to_id="n2", delay_ms=5, tail_ms=100)
    faults = LinkFaults("n1", ("n1", "n2"), [rule], Random(1))
    late_s = [faults.leaving("n2", "requests", int)[0] - 0.005 for _ in range(DRAWS)]
    assert all(0.001 - 1e-9 <= each <= 1.0 + 1e-9 for each in late_s), "from a hundredth to ten times the tail"
    shares = [sum(each >= bound - 1e-9 for each in late_s) / DRAWS for bound in (0.002, 0.01, 0.1, 1.0)]
    # Expected shares are 1/2, 1/10, 1/100 and 1/1000; each is within five standard errors.
    for share, expected in zip(shares, (0.5, 0.1, 0.01, 0.001), strict=True):
        assert abs(share - expected) < 5 * (expected * (1 - expected) / DRAWS) ** 0.5
    assert faults.counters.delayed == DRAWS


def test_the_copies_of_a_doubled_request_of_a_client_arrive_together() -> None:
    """If a node refused one copy for want of a leader, and took the other later, the refusal would have been wrong."""
    rule = LinkRule(from_id=CLIENTS, to_id="n1", duplicate=1.0, delay_ms=5, jitter_ms=50)
    faults = LinkFaults("n1", ("n1", "n2"), [rule], Random(1))
    fates = [faults.arriving("load-1", "requests", int) for _ in range(100)]
    assert all(len(fate) == 2 and fate[0] == fate[1] for fate in fates)
    assert len({fate[0] for fate in fates}) > 50


def weight(size: int) -> Callable[[], int]:
    return lambda: size


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time_s = 100.0

    def now(self) -> float:
        return self.time_s


def test_flows_to_a_peer_share_the_bandwidth_evenly() -> None:
    clock = Hands()
    rule = LinkRule(from_id="*", to_id="*", bytes_per_s=100_000)
    faults = LinkFaults("n1", ("n1", "n2", "n3"), [rule], Random(1), clock.now)
    assert faults.leaving("n2", "requests", weight(10**9)) == ONCE, "bandwidth is not decided here"
    assert faults.occupy("n2", "entries", weight(8_000))
    assert faults.busy_s("n2", "entries") == pytest.approx(0.080)
    assert faults.occupy("n2", "requests", weight(1_000))
    assert faults.busy_s("n2", "requests") == pytest.approx(0.020), "half the rate, not behind the entries"
    assert faults.busy_s("n2", "entries") == pytest.approx(0.090), "and not for nothing: the entries come later"
    assert faults.occupy("n3", "entries", weight(1_000))
    assert faults.busy_s("n3", "entries") == pytest.approx(0.010), "each link has its own"
    clock.time_s += 0.010
    assert faults.busy_s("n2", "requests") == pytest.approx(0.010)
    assert faults.occupy("n2", "replies", weight(1_000))
    assert faults.busy_s("n2", "requests") == pytest.approx(0.015), "500 bytes, at a third of the rate"
    clock.time_s += 0.080
    assert [faults.busy_s("n2", flow) for flow in ("requests", "replies", "entries")] == pytest.approx([0, 0, 0.010])
    clock.time_s += 10.0
    assert faults.busy_s("n2", "entries") == 0
    assert faults.occupy("n2", "entries", weight(1_000)), "what the link could have carried while it was idle is lost"
    assert faults.busy_s("n2", "entries") == pytest.approx(0.010)
    assert (faults.counters.delayed, faults.counters.dropped) == (5, 0)


def test_a_healed_link_is_free_at_once() -> None:
    clock = Hands()
    faults = LinkFaults("n1", ("n1", "n2"), [LinkRule(from_id="*", to_id="*", bytes_per_s=1)], Random(1), clock.now)
    assert faults.occupy("n2", "entries", weight(10**6))
    assert faults.busy_s("n2", "entries") == RECHECK_S, "asked again before it could be through"
    faults.replace([LinkRule(from_id="*", to_id="*", delay_ms=1)])
    assert faults.busy_s("n2", "entries") == 0
    assert not faults.occupy("n2", "entries", weight(10**6))


def test_what_would_wait_too_long_for_the_bandwidth_to_a_client_is_lost() -> None:
    clock = Hands()
    rule = LinkRule(from_id="n1", to_id=CLIENTS, bytes_per_s=1000)
    faults = LinkFaults("n1", ("n1", "n2"), [rule], Random(1), clock.now)
    assert faults.leaving("load-1", "replies", weight(5000)) == pytest.approx((5.0,)), "it waits for nobody"
    assert faults.leaving("load-1", "replies", weight(1)) == NEVER
    assert (faults.counters.delayed, faults.counters.dropped) == (1, 1)
    clock.time_s += 5.0 - QUEUE_S
    assert faults.leaving("load-1", "replies", weight(1)) == pytest.approx((QUEUE_S + 0.001,))
    assert faults.leaving("load-1", "replies", weight(1)) == NEVER


def test_of_several_limits_the_lowest_counts_and_enough_bandwidth_is_no_fault() -> None:
    limits = [LinkRule(from_id="n1", to_id="*", bytes_per_s=limit, delay_ms=10) for limit in (10**6, 10**3)]
    limits.append(LinkRule(from_id="n1", to_id=CLIENTS, bytes_per_s=10**3, delay_ms=10))
    faults = LinkFaults("n1", ("n1", "n2"), limits, Random(1), Hands().now)
    assert faults.occupy("n2", "replies", weight(50))
    assert faults.busy_s("n2", "replies") == pytest.approx(0.05)
    assert faults.leaving("n2", "replies", weight(50)) == pytest.approx((0.02,)), "delays add up, before bandwidth"
    assert faults.leaving("load-1", "replies", weight(100)) == pytest.approx((0.11,))
    plenty = [LinkRule(from_id="*", to_id=each, bytes_per_s=10**9) for each in ("*", CLIENTS)]
    faults = LinkFaults("n1", ("n1", "n2"), plenty, Random(1))
    assert not faults.occupy("n2", "requests", weight(100))
    assert max(faults.leaving("load-1", "replies", weight(100))) < 1e-3
    assert faults.counters.delayed == 0


def test_each_client_has_a_link_of_its_own_and_both_copies_need_bandwidth() -> None:
    rules = [LinkRule(from_id=CLIENTS, to_id="n1", bytes_per_s=1000, duplicate=1.0)]
    faults = LinkFaults("n1", ("n1", "n2"), rules, Random(1), Hands().now)
    assert faults.arriving("load-1", "requests", weight(100)) == pytest.approx((0.1, 0.1)), "they arrive together"
    assert faults.arriving("load-2", "requests", weight(100)) == pytest.approx((0.1, 0.1))
    assert faults.arriving("load-1", "requests", weight(100)) == pytest.approx((0.3, 0.3))


def test_the_second_copy_of_a_message_comes_late() -> None:
    rule = LinkRule(from_id="*", to_id="*", duplicate=1.0, late_ms=5000)
    faults = LinkFaults("n1", ("n1", "n2"), [rule], Random(1))
    fates = [faults.leaving("n2", "requests", int) for _ in range(200)]
    assert all(len(fate) == 2 and fate[0] == 0.0 and 0.0 <= fate[1] < 5.0 for fate in fates)
    assert sum(fate[1] > 2.5 for fate in fates) > 50
    assert (faults.counters.duplicated, faults.counters.delayed) == (200, 0)


def test_a_message_weighs_what_it_is_encoded_to() -> None:
    entries = AppendEntries("n1", "n2", 1, 1, 1, [1] * 10, [b"x" * 30] * 10, 1, 1)
    reply = AppendEntriesReply("n1", "n2", 1, 1, True, 3, 0, 0, 0, 1)
    assert 320 < encoded_bytes(entries) < 400, "10 payloads of 30 bytes, their lengths and terms, and six numbers"
    assert 5 < encoded_bytes(reply) < 30
    assert 16_384 < encoded_bytes(Fragment(entries, 0, 10**6, bytes(16_384))) < 17_000


def test_a_rule_travels_unharmed() -> None:
    rule = LinkRule(
        from_id="n1", to_id="*", messages="replies", cut=True, drop=0.1, duplicate=0.2, late_ms=3,
        delay_ms=4, jitter_ms=5, tail_ms=6, bytes_per_s=7,
    )  # fmt: skip
    assert set(rule.model_dump(exclude_defaults=True)) == set(LinkRule.model_fields), "every field is given"
    assert decode_rule(encode_rule(rule)) == rule


def test_what_a_cut_takes_is_counted_apart_from_what_is_lost_by_chance() -> None:
    """Otherwise it would be unknown whether a partition next to a lossy link cut anything."""
    lossy = LinkRule(from_id="n1", to_id="n2", drop=1.0)
    cut = [LinkRule(from_id="n1", to_id="n3", cut=True), LinkRule(from_id="n3", to_id="n1", cut=True)]
    faults = LinkFaults("n1", ("n1", "n2", "n3"), [*cut, lossy], Random(1))
    assert faults.leaving("n2", "requests", int) == ()
    assert (faults.counters.cut, faults.counters.dropped) == (0, 1)
    assert faults.leaving("n3", "requests", int) == faults.arriving("n3", "replies", int) == ()
    assert (faults.counters.cut, faults.counters.dropped) == (2, 1)
