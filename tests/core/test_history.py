"""The rules over trace events: a correct history breaks none, and each rule is broken once and named."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from raft_actor_node.core.invariants.history import MOST_FINDINGS, EventHistory, check_history
from raft_actor_node.core.invariants.rules import Rule
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.trace_lines import read_record
from tests.core.harness import World

Story = list[dict[str, Any]]


class Teller:
    """Writes trace events of any node, one after the other."""

    def __init__(self) -> None:
        self.events: Story = []
        self._numbers: dict[str, int] = {}

    def tell(
        self, node: str, kind: str, term: int, index: int = 0, log_term: int = 0, peer: str = "", **more: int
    ) -> Teller:
        number = 1 if kind == "started" else self._numbers.get(node, 0) + 1
        self._numbers[node] = number
        known = {"node": node, "number": number, "time_ns": len(self.events), "kind": kind, "term": term}
        self.events.append({**known, "index": index, "log_term": log_term, "peer": peer, "detail": "", **more})
        return self

    def elect(self, node: str, term: int, index: int = 0, log_term: int = 0, voters: tuple[str, ...] = ()) -> Teller:
        """A node wins an election; its log ends at `index`, of `log_term`."""
        self.tell(node, "became_candidate", term)
        for voter in voters:
            self.tell(voter, "became_follower", term)
            self.tell(voter, "vote_granted", term, peer=node)
        return self.tell(node, "became_leader", term, index, log_term)


def records(events: Story) -> list[TraceRecord]:
    """The events as they are read from the trace files of their nodes."""
    return [read_record(each["node"], each) for each in events if isinstance(each.get("node"), str)]


def in_order() -> Teller:
    """Three nodes: n1 leads term 1 and commits two entries, and all nodes know it."""
    teller = Teller()
    for node in ("n1", "n2", "n3"):
        teller.tell(node, "started", 0)
    teller.elect("n1", 1, voters=("n2", "n3"))
    for node in ("n2", "n3"):
        teller.tell(node, "leader_heard", 1, peer="n1")
    for node in ("n1", "n2", "n3"):
        teller.tell(node, "commit", 1, 2, 1)
    return teller


def rules(teller: Teller) -> list[Rule]:
    return [broken.rule for broken in check_history(records(teller.events))]


def test_a_history_in_order() -> None:
    """This holds over a restart, and when a new leader erases what an old one left."""
    teller = in_order()
    teller.tell("n1", "started", 1, 4, 1, peer="n1")
    teller.elect("n2", 2, 3, 1, voters=("n3",))
    teller.tell("n2", "commit", 2, 4, 2)
    teller.tell("n1", "became_follower", 2).tell("n1", "leader_heard", 2, peer="n2")
    teller.tell("n1", "log_truncated", 2, 4, 1).tell("n1", "commit", 2, 4, 2)
    assert rules(teller) == []
    history = EventHistory()
    history.take(records(teller.events))
    told = history.summary()
    assert (told.events, told.leaders, told.commits) == (24, 2, 2)
    assert (told.lives, told.gaps) == ({"n1": 2, "n2": 1, "n3": 1}, {})
    assert told.committed == {"n1": 4, "n2": 4, "n3": 2}


BROKEN: dict[str, tuple[Rule, Callable[[Teller], object]]] = {
    "two leaders": (Rule.ELECTION_SAFETY, lambda t: t.tell("n2", "became_candidate", 2).elect("n3", 2).tell(
        "n2", "became_leader", 2, 2, 1)),
    "a leader heard who did not lead": (Rule.ELECTION_SAFETY, lambda t: t.tell("n3", "leader_heard", 1, peer="n2")),
    "two lives lead one term": (Rule.ELECTION_SAFETY, lambda t: t.tell("n1", "started", 1, 2, 1, "n1").tell(
        "n1", "became_candidate", 1).tell("n1", "became_leader", 1, 2, 1)),
    "two votes": (Rule.ONE_VOTE, lambda t: t.tell("n2", "vote_granted", 1, peer="n3")),
    "another vote after a restart": (Rule.ONE_VOTE, lambda t: t.tell("n2", "started", 1, 2, 1, "n1").tell(
        "n2", "vote_granted", 1, peer="n3")),
    "a vote for itself besides": (Rule.ONE_VOTE, lambda t: t.tell("n2", "became_candidate", 1)),
    "entries forgotten": (Rule.DISK, lambda t: t.tell("n2", "commit", 1, 3, 1, durable_index=5).tell(
        "n2", "started", 1, 4, 1, "n1")),
    "a vote forgotten": (Rule.ONE_VOTE, lambda t: t.tell("n2", "started", 1, 2, 1)),
    "another vote found": (Rule.ONE_VOTE, lambda t: t.tell("n2", "started", 1, 2, 1, "n3")),
    "a term that goes back": (Rule.TERM, lambda t: t.tell("n2", "became_follower", 0)),
    "a term that goes back in a crash": (Rule.TERM, lambda t: t.tell("n2", "started", 0, 2, 1)),
    "a pre-vote that raises the term": (Rule.PRE_VOTE, lambda t: t.tell("n2", "became_pre_candidate", 2)),
    "a leader that did not stand": (Rule.ROLES, lambda t: t.tell("n2", "became_leader", 2, 2, 1)),
    "a leader that stands": (Rule.ROLES, lambda t: t.tell("n1", "became_candidate", 2)),
    "standing in an old term": (Rule.ROLES, lambda t: t.tell("n1", "became_follower", 1).tell(
        "n1", "became_candidate", 1)),
    "a leader that erases": (Rule.APPEND_ONLY, lambda t: t.tell("n1", "log_truncated", 1, 3, 1)),
    "erased below its own commit": (Rule.STATE_MACHINE_SAFETY, lambda t: t.tell("n2", "log_truncated", 1, 2, 1)),
    "a committed entry erased elsewhere": (Rule.STATE_MACHINE_SAFETY, lambda t: t.tell("n1", "commit", 1, 5, 1).tell(
        "n2", "became_follower", 2).tell("n2", "log_truncated", 2, 4, 1)),
    "two entries at one index": (Rule.STATE_MACHINE_SAFETY, lambda t: t.tell("n2", "became_follower", 3).tell(
        "n2", "commit", 3, 3, 1).tell("n3", "became_follower", 3).tell("n3", "commit", 3, 3, 2)),
    "terms that decrease along the log": (Rule.STATE_MACHINE_SAFETY, lambda t: t.tell("n2", "became_follower", 3).tell(
        "n2", "commit", 3, 3, 3).tell("n3", "became_follower", 3).tell("n3", "commit", 3, 4, 2)),
    "a commit that goes back": (Rule.COMMIT_INDEX, lambda t: t.tell("n2", "commit", 1, 1, 1)),
    "an old entry committed by counting": (Rule.OWN_TERM, lambda t: t.elect("n2", 2, 3, 1, ("n3",)).tell(
        "n2", "commit", 2, 3, 1)),
    "a leader with a short log": (Rule.LEADER_COMPLETENESS, lambda t: t.elect("n3", 2, 1, 1, ("n2",))),
    "a leader with another log": (Rule.LEADER_COMPLETENESS, lambda t: t.tell("n1", "became_follower", 2).tell(
        "n2", "became_follower", 2).tell("n2", "commit", 2, 3, 2).elect("n3", 3, 9, 1, ("n2",))),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_is_broken_and_named(name: str) -> None:
    rule, act = BROKEN[name]
    teller = in_order()
    assert rules(teller) == []
    act(teller)
    found = check_history(records(teller.events))
    assert rule in [broken.rule for broken in found]
    broken = next(broken for broken in found if broken.rule == rule)
    assert str(broken).startswith(f"{rule}: ")


def test_what_a_crash_may_take_back_is_not_broken() -> None:
    """A follower may learn of a commit before its disk has the entry; a crash brings its old entries back."""
    teller = in_order()
    teller.tell("n2", "commit", 1, 6, 1)
    teller.tell("n2", "started", 1, 5, 1, "n1")
    teller.tell("n2", "log_truncated", 1, 4, 0).tell("n2", "commit", 1, 3, 1)
    assert rules(teller) == []


def test_an_entry_may_be_erased_before_it_is_committed() -> None:
    """A leader that lacks the entry may erase it, even if another leader commits it later."""
    teller = in_order()
    teller.elect("n2", 2, 2, 1, ("n3",))
    teller.tell("n3", "log_truncated", 2, 3, 1)
    teller.tell("n1", "became_follower", 2)
    teller.elect("n1", 3, 3, 1, ("n3",)).tell("n1", "commit", 3, 4, 3)
    teller.tell("n3", "commit", 3, 3, 1)
    assert rules(teller) == []


def test_foreign_lines_are_passed_over() -> None:
    """Other kinds, missing fields, fields of another type."""
    teller = in_order()
    whole = len(teller.events)
    strange: list[Any] = [
        {"kind": "compaction", "node": "n1", "term": 9, "number": 3, "index": 1},
        {"kind": "commit", "node": "n1", "term": 1, "number": 4},
        {"kind": "commit", "node": "n1", "term": "one", "number": 4, "index": 3},
        {"kind": ["commit"], "node": "n1", "term": 1, "number": 4, "index": 3},
        {"kind": "became_leader", "node": 2, "term": 1, "number": 4, "index": 3},
        {"kind": "became_leader", "node": "n1", "term": 1, "number": 5, "index": 3, "log_term": "?"},
        {"kind": "became_leader", "node": "n1", "term": 1, "number": 6, "index": 3, "time_ns": None},
        {"kind": "vote_granted", "node": "n1", "term": 1, "number": 7, "index": 3, "peer": ["n2"]},
        {},
    ]
    history = EventHistory()
    history.take(records([*strange, *teller.events, *strange]))
    assert history.broken() == []
    assert history.summary().events == whole


def test_a_life_whose_first_lines_are_lost_is_told_by_its_numbers() -> None:
    """A torn line swallows the first line of the next incarnation; commits may start again all the same."""
    teller = in_order()
    teller.tell("n2", "commit", 1, 7, 1)
    teller.tell("n2", "started", 1, 5, 1, "n1").tell("n2", "commit", 1, 6, 1)
    del teller.events[-2]
    assert rules(teller) == []


def test_a_life_whose_first_lines_are_lost_though_its_numbers_go_on() -> None:
    """Nothing shows that it is another incarnation, but its commits may start again."""
    teller = in_order()
    teller.tell("n2", "started", 1, 5, 1, "n1")
    for _ in range(20):
        teller.tell("n2", "leader_heard", 1, peer="n1")
    teller.tell("n2", "commit", 1, 2, 1)
    first, last = (max(at for at, each in enumerate(teller.events) if each["kind"] == kind) for kind in KINDS)
    del teller.events[first:last]
    history = EventHistory()
    history.take(records(teller.events))
    assert history.broken() == []
    assert history.summary().gaps == {"n2": 1}


KINDS = ("started", "commit")


def test_what_is_missing_or_not_of_the_form_is_told() -> None:
    whole = in_order().events
    at = next(position for position, event in enumerate(whole) if event["kind"] == "vote_granted")
    node = whole[at]["node"]
    for spoilt in (
        [*whole[:at], *whole[at + 1 :]],
        [*whole[:at], {**whole[at], "log_term": "?"}, *whole[at + 1 :]],
        [*whole[:at], {**whole[at], "peer": 7}, *whole[at + 1 :]],
        [*whole[:at], {**whole[at], "time_ns": "now"}, *whole[at + 1 :]],
        [*whole[:at], {key: whole[at][key] for key in whole[at] if key != "term"}, *whole[at + 1 :]],
    ):
        history = EventHistory()
        history.take(records(spoilt))
        assert history.broken() == []
        assert history.summary().gaps == {node: 1}
    history = EventHistory()
    history.take(records([*whole[:at], {**whole[at], "kind": "of tomorrow"}, *whole[at + 1 :]]))
    assert history.summary().gaps == {}


def test_where_lines_are_missing_roles_are_not_judged() -> None:
    teller = in_order()
    teller.elect("n2", 2, 2, 1, ("n3",))
    teller.events = [event for event in teller.events if event["kind"] != "became_candidate"]
    assert rules(teller) == []


def test_events_without_terms_of_entries_are_judged_as_far_as_they_tell() -> None:
    """Programs that do not know `log_term` write such traces."""
    teller = in_order()
    teller.elect("n3", 2, 0, 0, ("n2",)).tell("n2", "commit", 2, 3, 7)
    teller.tell("n2", "vote_granted", 2, peer="n2")
    for event in teller.events:
        del event["log_term"]
    assert rules(teller) == [Rule.ONE_VOTE]


def test_a_bug_that_repeats_itself_does_not_fill_the_report() -> None:
    teller = in_order()
    for _ in range(1000):
        teller.tell("n2", "commit", 1, 1, 1)
    assert len(check_history(records(teller.events))) == MOST_FINDINGS


def test_what_was_erased_need_not_be_found_again() -> None:
    """A log may begin shorter after its end was erased.

    The erasure was traced, or came in a term that was never traced, or after a vote that was never traced.
    """
    durable = in_order().tell("n2", "commit", 1, 3, 1, durable_index=5)
    assert rules(durable.tell("n2", "log_truncated", 1, 5, 1).tell("n2", "started", 1, 4, 1, "n1")) == []
    for term, vote in ((2, ""), (2, "n3")):
        durable = in_order().tell("n2", "commit", 1, 3, 1, durable_index=5)
        assert rules(durable.tell("n2", "started", term, 4, 1, vote)) == []
    durable = in_order().tell("n2", "became_follower", 2).tell("n2", "commit", 2, 3, 1, durable_index=5)
    assert rules(durable.tell("n2", "started", 2, 4, 1, "n3")) == []
    assert rules(durable.tell("n2", "commit", 2, 4, 1, durable_index=5).tell("n2", "started", 2, 4, 1, "n3")) == [
        Rule.DISK
    ]


def test_what_is_on_disk_is_not_known_where_events_are_missing() -> None:
    """The missing events may be those that erased it."""
    teller = in_order().tell("n2", "commit", 1, 3, 1, durable_index=5).tell("n2", "log_truncated", 1, 5, 1)
    del teller.events[-1]
    teller.tell("n2", "leader_heard", 1, peer="n1").tell("n2", "started", 1, 4, 1, "n1")
    assert rules(teller) == []


@pytest.mark.parametrize("seed", range(20))
def test_what_nodes_in_order_tell_is_in_order(seed: int) -> None:
    """The core's own events under crashes, cuts and loss raise no false alarm."""
    rng = random.Random(seed)
    world = World(rng.choice([3, 5]), seed, loss=0.1, duplicate=0.2, pre_vote=rng.random() < 0.5)
    events, numbers, step = [], dict.fromkeys(world.ids, 0), world.invariants.stepped

    def told(node: Any, before: Any, came: Any, effects: Any, now: float) -> None:
        step(node, before, came, effects, now)
        for event in effects.trace:
            numbers[node.node_id] = 1 if event.kind == "started" else numbers[node.node_id] + 1
            fields = {"node": node.node_id, "number": numbers[node.node_id], "time_ns": int(now * 1e9)}
            fields |= {"kind": event.kind, "term": event.term, "index": event.index, "log_term": event.log_term}
            events.append({**fields, "durable_index": event.durable_index, "peer": event.peer_id})

    world.invariants.stepped = told  # type: ignore[method-assign,assignment]
    for k in range(60):
        node_id, act = rng.choice(world.ids), rng.random()
        if act < 0.1 and node_id in world.nodes:
            world.crash(node_id)
        elif act < 0.3 and node_id not in world.nodes:
            world.restart(node_id)
        elif act < 0.4:
            world.isolate(node_id)
        elif act < 0.5:
            world.heal()
        elif leader := world.leader():
            world.propose(leader.node_id, b"%d" % k, b"%d." % k)
        world.run(rng.expovariate(20))
    world.heal()
    world.elect()
    history = EventHistory()
    history.take(records(events))
    assert history.broken() == []
    assert history.summary().commits > 3
