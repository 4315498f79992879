"""Leaders without a quorum, and voters that hear a leader (dissertation, sections 6.2 and 4.2.3)."""

from __future__ import annotations

import pytest

from raft_actor_node.core import RequestVote, RequestVoteReply, Role
from tests.core.bench import Solo, ack, append, appends, refusal, request_vote
from tests.core.harness import ET_MAX, ET_MIN, HEARTBEAT, World


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_a_leader_that_hears_no_quorum_steps_down(n: int) -> None:
    """A leader steps down if an election timeout elapses without a round of heartbeats to a majority (6.2)."""
    world = World(n)
    leader = world.elect()
    others = [i for i in world.ids if i != leader.node_id]
    for other in others[n // 2 - 1 :]:  # the leader hears one voter less than a majority
        world.cut(other, leader.node_id, both=False)
    start = world.now
    assert world.run_until(lambda: leader.role != Role.LEADER, 3 * ET_MAX)
    assert world.now - start < 2 * ET_MAX
    assert leader.counters.step_downs == 1


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_a_leader_that_hears_a_bare_quorum_stays(n: int) -> None:
    """A majority of the full cluster, itself included, is enough (6.2)."""
    world = World(n)
    leader = world.elect()
    others = [i for i in world.ids if i != leader.node_id]
    for i in others[n // 2 :]:
        world.isolate(i)
    world.run(10 * ET_MAX)
    assert world.leader() is leader


def test_without_check_quorum_a_deaf_leader_is_an_outage_for_ever() -> None:
    """The control: a deaf leader's heartbeats keep the other nodes from electing, and nothing commits (6.2)."""
    world = World(3, check_quorum=False)
    leader = world.elect()
    assert world.run_until(world.converged, 1.0)
    for other in world.ids:
        world.cut(other, leader.node_id, both=False)
    committed = len(world.committed)
    world.propose(leader.node_id, b"x")
    world.run(30 * ET_MAX)
    assert len(world.committed) == committed
    assert world.leader() is leader


def test_with_check_quorum_a_deaf_leader_is_replaced() -> None:
    """The leader steps down, sends no more heartbeats, and another node takes over (6.2)."""
    world = World(3)
    old = world.elect()
    for other in world.ids:
        world.cut(other, old.node_id, both=False)
    new = world.elect(after=old.current_term)
    world.propose(new.node_id, b"x")
    world.run(20 * ET_MAX)
    assert world.leader() is new
    assert world.committed[-1][1] == b"x"


def test_refusals_are_signs_of_life_too() -> None:
    """A node that answers in this term follows this leader, whatever the node's log is (6.2)."""
    solo = Solo(2, terms=[1] * 50)
    messages = solo.lead()
    for _ in range(40):
        messages = appends(solo.receive(*[refusal(m, 0, 1) for m in messages]))
        messages += appends(solo.wait(HEARTBEAT / 2).messages)
    assert solo.node.role == Role.LEADER


def test_answers_of_an_earlier_term_are_no_signs_of_life() -> None:
    """A late reply says nothing about the present followers (5.1, 6.2)."""
    solo = Solo(3, check_quorum=True)
    old = solo.lead()
    solo.receive(append(2, leader="n2"))
    solo.lead()
    start = solo.now
    while solo.now < start + 2 * ET_MAX:
        solo.wait(HEARTBEAT)
        solo.receive(*[ack(m) for m in old])
    assert solo.node.role != Role.LEADER


def test_a_voter_that_hears_a_leader_ignores_candidates() -> None:
    """A voter that heard from a current leader within the minimum election timeout ignores a RequestVote.

    It neither updates its term nor grants a vote (4.2.3).
    """
    solo = Solo()
    solo.receive(append(1))
    solo.step(at=ET_MIN * 0.99)
    before = solo.node.snapshot()
    (reply,) = solo.receive(request_vote(7, 9, 9, candidate="n3"))
    assert isinstance(reply, RequestVoteReply)
    assert (reply.vote_granted, reply.term) == (False, 1)
    assert solo.node.snapshot() == before
    solo.now += ET_MIN * 0.02
    assert solo.receive(request_vote(7, 9, 9, candidate="n3"))
    assert (solo.node.current_term, solo.node.voted_for) == (7, "n3")


def test_a_leader_ignores_candidates_while_it_hears_a_quorum() -> None:
    """A node that was away must not depose the leader (4.2.3); a term in a *reply* still does (5.1)."""
    solo = Solo()
    solo.lead()
    solo.receive(request_vote(7, 9, 9))
    assert (solo.node.role, solo.node.current_term) == (Role.LEADER, 1)


def test_without_check_quorum_a_higher_term_always_counts() -> None:
    """The plain rule of the paper (5.1)."""
    solo = Solo(check_quorum=False)
    solo.lead()
    solo.receive(request_vote(7, 9, 9))
    assert (solo.node.role, solo.node.current_term, solo.node.voted_for) == (Role.FOLLOWER, 7, "n2")


def test_a_paused_leader_steps_down_on_waking() -> None:
    """A leader reads its mail before it checks the time: an empty mailbox means that no node follows it (6.2)."""
    solo = Solo()
    solo.receive(*[ack(m) for m in solo.lead()])
    effects = solo.step(at=solo.now + 5 * ET_MAX)
    assert effects.leadership_lost
    assert solo.node.role == Role.FOLLOWER


def test_a_paused_follower_reads_its_mail_before_it_stands() -> None:
    """A process that was paused must not conclude that it received no message (5.2)."""
    world = World(3)
    leader = world.elect()
    sleeper = next(i for i in world.ids if i != leader.node_id)
    world.pause(sleeper)
    world.run(10 * ET_MAX)
    world.sent.clear()
    world.resume(sleeper)
    world.run(0.005)
    assert not [m for m in world.sent if isinstance(m, RequestVote)]
    assert world.leader() is leader


def test_a_leader_that_stepped_down_has_no_leader_and_waits_its_turn() -> None:
    """It becomes a follower of its own term without a known leader, and draws a new election timeout (6.2)."""
    solo = Solo()
    solo.lead()
    solo.step(at=solo.now + 2 * ET_MAX)
    assert (solo.node.role, solo.node.current_term, solo.node.leader_id) == (Role.FOLLOWER, 1, None)
    assert ET_MIN <= solo.node.next_deadline() - solo.now <= ET_MAX
