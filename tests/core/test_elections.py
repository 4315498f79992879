"""Leader election (paper, sections 5.1, 5.2 and 5.4.1)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest

from raft_actor_node.core import (
    AppendEntriesReply,
    Message,
    Persisted,
    Propose,
    Receive,
    RequestVote,
    RequestVoteReply,
    Role,
)
from raft_actor_node.errors import InvariantViolated
from tests.core.bench import Solo, ack, append, appends, request_vote, vote
from tests.core.harness import ET_MAX, ET_MIN, HEARTBEAT, RPC_TIMEOUT, World, payload, stored


def granted(reply: Message) -> bool:
    assert isinstance(reply, RequestVoteReply)
    return reply.vote_granted


def test_starts_as_follower_and_stays_one_while_it_hears_a_leader() -> None:
    """A server remains a follower as long as it receives valid RPCs from a leader (5.2)."""
    solo = Solo()
    for round_ in range(1, 100):
        solo.step(at=round_ * ET_MIN * 0.9)
        solo.receive(append(1, sequence=round_))
        assert solo.node.role == Role.FOLLOWER
        assert solo.node.leader_id == "n2"


@pytest.mark.parametrize("seed", range(20))
def test_election_timeout_is_within_its_range(seed: int) -> None:
    """Election timeouts are chosen from a fixed interval (5.2)."""
    solo = Solo(seed=seed)
    assert ET_MIN <= solo.node.next_deadline() <= ET_MAX
    assert not solo.step(at=ET_MIN * 0.999).messages
    assert solo.step(at=ET_MAX).messages


def test_election_timeouts_are_random_and_drawn_anew() -> None:
    """Each candidate restarts its randomized election timeout at the start of an election (5.2)."""
    solo = Solo(pre_vote=False)
    waits: list[float] = []
    for _ in range(50):
        start = solo.now
        solo.step(at=solo.node.next_deadline())
        while solo.node.current_term == len(waits):
            solo.timeout()
        waits.append(solo.now - start)
    assert len(set(waits)) == 50
    assert max(waits) - min(waits) > 0.8 * (ET_MAX - ET_MIN)


def test_a_candidate_raises_its_term_votes_for_itself_and_asks_all_others() -> None:
    """To begin an election, a follower increments its current term, votes for itself and asks all others (5.2).

    The request has the index and term of the candidate's last entry (5.4.1).
    """
    solo = Solo(5, terms=[1, 1, 2], term=3, pre_vote=False)
    requests = solo.stand()
    assert (solo.node.current_term, solo.node.voted_for) == (4, "n1")
    assert [m.to_id for m in requests] == ["n2", "n3", "n4", "n5"]
    assert {(m.term, m.last_log_index, m.last_log_term) for m in requests} == {(4, 3, 2)}


@pytest.mark.parametrize(("n", "quorum"), [(2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_candidate_wins_with_a_majority_of_all_voters_and_not_before(n: int, quorum: int) -> None:
    """A candidate wins if it receives votes from a majority of the *full* cluster, also of an even one (5.2)."""
    solo = Solo(n)
    for votes, request in enumerate(solo.stand(), start=2):
        assert solo.node.role == (Role.LEADER if votes > quorum else Role.CANDIDATE)
        solo.receive(vote(request))
    assert solo.node.role == Role.LEADER


def test_a_single_node_elects_itself() -> None:
    """A majority of one is one (5.2)."""
    solo = Solo(1)
    solo.timeout()
    assert solo.node.role == Role.LEADER
    assert solo.node.commit_index == 1


def test_a_new_leader_tells_everybody_at_once() -> None:
    """Once a candidate wins, it sends heartbeats to all to establish its authority and prevent elections (5.2)."""
    solo = Solo(5)
    assert {m.to_id for m in solo.lead()} == {"n2", "n3", "n4", "n5"}


def test_an_idle_leader_sends_heartbeats() -> None:
    """Leaders send periodic heartbeats to all followers (5.2)."""
    solo = Solo()
    solo.receive(*[ack(m) for m in solo.lead()])
    for _ in range(20):
        said = solo.wait(HEARTBEAT).messages
        assert {m.to_id for m in appends(said)} == {"n2", "n3"}
        solo.receive(*[ack(m) for m in appends(said)])


def test_one_vote_per_term_first_come_first_served() -> None:
    """Each server votes for at most one candidate in a term, first come first served (5.2)."""
    solo = Solo(5)
    assert granted(*solo.receive(request_vote(1, candidate="n2")))
    assert not granted(*solo.receive(request_vote(1, candidate="n3")))
    assert granted(*solo.receive(request_vote(1, candidate="n2"))), "the same candidate asks again: same answer"
    assert granted(*solo.receive(request_vote(2, candidate="n3"))), "a new term, a new vote"


def test_a_vote_binds_also_after_a_restart() -> None:
    """votedFor is persistent: another candidate is refused in the same term after a restart (Figure 2)."""
    solo = Solo(term=4, voted_for="n2")
    assert not granted(*solo.receive(request_vote(4, candidate="n3")))
    assert granted(*solo.receive(request_vote(4, candidate="n2")))


@pytest.mark.parametrize(
    ("last_index", "last_term", "expected"),
    [(3, 2, True), (4, 2, True), (2, 2, False), (9, 1, False), (1, 3, True), (0, 0, False)],
)
def test_a_vote_needs_an_up_to_date_log(last_index: int, last_term: int, expected: bool) -> None:
    """The log with the later last term is more up-to-date; with equal last terms the longer log is (5.4.1)."""
    solo = Solo(terms=[1, 2, 2])
    assert granted(*solo.receive(request_vote(5, last_index, last_term))) is expected
    assert solo.node.current_term == 5, "the term counts even where the vote is refused (5.1)"


def test_granting_a_vote_restarts_the_election_timer_and_refusing_does_not() -> None:
    """AppendEntries of the current leader and a *granted* vote restart the timeout (Figure 2, rules for followers)."""
    solo = Solo(terms=[2])
    first = solo.node.next_deadline()
    solo.step(at=ET_MIN / 2)
    solo.receive(request_vote(3, 0, 0))
    assert solo.node.next_deadline() == first
    solo.receive(request_vote(3, 1, 2))
    assert solo.node.next_deadline() != first


def test_a_vote_that_is_asked_for_again_does_not_restart_the_election_timer() -> None:
    """A candidate that hears no answer asks again (5.1), but its voters must be able to stand for election.

    Otherwise a candidate that hears no answers could keep all other nodes from standing indefinitely.
    """
    solo = Solo()
    solo.step(at=ET_MIN / 2)
    solo.receive(request_vote(1))
    granted = solo.node.next_deadline()
    solo.step(at=ET_MIN)
    (reply,) = solo.receive(request_vote(1))
    assert isinstance(reply, RequestVoteReply)
    assert reply.vote_granted
    assert solo.node.next_deadline() == granted


def test_a_stale_append_does_not_restart_the_election_timer() -> None:
    """Only AppendEntries of the *current* leader count (Figure 2, rules for followers).

    Otherwise late messages of a dead leader could delay elections.
    """
    solo = Solo(term=5)
    first = solo.node.next_deadline()
    solo.step(at=ET_MIN / 2)
    (reply,) = solo.receive(append(4))
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.success, reply.term) == (False, 5)
    assert solo.node.next_deadline() == first
    assert solo.node.leader_id is None


STALE_OR_NEWER: dict[str, Callable[[int], Message]] = {
    "RequestVote": request_vote,
    "RequestVoteReply": lambda t: RequestVoteReply("n2", "n1", t, t, False, False, 1),
    "pre-vote reply": lambda t: RequestVoteReply("n2", "n1", t, 1, False, True, 1),
    "AppendEntries": append,
    "AppendEntriesReply": lambda t: AppendEntriesReply("n2", "n1", t, 1, False, 0, 0, 0, 0, 1),
}


@pytest.mark.parametrize("kind", STALE_OR_NEWER)
@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_a_higher_term_in_any_message_makes_a_follower(kind: str, role: Role) -> None:
    """A server with an older term updates it; a candidate or leader then becomes a follower at once (5.1)."""
    solo = Solo(check_quorum=False)
    if role != Role.FOLLOWER:
        solo.lead() if role == Role.LEADER else solo.stand()
    assert solo.node.role == role
    solo.receive(STALE_OR_NEWER[kind](9))
    assert (solo.node.role, solo.node.current_term) == (Role.FOLLOWER, 9)


@pytest.mark.parametrize("kind", STALE_OR_NEWER)
@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_a_message_of_an_older_term_changes_nothing(kind: str, role: Role) -> None:
    """A request with a stale term is rejected, a stale reply is dropped, and terms never decrease (5.1).

    A candidate goes on if it hears from the leader of an older term (5.2).
    """
    solo = Solo(terms=[3, 3], term=5)
    if role != Role.FOLLOWER:
        solo.lead() if role == Role.LEADER else solo.stand()
    before = solo.node.snapshot()
    for reply in solo.receive(STALE_OR_NEWER[kind](4)):
        assert isinstance(reply, RequestVoteReply | AppendEntriesReply)
        assert reply.term == before.current_term
        assert not (reply.vote_granted if isinstance(reply, RequestVoteReply) else reply.success)
    assert solo.node.snapshot() == before


def test_a_late_vote_of_an_earlier_term_does_not_count() -> None:
    """Votes are for one term (5.2); a vote that arrives in the next election counts for no candidate."""
    solo = Solo(5, pre_vote=False)
    old = solo.stand()
    while solo.node.current_term == 1:
        solo.timeout()
    solo.receive(*[vote(m) for m in old])
    assert (solo.node.role, solo.node.current_term) == (Role.CANDIDATE, 2)


def test_a_vote_that_arrives_twice_counts_once() -> None:
    """A majority is one of servers, not of messages (5.2)."""
    solo = Solo(5)
    first, second, *_ = solo.stand()
    for _ in range(5):
        solo.receive(vote(first))
    assert solo.node.counters.elections_won == 0
    solo.receive(vote(second))
    assert solo.node.counters.elections_won == 1


def test_a_refused_vote_does_not_count() -> None:
    """Only granted votes make a majority (5.2)."""
    solo = Solo(5)
    solo.receive(*[vote(m, granted=False) for m in solo.stand()])
    assert solo.node.role == Role.CANDIDATE


def test_a_pre_vote_is_not_a_vote() -> None:
    """A granted pre-vote must not be counted as a vote (dissertation, 9.6)."""
    solo = Solo(5, pre_vote=False)
    for m in solo.stand():
        solo.receive(RequestVoteReply(m.to_id, "n1", m.term, m.term, True, True, m.sequence))
    assert solo.node.role == Role.CANDIDATE


def test_a_candidate_yields_to_the_leader_of_its_term() -> None:
    """A candidate that hears a leader whose term is at least its own returns to follower state (5.2)."""
    solo = Solo()
    solo.stand()
    solo.receive(append(1))
    assert (solo.node.role, solo.node.current_term, solo.node.leader_id) == (Role.FOLLOWER, 1, "n2")
    assert solo.node.voted_for == "n1", "the vote of this term stays given"


def test_a_split_vote_ends_in_a_new_term() -> None:
    """If votes are split, each candidate times out and starts a new election in a higher term (5.2)."""
    solo = Solo(4, pre_vote=False)
    solo.receive(vote(solo.stand()[0]))
    while solo.node.current_term == 1:
        solo.timeout()
    assert (solo.node.role, solo.node.current_term) == (Role.CANDIDATE, 2)


def test_a_vote_request_without_answer_is_sent_again() -> None:
    """Servers retry RPCs if they do not receive a response in time (5.1)."""
    solo = Solo(election_timeout_min=1.0, election_timeout_max=1.5)
    first, second = solo.stand()
    solo.receive(vote(first, granted=False))
    again = solo.wait(RPC_TIMEOUT).messages
    assert [(m.to_id, m.term) for m in again if isinstance(m, RequestVote)] == [(second.to_id, 1)]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7])
def test_a_leader_is_elected_soon(n: int) -> None:
    """Randomized timeouts make split votes rare and quickly resolved (5.2)."""
    for seed in range(20):
        world = World(n, seed)
        world.elect()
        assert world.now < 5 * ET_MAX


def test_a_crashed_leader_is_replaced_and_returns_as_follower() -> None:
    """If a follower hears nothing over an election timeout it begins an election (5.2)."""
    world = World(3)
    old = world.elect()
    world.crash(old.node_id)
    new = world.elect()
    assert new.current_term > old.current_term
    world.restart(old.node_id)
    assert world.run_until(world.converged, 1.0)
    assert world.leader() is new


def test_the_only_node_that_sees_a_majority_has_a_stale_log() -> None:
    """Constrained election: no leader is the right answer, for a leader's log must be up-to-date (5.4.1)."""
    world = World(5, disks={i: stored([1, 1, 2]) for i in ("n2", "n3", "n4", "n5")} | {"n1": stored([1])})
    for i, j in combinations(("n2", "n3", "n4", "n5"), 2):
        world.cut(i, j)
    world.run(20 * ET_MAX)
    assert not world.leaders
    world.heal()
    assert world.elect().node_id != "n1"


def test_two_leaders_in_one_term_stop_the_node() -> None:
    """At most one leader can be elected in a given term; a node that sees two must stop (5.2, Figure 3)."""
    solo = Solo()
    solo.receive(append(1, leader="n2"))
    with pytest.raises(InvariantViolated, match="election safety"):
        solo.receive(append(1, leader="n3"))
    leader = Solo()
    leader.lead()
    with pytest.raises(InvariantViolated, match="election safety"):
        leader.receive(append(1, leader="n3"))


def test_the_leader_of_a_term_is_remembered_when_it_falls_silent() -> None:
    """At most one leader can be elected in a given term, even if the first one is no longer heard (5.2)."""
    solo = Solo()
    solo.receive(append(1, leader="n2"))
    solo.timeout()
    assert solo.node.role == Role.PRE_CANDIDATE
    with pytest.raises(InvariantViolated, match="election safety"):
        solo.receive(append(1, leader="n3"))


def test_hearing_the_same_leader_again_is_no_change_of_leader() -> None:
    """`leader_changes` counts leaders: a pre-candidate that hears its old leader again saw no new leader."""
    solo = Solo()
    solo.receive(append(1, leader="n2"))
    assert solo.node.counters.leader_changes == 1
    solo.timeout()
    solo.receive(append(1, leader="n2", sequence=2))
    assert solo.node.counters.leader_changes == 1


def test_counters_tell_what_happened() -> None:
    """Each counter counts its event, once."""
    solo = Solo()
    for m in solo.lead():
        solo.receive(ack(m))
    solo.propose(b"a", b"b")
    solo.receive(append(5, 1, 1, [5], leader="n3"))
    counters = solo.node.counters
    assert (counters.pre_votes_started, counters.elections_started, counters.elections_won) == (1, 1, 1)
    assert (counters.step_downs, counters.leader_changes) == (1, 2)
    assert (counters.entries_appended, counters.entries_erased) == (4, 2)


def test_leadership_won_and_lost_within_one_step_is_reported() -> None:
    """Effects.leadership_lost: the client of an accepted proposal must learn that its outcome is unknown.

    This holds even if leadership is won and lost within one step.
    """
    solo = Solo()
    request = solo.stand()[0]
    proposal = Propose(7, [payload(2, 1)])
    effects = solo.step(Receive(vote(request)), proposal, Receive(append(2, leader="n3")))
    assert [a.proposal_id for a in effects.accepted] == [7]
    assert solo.node.role == Role.FOLLOWER
    assert effects.leadership_lost


def test_a_leader_that_loses_its_term_says_so() -> None:
    """Effects.leadership_lost is set in the step that ends a leadership, and only there."""
    solo = Solo()
    solo.lead()
    assert not solo.propose(b"x").leadership_lost
    assert solo.step(Receive(append(2, leader="n3"))).leadership_lost
    assert not solo.step(Receive(append(2, leader="n3", sequence=2))).leadership_lost


def test_proposals_are_refused_by_who_does_not_lead() -> None:
    """Only a leader appends what clients ask (5.3, 8)."""
    solo = Solo()
    assert len(solo.propose(b"x").refused) == 1
    solo.stand()
    assert len(solo.propose(b"x").refused) == 1
    assert solo.terms == []


@pytest.mark.parametrize("n", [1, 3])
def test_a_disk_slower_than_the_election_timeout_does_not_end_the_election(n: int) -> None:
    """A candidate that is still writing its own vote must not start the next election (5.2; 10.2.1).

    With an fsync slower than every timeout it would restart elections forever, even alone in its cluster. The other
    nodes' disks are quick: voters as slow as that are beyond what timing allows (5.6).
    """
    world = World(n, seed=1, disks={"n1": stored([1, 1])})
    world.disk_latency["n1"] = (2 * ET_MAX, 2.5 * ET_MAX)
    if n == 3:
        world.cut("n2", "n3")  # only n1 can win, as it has the better log
    assert world.run_until(lambda: bool(world.leaders), 30 * ET_MAX)


def test_a_candidate_with_a_slow_disk_asks_once() -> None:
    """Held messages must not pile up: one request per peer leaves when the vote is durable."""
    solo = Solo(election_timeout_min=10.0, election_timeout_max=11.0, pre_vote=False)
    solo.sync = False
    solo.timeout()
    for _ in range(20):
        solo.wait(RPC_TIMEOUT)
    assert solo.pending
    said = solo.step(Persisted(solo.pending.number)).messages
    assert len([m for m in said if isinstance(m, RequestVote)]) == 2
