"""What the statuses of nodes must not show."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.checks.inspection import judge_statuses
from chaos.events import FaultEvent
from chaos.statuses import Status
from tests.chaos.checks.told import NODES, SECOND


def said(node: str, at: int = 0, life: int = 1, **more: Any) -> Status:
    indexes = {"term": 2, "last_index": 9, "durable_index": 8, "commit_index": 7, "last_applied": 6}
    return Status(node, life, at, **{**indexes, **more})


def leader(node: str, at: int, term: int = 2, **peers: list[int]) -> Status:
    return said(node, at, term=term, leads=True, peers=peers)


@pytest.mark.parametrize(
    ("statuses", "broken"),
    [
        ([said("n1", last_applied=8)], "n1: last_applied 8 beyond commit_index 7"),
        ([said("n1", commit_index=10)], "n1: commit_index 10 beyond the log, which ends at 9"),
        ([said("n1", 1), said("n1", 2, commit_index=6)], "n1: commit_index went from 7 back to 6 in one incarnation"),
        ([said("n1", 2), said("n1", 3, last_applied=5)], "n1: last_applied went from 6 back to 5 in one incarnation"),
        ([said("n1", 1), said("n1", 2, life=2, commit_index=6)], ""),
        ([said("n1", 1), said("n1", 2, life=2, term=1)], "n1: term went from 2 back to 1"),
        ([leader("n1", 1, n2=[8, 9])], ""),
        ([leader("n1", 1, n2=[8, 8])], "n1: next_index 8 for n2, which matches 8"),
        (
            [leader("n1", 1, n2=[8, 9]), leader("n1", 2, n2=[7, 9])],
            "n1: match_index of n2 went from 8 back to 7 in term 2",
        ),
        ([leader("n1", 1, n2=[8, 9]), leader("n1", 2, term=4, n2=[0, 9])], ""),
        ([leader("n1", 1, n2=[8, 9]), leader("n2", 2, term=3, n1=[0, 9])], ""),
    ],
)
def test_what_a_node_must_not_say_of_itself(statuses: list[Status], broken: str) -> None:
    finding = judge_statuses(statuses, NODES)
    assert finding.check == "inspection"
    assert ((finding.verdict == "violated"), finding.detail) == (bool(broken), broken)


@pytest.mark.parametrize(
    ("durable", "verdict"),
    [
        ({"n1": 8, "n2": 8, "n3": 0}, "ok"),
        ({"n1": 8, "n2": 9}, "ok"),
        ({"n1": 8, "n2": 7}, "unknown"),
        ({"n1": 8, "n2": 7, "n3": 7}, "violated"),
        ({}, "unknown"),
    ],
)
def test_what_is_committed_is_durable_on_a_quorum_at_the_end(durable: dict[str, int], verdict: str) -> None:
    early = [said(node, 1, durable_index=9) for node in NODES]
    last = [said(node, 2, durable_index=index) for node, index in durable.items()]
    assert judge_statuses([*early, *last], NODES, committed=8, asked_ns=2).verdict == verdict


def cut_off(**more: Any) -> list[FaultEvent]:
    """n1 is isolated from 10 to 20 s."""
    event = {"kind": "isolate", "nodes": ["n1"], "index": 0, "detail": "n1", "fault": {"isolate": ["n1"]}, **more}
    return [
        FaultEvent.read({**event, "action": "inject", "time_ns": 10 * SECOND, "done_ns": 10 * SECOND}),
        FaultEvent.read({**event, "action": "heal", "time_ns": 20 * SECOND, "done_ns": 20 * SECOND}),
    ]


def led(faults: list[FaultEvent], *at_s: float, node: str = "n1", check_quorum_s: float | None = 1.0) -> bool:
    """Whether leading at these seconds violates check quorum: a leader must step down 2 s after it lost its quorum."""
    statuses = [leader(node, int(at * SECOND)) for at in at_s]
    return judge_statuses(statuses, NODES, faults, check_quorum_s=check_quorum_s).verdict == "violated"


def test_a_leader_that_was_cut_off_steps_down() -> None:
    """Check quorum (dissertation, section 6.2), as far as statuses show it."""
    assert not led(cut_off(), 9, 10.5, 11.9)
    assert not led(cut_off(), 9, 11.9, 12.1), "once: it may have woken up just now"
    assert not led(cut_off(), 12.1, 12.2, 12.3), "nor were the others much later"
    assert led(cut_off(), 12.1, 13.1)
    assert not led(cut_off(), 12.1, 13.1, node="n2"), "it hears n3"
    assert not led(cut_off(), 12.1, 13.1, check_quorum_s=None)
    assert not led(cut_off(), 19.9, 20.1, 20.2)
    assert not led(cut_off(error="not on n2"), 12.1, 13.1)


def test_messages_of_one_direction_only_are_enough_to_be_without_a_quorum() -> None:
    for one, broken in (
        ({"one_way": ["n1"], "direction": "in"}, True),
        ({"one_way": ["n1"], "direction": "out"}, True),
        ({"isolate": ["n1"], "messages": "replies", "direction": "in"}, True),
        ({"isolate": ["n1"], "messages": "requests", "direction": "in"}, False),
        ({"partition": [["n1", "n2"], ["n3"]]}, False),
        ({"partition": [["n1"], ["n2", "n3"]]}, True),
        ({"drop": 1.0, "nodes": ["n1"]}, False),
    ):
        assert led(cut_off(fault=one), 12.1, 13.1) == broken, one


def test_a_leader_that_was_paused_may_be_late_to_step_down() -> None:
    pause = {"kind": "pause", "nodes": ["n1"], "index": 1, "fault": {"pause": ["n1"]}}
    stopped = FaultEvent.read({**pause, "action": "inject", "time_ns": 11 * SECOND, "done_ns": 11 * SECOND})
    resumed = FaultEvent.read({**pause, "action": "heal", "time_ns": 14 * SECOND, "done_ns": 14 * SECOND})
    assert not led([*cut_off(), stopped, resumed], 14.0, 14.1, 15.9)
    assert led([*cut_off(), stopped, resumed], 14.0, 14.1, 16.1)
