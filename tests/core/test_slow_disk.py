"""A slow or stalled disk: what leaders and followers do meanwhile, what is bounded, and which leader yields."""

from __future__ import annotations

import random

import pytest

from raft_actor_node.core import (
    AppendEntries,
    AppendEntriesReply,
    Paused,
    Persisted,
    Receive,
    RequestVote,
    RequestVoteReply,
    Role,
)
from raft_actor_node.core.invariants import Snapshot, check
from raft_actor_node.core.log import ENTRY_BYTES
from raft_actor_node.core.node import DISK_IS_LATE
from raft_actor_node.core.quorum import quorum_size
from raft_actor_node.errors import InvariantViolated
from tests.core.bench import Solo, ack, append, appends, request_vote, requests, vote
from tests.core.harness import ET_MAX, ET_MIN, HEARTBEAT, World

KB = 1024
YIELD_AFTER = 1.0


def settled(n: int, **changes: object) -> tuple[World, str]:
    """A cluster at rest, and its leader."""
    world = World(n, **changes)  # type: ignore[arg-type]
    leader = world.elect()
    assert world.run_until(world.converged, 1.0)
    return world, leader.node_id


# ------------------------------------------------------------------------------ the leader's disk


@pytest.mark.parametrize("n", [3, 4, 5])
def test_followers_commit_while_the_leaders_own_copy_is_not_durable(n: int) -> None:
    """The leader may write to its disk in parallel; the entry is committed by the others (dissertation, 10.2.1)."""
    world, leader = settled(n)
    world.stall(leader)
    for number in range(20):
        world.propose(leader, b"%d" % number)
        world.run(0.050)
    node = world.nodes[leader]
    assert world.committed[-1][1] == b"19"
    assert node.commit_index == node.log.last_index > node.durable_index
    assert (world.leader(), node.counters.step_downs) == (node, 0), "without yield_after it leads on"
    world.unstall(leader)
    assert world.run_until(world.converged, 1.0)


@pytest.mark.parametrize(("n", "stalled"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_without_a_quorum_of_disks_nothing_is_committed(n: int, stalled: int) -> None:
    """The disks of the leader and of some followers hang: no majority holds the entry durably (5.3)."""
    world, leader = settled(n)
    assert n - stalled < quorum_size(n)
    others = [i for i in world.ids if i != leader][: stalled - 1]
    world.stall(leader, *others)
    committed = len(world.committed)
    world.propose(leader, b"x")
    world.run(20 * ET_MAX)
    assert len(world.committed) == committed
    assert world.leader() is world.nodes[leader], "disks that hang answer heartbeats"
    world.unstall(leader, *others)
    assert world.run_until(world.converged, 1.0)
    assert world.committed[-1][1] == b"x"


def test_a_stalled_leader_serves_reads_of_what_its_followers_committed() -> None:
    """A read needs a heartbeat round, and no disk (section 8)."""
    world, leader = settled(3)
    world.stall(leader)
    world.propose(leader, b"x")
    world.run(0.1)
    read = world.read(leader)
    world.run(0.1)
    assert world.read_results[read] == world.nodes[leader].commit_index == len(world.committed)


def test_a_leader_that_crashes_in_a_stall_loses_no_committed_entry() -> None:
    """An entry committed without the leader's disk is on a majority of disks, one of them in any quorum (5.4)."""
    world, leader = settled(3)
    world.stall(leader)
    world.propose(leader, *[b"%d" % number for number in range(50)])
    world.run(0.2)
    committed = list(world.committed)
    world.crash(leader)
    world.unstall(leader)
    world.restart(leader)
    world.elect(after=world.nodes[leader].current_term)
    assert world.run_until(world.converged, 2.0)
    assert world.committed[: len(committed)] == committed


# ------------------------------------------------------------------------------ a follower's disk


@pytest.mark.parametrize("latency", [0.4, 5.0])
def test_a_followers_slow_disk_costs_no_election(latency: float) -> None:
    """Heartbeats are answered at once, whatever the disk does (5.2)."""
    world, leader = settled(3)
    slow = next(i for i in world.ids if i != leader)
    world.disk_latency[slow] = (latency, latency)
    term = world.nodes[leader].current_term
    for _ in range(100):
        world.propose(leader, b"x" * 100)
        world.run(0.050)
    assert (world.leader(), world.nodes[leader].current_term) == (world.nodes[leader], term)
    assert world.nodes[leader].commit_index == world.nodes[leader].log.last_index


def test_a_stalled_follower_answers_heartbeats_and_grants_no_vote() -> None:
    """A vote is on stable storage before the answer (Figure 2)."""
    solo = Solo(term=1)
    solo.sync = False
    solo.receive(append(1, terms=[1]))
    assert solo.pending
    assert solo.receive(append(1, sequence=2)), "a heartbeat"
    solo.now += 2 * ET_MAX
    assert solo.receive(request_vote(2, 1, 1, candidate="n3")) == []


def test_while_the_term_is_not_durable_only_the_newest_answers_wait() -> None:
    """A disk may hang for long while a leader sends heartbeats: the number of waiting answers is bounded."""
    solo = Solo()
    solo.sync = False
    for sequence in range(1, 1000):
        assert solo.receive(append(1, sequence=sequence)) == []
        assert solo.receive(request_vote(1, candidate="n3")) == []
    assert solo.fsync().messages == [], "the vote came after the term"
    answers = solo.fsync().messages
    [heartbeat] = [m for m in answers if isinstance(m, AppendEntriesReply)]
    assert (heartbeat.sequence, heartbeat.success) == (999, True)
    assert len([m for m in answers if isinstance(m, RequestVoteReply)]) == 1


# ------------------------------------------------------------------------------ what waits is bounded


def test_a_leader_refuses_what_exceeds_the_unsynced_bytes_before_it_appends() -> None:
    """limits.unsynced_bytes: a refusal has no effect, and the leader accepts writes again when its disk answers."""
    limit = 10 * KB
    world, leader = settled(3, unsynced_bytes=limit)
    node = world.nodes[leader]
    world.stall(leader)
    for _ in range(40):
        world.propose(leader, b"x" * KB)
        world.run(0.010)
        assert node.unsynced_bytes <= limit
    taken = node.log.last_index
    assert node.unsynced_bytes > limit - KB - 2 * ENTRY_BYTES
    assert node.commit_index == taken, "the followers hold it"
    world.unstall(leader)
    world.run(0.1)
    world.propose(leader, b"again")
    assert node.log.last_index == taken + 1


def test_the_refusal_is_told() -> None:
    solo = Solo(unsynced_bytes=KB)
    solo.receive(*[ack(m) for m in solo.lead()])
    solo.sync = False
    assert len(solo.propose(b"x" * 2 * KB).accepted) == 1, "what waits alone may be larger"
    before = solo.node.snapshot()
    effects = solo.propose(b"y")
    assert (len(effects.overloaded), effects.accepted, effects.refused) == (1, [], [])
    assert solo.node.snapshot() == before
    solo.fsync()
    assert len(solo.propose(b"y").accepted) == 1


def test_a_follower_takes_no_more_entries_than_may_wait_for_its_disk() -> None:
    """The follower answers as to a heartbeat, with its durable index; the leader sends the entries again (5.3)."""
    solo = Solo(term=1, unsynced_bytes=200)
    solo.sync = False
    assert solo.receive(append(1, terms=[1] * 8)) == []
    [answer] = solo.receive(append(1, prev=8, prev_term=1, terms=[1] * 8, commit=9, sequence=2))
    assert isinstance(answer, AppendEntriesReply)
    assert (answer.success, answer.match_index, answer.sequence) == (True, 0, 2)
    assert (solo.node.log.last_index, solo.node.commit_index) == (8, 8), "it holds them, committed"
    solo.fsync()
    assert solo.receive(append(1, prev=8, prev_term=1, terms=[1] * 8, sequence=3)) == []
    assert solo.node.log.last_index == 16


@pytest.mark.parametrize("inflight", [4 * KB, 1 << 20])
def test_the_backlog_of_a_stalled_follower_is_bounded(inflight: int) -> None:
    """The window of the leader bounds it, and across leaders the follower's own limit; after the heal it catches up."""
    limit = 20 * KB
    world, leader = settled(3, unsynced_bytes=limit, max_inflight_bytes=inflight, max_batch_bytes=2 * KB)
    stalled = next(i for i in world.ids if i != leader)
    world.stall(stalled)
    for _ in range(60):
        world.propose(leader, b"x" * KB)
        world.run(0.030)
        assert world.nodes[stalled].unsynced_bytes <= min(limit, inflight + 3 * KB)
    assert len(world.committed) > 60
    assert world.leader() is world.nodes[leader], "it costs no election either"
    world.unstall(stalled)
    assert world.run_until(world.converged, 5.0)


def test_a_conflicting_suffix_stays_while_there_is_no_room_for_its_replacement() -> None:
    solo = Solo(terms=[1, 1, 2], term=3, unsynced_bytes=100)
    solo.sync = False
    solo.receive(append(3, 3, 2, [3, 3, 3], sequence=1))
    assert solo.node.log.last_index == 6
    [answer] = solo.receive(append(3, 1, 1, [3] * 5, commit=6, leader="n2", sequence=2))
    assert isinstance(answer, AppendEntriesReply)
    assert (answer.success, answer.match_index) == (True, 1)
    assert (solo.terms, solo.node.commit_index) == ([1, 1, 2, 3, 3, 3], 1)


# ------------------------------------------------------------------------------ yield_after


def test_a_leader_whose_disk_hangs_yields_to_a_node_whose_disk_does_not() -> None:
    """yield_after: the leader steps down, does not stand while its disk hangs, and follows the next leader."""
    world, old = settled(3, yield_after=YIELD_AFTER)
    world.stall(old)
    world.propose(old, b"x")
    since = world.now
    node = world.nodes[old]
    assert world.run_until(lambda: node.role != Role.LEADER, 2 * YIELD_AFTER)
    assert world.now - since == pytest.approx(YIELD_AFTER)
    assert node.counters.step_downs == 1
    started = node.counters.elections_started + node.counters.pre_votes_started
    new = world.elect(after=node.current_term)
    assert new.node_id != old
    world.run(20 * ET_MAX)
    assert node.counters.elections_started + node.counters.pre_votes_started == started
    world.unstall(old)
    world.propose(new.node_id, b"y")
    assert world.run_until(world.converged, 2.0)
    assert world.leader() is new


@pytest.mark.parametrize("pre_vote", [False, True])
def test_a_node_whose_disk_hangs_does_not_stand_and_does_when_it_answers(pre_vote: bool) -> None:
    """All other nodes are gone, and the node must not raise its term while its disk hangs."""
    world, old = settled(3, yield_after=YIELD_AFTER, pre_vote=pre_vote, check_quorum=False)
    node = world.nodes[old]
    world.stall(old)
    world.propose(old, b"x")
    for other in world.ids:
        if other != old:
            world.crash(other)
    world.run(YIELD_AFTER + 20 * ET_MAX)
    term = node.current_term
    assert (node.role, node.counters.step_downs) == (Role.FOLLOWER, 1)
    world.unstall(old)
    world.heal()
    leader = world.elect(after=term)
    assert world.run_until(world.converged, 2.0)
    assert leader.current_term > term


def test_without_yield_after_it_leads_on() -> None:
    world, old = settled(3)
    world.stall(old)
    world.propose(old, b"x")
    world.run(100 * ET_MAX)
    assert world.leader() is world.nodes[old]


def test_it_says_why_it_yields() -> None:
    solo = Solo(yield_after=YIELD_AFTER)
    messages = solo.lead()
    solo.sync = False
    solo.receive(*[ack(m) for m in messages])
    solo.propose(b"x")
    began = solo.now
    effects = solo.step()
    while solo.node.role == Role.LEADER:
        messages = effects.messages
        effects = solo.step(*[Receive(ack(m, 1)) for m in appends(messages)], at=solo.node.next_deadline())
    assert solo.now - began == pytest.approx(YIELD_AFTER)
    assert effects.leadership_lost
    assert [(e.kind, e.detail) for e in effects.trace] == [("became_follower", DISK_IS_LATE)]
    assert solo.node.leader_id is None


def test_a_write_that_is_slower_than_usual_is_not_late() -> None:
    """Each write has its own limit: many slow writes, one after the other, do not make a disk that hangs."""
    world, leader = settled(3, yield_after=YIELD_AFTER)
    world.disk_latency[leader] = (0.8 * YIELD_AFTER, 0.9 * YIELD_AFTER)
    for _ in range(100):
        world.propose(leader, b"x")
        world.run(0.1)
    assert world.leader() is world.nodes[leader]


def test_a_leader_with_nothing_to_write_does_not_yield() -> None:
    """Its last write was durable in time, however long ago that was."""
    world, leader = settled(3, yield_after=YIELD_AFTER)
    world.run(5 * YIELD_AFTER)
    assert world.leader() is world.nodes[leader]
    assert world.nodes[leader].counters.step_downs == 0


def test_a_pre_candidate_whose_disk_hangs_gives_up() -> None:
    """Its quorum of pre-votes comes too late: it must not raise its term."""
    solo = Solo(term=1, yield_after=ET_MAX)
    solo.sync = False
    solo.receive(append(1, terms=[1]))
    assert solo.pending
    asked = requests(solo.step(at=solo.node.next_deadline()).messages)
    assert solo.node.role == Role.PRE_CANDIDATE
    assert solo.now < ET_MAX
    solo.now = ET_MAX + 0.001
    solo.receive(*map(vote, asked))
    assert (solo.node.role, solo.node.current_term) == (Role.FOLLOWER, 1)
    before = solo.now
    for _ in range(20):
        assert requests(solo.step(at=solo.node.next_deadline()).messages) == []
    assert solo.now > before + 20 * ET_MIN, "no busy loop"
    solo.fsync()
    assert requests(solo.step(at=solo.node.next_deadline()).messages)


def test_a_candidate_whose_entries_hang_takes_no_leadership() -> None:
    """Its vote is durable, but the entries that it accepted as a follower are not yet."""
    solo = Solo(term=1, yield_after=ET_MAX, pre_vote=False)
    solo.sync = False
    solo.receive(append(1, terms=[1]))
    solo.step(at=solo.node.next_deadline())
    solo.receive(append(1, terms=[1], sequence=3))  # of a term that is over
    solo.fsync()
    asked = requests(solo.fsync().messages)
    assert solo.node.role == Role.CANDIDATE
    assert not solo.node._disk_is_late()
    solo.receive(*map(vote, asked))
    assert solo.node.role == Role.LEADER


def test_a_process_that_was_paused_hears_of_its_disk_first() -> None:
    """After a pause, a completed write is read before it counts as late."""
    solo = Solo(yield_after=YIELD_AFTER, check_quorum=False)
    messages = solo.lead()
    solo.sync = False
    solo.receive(*[ack(m) for m in messages])
    solo.propose(b"x")
    assert solo.pending
    number = solo.pending.number
    solo.step(Paused(10.0), at=solo.now + 10.0)
    assert solo.node.role == Role.LEADER
    solo.pending = None
    solo.step(Persisted(number), at=solo.now + HEARTBEAT / 2)
    solo.wait(YIELD_AFTER / 2)
    assert solo.node.role == Role.LEADER
    solo.propose(b"y")
    solo.step(Paused(10.0), at=solo.now + 10.0)
    solo.wait(2 * HEARTBEAT + 0.001)
    assert solo.node.role == Role.FOLLOWER, "nothing had come"


LATE = Snapshot(Role.FOLLOWER, 3, "n1", None, 5, 3, 4, 2, True)


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        (LATE._replace(role=Role.LEADER), LATE._replace(role=Role.LEADER), "leads while its own disk"),
        (LATE, LATE._replace(role=Role.PRE_CANDIDATE), "stands for election while its own disk"),
        (LATE, LATE._replace(role=Role.CANDIDATE, current_term=4), "stands for election while its own disk"),
        (
            LATE._replace(role=Role.CANDIDATE),
            LATE._replace(role=Role.CANDIDATE, current_term=4),
            "stands for election while its own disk",
        ),
    ],
)
def test_who_does_not_yield_breaks_an_invariant(before: Snapshot, after: Snapshot, rule: str) -> None:
    with pytest.raises(InvariantViolated, match=rule):
        check(before, after)
    check(before._replace(disk_late=False), after._replace(disk_late=False))


@pytest.mark.parametrize("seed", range(12))
def test_any_disks_hang_and_answer_again(seed: int) -> None:
    """Safety holds throughout, and the cluster works again once the disks answer, with and without yield_after."""
    rng = random.Random(seed)
    world = World(
        rng.choice((1, 2, 3, 3, 4, 5)),
        seed,
        yield_after=rng.choice((0.3, 1.0, float("inf"))),
        pre_vote=rng.random() < 0.7,
        check_quorum=rng.random() < 0.7,
        unsynced_bytes=rng.choice((1, 300, 64 << 20)),
        loss=rng.choice((0.0, 0.1)),
        duplicate=rng.choice((0.0, 0.2)),
    )
    for step in range(150):
        world.run(rng.uniform(0.0, 0.2))
        victim = rng.choice(world.ids)
        if victim in world.stalled:
            world.unstall(victim)
        elif rng.random() < 0.4:
            world.stall(victim)
        if victim in world.nodes and rng.random() < 0.05:
            world.crash(victim)
        elif victim not in world.nodes:
            world.restart(victim)
        if leader := world.leader():
            world.propose(leader.node_id, b"%d" % step)
    world.heal()
    world.elect()
    world.propose(world.elect().node_id, b"last")
    assert world.run_until(world.converged, 10.0), f"seed {seed}"


def test_heartbeats_of_a_stalled_leader_carry_on() -> None:
    """They promise nothing that is not durable, as term and vote are."""
    solo = Solo()
    solo.receive(*[ack(m) for m in solo.lead()])
    solo.sync = False
    solo.propose(b"x")
    said = [m for _ in range(20) for m in solo.wait(HEARTBEAT / 4).messages]
    assert [m for m in said if isinstance(m, AppendEntries)]
    assert not [m for m in said if isinstance(m, RequestVote)]
