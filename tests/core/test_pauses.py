"""A paused node does not mistake its own pause for silence of the others, and does not wait long for them."""

from __future__ import annotations

import pytest

from raft_actor_node.core import Paused, Receive, Role
from tests.core.bench import Solo, ack, append, appends, request_vote, requests
from tests.core.harness import ET_MAX, ET_MIN, HEARTBEAT, RPC_TIMEOUT

GRACE = 2 * HEARTBEAT
"""A leader that is alive is heard within this time."""
PAUSE = 20 * ET_MAX


def woken(solo: Solo, pause_s: float = PAUSE) -> None:
    """Return the effects of the first step after a pause."""
    solo.now += pause_s
    solo.step(Paused(pause_s))


@pytest.mark.parametrize("pre_vote", [True, False])
def test_a_woken_follower_waits_for_its_mail_and_stays_a_follower(pre_vote: bool) -> None:
    solo = Solo(pre_vote=pre_vote)
    solo.receive(append(1))
    for _ in range(5):
        woken(solo)
        assert requests(solo.wait(0.9 * GRACE).messages) == []
        solo.receive(append(1))
        assert solo.node.role == Role.FOLLOWER
        assert solo.node.next_deadline() >= solo.now + ET_MIN
    assert solo.node.current_term == 1


@pytest.mark.parametrize("pre_vote", [True, False])
def test_a_woken_follower_replaces_a_leader_that_is_dead(pre_vote: bool) -> None:
    """The wait is at most the grace and the spread of election timeouts, which nodes that wake together draw too."""
    solo = Solo(pre_vote=pre_vote)
    solo.receive(append(1))
    woken(solo)
    assert solo.now + GRACE <= solo.node.next_deadline() <= solo.now + GRACE + (ET_MAX - ET_MIN)
    assert requests(solo.timeout().messages) != []


def test_nodes_that_wake_together_do_not_stand_together() -> None:
    deadlines = set()
    for seed in range(20):
        solo = Solo(seed=seed)
        woken(solo)
        deadlines.add(round(solo.node.next_deadline(), 6))
    assert len(deadlines) == 20


def test_a_short_pause_postpones_an_election_by_no_more_than_itself() -> None:
    solo = Solo()
    solo.receive(append(1))
    due = solo.node.next_deadline()
    solo.step(Paused(0.1 * HEARTBEAT), at=0.5 * HEARTBEAT)
    assert solo.node.next_deadline() == pytest.approx(due + 0.1 * HEARTBEAT) or solo.node.next_deadline() == due
    assert solo.node.next_deadline() <= due + 0.1 * HEARTBEAT + 1e-9


def test_a_woken_voter_helps_to_depose_no_leader_that_it_may_still_hear() -> None:
    """Votes are refused within the smallest election timeout of hearing a leader (dissertation, 4.2.3)."""
    solo = Solo()
    solo.receive(append(1))
    solo.now += PAUSE
    (reply,) = solo.step(Paused(PAUSE), Receive(request_vote(2))).messages
    assert not reply.vote_granted  # type: ignore[union-attr]
    solo.now += GRACE
    (reply,) = solo.receive(request_vote(2))
    assert reply.vote_granted, "for a time only: the leader may be dead"  # type: ignore[union-attr]


def test_a_woken_leader_leads_on_when_a_quorum_answers_and_steps_down_when_none_does() -> None:
    for answered in (True, False):
        solo = Solo()
        solo.lead()
        solo.now += PAUSE
        said = appends(solo.step(Paused(PAUSE)).messages)
        assert solo.node.role == Role.LEADER
        assert {each.to_id for each in said} == {"n2", "n3"}, "heartbeats are not postponed: the others wait for them"
        if answered:
            solo.receive(ack(said[0]))
        solo.wait(GRACE + 1e-6)
        assert solo.node.role == (Role.LEADER if answered else Role.FOLLOWER)


def test_a_woken_candidate_counts_its_votes_before_it_stands_again() -> None:
    solo = Solo(pre_vote=False)
    asked = solo.stand()
    woken(solo)
    assert solo.node.current_term == asked[0].term
    assert solo.node.role == Role.CANDIDATE


def test_a_woken_leader_does_not_ask_again_for_what_may_be_answered_already() -> None:
    solo = Solo()
    solo.lead()
    solo.now += PAUSE
    solo.step(Paused(PAUSE))
    assert not any(progress.probing for progress in solo.node.progress.values())
    solo.wait(max(GRACE, RPC_TIMEOUT) + 1e-6)
    assert all(progress.probing for progress in solo.node.progress.values())
