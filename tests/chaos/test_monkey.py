"""The monkey against a fake cluster in virtual time: what it does, what it records, that it heals."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chaos import BadChaos, FaultEvent, NotHealed, Schedule, Timeouts, fault_windows, parse_chaos, plan, ran, run
from chaos.events import NEVER_NS
from chaos.faults import FAULTS
from chaos.monkey import LEADER_POLL_S
from raft_actor_node.names import node_names

if TYPE_CHECKING:
    from raft_actor_node.links import LinkRule
    from tests.chaos.conftest import FakeTarget, VirtualClock

    Virtual = Callable[[Coroutine[Any, Any, Any]], Any]

SECOND_NS = 1_000_000_000


def planned(value: Any, *, duration_s: float = 10.0, n: int = 5, seed: int = 42) -> Schedule:
    nodes = node_names(n)
    return plan(parse_chaos(value), duration_s=duration_s, nodes=nodes, seed=seed)


class Lab:
    """One run of a schedule on one fake cluster."""

    def __init__(self, virtual: Virtual, clock: VirtualClock, cluster: type[FakeTarget]) -> None:
        self.virtual, self.clock, self.cluster = virtual, clock, cluster
        self.events: list[FaultEvent] = []
        self.target: Any = None

    def run(self, schedule: Schedule, prepare: Callable[[FakeTarget], None] | None = None, **more: Any) -> FakeTarget:
        async def act() -> None:
            self.target = self.cluster(len(schedule_nodes(schedule)))
            if prepare:
                prepare(self.target)
            await run(self.target, schedule, clock=self.clock, on_event=self.events.append, **more)

        self.virtual(act())
        return self.target  # type: ignore[no-any-return]

    @property
    def seen(self) -> list[tuple[str, str, tuple[str, ...], float]]:
        start_ns = round(self.target.start_s * 1e9)
        return [(e.action, e.kind, e.nodes, (e.time_ns - start_ns) / 1e9) for e in self.events]


def schedule_nodes(schedule: Schedule) -> tuple[str, ...]:
    return ("n1", "n2", "n3", "n4", "n5")


@pytest.fixture
def lab(virtual: Virtual, clock: VirtualClock, cluster: type[FakeTarget]) -> Lab:
    return Lab(virtual, clock, cluster)


def test_the_leader_is_crashed_and_restarted_at_its_times(lab: Lab) -> None:
    def prepare(target: FakeTarget) -> None:
        target.leads = "n3"

    target = lab.run(planned({"crash": "leader", "at": "1/5", "restart_after": "2s"}), prepare)
    assert target.calls == [(2.0, "crash", ("n3",)), (4.0, "restart", ("n3",))]
    assert lab.seen == [("inject", "crash", ("n3",), 2.0), ("heal", "crash", ("n3",), 4.0)]
    assert [event.planned_at_s for event in lab.events] == [2.0, 4.0]
    assert lab.events[0].to_dict()["fault"] == {"crash": ["n3"], "at": "2s", "restart_after": "2s"}


def test_in_a_constrained_election_the_hub_is_cut_off_first(lab: Lab) -> None:
    """The fault has two stages on the same nodes and one window, and its record can be replayed."""
    tables: list[set[tuple[str, str]]] = []

    def prepare(target: FakeTarget) -> None:
        set_links = target.set_links

        async def noting(rules: Sequence[LinkRule]) -> Any:
            tables.append({(rule.from_id, rule.to_id) for rule in rules})
            return await set_links(rules)

        target.leads, target.set_links = "n2", noting  # type: ignore[method-assign]

    schedule = planned({"partition": "constrained-election", "at": "2s", "behind": "1.5s", "heal_after": "6s"})
    target = lab.run(schedule, prepare)
    assert [(action, at) for action, _, _, at in lab.seen][:3] == [("inject", 2.0), ("advance", 3.5), ("heal", 8.0)]
    fault = lab.events[0].fault
    assert fault is not None
    (leader,), (hub, *_), *_ = fault.where
    assert leader == "n2"
    before, during = tables[:2]
    every = {(a, b) for a in target.node_ids for b in target.node_ids if a != b}
    assert every - before == {(a, b) for a, b in every if hub not in (a, b)}
    assert every - during == {(a, b) for a, b in every if hub in (a, b) and leader not in (a, b)}
    assert len(fault_windows(lab.events)) == 1
    assert [each.written for each in ran(schedule, lab.events).faults] == [
        {"partition": [list(group) for group in fault.where], "behind": "1.5s", "at": "2s", "heal_after": "6s"}
    ]
    target.assert_healed()


def test_a_partition_that_is_healed_while_it_is_prepared_never_comes(lab: Lab) -> None:
    schedule = planned({"partition": "constrained-election", "at": "9.5s"})
    lab.run(schedule)
    assert [event.action for event in lab.events] == ["inject", "heal"]


def test_an_empty_schedule_touches_nothing(lab: Lab) -> None:
    assert lab.run(planned("none")).calls == []
    assert lab.events == []


def test_a_fault_without_an_end_lasts_until_the_end_of_the_schedule(lab: Lab) -> None:
    target = lab.run(planned([{"crash": "n2", "at": "1s"}, {"drop": 0.5}]))
    assert target.calls[:2] == [(0.0, "links", ()), (1.0, "crash", ("n2",))]
    assert (10.0, "restart", ("n2",)) in target.calls
    target.assert_healed()
    assert {event.time_ns for event in lab.events if event.action == "heal"} == {round(target.start_s + 10) * SECOND_NS}


def test_a_fault_that_outlasts_the_schedule_is_healed_at_its_end(lab: Lab) -> None:
    target = lab.run(planned({"pause": "n1", "at": "9s", "resume_after": "5s"}))
    assert target.calls == [(9.0, "pause", ("n1",)), (10.0, "resume", ("n1",))]


def test_link_events_carry_the_times_of_the_first_and_the_last_node(lab: Lab) -> None:
    lab.run(planned({"partition": "halves", "at": "1s", "heal_after": "1s"}))
    assert all(event.done_ns - event.time_ns == 1000 for event in lab.events)


def test_overlapping_faults_compose_and_heal_independently(lab: Lab) -> None:
    tables: list[tuple[float, set[tuple[bool, float]]]] = []

    def prepare(target: FakeTarget) -> None:
        set_links = target.set_links

        async def watch(rules: Any) -> Any:
            at_s = asyncio.get_running_loop().time() - target.start_s
            tables.append((round(at_s, 3), {(rule.cut, rule.drop) for rule in rules}))
            return await set_links(rules)

        target.set_links = watch  # type: ignore[method-assign]

    faults = [
        {"drop": 0.2, "at": "1s", "heal_after": "4s"},
        {"isolate": "n1", "at": "2s", "heal_after": "1s"},
        {"crash": "n2", "at": "2500ms", "restart_after": "1s"},
        {"drop": 0.4, "at": "4s", "heal_after": "2s"},
    ]
    target = lab.run(planned(faults), prepare)
    loss, more_loss, isolation = (False, 0.2), (False, 0.4), (True, 0.0)
    assert tables[:6] == [
        (1.0, {loss}),
        (2.0, {loss, isolation}),
        (3.0, {loss}),
        (4.0, {loss, more_loss}),
        (5.0, {more_loss}),
        (6.0, set()),
    ]
    assert [call for call in target.calls if call[1] in ("crash", "restart")] == [
        (2.5, "crash", ("n2",)),
        (3.5, "restart", ("n2",)),
    ]
    target.assert_healed()


def test_a_node_that_is_down_takes_no_other_fault(lab: Lab) -> None:
    faults = [
        {"crash": ["n1", "n2"], "at": "1s", "restart_after": "4s"},
        {"pause": "n1", "at": "2s", "resume_after": "1s"},
        {"crash": ["n2", "n3"], "at": "3s", "restart_after": "1s"},
    ]
    target = lab.run(planned(faults))
    assert target.calls[:3] == [(1.0, "crash", ("n1", "n2")), (3.0, "crash", ("n3",)), (4.0, "restart", ("n3",))]
    assert sorted(target.calls[3:]) == [(5.0, "restart", ("n1",)), (5.0, "restart", ("n2",))]
    skipped = [event for event in lab.events if event.action == "skip"]
    assert [(event.kind, event.nodes, event.planned_at_s) for event in skipped] == [("pause", ("n1",), 2.0)]
    assert "already" in skipped[0].detail


def test_a_node_that_slept_through_a_change_of_links_is_told_when_it_wakes(lab: Lab) -> None:
    faults = [
        {"isolate": "n1", "at": "1s", "heal_after": "2s"},
        {"pause": "n1", "at": "2s", "resume_after": "3s"},
    ]
    waking: list[bool] = []
    listen = lab.events.append

    def prepare(target: FakeTarget) -> None:
        def on_event(event: FaultEvent) -> None:
            listen(event)
            waking.append(bool(target.tables["n1"]))

        lab.events = type("Listener", (list,), {"append": lambda _, event: on_event(event)})()

    target = lab.run(planned(faults), prepare)
    assert waking == [True, True, True, False, False]
    target.assert_healed()


def test_the_monkey_waits_for_a_leader(lab: Lab) -> None:
    def prepare(target: FakeTarget) -> None:
        target.leads = None
        asyncio.get_running_loop().call_later(1.5, setattr, target, "leads", "n4")

    target = lab.run(planned({"crash": "leader", "at": "1s", "restart_after": "1s"}), prepare)
    crash, restart = target.calls
    assert crash[1:] == ("crash", ("n4",))
    assert 1.5 <= crash[0] <= 1.53
    assert restart[0] == pytest.approx(crash[0] + 1.0)


def test_without_a_leader_the_seed_chooses_and_the_record_says_so(lab: Lab) -> None:
    def prepare(target: FakeTarget) -> None:
        target.leads = None

    chosen = set()
    for _ in range(2):
        target = lab.run(planned({"crash": "leader", "at": "1s"}), prepare, timeouts=Timeouts(leader_s=0.5))
        chosen.add(target.calls[0][2])
        assert target.calls[0][0] == pytest.approx(1.5, abs=0.03)
        assert "no leader" in lab.events[0].detail
    assert len(chosen) == 1


def test_a_leader_that_was_crashed_is_not_the_leader(lab: Lab) -> None:
    def prepare(target: FakeTarget) -> None:
        async def forgetful() -> str:
            return "n1"

        target.leader = forgetful  # type: ignore[method-assign]

    faults = [{"crash": "leader", "at": "1s"}, {"crash": "leader", "at": "2s"}]
    target = lab.run(planned(faults), prepare, timeouts=Timeouts(leader_s=0.1))
    first, second = (call[2] for call in target.calls[:2])
    assert first == ("n1",)
    assert second != ("n1",)


@pytest.mark.parametrize("cancel_at_s", [0.5, 1.5, 2.5, 3.5, 4.5])
def test_cancellation_heals_before_it_takes_effect(lab: Lab, cancel_at_s: float) -> None:
    faults = [{"crash": "n1", "at": "1s"}, {"pause": "n2", "at": "2s"}, {"partition": "ring", "at": "3s"}]
    faults.append({"disk": "n3", "error": "ENOSPC", "at": "4s"})

    async def act() -> None:
        lab.target = lab.cluster()
        task = asyncio.ensure_future(run(lab.target, planned(faults), clock=lab.clock, on_event=lab.events.append))
        await asyncio.sleep(cancel_at_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    lab.virtual(act())
    lab.target.assert_healed()
    injected = [event.index for event in lab.events if event.action == "inject"]
    assert injected == list(range(int(cancel_at_s - 0.5)))[: len(injected)]
    assert sorted(event.index for event in lab.events if event.action == "heal") == injected  # type: ignore[type-var]


def test_a_second_cancellation_does_not_interrupt_the_healing(lab: Lab) -> None:
    async def slow(what: str, nodes: tuple[str, ...]) -> None:
        if what == "restart":
            await asyncio.sleep(3.0)

    async def act() -> None:
        lab.target = lab.cluster()
        lab.target.misbehave = slow
        task = asyncio.ensure_future(run(lab.target, planned({"crash": "n1"}), clock=lab.clock))
        for _ in range(3):
            await asyncio.sleep(0.5)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    lab.virtual(act())
    lab.target.assert_healed()


def test_a_fault_cancelled_on_its_way_is_recorded_and_healed(lab: Lab) -> None:
    async def act() -> None:
        async def never_answers(what: str, nodes: tuple[str, ...]) -> None:
            if what == "crash":
                lab.target.down |= set(nodes)
                await asyncio.Event().wait()

        lab.target = lab.cluster()
        lab.target.misbehave = never_answers
        task = asyncio.ensure_future(
            run(lab.target, planned({"crash": "n1"}), clock=lab.clock, on_event=lab.events.append)
        )
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    lab.virtual(act())
    lab.target.assert_healed()
    assert [(event.action, bool(event.error)) for event in lab.events] == [("inject", True), ("heal", False)]


def test_an_error_of_the_target_is_recorded_and_the_schedule_goes_on(lab: Lab) -> None:
    async def refuse(what: str, nodes: tuple[str, ...]) -> None:
        if what in ("crash", "links"):
            raise OSError("no such\nprocess")

    def prepare(target: FakeTarget) -> None:
        target.misbehave = refuse

    faults = [
        {"crash": "n1", "at": "1s", "restart_after": "1s"},
        {"drop": 0.1, "at": "3s", "heal_after": "1s"},
        {"pause": "n2", "at": "5s", "resume_after": "1s"},
    ]
    target = lab.run(planned(faults), prepare)
    injected = [(event.error, event.took_effect) for event in lab.events if event.action == "inject"]
    assert injected == [("no such process", None)] * 2 + [("", True)]
    # A failed action may have had an effect, so the monkey heals it all the same.
    assert (2.0, "restart", ("n1",)) in target.calls
    assert (4.0, "no links", ()) in target.calls
    assert (6.0, "resume", ("n2",)) in target.calls


def test_a_healing_that_failed_is_tried_again_at_the_end(lab: Lab) -> None:
    async def fail_at_first(what: str, nodes: tuple[str, ...]) -> None:
        if what == "restart" and nodes == ("n1",) and lab.clock.now_ns() < (lab.target.start_s + 3) * SECOND_NS:
            raise OSError("not yet")

    def prepare(target: FakeTarget) -> None:
        target.misbehave = fail_at_first

    faults = [
        {"crash": ["n1", "n2"], "at": "1s", "restart_after": "1s"},
        {"crash": "n3", "at": "4s", "restart_after": "1s"},
    ]
    target = lab.run(planned(faults), prepare)
    target.assert_healed()
    heals = [(event.index, event.error) for event in lab.events if event.action == "heal"]
    assert heals == [(0, "n1: not yet"), (1, ""), (0, "")]
    # Only the node that failed is restarted again.
    assert [call[2] for call in target.calls if call[1] == "restart"] == [("n1",), ("n2",), ("n3",), ("n1",)]


@pytest.mark.parametrize("stubborn", [False, True], ids=["hangs", "hangs and ignores its cancellation"])
def test_a_target_that_never_answers_is_left_behind(lab: Lab, stubborn: bool) -> None:
    async def hang(what: str, nodes: tuple[str, ...]) -> None:
        for _ in range(3 if stubborn else 1):
            try:
                await asyncio.sleep(10_000)
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    async def act() -> float:
        lab.target = lab.cluster()
        lab.target.misbehave = hang
        faults = [{"crash": "leader", "at": "1s"}, {"drop": 0.1, "at": "2s"}, {"pause": "n2", "at": "3s"}]
        with pytest.raises(NotHealed, match="no answer within 1s") as caught:
            await run(lab.target, planned(faults), clock=lab.clock, timeouts=Timeouts(1.0, 2.0, 0.5))
        lab.events = list(caught.value.events)
        return asyncio.get_running_loop().time() - float(lab.target.start_s)

    took_s = lab.virtual(act())
    assert 10.0 <= took_s <= 20.0
    assert {call[1] for call in lab.target.calls} >= {"crash", "links", "pause", "restart", "resume", "heal"}
    assert all(event.error for event in lab.events)
    assert fault_windows(lab.events)[-1][1] == NEVER_NS


def test_what_a_call_does_after_it_was_given_up_disturbs_nobody(lab: Lab) -> None:
    complaints: list[dict[str, Any]] = []

    async def hang(what: str, nodes: tuple[str, ...]) -> None:
        if what == "crash":
            try:
                await asyncio.sleep(10_000)
            except asyncio.CancelledError:
                raise OSError("too late") from None

    def prepare(target: FakeTarget) -> None:
        target.misbehave = hang
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    lab.run(planned({"crash": "n1", "at": "1s"}), prepare, timeouts=Timeouts(call_s=1.0))
    gc.collect()
    assert [event.error for event in lab.events] == ["no answer within 1s", ""]
    assert complaints == []


def test_links_are_healed_once_more_on_nodes_that_missed_it(lab: Lab) -> None:
    def prepare(target: FakeTarget) -> None:
        set_links = target.set_links
        heals = []

        async def deaf_at_first(rules: Any) -> Any:
            before = target.tables["n4"]
            applied = await set_links(rules)
            heals.append(not rules)
            if sum(heals) == 1 and not rules:
                target.tables["n4"] = before
                return replace(applied, failed=("n4",))
            return applied

        target.set_links = deaf_at_first  # type: ignore[method-assign]

    lab.run(planned({"isolate": "n4", "at": "1s"}), prepare).assert_healed()
    assert [(event.action, event.error) for event in lab.events] == [
        ("inject", ""),
        ("heal", "not on n4"),
        ("heal", ""),
    ]
    assert len(fault_windows(lab.events)) == 1


def slow_restarts(took_s: float) -> Callable[[FakeTarget], None]:
    async def slow(what: str, nodes: tuple[str, ...]) -> None:
        if what == "restart":
            await asyncio.sleep(took_s)

    return lambda target: setattr(target, "misbehave", slow)


def strikes(lab: Lab) -> list[tuple[str, int | None, float]]:
    """The actions other than heals: what happened to which fault, at which second."""
    start_ns = round(lab.target.start_s * 1e9)
    return [(e.action, e.index, (e.time_ns - start_ns) / 1e9) for e in lab.events if e.action != "heal"]


def test_a_slow_restart_postpones_the_next_fault(lab: Lab) -> None:
    """The next fault is not skipped, and two crashes planned one after the other never overlap."""
    schedule = planned([{"crash": f"n{k + 1}", "at": f"{2 * k}s", "restart_after": "1s"} for k in range(3)])
    target = lab.run(schedule, slow_restarts(1.5))
    assert strikes(lab) == [("inject", 0, 0.0), ("inject", 1, 2.5), ("inject", 2, 5.0)]
    assert [call[:2] for call in target.calls] == [
        (0.0, "crash"), (1.0, "restart"), (2.5, "crash"), (3.5, "restart"), (5.0, "crash"), (6.0, "restart"),
    ]  # fmt: skip
    assert [event.planned_at_s for event in lab.events if event.action == "inject"] == [0.0, 2.0, 4.0]
    assert [fault.at for fault in ran(schedule, lab.events).faults] == [0.0, 2.5, 5.0], "as they really struck"


def test_a_fault_that_is_postponed_does_not_begin_while_the_one_before_lasts(lab: Lab) -> None:
    """The second crash is late and lasts for its whole time, in which the third one falls due."""
    lab.run(
        planned([{"crash": f"n{k + 1}", "at": f"{2 * k}s", "restart_after": "1.9s"} for k in range(4)]),
        slow_restarts(0.3),
    )
    assert strikes(lab) == [("inject", k, pytest.approx(2.2 * k)) for k in range(4)]


def test_what_does_not_fit_before_the_end_any_more_is_skipped(lab: Lab) -> None:
    faults = [
        {"crash": "n1", "at": "1s", "restart_after": "1s"},
        {"crash": "n2", "at": "3s", "restart_after": "1s"},
        {"drop": 0.1, "at": "5s", "heal_after": "2s"},
        {"isolate": "n3", "at": "7.5s", "heal_after": "2s"},
    ]
    target = lab.run(planned(faults), slow_restarts(3.2))
    # The restarts end at 5.2 s and 9.4 s.
    assert [each[:2] for each in strikes(lab)] == [("inject", 0), ("inject", 1), ("skip", 2), ("skip", 3)]
    details = [event.detail for event in lab.events if event.action == "skip"]
    assert all(detail.endswith("; it did not fit before the end of the schedule") for detail in details)
    target.assert_healed()


def test_a_fault_that_is_late_fits_with_half_of_its_time(lab: Lab) -> None:
    faults = [
        {"crash": "n1", "at": "1s", "restart_after": "1s"},
        {"drop": 0.1, "at": "8s", "heal_after": "2s"},
    ]
    target = lab.run(planned(faults), slow_restarts(6.9))
    assert [each[:2] for each in strikes(lab)] == [("inject", 0), ("inject", 1)]
    assert [call for call in target.calls if "links" in call[1]][:2] == [(8.9, "links", ()), (10.0, "no links", ())]


def test_a_fault_of_longer_duration_does_not_hold_up_what_falls_into_it(lab: Lab) -> None:
    lab.run(
        planned([{"crash": "n1", "at": "1s", "restart_after": "8s"}, {"pause": "n2", "at": "2s", "resume_after": "1s"}])
    )
    assert strikes(lab) == [("inject", 0, 1.0), ("inject", 1, 2.0)]


def test_a_node_that_cannot_be_restarted_holds_up_nothing(lab: Lab) -> None:
    async def refuse(what: str, nodes: tuple[str, ...]) -> None:
        if what == "restart" and lab.clock.now_ns() < (lab.target.start_s + 9) * SECOND_NS:
            raise OSError("not yet")

    faults = [
        {"crash": "n1", "at": "1s", "restart_after": "1s"},
        {"crash": "n2", "at": "3s", "restart_after": "1s"},
    ]
    lab.run(planned(faults), lambda target: setattr(target, "misbehave", refuse))
    assert strikes(lab) == [("inject", 0, 1.0), ("inject", 1, 3.0)]


def test_a_listener_that_fails_does_not_keep_the_cluster_from_being_healed(lab: Lab) -> None:
    async def act() -> list[FaultEvent]:
        def fail(event: FaultEvent) -> None:
            raise ValueError("listener")

        lab.target = lab.cluster()
        return await run(lab.target, planned({"crash": "n1", "at": "1s"}), clock=lab.clock, on_event=fail)

    assert [event.action for event in lab.virtual(act())] == ["inject", "heal"]
    lab.target.assert_healed()


def test_a_schedule_of_another_cluster_is_refused_before_anything_happens(lab: Lab) -> None:
    schedule = Schedule.model_validate({"duration_s": 5.0, "seed": 1, "faults": [{"crash": ["n9"]}]})
    with pytest.raises(BadChaos, match="no node 'n9'"):
        lab.run(schedule)
    assert lab.target.calls == []


def test_what_ran_can_be_replayed_to_the_same_nodes(lab: Lab, tmp_path: Path) -> None:
    schedule = planned({"monkey": list(FAULTS), "every": "1s"}, duration_s=40.0)
    first = lab.run(schedule)
    record = ran(schedule, lab.events)
    assert not any(isinstance(fault.where, str) for fault in record.faults)
    record.save(tmp_path / "schedule.json")
    lab.events = []

    def prepare(target: FakeTarget) -> None:
        target.leads = None  # the record names the nodes, so the monkey needs no leader

    second = lab.run(planned({"replay": str(tmp_path / "schedule.json")}, duration_s=40.0, seed=7), prepare)
    assert second.calls == first.calls
    assert second.tables == first.tables
    assert ran(record, lab.events) == record


@pytest.mark.parametrize("seed", range(20))
def test_any_monkey_leaves_a_healed_cluster(lab: Lab, seed: int) -> None:
    mixture = {"monkey": list(FAULTS), "every": "700ms"}
    schedule = planned([mixture, {**mixture, "seed": seed}, {**mixture, "every": "3s"}], duration_s=30.0, seed=seed)
    target = lab.run(schedule)
    target.assert_healed()
    assert max(at_s for at_s, _, _ in target.calls) <= 30.0 + LEADER_POLL_S, "who looks for a leader may be late"
    injected = sorted(event.index for event in lab.events if event.action == "inject")  # type: ignore[type-var]
    assert injected == sorted(event.index for event in lab.events if event.action == "heal" and event.index is not None)


async def test_without_a_clock_it_runs_in_real_time(cluster: type[FakeTarget]) -> None:
    target = cluster()
    before_ns = time.monotonic_ns()
    # Longer than a busy machine may delay the process; otherwise the pause would be late and be skipped.
    events = await run(target, planned({"pause": "n1", "at": "10ms", "resume_after": "2s"}))
    paused, resumed = events
    assert paused.time_ns - before_ns >= 10_000_000
    assert resumed.time_ns - paused.done_ns >= 2 * SECOND_NS
    target.assert_healed()


@pytest.mark.parametrize(
    ("refusing", "first_ns", "took_effect"),
    [(("n1", "n2", "n3", "n4", "n5"), 0, False), (("n2",), 7, True)],
    ids=["nowhere", "in part"],
)
def test_a_fault_that_no_node_took_opens_no_window(
    lab: Lab, refusing: tuple[str, ...], first_ns: int, took_effect: bool
) -> None:
    def prepare(target: FakeTarget) -> None:
        accept = target.set_links

        async def set_links(rules: Sequence[LinkRule]) -> Any:
            applied = await accept(rules)
            return replace(applied, first_ns=first_ns, failed=refusing) if rules else applied

        target.set_links = set_links  # type: ignore[method-assign]

    lab.run(planned({"isolate": "n1", "at": "1s", "heal_after": "1s"}), prepare)
    [injected] = [event for event in lab.events if event.action == "inject"]
    assert (injected.took_effect, injected.error) == (took_effect, f"not on {', '.join(refusing)}")
    assert len(fault_windows(lab.events)) == took_effect


def event(action: str, index: int | None, start: int, end: int, error: str = "") -> FaultEvent:
    return FaultEvent.model_validate(
        {
            "time_ns": start,
            "done_ns": end,
            "kind": "crash",
            "action": action,
            "nodes": ("n1",),
            "detail": "",
            "error": error,
            "planned_at_s": 0.0,
            "index": index,
            "fault": {"crash": ["n1"]},
        }
    )


def test_windows_are_the_union_of_what_was_in_force() -> None:
    events = [
        event("inject", 0, 10, 11),
        event("inject", 1, 15, 16),
        event("skip", 2, 17, 17),
        event("heal", 0, 20, 21),
        event("heal", 1, 30, 31),
        event("inject", 3, 40, 41),
        event("inject", 4, 42, 43),
        event("heal", 4, 44, 45),
        event("heal", 3, 45, 46),
    ]
    assert fault_windows(events) == [(10, 31), (40, 46)]
    assert fault_windows([]) == []


def test_a_window_stays_open_until_a_healing_succeeds() -> None:
    failed = [event("inject", 0, 10, 11), event("heal", 0, 20, 25, error="no answer")]
    assert fault_windows(failed) == [(10, NEVER_NS)]
    assert fault_windows([*failed, event("heal", 0, 50, 51)]) == [(10, 51)]


def test_an_event_is_one_json_object_that_can_be_read_back() -> None:
    before = event("inject", 0, 10, 11)
    assert before.to_dict()["nodes"] == ["n1"]
    assert FaultEvent.model_validate(before.to_dict()) == before
