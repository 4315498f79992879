"""Nothing is promised before it is on disk (paper, Figure 2 and section 5.6; dissertation, section 10.2.1)."""

from __future__ import annotations

import pytest

from raft_actor_node.core import AppendEntriesReply, HardState, Persisted, Receive, RequestVoteReply, Role
from tests.core.bench import Solo, append, appends, request_vote, requests
from tests.core.harness import World, payload


def unsynced(n: int = 3, **kwargs: object) -> Solo:
    solo = Solo(n, **kwargs)  # type: ignore[arg-type]
    solo.sync = False
    return solo


def test_a_vote_leaves_after_it_is_durable() -> None:
    """votedFor is updated on stable storage before responding to RPCs (Figure 2)."""
    solo = unsynced()
    assert solo.receive(request_vote(1)) == []
    assert solo.pending
    assert solo.pending.hard_state == HardState(1, "n2")
    (reply,) = solo.fsync().messages
    assert isinstance(reply, RequestVoteReply)
    assert reply.vote_granted


def test_a_new_term_leaves_after_it_is_durable() -> None:
    """currentTerm is updated on stable storage before responding, even if the answer is a refusal (Figure 2)."""
    solo = unsynced(terms=[4])
    assert solo.receive(request_vote(9)) == []
    (reply,) = solo.fsync().messages
    assert isinstance(reply, RequestVoteReply)
    assert (reply.vote_granted, reply.term) == (False, 9)


def test_a_candidate_asks_and_counts_itself_after_its_own_vote_is_durable() -> None:
    """A vote for oneself is a vote: it must not be given twice in a term after a crash (5.2, Figure 2)."""
    for n in (1, 2, 3):
        solo = unsynced(n, pre_vote=False)
        assert solo.timeout().messages == []
        assert (solo.node.counters.elections_started, solo.node.counters.elections_won) == (1, 0)
        assert len(requests(solo.fsync().messages)) == n - 1
        assert solo.node.counters.elections_won == (1 if n == 1 else 0)


def test_an_early_vote_does_not_make_a_leader_whose_own_is_unwritten() -> None:
    """With two of three votes there is no majority yet while the own one is not durable (5.2)."""
    solo = unsynced(3, term=1, voted_for="n1", pre_vote=False)
    solo.timeout()
    for _ in range(3):
        solo.receive(RequestVoteReply("n2", "n1", 2, 2, True, False, 1))
        assert solo.node.counters.elections_won == 0
    solo.fsync()
    solo.receive(RequestVoteReply("n2", "n1", 2, 2, True, False, 1))
    assert solo.node.counters.elections_won == 1


def test_an_append_is_answered_after_it_is_durable() -> None:
    """Log entries are on stable storage before responding to RPCs (Figure 2)."""
    solo = unsynced(term=1)
    assert solo.receive(append(1, 0, 0, [1, 1])) == []
    assert solo.receive(append(1, 2, 1, [1], sequence=2)) == []
    (reply,) = solo.fsync().messages
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.match_index, solo.node.durable_index) == (2, 2)
    (reply,) = solo.fsync().messages
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.match_index, solo.node.durable_index) == (3, 3)


def test_a_doubled_append_is_not_answered_earlier_than_the_first() -> None:
    """An entry in the log is not yet an entry on disk (Figure 2)."""
    solo = unsynced(term=1)
    message = append(1, 0, 0, [1, 1])
    assert solo.receive(message, message) == []
    assert solo.receive(message) == []
    assert len(solo.fsync().messages) == 3


def test_a_heartbeat_is_answered_at_once_with_what_is_durable() -> None:
    """A slow disk must not look like a dead node; the answer counts durable entries only (10.2.1)."""
    solo = unsynced(term=1, terms=[1])
    solo.receive(append(1, 1, 1, [1, 1]))
    (reply,) = solo.receive(append(1, 3, 1, sequence=2))
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.success, reply.match_index) == (True, 1)


def test_a_leader_sends_while_it_writes() -> None:
    """The leader replicates to followers in parallel with its own disk (10.2.1)."""
    solo = Solo()
    solo.lead()
    solo.sync = False
    effects = solo.propose(b"x")
    assert effects.persist
    assert len(appends(effects.messages)) == 2


def test_writes_batch_themselves() -> None:
    """There is one write at a time; the next one covers everything that came meanwhile (10.2.1)."""
    solo = Solo(1)
    solo.timeout()
    solo.sync = False
    first = solo.propose(b"a").persist
    assert first
    assert [solo.propose(b"%d" % k).persist for k in range(50)] == [None] * 50
    second = solo.fsync().persist
    assert second
    assert (second.first_index, len(second.payloads)) == (first.first_index + 1, 50)


def test_nothing_to_write_writes_nothing() -> None:
    """Heartbeats, refusals and repeated requests cost no fsync."""
    solo = Solo(terms=[1, 1])
    solo.receive(append(1, 2, 1, [1], commit=2))
    for message in (append(1, 3, 1, commit=3), append(1, 2, 1, [1]), append(1, 9, 1), request_vote(1)):
        effects = solo.step()
        solo.receive(message)
        assert effects.persist is None
    assert solo.node.durable_index == 3


def test_entries_replaced_while_they_were_written_are_not_durable() -> None:
    """A write covers the entries that were there when it began, not those of a new leader (5.3)."""
    solo = unsynced(terms=[1], term=1)
    solo.receive(append(1, 1, 1, [1, 1, 1]))  # 2, 3, 4 go to the disk
    old = solo.pending
    assert solo.receive(append(2, 2, 1, [2, 2], leader="n3")) == []  # a new leader replaced 3 and 4
    assert solo.fsync().messages == [], "index 2 is durable; 3 and 4 of term 2 and the term itself are not"
    assert old
    assert solo.node.durable_index == 2
    assert solo.pending
    assert (solo.pending.first_index, list(solo.pending.terms)) == (3, [2, 2])
    (reply,) = solo.fsync().messages
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.request_term, reply.match_index) == (2, 4)


def test_a_suffix_replaced_below_the_write_under_way() -> None:
    """Durable entries, too, are no longer durable once a leader replaces them (5.3)."""
    solo = unsynced(terms=[1, 1, 1, 1], term=1)
    solo.receive(append(1, 4, 1, [1, 1]))
    solo.receive(append(2, 1, 1, [2], leader="n3"))
    assert solo.node.durable_index == 1
    solo.fsync()
    assert solo.node.durable_index == 1
    solo.fsync()
    assert solo.node.durable_index == 2


def test_promises_of_an_older_term_are_dropped() -> None:
    """A vote or an answer that had not left before the term rose is useless, and must not leave under the new term."""
    solo = unsynced()
    solo.receive(request_vote(1, candidate="n2"))
    solo.receive(request_vote(2, candidate="n3"))
    messages = [m for _ in range(2) for m in solo.fsync().messages]
    assert [(m.to_id, m.request_term) for m in messages if isinstance(m, RequestVoteReply)] == [("n3", 2)]
    solo.receive(append(2, 0, 0, [2], leader="n3"))
    solo.receive(request_vote(3, 9, 9, candidate="n2"))  # check quorum: n3 was heard, so the term stays
    assert len(solo.fsync().messages) == 1


def test_a_completion_of_another_write_is_not_believed() -> None:
    """Persisted carries a number, and only that of the write under way counts."""
    solo = unsynced(term=1)
    solo.receive(append(1, 0, 0, [1]))
    assert solo.pending
    assert solo.step(Persisted(solo.pending.number + 1), Persisted(solo.pending.number - 1)).messages == []
    assert solo.node.durable_index == 0


def test_a_write_carries_the_hard_state_only_when_it_changed() -> None:
    """Writing the hard state costs two more fsyncs, which must not be paid for every batch."""
    solo = Solo(1)
    solo.timeout()
    persist = solo.propose(b"x").persist
    assert persist
    assert persist.hard_state is None


def test_the_commit_hint_of_a_write_is_within_what_it_makes_durable() -> None:
    """Recovery starts from the hint, and commit_index must not point behind the log after a restart."""
    solo = unsynced(terms=[1, 1], term=1)
    solo.receive(append(1, 2, 1, [1, 1], commit=3))
    solo.receive(append(1, 4, 1, [1], commit=5))
    hints = []
    for _ in range(2):
        assert solo.pending
        hints.append(solo.pending.commit_index)
        assert hints[-1] <= solo.pending.first_index + len(solo.pending.terms) - 1
        solo.fsync()
    assert hints == [3, 5]


def test_a_restart_begins_with_what_was_durable() -> None:
    """A restarted node has its term, its vote and its log, but no role as leader and no known leader (Figure 2)."""
    solo = Solo(terms=[1, 2], term=3, voted_for="n2", commit_index=1)
    node = solo.node
    assert (node.current_term, node.voted_for, node.commit_index, node.durable_index) == (3, "n2", 1, 2)
    assert (node.role, node.leader_id, node.log.payloads(1, 3)) == (
        Role.FOLLOWER,
        None,
        [payload(1, 1), payload(2, 2)],
    )


@pytest.mark.parametrize("seed", range(40))
def test_votes_survive_power_loss_during_elections(seed: int) -> None:
    """All nodes crash and restart faster than an election, with slow disks (5.2).

    No term has two votes of one node or two leaders; the world checks every message that leaves.
    """
    world = World(3, seed, disk=(0.0, 0.060), pre_vote=seed % 2 == 0)
    for _ in range(40):
        world.run(world.rng.uniform(0, 0.1))
        victim = world.rng.choice(world.ids)
        world.crash(victim)
        if world.rng.random() < 0.5:
            world.run(world.rng.uniform(0, 0.05))
        world.restart(victim)
    world.elect()


def test_a_vote_is_traced_when_it_is_given() -> None:
    """If a power loss takes a vote back before it left, that vote was never given (5.2).

    If the trace already had it, a checker of traces would see two votes in one term where only one was promised.
    """
    solo = unsynced()
    early = [e.kind for e in solo.step(Receive(request_vote(1))).trace]
    late = [e.kind for e in solo.fsync().trace]
    assert "vote_granted" not in early
    assert late.count("vote_granted") == 1


def test_a_vote_that_leaves_is_in_the_trace_of_its_step() -> None:
    """What becomes visible is recorded first, even if the node's term rises within the same step."""
    solo = unsynced()
    solo.receive(request_vote(1, candidate="n2"))
    assert solo.pending
    effects = solo.step(Persisted(solo.pending.number), Receive(request_vote(2, candidate="n3")))
    left = [m.request_term for m in effects.messages if isinstance(m, RequestVoteReply) and m.vote_granted]
    assert left == [1]
    assert [(e.term, e.peer_id) for e in effects.trace if e.kind == "vote_granted"] == [(1, "n2")]


@pytest.mark.parametrize("seed", range(10))
def test_an_acknowledged_write_survives_the_loss_of_every_nodes_power(seed: int) -> None:
    """All nodes lose power at once, again and again, and no acknowledged write is lost (5.4; 10.2.1)."""
    world = World(3, seed, disk=(0.001, 0.010))
    for k in range(10):
        leader = world.elect()
        world.propose(leader.node_id, b"%d" % k)
        world.run(world.rng.uniform(0.0, 0.03))
        acknowledged = world.invariants.acknowledged
        for i in world.ids:
            world.crash(i)
        for i in world.ids:
            world.restart(i)
        world.elect()
        assert len(world.committed) >= acknowledged


def test_one_answer_per_request_even_when_held() -> None:
    """Each held answer leaves once."""
    solo = unsynced(term=1)
    for k in range(20):
        solo.receive(append(1, k, 1 if k else 0, [1], sequence=k + 1))
    replies = [m for _ in range(2) for m in solo.fsync().messages]
    assert sorted(m.sequence for m in replies) == list(range(1, 21))
