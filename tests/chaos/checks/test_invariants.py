"""Violations that traces show, and records that they must not lack."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chaos.checks.invariants import judge_traces
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.trace_lines import parse_trace
from tests.chaos.checks.told import LED, event


def test_traces_in_order_are_ok_and_say_how_much_was_judged() -> None:
    finding = judge_traces(LED, ["n1", "n2"])
    assert (finding.check, finding.verdict) == ("invariants", "ok")
    assert finding.reason == "6 events of 2 incarnations of 2 nodes: 1 leaders, 1 commits"


def test_a_broken_rule_is_violated_whatever_is_missing() -> None:
    second = [*LED, event("n2", 3, "became_candidate", 1), event("n2", 4, "became_leader", 1)]
    finding = judge_traces(second, ["n1", "n2", "n3"])
    assert finding.verdict == "violated"
    assert "voted for n1 and for n2 in term 1" in finding.detail
    assert "two leaders in term 1: n1 and n2" in finding.detail
    assert "\n" not in finding.reason


def test_traces_that_are_missing_are_unknown() -> None:
    assert judge_traces(LED, ["n1", "n2", "n3"]).reason == "no trace of n3"
    assert judge_traces([]).verdict == "unknown"


TAIL = [event("n1", 5, "became_follower", 2, 15), event("n1", 6, "became_candidate", 3, 16)]


@pytest.mark.parametrize(
    ("events", "more", "reason"),
    [
        ([*LED, *TAIL], {}, ""),
        ([*LED, *TAIL[1:]], {}, "the trace of n1 has 1 gap"),
        ([*LED[1:], *TAIL[1:]], {}, "the trace of n1 has 2 gaps"),
        ([*LED, event("n1", 5, "became_follower", 2, 15, log_term="?"), TAIL[1]], {}, "the trace of n1 has 1 gap"),
        (LED, {"lives": {"n1": (1, 1), "n2": (1, None)}}, ""),
        (LED, {"lives": {"n1": (2, 2)}}, "the trace of n1 has 1 incarnations instead of 2"),
        (
            LED,
            {"lives": {"n1": (2, None), "n2": (0, 0)}},
            "the trace of n1 has 1 incarnations instead of at least 2 (and 1 more)",
        ),
        (LED, {"committed": {"n1": 1, "n2": 0}}, ""),
        (LED, {"committed": {"n2": 1}}, "the trace of n2 ends at commit index 0, but n2 reported 1"),
    ],
)
def test_traces_of_which_something_is_missing_are_unknown(
    events: list[TraceRecord], more: dict[str, Any], reason: str
) -> None:
    finding = judge_traces(events, ["n1", "n2"], **more)
    assert (finding.verdict, finding.reason if reason else "") == ("unknown" if reason else "ok", reason)


def test_a_line_that_cannot_be_read_is_missing_unless_it_is_the_last_of_a_life() -> None:
    whole = [json.dumps(each.as_json()) for each in [*(each for each in LED if each.node == "n1"), *TAIL]]
    assert judge_traces(parse_trace(whole, "n1"), ["n1"]).verdict == "ok"
    assert judge_traces(parse_trace([*whole[:-1], whole[-1][:-9]], "n1"), ["n1"]).verdict == "ok"
    assert judge_traces(parse_trace([*whole[:2], whole[2][:-9], *whole[3:]], "n1"), ["n1"]).verdict == "unknown"


def test_torn_and_foreign_lines_cost_only_themselves() -> None:
    """A torn last line is followed, in the same line, by the first line of the next incarnation."""
    whole = [json.dumps(each.as_json()) for each in LED]
    lines = [whole[0], "hello", "[1, 2]", "17", whole[2][:40] + whole[4], whole[5][:-9]]
    assert [each.kind for each in parse_trace(lines, "n7")] == ["started", "became_leader"]
    assert {each.node for each in parse_trace(lines, "n7")} == {"n7"}
    assert [each.kind for each in parse_trace([line.encode() for line in lines], "n7")] == [
        "started",
        "became_leader",
    ]
