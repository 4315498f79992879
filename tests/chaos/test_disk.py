"""Disk faults: the grammar, the table that they make, and what the monkey does with them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from chaos import BadChaos, exit_cause, label, parse_chaos, ran
from chaos.faults import FAULTS, Disk
from chaos.faults.disk import together
from chaos.faults.inside import compose_inside
from raft_actor_node.node_faults import DiskFault, NodeFaults
from tests.chaos.test_monkey import Lab, lab, planned, strikes

if TYPE_CHECKING:
    from tests.chaos.conftest import FakeTarget

__all__ = ["lab"]

NODES = ("n1", "n2", "n3", "n4", "n5")


def slow(latency_ms: float) -> NodeFaults:
    return NodeFaults(disk=DiskFault(fsync_latency_ms=latency_ms))


def full(on: Any = "write", error: Any = "ENOSPC") -> NodeFaults:
    return NodeFaults(disk=DiskFault(error=error, on=on))


# ------------------------------------------------------------------------------ the grammar


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"disk": "leader", "fsync_latency": "200ms", "at": "1/3"}, "disk leader fsync_latency 200ms"),
        ({"disk": "minority", "stall": True, "heal_after": "2s"}, "disk minority stall"),
        ({"disk": ["n1", "n2"], "error": "ENOSPC"}, "disk n1,n2 ENOSPC"),
        ({"disk": "one", "error": "EIO", "on": "fsync"}, "disk one EIO on fsync"),
        ({"monkey": ["disk", "crash"], "every": "2s"}, "monkey disk+crash"),
    ],
)
def test_what_is_accepted_is_written_back_as_it_was_read(value: Any, name: str) -> None:
    spec = parse_chaos(value)
    assert spec.written == value
    assert label(spec) == name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"disk": "leader"}, "disk: exactly one of fsync_latency, stall: true and error must be given"),
        ({"disk": "leader", "stall": False}, "disk: exactly one of"),
        ({"disk": "leader", "stall": True, "error": "EIO"}, "disk: exactly one of"),
        ({"disk": "leader", "fsync_latency": "1s", "stall": True}, "disk: exactly one of"),
        ({"disk": "leader", "fsync_latency": "1s", "on": "fsync"}, "disk: on: only with error"),
        ({"disk": "leader", "stall": True, "on": "write"}, "disk: on: only with error"),
        ({"disk": "leader", "fsync_latency": "0s"}, "disk.fsync_latency: Input should be greater than 0"),
        ({"disk": "leader", "fsync_latency": "2h"}, "disk.fsync_latency: Input should be less than or equal to 3600"),
        ({"disk": "leader", "fsync_latency": 0.2}, "disk.fsync_latency: 0.2 is not a duration"),
        ({"disk": "leader", "error": "EPERM"}, "disk.error: Input should be 'ENOSPC' or 'EIO', not 'EPERM'"),
        ({"disk": "leader", "error": "EIO", "on": "read"}, "disk.on: Input should be 'write' or 'fsync', not 'read'"),
        ({"disk": "leader", "eror": "EIO"}, "disk: unknown key 'eror'; did you mean error?"),
        ({"disk": "leader", "stall": True, "every": "2s"}, "disk: heal_after: needed with every"),
        ({"disk": 5, "stall": True}, "disk: 5 names no nodes"),
    ],
)
def test_what_is_refused_is_named_in_one_line(value: Any, message: str) -> None:
    with pytest.raises(BadChaos) as caught:
        parse_chaos(value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_leader_is_left_open_and_other_parts_are_decided() -> None:
    schedule = planned([{"disk": "leader", "stall": True}, {"disk": "minority", "fsync_latency": "1s"}])
    assert schedule.faults[0].where == "leader"
    assert len(schedule.faults[1].ids) == 2
    with pytest.raises(BadChaos, match="disk: the cluster has no node 'n9'"):
        planned({"disk": "n9", "stall": True})


def test_most_random_disks_are_slow_and_some_hang_or_fail() -> None:
    drawn = [Disk.drawn(NODES, Random(seed)) for seed in range(1000)]
    slow_ms = [fault.fsync_latency * 1e3 for fault in drawn if fault.fsync_latency is not None]
    assert min(slow_ms) >= 20
    assert max(slow_ms) <= 500
    assert 600 < len(slow_ms) < 800
    assert sum(fault.stall for fault in drawn) > 50
    assert {(fault.error, fault.on) for fault in drawn if fault.error} == {
        (error, on) for error in ("ENOSPC", "EIO") for on in ("write", "fsync")
    }
    assert {fault.disk for fault in drawn} == {"leader", "one", "minority"}


@pytest.mark.parametrize(
    ("way", "counter", "disables", "exit_code"),
    [
        ({"fsync_latency": "1s"}, "fsyncs_delayed", False, None),
        ({"stall": True}, "fsyncs_stalled", True, None),
        ({"error": "EIO"}, "disk_errors", True, 6),
    ],
)
def test_each_way_to_fail_has_its_proof(way: Any, counter: str, disables: bool, exit_code: int | None) -> None:
    fault = FAULTS["disk"].model_validate({"disk": "leader", **way})
    assert [proof.counter for proof in fault.counters] == [counter]
    assert set(fault.counters) < set(fault.proof)
    assert (fault.disables, fault.exit_code) == (disables, exit_code)


# ------------------------------------------------------------------------------ the table


def test_faults_of_one_disk_are_in_force_together() -> None:
    assert together([DiskFault(fsync_latency_ms=20), DiskFault(fsync_latency_ms=30)]) == DiskFault(fsync_latency_ms=50)
    assert together([DiskFault(stall=True), DiskFault(error="EIO", on="fsync"), DiskFault(fsync_latency_ms=5)]) == (
        DiskFault(fsync_latency_ms=5, stall=True, error="EIO", on="fsync")
    )
    assert together([DiskFault(error="ENOSPC"), DiskFault(error="EIO", on="fsync")]) == DiskFault(error="ENOSPC")
    assert together([DiskFault(fsync_latency_ms=3_000_000)] * 2).fsync_latency_ms == 3_600_000
    assert compose_inside([{"n1": slow(1)}, {"n1": slow(2), "n2": full()}]) == {"n1": slow(3), "n2": full()}
    assert compose_inside([]) == {}


def test_the_table_joins_every_field_that_a_node_may_have_faults_in() -> None:
    """A new field of NodeFaults needs its join in chaos/faults/inside.py; until then this test fails."""
    assert set(NodeFaults.model_fields) == {"disk"}
    assert set(DiskFault.model_fields) == {"fsync_latency_ms", "stall", "error", "on"}


# ------------------------------------------------------------------------------ the monkey


class Tables:
    """Records each table of faults inside nodes, with its time."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, dict[str, NodeFaults]]] = []

    def __call__(self, target: FakeTarget) -> None:
        set_node_faults = target.set_node_faults

        async def noting(faults: Mapping[str, NodeFaults]) -> Any:
            at_s = asyncio.get_running_loop().time() - target.start_s
            self.seen.append((round(at_s, 6), dict(faults)))
            return await set_node_faults(faults)

        target.set_node_faults = noting  # type: ignore[method-assign]


def test_a_slow_disk_is_put_in_force_and_healed(lab: Lab) -> None:
    tables = Tables()
    schedule = planned({"disk": "leader", "fsync_latency": "200ms", "at": "1s", "heal_after": "2s"})
    target = lab.run(schedule, tables)
    assert tables.seen == [(1.0, {"n1": slow(200)}), (3.0, {})]
    assert lab.seen == [("inject", "disk", ("n1",), 1.0), ("heal", "disk", ("n1",), 3.0), ("heal", "links", NODES, 3.0)]
    assert [call[1] for call in target.calls if call[1] in ("restart", "crash", "pause", "links")] == []
    assert lab.events[0].detail == "n1 fsync_latency 200ms"
    assert [fault.written for fault in ran(schedule, lab.events).faults] == [
        {"disk": ["n1"], "fsync_latency": "200ms", "at": "1s", "heal_after": "2s"}
    ]
    target.assert_healed()


def test_a_disk_that_fails_is_healed_before_its_node_is_restarted(lab: Lab) -> None:
    target = lab.run(planned({"disk": ["n2", "n3"], "error": "ENOSPC", "at": "1s", "heal_after": "2s"}))
    assert target.calls[:2] == [(1.0, "inside", ("n2", "n3")), (3.0, "nothing inside", ())]
    assert sorted(target.calls[2:4]) == [(3.0, "restart", ("n2",)), (3.0, "restart", ("n3",))]
    assert [each[:2] for each in lab.seen][:2] == [("inject", "disk"), ("heal", "disk")]
    target.assert_healed()


def test_a_disk_that_fails_until_the_end_is_healed_before_its_node_is_restarted(lab: Lab) -> None:
    target = lab.run(planned([{"disk": "n2", "error": "EIO", "at": "1s"}, {"pause": "n3", "at": "2s"}]))
    ending = [(what, nodes) for at_s, what, nodes in target.calls if at_s == 10.0]
    assert ending == [("resume", ("n3",)), ("heal", ()), ("no links", ()), ("restart", ("n2",))]
    assert [(event.action, event.kind) for event in lab.events][-2:] == [("heal", "pause"), ("heal", "disk")]
    target.assert_healed()


def test_two_disk_faults_compose_and_heal_independently(lab: Lab) -> None:
    tables = Tables()
    faults = [
        {"disk": ["n1", "n2"], "fsync_latency": "20ms", "at": "1s", "heal_after": "3s"},
        {"disk": ["n2", "n3"], "fsync_latency": "30ms", "at": "2s", "heal_after": "3s"},
        {"disk": "n3", "stall": True, "at": "3s", "heal_after": "4s"},
        {"drop": 0.1, "at": "3.5s", "heal_after": "1s"},
    ]
    lab.run(planned(faults), tables).assert_healed()
    stalled = NodeFaults(disk=DiskFault(fsync_latency_ms=30, stall=True))
    assert tables.seen == [
        (1.0, {"n1": slow(20), "n2": slow(20)}),
        (2.0, {"n1": slow(20), "n2": slow(50), "n3": slow(30)}),
        (3.0, {"n1": slow(20), "n2": slow(50), "n3": stalled}),
        (4.0, {"n2": slow(30), "n3": stalled}),
        (5.0, {"n3": NodeFaults(disk=DiskFault(stall=True))}),
        (7.0, {}),
    ]


def test_a_node_whose_disk_fails_takes_no_fault_of_its_process(lab: Lab) -> None:
    """The node may be down already, so its restart would end two faults at once."""
    faults = [
        {"disk": "n1", "error": "EIO", "at": "1s", "heal_after": "4s"},
        {"crash": ["n1", "n2"], "at": "2s", "restart_after": "1s"},
        {"pause": "n1", "at": "2.5s", "resume_after": "1s"},
        {"disk": "n1", "fsync_latency": "50ms", "at": "3s", "heal_after": "1s"},
    ]
    target = lab.run(planned(faults))
    assert [call[1:] for call in target.calls if call[1] in ("crash", "pause")] == [("crash", ("n2",))]
    assert [each[:2] for each in strikes(lab)] == [("inject", 0), ("inject", 1), ("skip", 2), ("inject", 3)]
    [skipped] = [event for event in lab.events if event.action == "skip"]
    assert skipped.detail == "n1; down because of disk, or about to be"
    target.assert_healed()


def test_a_disk_does_not_fail_on_a_node_that_is_down(lab: Lab) -> None:
    faults = [
        {"crash": "n1", "at": "1s", "restart_after": "3s"},
        {"disk": "n1", "error": "EIO", "at": "2s", "heal_after": "1s"},
    ]
    target = lab.run(planned(faults))
    assert [call for call in target.calls if call[1] == "restart"] == [(4.0, "restart", ("n1",))]
    assert [each[:2] for each in strikes(lab)] == [("inject", 0), ("skip", 1)]


def test_a_node_whose_disk_fails_does_not_stand_in_for_the_leader(lab: Lab) -> None:
    def prepare(target: FakeTarget) -> None:
        target.leads = None

    for seed in range(20):
        lab.events = []
        faults = [{"disk": ["n1", "n2", "n3", "n4"], "error": "EIO", "at": "1s"}, {"crash": "leader", "at": "2s"}]
        target = lab.run(planned(faults, seed=seed), prepare)
        assert [call[2] for call in target.calls if call[1] == "crash"] == [("n5",)]


def test_a_node_that_is_restarted_while_its_disk_is_slow_starts_with_it(lab: Lab) -> None:
    faults = [
        {"disk": "n1", "fsync_latency": "50ms", "at": "1s", "heal_after": "6s"},
        {"crash": "n1", "at": "2s", "restart_after": "1s"},
    ]
    after: list[NodeFaults | None] = []

    def prepare(target: FakeTarget) -> None:
        restart = target.restart

        async def watched(*nodes: str) -> None:
            await restart(*nodes)
            after.append(target.insides["n1"])

        target.restart = watched  # type: ignore[method-assign]

    lab.run(planned(faults), prepare).assert_healed()
    assert after == [slow(50)]


def test_a_node_that_slept_through_a_change_of_disks_is_told_when_it_wakes(lab: Lab) -> None:
    faults = [
        {"disk": "n1", "stall": True, "at": "1s", "heal_after": "2s"},
        {"pause": "n1", "at": "2s", "resume_after": "3s"},
    ]
    target = lab.run(planned(faults))
    # The links were never touched, so the monkey leaves them alone.
    assert [(at_s, what) for at_s, what, _ in target.calls][:5] == [
        (1.0, "inside"),
        (2.0, "pause"),
        (3.0, "nothing inside"),
        (5.0, "resume"),
        (5.0, "nothing inside"),
    ]
    target.assert_healed()


def test_a_disk_fault_that_its_node_did_not_take_did_not_strike(lab: Lab) -> None:
    """Another fault may silence the node, but this one does not."""

    def prepare(target: FakeTarget) -> None:
        async def deaf(faults: Mapping[str, NodeFaults]) -> Any:
            applied = target._inside(faults)
            return type(applied)(0, 0, ("n1",)) if faults else applied

        target.set_node_faults = deaf  # type: ignore[method-assign]

    lab.run(planned({"disk": "n1", "error": "EIO", "at": "1s", "heal_after": "1s"}), prepare)
    assert [(event.error, event.took_effect) for event in lab.events if event.action == "inject"] == [
        ("not on n1", False)
    ]


def test_a_restart_that_failed_is_tried_again_at_the_end(lab: Lab) -> None:
    async def fail_at_first(what: str, nodes: tuple[str, ...]) -> None:
        if what == "restart" and asyncio.get_running_loop().time() < lab.target.start_s + 3:
            raise OSError("not yet")

    def prepare(target: FakeTarget) -> None:
        target.misbehave, lab.target = fail_at_first, target

    target = lab.run(planned({"disk": "n1", "error": "EIO", "at": "1s", "heal_after": "1s"}), prepare)
    assert [(event.action, event.error) for event in lab.events] == [
        ("inject", ""),
        ("heal", "n1: not yet"),
        ("heal", ""),
    ]
    target.assert_healed()


@pytest.mark.parametrize(
    ("node", "code", "at_s", "explained"),
    [
        ("n1", 6, 1.0, True),
        ("n1", 6, 2.9, True),
        ("n1", 6, 3.0, True),
        ("n1", 6, 3.1, False),  # after the heal, the failure is the disk's own
        ("n1", 6, 0.9, False),
        ("n1", 7, 2.0, False),  # no fault breaks an invariant
        ("n1", None, 2.0, False),
        ("n2", 6, 2.0, False),
        ("n3", 6, 2.0, False),  # a slow disk ends no node
        ("n4", 6, 2.0, False),
    ],
)
def test_an_exit_is_explained_by_the_fault_that_ended_the_node(
    lab: Lab, node: str, code: int | None, at_s: float, explained: bool
) -> None:
    faults = [
        {"disk": "n1", "error": "EIO", "at": "1s", "heal_after": "2s"},
        {"disk": "n3", "fsync_latency": "1s", "at": "1s", "heal_after": "2s"},
        {"crash": "n4", "at": "1s", "restart_after": "2s"},
    ]
    target = lab.run(planned(faults))
    cause = exit_cause(lab.events, node, code, round((target.start_s + at_s) * 1e9))
    assert (cause is not None) == explained
    assert cause is None or (cause.action, cause.nodes) == ("inject", ("n1",))


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("seed", range(5))
def test_every_kind_goes_from_the_grammar_to_a_healed_cluster(lab: Lab, kind: str, seed: int) -> None:
    fault = FAULTS[kind].drawn(NODES, Random(seed)).written
    schedule = planned({**fault, "at": "1s", FAULTS[kind].end_key: "3s"}, seed=seed)
    target = lab.run(schedule)
    assert [(event.action, event.error) for event in lab.events if event.kind == kind] == [("inject", ""), ("heal", "")]
    assert lab.events[0].detail == lab.events[0].fault.describe()  # type: ignore[union-attr]
    assert target.calls[0][0] == 1.0
    target.assert_healed()
