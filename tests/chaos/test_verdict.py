"""Verdicts from plain data: what is ok, what is violated, and what proves nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chaos.faults import SELECTORS
from chaos.statuses import Status
from chaos.verdict import (
    AppliedState,
    Evidence,
    Finding,
    Load,
    Outage,
    as_json,
    judge_coverage,
    judge_exits,
    judge_hashes,
    judge_liveness,
    judge_statuses,
    judge_traces,
    leader_at,
    leader_signs_ns,
    parse_trace,
    worst,
)

SECOND = 10**9
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
        "not_checked": [],
    }
    assert as_json([GOOD, BAD, OPEN])["reason"] == "b: broken"
    assert as_json([])["reason"] == "nothing was checked"
    assert json.loads(json.dumps(as_json([GOOD, OPEN])))["verdict"] == "unknown"


def test_what_was_not_checked_is_told_and_without_history_and_traces_nothing_is_shown() -> None:
    for absent in (["linearizability"], ["invariants", "state"]):
        found = as_json([GOOD], absent)
        assert (found["verdict"], found["not_checked"]) == ("ok", absent)
    found = as_json([GOOD], ["linearizability", "invariants"])
    assert found["verdict"] == "unknown"
    assert found["reason"] == "checks: neither linearizability nor invariants were checked"
    assert as_json([GOOD, BAD], ["linearizability", "invariants"])["verdict"] == "violated"


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


TAIL = [event("n1", 5, "became_follower", 2, 15), event("n1", 6, "became_candidate", 3, 16)]


@pytest.mark.parametrize(
    ("events", "more", "reason"),
    [
        ([*LED, *TAIL], {}, ""),
        ([*LED, *TAIL[1:]], {}, "the trace of n1 has 1 gap"),
        ([*LED[1:], *TAIL[1:]], {}, "the trace of n1 has 2 gaps"),
        ([*LED, {**TAIL[0], "log_term": "?"}, TAIL[1]], {}, "the trace of n1 has 1 gap"),
        (LED, {"lives": {"n1": (1, 1), "n2": (1, None)}}, ""),
        (LED, {"lives": {"n1": (2, 2)}}, "the trace of n1 tells of 1 of 2 lives"),
        (LED, {"lives": {"n1": (2, None), "n2": (0, 0)}}, "the trace of n1 tells of 1 of 2 lives (and 1 more)"),
        (LED, {"committed": {"n1": 1, "n2": 0}}, ""),
        (LED, {"committed": {"n2": 1}}, "the trace of n2 ends at commit index 0, and it had said 1"),
    ],
)
def test_traces_of_which_something_is_missing_are_unknown(
    events: list[dict[str, Any]], more: dict[str, Any], reason: str
) -> None:
    finding = judge_traces(events, ["n1", "n2"], **more)
    assert (finding.verdict, finding.reason if reason else "") == ("unknown" if reason else "ok", reason)


def test_a_line_that_cannot_be_read_is_missing_unless_it_is_the_last_of_a_life() -> None:
    whole = [json.dumps(each) for each in [*(each for each in LED if each["node"] == "n1"), *TAIL]]
    assert judge_traces(parse_trace(whole, "n1"), ["n1"]).verdict == "ok"
    assert judge_traces(parse_trace([*whole[:-1], whole[-1][:-9]], "n1"), ["n1"]).verdict == "ok"
    assert judge_traces(parse_trace([*whole[:2], whole[2][:-9], *whole[3:]], "n1"), ["n1"]).verdict == "unknown"


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
    same = [state(node, 7, b"7", 7, b"7", b"state") for node in ("n1", "n2", "n3")]
    finding = judge_hashes(same, ["n1", "n2", "n3"])
    assert (finding.verdict, finding.reason) == ("ok", "3 nodes applied the same 7 entries, and came to the same state")


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
        [state("n1", 7, b"7", 7, b"7", b"state"), state("n2", 7, b"7", 7, b"7")],
        [state("n1", 7, b"7", 7, b"7"), state("n2", 7, b"7", 7, b"7")],
    ],
)
def test_hashes_that_cannot_be_compared_are_unknown(states: list[AppliedState]) -> None:
    assert judge_hashes(states, ["n1", "n2"]).verdict == "unknown"


def test_a_node_that_never_catches_up_is_not_said_to_be_the_same() -> None:
    ahead = [state(node, 10_000, b"a", 5, b"p", b"S1") for node in ("n1", "n2")]
    finding = judge_hashes([*ahead, state("n3", 5, b"p", 5, b"p", b"S0")], ["n1", "n2", "n3"])
    assert (finding.verdict, finding.reason) == ("unknown", "n3 applied 5 entries at least, others 10000")


# ------------------------------------------------------------------------------ statuses


def said(node: str, at: int = 0, life: int = 1, **more: Any) -> Status:
    indexes = {"term": 2, "last_index": 9, "durable_index": 8, "commit_index": 7, "last_applied": 6}
    return Status(node, life, at, **{**indexes, **more})


def leader(node: str, at: int, term: int = 2, **peers: list[int]) -> Status:
    return said(node, at, term=term, leads=True, peers=peers)


NODES = ("n1", "n2", "n3")


@pytest.mark.parametrize(
    ("statuses", "broken"),
    [
        ([said("n1", last_applied=8)], "n1: last_applied 8 beyond commit_index 7"),
        ([said("n1", commit_index=10)], "n1: commit_index 10 beyond the log, which ends at 9"),
        ([said("n1", 1), said("n1", 2, commit_index=6)], "n1: commit_index went from 7 back to 6 within one life"),
        ([said("n1", 2), said("n1", 3, last_applied=5)], "n1: last_applied went from 6 back to 5 within one life"),
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


def cut_off(**more: Any) -> list[dict[str, Any]]:
    """n1 sees nobody from 10 to 20 s."""
    event = {"kind": "isolate", "nodes": ["n1"], "index": 0, "detail": "n1", "fault": {"isolate": ["n1"]}, **more}
    return [
        {**event, "action": "inject", "time_ns": 10 * SECOND, "done_ns": 10 * SECOND},
        {**event, "action": "heal", "time_ns": 20 * SECOND, "done_ns": 20 * SECOND},
    ]


def led(faults: list[dict[str, Any]], *at_s: float, node: str = "n1", check_quorum_s: float | None = 1.0) -> bool:
    """Whether a node that led at these seconds should not have: it must step down after 2 s without a quorum."""
    statuses = [leader(node, int(at * SECOND)) for at in at_s]
    return judge_statuses(statuses, NODES, faults, check_quorum_s=check_quorum_s).verdict == "violated"


def test_a_leader_that_was_cut_off_steps_down() -> None:
    """Check quorum (dissertation, section 6.2), as far as somebody looked."""
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
    stopped = {**pause, "action": "inject", "time_ns": 11 * SECOND, "done_ns": 11 * SECOND}
    resumed = {**pause, "action": "heal", "time_ns": 14 * SECOND, "done_ns": 14 * SECOND}
    assert not led([*cut_off(), stopped, resumed], 14.0, 14.1, 15.9)
    assert led([*cut_off(), stopped, resumed], 14.0, 14.1, 16.1)


# ------------------------------------------------------------------------------ exits, liveness


def test_what_the_end_of_a_node_says() -> None:
    assert judge_exits([]).verdict == "ok"
    assert judge_exits([(-9, "n1 was killed")]).verdict == "unknown"
    for code in (5, 7):
        finding = judge_exits([(-9, "n1 was killed"), (code, "n2: two leaders")])
        assert (finding.verdict, finding.reason) == ("violated", "n2: two leaders")


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
    """The first sign is no proof that there still is one."""
    found_ns = None if found_s is None else int(found_s * SECOND)
    moments = {"calm_ns": 10 * SECOND, "end_ns": int(end_s * SECOND), "asked_ns": 14 * SECOND, "found_ns": found_ns}
    assert judge_liveness([11 * SECOND], election_timeout_max_s=0.3, **moments).verdict == verdict


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
        (Load(19, 19), "only 19 of 19 operations succeeded"),
        (Load(1000, 19), "only 19 of 1000 operations succeeded"),
        (Load(100, 0), "only 0 of 100 operations succeeded"),
        (Load(100, 40, unknown=51), "51 of 100 operations are of unknown outcome"),
        (Load(100, 90, due=1000, not_started=51), "51 of 1000 operations could not be started"),
    ],
)
def test_a_load_that_proves_nothing(load: Load, why: str) -> None:
    finding = judged(load=load)
    assert finding.verdict == "unknown"
    assert why in finding.reason


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"before": None, "after": None}, ""),
        ({"asked": 19}, "only 19 operations waited while none should succeed, at least 20 are needed"),
        ({"unasked": 0.2}, "nobody asked for 20% of the time in which nobody should be served"),
        ({"before": 0}, "no operation succeeded before the first fault"),
        ({"after": 0}, "no operation succeeded after the last fault was healed"),
    ],
)
def test_an_outage_is_shown_by_those_who_ask_and_are_served_otherwise(changes: dict[str, Any], why: str) -> None:
    outage = Outage(**{"asked": 20, "fewest": 20, "unasked": 0.05, "before": 1, "after": 1, **changes})
    finding = judged(load=Load(100, 0, unknown=100), outage=outage)
    assert (finding.verdict, finding.reason if why else "") == ("unknown" if why else "ok", why)


def told(node: str, at: int, life: int = 1, **touched: int) -> Status:
    counts = {"cut": 0, "dropped": 0, "delayed": 0, "duplicated": 0, **touched}
    return Status(node, life, at, touched=counts)


@pytest.mark.parametrize(
    ("kind", "counted", "verdict"),
    [
        ("drop", {"dropped": 7}, "ok"),
        ("drop", {"delayed": 7, "cut": 7}, "unknown"),
        ("delay", {"delayed": 7}, "ok"),
        ("delay", {"dropped": 7}, "unknown"),
        ("bandwidth", {"delayed": 7}, "ok"),
        ("bandwidth", {"dropped": 7}, "unknown"),
        ("duplicate", {"duplicated": 7}, "ok"),
        ("duplicate", {"dropped": 7}, "unknown"),
        ("partition", {"cut": 7}, "ok"),
        ("partition", {"dropped": 7}, "unknown"),
        ("isolate", {"dropped": 7}, "unknown"),
        ("one_way", {"dropped": 7}, "unknown"),
        ("crash", {}, "ok"),
        ("pause", {}, "ok"),
    ],
)
def test_a_fault_of_links_bit_when_it_touched_messages(kind: str, counted: dict[str, int], verdict: str) -> None:
    assert judged(fault(kind, "n1"), statuses=[told("n1", 10), told("n1", 30, **counted)]).verdict == verdict


def test_a_fault_of_links_of_which_nobody_tells_is_unknown() -> None:
    for silent in ([], [told("n1", 10, dropped=7)], [Status("n1", 1, 10), Status("n1", 1, 30)]):
        reason = judged(fault("drop", "n1"), statuses=silent).reason
        assert reason == "drop n1 may have done nothing: no node told how many messages were dropped"


SPLIT = fault("partition", *NODES, index=1, time_ns=100, fault={"partition": [["n1"], ["n2", "n3"]]})
HEALED = fault("partition", *NODES, index=1, action="heal", time_ns=200, done_ns=210)
LOSSY = fault("drop", *NODES, index=0, fault={"drop": 0.5, "nodes": list(NODES)})


def of_links(*statuses: Status) -> Finding:
    return judged(LOSSY, SPLIT, HEALED, nodes=NODES, statuses=[*(told(node, 10) for node in NODES), *statuses])


def test_what_another_fault_took_does_not_stand_for_this_one() -> None:
    """Nor do messages that were cut before it, or after it was healed."""
    lossy = told("n2", 150, dropped=9)
    assert of_links(lossy, told("n1", 90), told("n1", 199, cut=1)).verdict == "ok"
    for statuses in (
        [told("n1", 199)],
        [told("n1", 90, cut=5), told("n1", 199, cut=5)],
        [told("n1", 90), told("n1", 199), told("n1", 300, cut=5)],
    ):
        assert of_links(lossy, *statuses).reason == "partition n1,n2,n3 did nothing: no message was cut"


def test_a_node_that_is_killed_within_a_fault_takes_no_proof_with_it() -> None:
    """What it counted in each of its lives is enough, and so is what the others counted."""
    lossy = told("n2", 150, dropped=9)
    assert of_links(lossy, told("n1", 90, cut=5), told("n1", 120, cut=6)).verdict == "ok"
    assert of_links(lossy, told("n1", 90, cut=5), told("n1", 199, life=2, cut=2)).verdict == "ok"
    assert of_links(lossy, told("n1", 90, cut=5), told("n3", 199, cut=1)).verdict == "ok"


def test_what_a_node_does_not_hear_is_counted_by_those_who_do_not_reach_it() -> None:
    deaf = fault("one_way", "n1", fault={"one_way": ["n1"], "direction": "in"})
    statuses = [told("n1", 10), told("n2", 10), told("n1", 30), told("n2", 30, cut=3)]
    assert judged(deaf, nodes=NODES, statuses=statuses).verdict == "ok"
    mute = fault("one_way", "n1", fault={"one_way": ["n1"], "direction": "out"})
    assert judged(mute, nodes=NODES, statuses=statuses).verdict == "unknown", "n2 sends what n1 would not"


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
    """A crash may miss the leader; but what never bit is not survived."""
    bit, missed = fault("crash", "n1"), fault("crash", "n2", detail="n2; there was no leader", index=1)
    assert judged(bit, missed, aims={1: "leader"}).verdict == "ok"
    assert judged(bit, missed, missed, aims={1: "leader"}).verdict == "unknown"
    finding = judged(bit, bit, bit, fault("drop", "n1"), statuses=[told("n1", 30)])
    assert finding.reason == "drop n1 did nothing: no message was dropped"
    assert "crash n1 took effect" in finding.detail


def crashes(injected: int, skipped: int = 0) -> list[dict[str, Any]]:
    late = fault("crash", "n2", action="skip", detail="n2; it did not fit before the end of the schedule")
    return [fault("crash", "n1")] * injected + [late] * skipped


@pytest.mark.parametrize(
    ("injected", "skipped", "asked", "verdict"),
    [(24, 0, 24, "ok"), (9, 1, 10, "ok"), (22, 2, 24, "ok"), (8, 1, 9, "unknown"), (21, 3, 24, "unknown")],
)
def test_nine_tenths_of_the_faults_that_were_asked_for_must_be_put_in_force(
    injected: int, skipped: int, asked: int, verdict: str
) -> None:
    for told_of in ({"crash": asked}, {}):  # a cell of an earlier version does not say what it asked for
        finding = judged(*crashes(injected, skipped), faults_asked=told_of)
        assert finding.verdict == verdict
        assert f"{injected} of {asked} " in finding.reason


def test_the_verdict_says_how_many_faults_were_put_in_force_and_why_not_all() -> None:
    why = "crash n2 was skipped: it did not fit before the end of the schedule"
    finding = judged(*crashes(12, 12), faults_asked={"crash": 24})
    assert finding.reason == f"12 of 24 crash faults were put in force; {why}"
    nowhere = fault("crash", action="skip", detail="leader; it did not fit before the end of the schedule")
    assert "faults were put in force; crash leader was skipped: it did not fit" in judged(nowhere).reason
    assert judged(*crashes(24)).reason == "100 operations, 90 succeeded, 24 of 24 faults put in force"


def test_faults_that_were_asked_for_and_never_tried_count() -> None:
    """The run of the schedule was cut short, so that nothing tells of the others."""
    assert judged(*crashes(12), faults_asked={"crash": 24}).reason == "12 of 24 crash faults were put in force"
    more = judged(*crashes(20), faults_asked={"crash": 20, "pause": 4})
    assert (more.verdict, more.reason) == ("unknown", "0 of 4 pause faults were put in force")


def test_a_fault_of_which_nobody_knows_whether_it_took_effect_does_not_count() -> None:
    doubtful = fault("crash", "n1", took_effect=None, error="no answer within 5s")
    assert judged(*crashes(8), doubtful, doubtful).reason.startswith("8 of 10 crash faults were put in force; ")


def test_a_healing_is_no_fault() -> None:
    assert judged(fault("crash", "n1", action="heal", took_effect=False)).reason == "no fault was put in force"


BITTEN = [told("n1", 30, cut=9, dropped=9)]
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
        ("follower", "crash", ["n2"], LED, "ok"),
        ("follower", "crash", ["n2"], DEPOSED, "unknown"),
        ("leader", "isolate", ["n2"], LED, "unknown"),
        ("follower", "crash", ["n1"], LED, "unknown"),
        ("followers", "isolate", ["n2", "n3"], LED, "ok"),
        ("followers", "isolate", ["n1", "n3"], LED, "unknown"),
        ("minority", "isolate", ["n2"], LED, "ok"),
        ("leader", "drop", ["n2"], LED, "unknown"),
    ],
)
def test_a_fault_aimed_at_the_leader_must_hit_it(
    aim: str, kind: str, nodes: list[str], traces: list[dict[str, Any]], verdict: str
) -> None:
    finding = judged(fault(kind, *nodes, index=4), aims={4: aim}, traces=traces, statuses=BITTEN)
    assert finding.verdict == verdict


@pytest.mark.parametrize(
    ("aim", "groups", "verdict"),
    [
        ("leader-in-minority", [["n1"], ["n2", "n3"]], "ok"),
        ("leader-in-minority", [["n2"], ["n1", "n3"]], "unknown"),
        ("leader-in-majority", [["n2"], ["n1", "n3"]], "ok"),
        ("leader-in-majority", [["n1"], ["n2", "n3"]], "unknown"),
        ("majority-minority", [["n1"], ["n2", "n3"]], "ok"),
        ("leader-in-minority", [["n1", "clients"], ["n2", "n3"]], "ok"),
        ("chained", [["n1", "n2"], ["n2", "n3"]], "ok"),
        ("chained", [["n2", "n1"], ["n1", "n3"]], "unknown"),
        ("bridge", [["n2", "n3"], ["n2", "n1"]], "ok"),
        ("bridge", [["n1", "n2"], ["n1", "n3"]], "unknown"),
        ("quorum-loss", [["n2", "n3"], ["n2", "n4"], ["n2", "n1"]], "ok"),
        ("quorum-loss", [["n1", "n3"], ["n1", "n4"], ["n1", "n2"]], "unknown"),
        ("constrained-election", [["n1"], ["n2", "n3"], ["n2", "n4"]], "ok"),
        ("constrained-election", [["n3"], ["n1", "n2"], ["n1", "n4"]], "unknown"),
    ],
)
def test_a_partition_named_for_its_leader_has_it_on_that_side(aim: str, groups: list[list[str]], verdict: str) -> None:
    split = fault("partition", "n1", "n2", "n3", fault={"partition": groups})
    assert judged(split, aims={0: aim}, traces=LED, statuses=BITTEN).verdict == verdict


def test_a_node_chosen_in_place_of_a_missing_leader_is_no_leader() -> None:
    instead = fault("isolate", "n1", detail="n1; there was no leader, n1 was chosen in its place")
    finding = judged(instead, aims={0: "leader"}, traces=LED, statuses=BITTEN)
    assert (finding.verdict, finding.reason) == ("unknown", "isolate n1 was aimed at leader, and there was no leader")


@pytest.mark.parametrize("aim", ["follower", "followers", "chained", "bridge", "quorum-loss", "constrained-election"])
def test_whatever_is_resolved_by_the_leader_needs_one(aim: str) -> None:
    note = f"{aim}; there was no leader, n1 was chosen in its place"
    kind = "isolate" if aim in SELECTORS else "partition"
    assert judged(fault(kind, "n2", detail=note), aims={0: aim}, statuses=BITTEN).verdict == "unknown"


BEHIND = {"partition": [["n1"], ["n2", "n3"], ["n2", "n4"]], "behind": "1s"}


@pytest.mark.parametrize(
    ("advance", "why"),
    [
        ({"took_effect": True}, ""),
        (None, "had no second stage"),
        ({"took_effect": False, "error": "not on n1"}, "did not take effect in its second stage: not on n1"),
        ({"time_ns": 40}, "may have done nothing: no node told how many messages were cut"),
    ],
)
def test_a_fault_of_two_stages_is_in_force_with_the_second(advance: dict[str, Any] | None, why: str) -> None:
    first = fault("partition", "n1", "n2", "n3", "n4", fault=BEHIND)
    second = [] if advance is None else [{**first, "action": "advance", "time_ns": 25, **advance}]
    finding = judged(first, *second, statuses=[told("n1", 24, cut=3), told("n1", 30, cut=9)])
    assert (finding.verdict, finding.reason.removeprefix("partition n1,n2,n3,n4 ") if why else "") == (
        ("unknown", why) if why else ("ok", "")
    )
