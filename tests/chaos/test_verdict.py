"""Verdicts from plain data: what is ok, what is violated, and what proves nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chaos.verdict import (
    AppliedState,
    Evidence,
    Finding,
    LinkCounts,
    Load,
    as_json,
    judge_coverage,
    judge_exits,
    judge_hashes,
    judge_liveness,
    judge_traces,
    leader_at,
    leader_signs_ns,
    parse_trace,
    worst,
)

GOOD, BAD, OPEN = Finding("a", "ok", "fine"), Finding("b", "violated", "broken"), Finding("c", "unknown", "too little")


def test_the_worst_verdict_counts_and_nothing_is_unknown() -> None:
    assert worst([GOOD]) == "ok"
    assert worst([GOOD, OPEN]) == "unknown"
    assert worst([GOOD, BAD, OPEN]) == "violated"
    assert worst([]) == "unknown"


def test_as_json_says_why_in_one_line() -> None:
    assert as_json([GOOD]) == {
        "verdict": "ok",
        "reason": "",
        "findings": [{"check": "a", "verdict": "ok", "reason": "fine", "detail": ""}],
    }
    assert as_json([GOOD, BAD, OPEN])["reason"] == "b: broken"
    assert as_json([])["reason"] == "nothing was checked"
    assert json.loads(json.dumps(as_json([GOOD, OPEN])))["verdict"] == "unknown"


# ------------------------------------------------------------------------------ traces


def event(node: str, number: int, kind: str, term: int, time_ns: int = 0, **more: Any) -> dict[str, Any]:
    fields = {"node": node, "number": number, "time_ns": time_ns, "kind": kind, "term": term, "index": 0}
    return {**fields, "log_term": 0, "peer": "", **more}


LED = [
    event("n1", 1, "started", 0),
    event("n2", 1, "started", 0),
    event("n1", 2, "became_candidate", 1, 10),
    event("n2", 2, "vote_granted", 1, 11, peer="n1"),
    event("n1", 3, "became_leader", 1, 12),
    event("n1", 4, "commit", 1, 13, index=1, log_term=1),
]


def test_traces_in_order_are_ok_and_say_how_much_was_judged() -> None:
    finding = judge_traces(LED, ["n1", "n2"])
    assert (finding.check, finding.verdict) == ("invariants", "ok")
    assert finding.reason == "6 events of 2 lives of 2 nodes: 1 leaders, 1 commits"


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


def test_torn_and_foreign_lines_cost_only_themselves() -> None:
    """A line without its end has the first one of the next life behind it."""
    whole = [json.dumps(each) for each in LED]
    lines = [whole[0], "hello", "[1, 2]", "17", whole[2][:40] + whole[4], whole[5][:-9]]
    assert [each["kind"] for each in parse_trace(lines, "n7")] == ["started", "became_leader"]
    assert {each["node"] for each in parse_trace(lines, "n7")} == {"n7"}
    assert [each["kind"] for each in parse_trace([line.encode() for line in lines], "n7")] == [
        "started",
        "became_leader",
    ]


# ------------------------------------------------------------------------------ hashes


def state(node: str, applied: int, digest: bytes, at: int = 0, prefix: bytes = b"", whole: bytes = b"") -> AppliedState:
    return AppliedState(node, applied, digest, at, prefix, whole)


def test_nodes_that_applied_the_same() -> None:
    same = [state("n1", 9, b"9", 7, b"7"), state("n2", 7, b"7", 7, b"7"), state("n3", 9, b"9", 7, b"7")]
    finding = judge_hashes(same, ["n1", "n2", "n3"])
    assert (finding.verdict, finding.reason) == ("ok", "3 nodes applied the same 7 entries")


@pytest.mark.parametrize(
    "other",
    [
        state("n2", 7, b"7", 7, b"?"),
        state("n2", 7, b"?", 7, b"7"),
        state("n2", 9, b"?"),
        state("n2", 7, b"?"),  # against the prefix that the others told
        state("n2", 9, b"9", 7, b"7", b"other state"),
    ],
)
def test_nodes_that_applied_other_entries_or_came_to_another_state(other: AppliedState) -> None:
    states = [state("n1", 9, b"9", 7, b"7", b"state"), other, state("n3", 9, b"9", 7, b"7")]
    finding = judge_hashes(states, ["n1", "n2", "n3"])
    assert finding.verdict == "violated"
    assert "n2" in finding.reason


@pytest.mark.parametrize(
    "states",
    [
        [],
        [state("n1", 7, b"7")],
        [state("n1", 7, b"7"), state("n2", 9, b"9")],
        [state("n1", 7, b"7", 7, b"7"), state("n2", 9, b"9")],
        [state("n1", 0, b""), state("n2", 0, b"")],
    ],
)
def test_hashes_that_cannot_be_compared_are_unknown(states: list[AppliedState]) -> None:
    assert judge_hashes(states, ["n1", "n2"]).verdict == "unknown"


# ------------------------------------------------------------------------------ exits, liveness


def test_what_the_end_of_a_node_says() -> None:
    assert judge_exits([]).verdict == "ok"
    assert judge_exits([(-9, "n1 was killed")]).verdict == "unknown"
    for code in (5, 7):
        finding = judge_exits([(-9, "n1 was killed"), (code, "n2: two leaders")])
        assert (finding.verdict, finding.reason) == ("violated", "n2: two leaders")


SECOND = 10**9


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


def test_signs_of_a_leader() -> None:
    assert leader_signs_ns(LED) == [12, 13]


# ------------------------------------------------------------------------------ coverage

ENOUGH = Load(operations=100, succeeded=90, unknown=5)


def fault(kind: str, *nodes: str, index: int = 0, action: str = "inject", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "action": action, "nodes": list(nodes), "index": index, "time_ns": 20, "detail": "x", **more}


def judged(*faults: dict[str, Any], load: Load = ENOUGH, **more: Any) -> Finding:
    return judge_coverage(Evidence(load, faults, faults_planned=bool(faults), **more))


def test_a_quiet_cell_with_enough_operations() -> None:
    assert judged().verdict == "ok"
    assert judged().reason == "100 operations, 90 succeeded"


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (Load(19, 19), "only 19 operations"),
        (Load(100, 0), "no operation succeeded"),
        (Load(100, 40, unknown=51), "51 of 100 operations are of unknown outcome"),
        (Load(100, 90, due=1000, not_started=51), "51 of 1000 operations could not be started"),
    ],
)
def test_a_load_that_proves_nothing(load: Load, why: str) -> None:
    finding = judged(load=load)
    assert finding.verdict == "unknown"
    assert why in finding.reason


def test_where_no_operation_should_succeed_none_need_to() -> None:
    assert judged(load=Load(100, 0, unknown=100), unavailable=True).verdict == "ok"
    assert judged(load=Load(3, 0), unavailable=True).verdict == "unknown"


@pytest.mark.parametrize(
    ("kind", "counts", "verdict"),
    [
        ("drop", LinkCounts(dropped=7, delayed=0), "ok"),
        ("drop", LinkCounts(dropped=0, delayed=7), "unknown"),
        ("drop", LinkCounts(), "unknown"),
        ("delay", LinkCounts(dropped=0, delayed=7), "ok"),
        ("delay", LinkCounts(dropped=7, delayed=0), "unknown"),
        ("bandwidth", LinkCounts(delayed=7), "ok"),
        ("bandwidth", LinkCounts(dropped=7, delayed=0), "unknown"),
        ("duplicate", LinkCounts(duplicated=7), "ok"),
        ("duplicate", LinkCounts(dropped=7, duplicated=0), "unknown"),
        ("partition", LinkCounts(dropped=7), "ok"),
        ("isolate", LinkCounts(dropped=0), "unknown"),
        ("one_way", LinkCounts(dropped=0), "unknown"),
        ("crash", LinkCounts(), "ok"),
        ("pause", LinkCounts(), "ok"),
    ],
)
def test_a_fault_of_links_bit_when_it_touched_messages(kind: str, counts: LinkCounts, verdict: str) -> None:
    assert judged(fault(kind, "n1"), links={"n1": counts, "n2": LinkCounts()}).verdict == verdict


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"took_effect": False, "error": "not on n1"}, "did not take effect: not on n1"),
        ({"took_effect": None, "error": "no answer"}, "may not have taken effect: no answer"),
        ({"action": "skip", "detail": "n1; crashed or paused already"}, "skipped: crashed or paused already"),
    ],
)
def test_a_fault_that_was_not_in_force(more: dict[str, Any], why: str) -> None:
    finding = judged(fault("crash", "n1", **more))
    assert finding.verdict == "unknown"
    assert finding.reason.endswith(why)


def test_a_chaos_cell_without_any_fault() -> None:
    finding = judge_coverage(Evidence(ENOUGH, faults_planned=True))
    assert (finding.verdict, finding.reason) == ("unknown", "no fault was put in force")


def test_of_many_faults_half_must_bite_of_each_kind() -> None:
    """A monkey may strike a node that is down already; but what never bit is not survived."""
    bit, skipped = fault("crash", "n1"), fault("crash", "n2", action="skip")
    assert judged(bit, skipped).verdict == "ok"
    assert judged(bit, skipped, skipped).verdict == "unknown"
    finding = judged(bit, bit, bit, fault("drop", "n1"), links={"n1": LinkCounts(dropped=0)})
    assert finding.reason == "drop n1 did nothing: no message was dropped"
    assert "crash n1 took effect" in finding.detail


def test_a_healing_is_no_fault() -> None:
    assert judged(fault("crash", "n1", action="heal", took_effect=False)).reason == "no fault was put in force"


DEPOSED = [*LED, event("n1", 5, "became_follower", 2, 15), event("n2", 3, "became_leader", 2, 16)]


def test_who_led_when() -> None:
    assert leader_at(LED, 11) is None
    assert leader_at(LED, 12) == "n1"
    assert leader_at(DEPOSED, 15) is None
    assert leader_at(DEPOSED, 16) == "n2"
    assert leader_at([*LED, event("n1", 1, "started", 1, 17)], 17) is None
    assert leader_at([*LED, event("n2", 3, "became_leader", 2, 16)], 16) == "n2", "the old one is cut off, perhaps"


@pytest.mark.parametrize(
    ("aim", "kind", "nodes", "traces", "verdict"),
    [
        ("leader", "crash", ["n1"], LED, "ok"),
        ("leader", "crash", ["n1"], DEPOSED, "unknown"),
        ("leader", "crash", ["n1"], [], "ok"),
        ("leader", "crash", ["n1"], DEPOSED[:-1], "unknown"),
        ("follower", "crash", ["n2"], DEPOSED, "ok"),
        ("leader", "isolate", ["n2"], LED, "unknown"),
        ("leader", "drop", ["n2"], LED, "unknown"),
    ],
)
def test_a_fault_aimed_at_the_leader_must_hit_it(
    aim: str, kind: str, nodes: list[str], traces: list[dict[str, Any]], verdict: str
) -> None:
    finding = judged(fault(kind, *nodes, index=4), aims={4: aim}, traces=traces, links={"n1": LinkCounts(9)})
    assert finding.verdict == verdict


@pytest.mark.parametrize(
    ("aim", "groups", "verdict"),
    [
        ("leader-in-minority", [["n1"], ["n2", "n3"]], "ok"),
        ("leader-in-minority", [["n2"], ["n1", "n3"]], "unknown"),
        ("leader-in-majority", [["n2"], ["n1", "n3"]], "ok"),
        ("leader-in-majority", [["n1"], ["n2", "n3"]], "unknown"),
        ("majority-minority", [["n1"], ["n2", "n3"]], "ok"),
    ],
)
def test_a_partition_named_for_its_leader_has_it_on_that_side(aim: str, groups: list[list[str]], verdict: str) -> None:
    split = fault("partition", "n1", "n2", "n3", fault={"partition": groups})
    assert judged(split, aims={0: aim}, traces=LED, links={"n1": LinkCounts(9)}).verdict == verdict


def test_a_node_chosen_in_place_of_a_missing_leader_is_no_leader() -> None:
    instead = fault("isolate", "n1", detail="n1; there was no leader, n1 was chosen in its place")
    finding = judged(instead, aims={0: "leader"}, traces=LED, links={"n1": LinkCounts(9)})
    assert (finding.verdict, finding.reason) == ("unknown", "isolate n1 was aimed at a leader, and there was none")
