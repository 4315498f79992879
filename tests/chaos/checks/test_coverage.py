"""Which faults and which load prove something."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.checks.coverage import Observed, judge_coverage, leader_at
from chaos.checks.evidence import FaultExit, Load, Outage
from chaos.checks.finding import Finding
from chaos.events import FaultEvent
from chaos.faults import SELECTORS
from chaos.statuses import Status
from raft_actor_node.core.trace import TraceRecord
from tests.chaos.checks.told import LED, NODES, event

ENOUGH = Load(operations=100, succeeded=90, unknown=5)


def fault(kind: str, *nodes: str, index: int = 0, action: str = "inject", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "action": action, "nodes": list(nodes), "index": index, "time_ns": 20, "detail": "x", **more}


def judged(*faults: dict[str, Any], load: Load = ENOUGH, **more: Any) -> Finding:
    return judge_coverage(Observed(load, [*map(FaultEvent.read, faults)], faults_planned=bool(faults), **more))


def test_a_quiet_cell_with_enough_operations() -> None:
    assert judged().verdict == "ok"
    assert judged().reason == "100 operations, 90 succeeded"


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (Load(19, 19), "only 19 of 19 operations succeeded"),
        (Load(1000, 19), "only 19 of 1000 operations succeeded"),
        (Load(100, 0), "only 0 of 100 operations succeeded"),
        (Load(100, 40, unknown=51), "51 of 100 operations have an unknown outcome"),
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
        ({"asked": 19}, "only 19 operations waited while none was to succeed, at least 20 are needed"),
        ({"unasked": 0.2}, "all clients were idle for 20% of the time in which no operation was to succeed"),
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
        assert reason == "drop n1 may have done nothing: no node reported how many messages were dropped"


SPLIT = fault("partition", *NODES, index=1, time_ns=100, fault={"partition": [["n1"], ["n2", "n3"]]})
HEALED = fault("partition", *NODES, index=1, action="heal", time_ns=200, done_ns=210)
LOSSY = fault("drop", *NODES, index=0, fault={"drop": 0.5, "nodes": list(NODES)})


def of_links(*statuses: Status) -> Finding:
    return judged(LOSSY, SPLIT, HEALED, nodes=NODES, statuses=[*(told(node, 10) for node in NODES), *statuses])


def test_what_another_fault_took_does_not_stand_for_this_one() -> None:
    """Nor do messages count that were cut before this fault or after its heal."""
    lossy = told("n2", 150, dropped=9)
    assert of_links(lossy, told("n1", 90), told("n1", 199, cut=1)).verdict == "ok"
    for statuses in (
        [told("n1", 199)],
        [told("n1", 90, cut=5), told("n1", 199, cut=5)],
        [told("n1", 90), told("n1", 199), told("n1", 300, cut=5)],
    ):
        assert of_links(lossy, *statuses).reason == "partition n1,n2,n3 did nothing: no message was cut"


def test_a_node_that_is_killed_within_a_fault_takes_no_proof_with_it() -> None:
    """The counts of its incarnations are enough, and so are those of other nodes."""
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


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([FaultExit("n1", 6, 25)], "ok"),
        ([], "unknown"),
        ([FaultExit("n1", 7, 25)], "unknown"),
        ([FaultExit("n2", 6, 25)], "unknown"),
        ([FaultExit("n1", 6, 19)], "unknown"),
        ([FaultExit("n1", 6, 41)], "unknown"),
    ],
)
def test_the_end_of_a_node_proves_the_fault_that_ended_it(ends: list[FaultExit], verdict: str) -> None:
    """The node's counters ended with it. Another node, another exit code or another time proves nothing."""
    disk = {"disk": ["n1"], "error": "ENOSPC"}
    faults = fault("disk", "n1", fault=disk), fault("disk", "n1", action="heal", fault=disk, time_ns=40)
    assert judged(*faults, nodes=NODES, fault_exits=ends).verdict == verdict


def test_a_chaos_cell_without_any_fault() -> None:
    finding = judge_coverage(Observed(ENOUGH, faults_planned=True))
    assert (finding.verdict, finding.reason) == ("unknown", "no fault was put in force")


def test_of_many_faults_half_must_bite_of_each_kind() -> None:
    """A crash may miss the leader; but if no fault of a kind hit, the cluster has not survived that kind."""
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
    """The schedule was cut short, so no event mentions the other faults."""
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
    aim: str, kind: str, nodes: list[str], traces: list[TraceRecord], verdict: str
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
    instead = fault("isolate", "n1", detail="n1; there was no leader, so the seed chose n1 instead")
    finding = judged(instead, aims={0: "leader"}, traces=LED, statuses=BITTEN)
    assert (finding.verdict, finding.reason) == ("unknown", "isolate n1 was aimed at leader, but there was no leader")


@pytest.mark.parametrize("aim", ["follower", "followers", "chained", "bridge", "quorum-loss", "constrained-election"])
def test_whatever_is_resolved_by_the_leader_needs_one(aim: str) -> None:
    note = f"{aim}; there was no leader, so the seed chose n1 instead"
    kind = "isolate" if aim in SELECTORS else "partition"
    assert judged(fault(kind, "n2", detail=note), aims={0: aim}, statuses=BITTEN).verdict == "unknown"


BEHIND = {"partition": [["n1"], ["n2", "n3"], ["n2", "n4"]], "behind": "1s"}


@pytest.mark.parametrize(
    ("advance", "why"),
    [
        ({"took_effect": True}, ""),
        (None, "had no second stage"),
        ({"took_effect": False, "error": "not on n1"}, "did not take effect in its second stage: not on n1"),
        ({"time_ns": 40}, "may have done nothing: no node reported how many messages were cut"),
    ],
)
def test_a_fault_of_two_stages_is_in_force_with_the_second(advance: dict[str, Any] | None, why: str) -> None:
    first = fault("partition", "n1", "n2", "n3", "n4", fault=BEHIND)
    second = [] if advance is None else [{**first, "action": "advance", "time_ns": 25, **advance}]
    finding = judged(first, *second, statuses=[told("n1", 24, cut=3), told("n1", 30, cut=9)])
    assert (finding.verdict, finding.reason.removeprefix("partition n1,n2,n3,n4 ") if why else "") == (
        ("unknown", why) if why else ("ok", "")
    )
