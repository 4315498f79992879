"""Pre-vote (dissertation, section 9.6)."""

from __future__ import annotations

import pytest

from raft_actor_node.core import RequestVote, RequestVoteReply, Role
from tests.core.bench import Solo, append, request_vote, vote
from tests.core.harness import ET_MAX, ET_MIN, World


def granted(solo: Solo, request: RequestVote) -> bool:
    (reply,) = solo.receive(request)
    assert isinstance(reply, RequestVoteReply)
    assert (reply.pre_vote, reply.request_term) == (request.pre_vote, request.term)
    return reply.vote_granted


def test_a_pre_vote_changes_no_term_and_no_vote() -> None:
    """Neither asking for nor granting one changes any persistent state (9.6)."""
    asking = Solo(5)
    effects = asking.timeout()
    assert [m.pre_vote for m in effects.messages if isinstance(m, RequestVote)] == [True] * 4
    assert (asking.node.current_term, asking.node.voted_for, effects.persist) == (0, None, None)
    voter = Solo(5)
    before = voter.node.snapshot()
    assert granted(voter, request_vote(1, candidate="n2", pre_vote=True))
    assert granted(voter, request_vote(1, candidate="n3", pre_vote=True)), "any number of them"
    assert voter.node.snapshot() == before


def test_granting_a_pre_vote_does_not_restart_the_election_timer() -> None:
    """Only a real vote does (Figure 2); otherwise candidates that cannot win would delay those that can."""
    solo = Solo()
    first = solo.node.next_deadline()
    solo.step(at=ET_MIN / 2)
    assert granted(solo, request_vote(1, pre_vote=True))
    assert solo.node.next_deadline() == first


def test_a_candidate_needs_a_quorum_of_pre_votes() -> None:
    """A candidate increments its term only if it learns from a majority that they would vote (9.6)."""
    solo = Solo(5)
    requests = [m for m in solo.timeout().messages if isinstance(m, RequestVote)]
    solo.receive(vote(requests[0]), vote(requests[0]), vote(requests[1], granted=False))
    assert (solo.node.role, solo.node.current_term) == (Role.PRE_CANDIDATE, 0)
    solo.receive(vote(requests[2]))
    assert (solo.node.role, solo.node.current_term) == (Role.CANDIDATE, 1)


def test_pre_votes_are_no_votes_for_the_election_that_follows() -> None:
    """The tally starts anew, with the own vote only (9.6)."""
    solo = Solo(5)
    requests = solo.timeout().messages
    solo.receive(*[vote(m) for m in requests if isinstance(m, RequestVote)])
    assert solo.node.role == Role.CANDIDATE


@pytest.mark.parametrize(
    ("term", "last_index", "last_term", "expected"),
    [(6, 2, 5, True), (5, 2, 5, False), (4, 9, 4, False), (6, 1, 5, False), (6, 9, 4, False), (9, 3, 5, True)],
)
def test_a_pre_vote_needs_a_newer_term_and_an_up_to_date_log(
    term: int, last_index: int, last_term: int, expected: bool
) -> None:
    """A voter answers as it would to the real request (9.6, 5.4.1)."""
    solo = Solo(terms=[1, 5], term=5, voted_for="n3")
    assert granted(solo, request_vote(term, last_index, last_term, pre_vote=True)) is expected
    assert solo.node.current_term == 5


def test_who_hears_a_leader_grants_no_pre_vote() -> None:
    """A node refuses if it has heard a valid leader within the minimum election timeout (9.6)."""
    solo = Solo()
    solo.receive(append(1))
    solo.step(at=ET_MIN * 0.99)
    assert not granted(solo, request_vote(2, pre_vote=True))
    solo.receive(append(1, sequence=2))
    solo.step(at=ET_MIN * 1.98)
    assert not granted(solo, request_vote(2, pre_vote=True))
    leader = Solo()
    leader.lead()
    assert not granted(leader, request_vote(2, 9, 9, pre_vote=True)), "a leader hears itself"
    silent = Solo(election_timeout_min=0.1, election_timeout_max=0.9, seed=1)
    silent.receive(append(1))
    silent.step(at=0.101)
    assert granted(silent, request_vote(2, pre_vote=True))


def test_a_pre_candidate_that_is_behind_learns_the_term() -> None:
    """A refusal carries the voter's term, with which the next attempt can succeed (5.1)."""
    solo = Solo(term=3)
    request = next(m for m in solo.timeout().messages if isinstance(m, RequestVote))
    solo.receive(vote(request, granted=False, term=8))
    assert (solo.node.role, solo.node.current_term) == (Role.FOLLOWER, 8)
    again = [m for m in solo.timeout().messages if isinstance(m, RequestVote)]
    assert {m.term for m in again} == {9}


def test_a_pre_candidate_yields_to_a_leader() -> None:
    """The leader of its term was only slow: its message ends the pre-candidacy (5.2)."""
    solo = Solo(term=1)
    solo.timeout()
    solo.receive(append(1))
    assert (solo.node.role, solo.node.leader_id) == (Role.FOLLOWER, "n2")


@pytest.mark.parametrize("check_quorum", [True, False])
def test_a_rejoining_node_does_not_disrupt(check_quorum: bool) -> None:
    """A partitioned server cannot raise its term, so it does not disrupt the cluster when it comes back (9.6)."""
    world = World(5, check_quorum=check_quorum)
    leader = world.elect()
    away = next(i for i in world.ids if i != leader.node_id)
    world.isolate(away)
    world.run(20 * ET_MAX)
    assert world.nodes[away].current_term == leader.current_term
    world.heal()
    assert world.run_until(world.converged, 1.0)
    world.run(5 * ET_MAX)
    assert (leader.role, len(world.leaders)) == (Role.LEADER, 1)


@pytest.mark.parametrize("check_quorum", [True, False])
def test_a_rejoining_node_disrupts_without_pre_vote(check_quorum: bool) -> None:
    """The control of the test above: without pre-vote its term has grown and forces the leader to step down (9.6)."""
    world = World(5, pre_vote=False, check_quorum=check_quorum)
    leader = world.elect()
    term = leader.current_term
    away = next(i for i in world.ids if i != leader.node_id)
    world.isolate(away)
    world.run(20 * ET_MAX)
    assert world.nodes[away].current_term > term + 5
    world.heal()
    assert world.run_until(world.converged, 10 * ET_MAX)
    assert world.elect().current_term > term + 5


def test_a_node_that_hears_nobody_keeps_its_term() -> None:
    """Its messages arrive, and those of the others do not. Its term does not rise (9.6)."""
    world = World(3)
    leader = world.elect()
    deaf = next(i for i in world.ids if i != leader.node_id)
    for other in world.ids:
        world.cut(other, deaf, both=False)
    world.run(20 * ET_MAX)
    assert world.nodes[deaf].current_term == leader.current_term
    assert world.leader() is leader


def test_a_pre_candidate_that_hears_a_refusal_asks_again_at_the_next_timeout() -> None:
    """A node asks for pre-votes as long as it hears no leader (9.6)."""
    solo = Solo()
    for _ in range(10):
        requests = [m for m in solo.timeout().messages if isinstance(m, RequestVote)]
        solo.receive(*[vote(m, granted=False) for m in requests])
    assert (solo.node.role, solo.node.current_term) == (Role.PRE_CANDIDATE, 0)
    assert solo.node.counters.pre_votes_started == 10
    assert solo.node.counters.elections_started == 0


def test_chained_nodes_keep_their_leader() -> None:
    """The ends do not see each other: the middle or an end leads, and stays (9.6, 6.2)."""
    for seed in range(5):
        world = World(3, seed)
        world.cut("n1", "n3")
        leader = world.elect()
        world.run(20 * ET_MAX)
        assert world.leader() is leader
        assert len(world.leaders) == 1


def test_a_node_everybody_sees_keeps_the_cluster_going() -> None:
    """Quorum loss: all nodes see only n1, which must become leader and stay (9.6, 6.2)."""
    for seed in range(5):
        world = World(5, seed)
        world.elect()
        assert world.run_until(world.converged, 1.0)
        others = world.ids[1:]
        for k, i in enumerate(others):
            for j in others[k + 1 :]:
                world.cut(i, j)
        world.run(10 * ET_MAX)
        leader = world.leader()
        assert leader
        assert leader.node_id == "n1"
        term = leader.current_term
        world.run(20 * ET_MAX)
        assert (leader.role, leader.current_term) == (Role.LEADER, term)
