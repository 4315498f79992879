"""Phases of a failover, from events and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chaos.events import FaultEvent
from raft_actor_node.core.trace import TraceRecord
from sweeps.analysis.failover import failovers

MS = 1_000_000


def event(time_ms: float, node: str, kind: str, term: int = 2) -> TraceRecord:
    return TraceRecord(node, None, int(time_ms * MS), kind, term)


def fault(time_ms: float, name: str, *targets: str, **more: Any) -> FaultEvent:
    return FaultEvent.read({"time_ns": int(time_ms * MS), "kind": name, "action": "inject", "nodes": targets, **more})


def healed(event: FaultEvent, begin_ms: float, end_ms: float) -> FaultEvent:
    times = {"time_ns": int(begin_ms * MS), "done_ns": int(end_ms * MS)}
    return event.model_copy(update={"action": "heal", **times})


CRASH = fault(1000, "crash", "n1")
FAILOVER = [
    event(0, "n1", "became_leader", term=1),
    event(5, "n1", "commit", term=1),
    CRASH,
    event(1150, "n2", "became_pre_candidate", term=1),
    event(1160, "n2", "became_candidate"),
    event(1165, "n3", "vote_granted"),
    event(1170, "n2", "became_leader"),
    event(1172, "n3", "leader_heard"),
    event(1174, "n4", "leader_heard"),
    event(1180, "n3", "commit"),
    event(1178, "n2", "commit"),
    event(3000, "n1", "leader_heard"),
]
TRACED = [each for each in FAILOVER if isinstance(each, TraceRecord)]
SUCCESS_NS = np.array([999, 1000.5, 1185, 1190], np.float64).__mul__(MS).astype(np.int64)


def test_every_stage_counts_from_the_crash() -> None:
    (found,) = failovers(FAILOVER, SUCCESS_NS)
    assert (found.old_leader, found.new_leader, found.term) == ("n1", "n2", 2)
    assert found.stages_ms() == {
        "detected": 150.0,
        "elected": 170.0,
        "heard": 174.0,  # the last survivor; the old leader hears it much later and does not count
        "committed": 178.0,  # by the new leader, although a follower wrote its line first
        "succeeded": 185.0,  # not the answer at 1000.5, which the old leader had sent before it died
    }


def test_the_order_of_the_events_does_not_matter() -> None:
    assert failovers(reversed(FAILOVER), SUCCESS_NS) == failovers(FAILOVER, SUCCESS_NS)


def test_the_crash_of_a_follower_is_no_failover() -> None:
    assert failovers([event(0, "n1", "became_leader", term=1), fault(10, "crash", "n2")], SUCCESS_NS) == []


def test_a_slow_link_does_not_lose_the_leader() -> None:
    start = event(0, "n1", "became_leader", term=1)
    assert failovers([start, fault(10, "delay", "n1"), event(300, "n2", "became_leader")], SUCCESS_NS) == []


@pytest.mark.parametrize("ends", [True, False])
def test_a_pause_that_nobody_noticed_is_no_failover_and_the_crash_after_it_is(ends: bool) -> None:
    pause = fault(100, "pause", "n1", index=0)
    events = [*FAILOVER, pause, *([healed(pause, 150, 150)] if ends else [])]
    [found] = failovers(events, SUCCESS_NS)
    assert (found.lost_ns, found.old_leader, found.new_leader) == (1000 * MS, "n1", "n2")


@pytest.mark.parametrize("effect", [True, False, None])
def test_a_crash_loses_the_leader_only_if_it_took_effect(effect: bool | None) -> None:
    crash = fault(10, "crash", "n1", took_effect=effect)
    start, later = event(0, "n1", "became_leader", term=1), event(300, "n2", "became_leader")
    assert len(failovers([start, crash], SUCCESS_NS)) == (effect is True)
    assert len(failovers([start, crash, later], SUCCESS_NS)) == (effect is not False)


def test_only_survivors_must_hear_the_new_leader_and_all_of_them() -> None:
    crash = fault(1000, "crash", "n1", "n3", index=0)
    restart = healed(crash, 1500, 1600)
    back = event(1700, "n3", "leader_heard")
    both = [e for e in TRACED if (e.node, e.kind) != ("n3", "leader_heard")]
    [found] = failovers([*both, crash, restart, back], SUCCESS_NS)
    assert found.stages_ms()["heard"] == 174.0
    silent = [e for e in TRACED if (e.node, e.kind) != ("n4", "leader_heard")]
    [found] = failovers([*silent, CRASH, event(900, "n4", "leader_heard", term=1)], SUCCESS_NS)
    assert found.stages_ms()["heard"] is None


@pytest.mark.parametrize("kind", ["pause", "isolate", "one_way", "partition"])
def test_a_cut_loses_the_leader_if_another_leads_before_it_is_healed(kind: str) -> None:
    start = event(0, "n1", "became_leader", term=1)
    cut = fault(10, kind, "n1", "n2", index=0)
    heal = healed(cut, 900, 900)
    during, after = (event(at, "n2", "became_leader") for at in (300, 1300))
    (found,) = failovers([start, cut, during, heal], SUCCESS_NS)
    assert found.stages_ms()["elected"] == 290.0
    assert failovers([start, cut, heal, after], SUCCESS_NS) == []
    assert failovers([start, cut, heal], SUCCESS_NS) == []


def test_without_a_new_leader_the_stages_are_empty() -> None:
    lost = [FAILOVER[0], FAILOVER[2], FAILOVER[3]]
    (found,) = failovers(lost, SUCCESS_NS)
    assert found.new_leader is None
    assert found.stages_ms() == {
        "detected": 150.0,
        "elected": None,
        "heard": None,
        "committed": None,
        "succeeded": None,
    }


def test_each_loss_is_followed_until_the_next_one() -> None:
    second = [
        fault(1176, "crash", "n2"),
        event(1400, "n3", "became_leader", term=3),
        event(1402, "n3", "commit", term=3),
    ]
    events = [e for e in FAILOVER if e.time_ns < 1176 * MS] + second
    first, last = failovers(events, np.array([1500 * MS]))
    assert first.stages_ms()["committed"] is None
    assert first.stages_ms()["succeeded"] is None
    assert (last.old_leader, last.new_leader) == ("n2", "n3")
    assert last.stages_ms()["elected"] == 224.0
    assert last.stages_ms()["succeeded"] == 324.0


def test_a_split_vote_counts_from_the_first_election_to_the_last() -> None:
    split = [
        FAILOVER[0],
        FAILOVER[2],
        event(1150, "n2", "became_candidate", term=2),
        event(1151, "n3", "became_candidate", term=2),
        event(1400, "n3", "became_candidate", term=3),
        event(1405, "n3", "became_leader", term=3),
    ]
    (found,) = failovers(split, SUCCESS_NS)
    assert (found.stages_ms()["detected"], found.stages_ms()["elected"], found.term) == (150.0, 405.0, 3)
