"""Log replication: the consistency check, repair, pipelining and resending (paper, section 5.3)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from random import Random

import pytest

from raft_actor_node.core import AppendEntries, AppendEntriesReply, Message
from raft_actor_node.core.log import ENTRY_BYTES
from raft_actor_node.errors import InvariantViolated
from tests.core.bench import Solo, ack, append, appends, refusal
from tests.core.harness import ET_MAX, HEARTBEAT, RPC_TIMEOUT, World, payload, stored

FIGURE_7_LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


def answer(reply: Message) -> AppendEntriesReply:
    assert isinstance(reply, AppendEntriesReply)
    return reply


# ------------------------------------------------------------------------------ the follower


@pytest.mark.parametrize(
    ("prev", "prev_term", "conflict_term", "conflict_index"),
    [(6, 3, 0, 6), (9, 9, 0, 6), (5, 4, 3, 4), (3, 3, 2, 2), (1, 2, 1, 1)],
)
def test_an_append_behind_a_hole_or_a_conflict_is_refused(
    prev: int, prev_term: int, conflict_term: int, conflict_index: int
) -> None:
    """A follower without the entry at prevLogIndex of prevLogTerm refuses the new entries (5.3).

    The refusal names the term of the conflict and the first index that the follower stores for that term.
    """
    solo = Solo(terms=[1, 2, 2, 3, 3])
    reply = answer(*solo.receive(append(9, prev, prev_term, [9])))
    assert (reply.success, reply.rejected_index) == (False, prev)
    assert (reply.conflict_term, reply.conflict_index) == (conflict_term, conflict_index)
    assert solo.terms == [1, 2, 2, 3, 3], "a refusal erases nothing"


@pytest.mark.parametrize(
    ("prev", "entries", "expected"),
    [
        (5, [4, 4], [1, 2, 2, 3, 3, 4, 4]),  # behind the end
        (3, [3, 4], [1, 2, 2, 3, 4]),  # one known, one conflict
        (1, [4], [1, 4]),  # a conflict erases everything behind it
        (3, [3], [1, 2, 2, 3, 3]),  # known already: later entries stay
        (0, [1, 2, 2], [1, 2, 2, 3, 3]),
        (2, [], [1, 2, 2, 3, 3]),  # a heartbeat erases nothing
        (0, [4], [4]),
    ],
)
def test_only_a_conflict_erases(prev: int, entries: list[int], expected: list[int]) -> None:
    """An existing entry that conflicts with a new one (same index, other term) is deleted with all that follow it.

    Then the missing entries are appended (Figure 2, AppendEntries, receiver 3 and 4).
    """
    solo = Solo(terms=[1, 2, 2, 3, 3])
    prev_term = solo.terms[prev - 1] if prev else 0
    reply = answer(*solo.receive(append(4, prev, prev_term, entries)))
    assert (reply.success, reply.match_index) == (True, prev + len(entries))
    assert solo.terms == expected


def test_old_and_doubled_appends_erase_nothing() -> None:
    """AppendEntries is idempotent; a delayed one says nothing about later entries (5.5)."""
    solo = Solo()
    first, second = append(1, 0, 0, [1, 1]), append(1, 2, 1, [1, 1], commit=2, sequence=2)
    solo.receive(first, second)
    for message in (first, second, append(1, 0, 0, [1], sequence=0), append(1), first):
        assert answer(*solo.receive(message)).success
        assert solo.terms == [1, 1, 1, 1]
        assert solo.node.commit_index == 2


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_the_same_messages_gives_the_same_log(seed: int) -> None:
    """Reordered, doubled and lost appends leave a prefix of the leader's log, never anything else (5.3)."""
    rng, terms = Random(seed), sorted(Random(seed).choices(range(1, 4), k=12))
    mail = []
    for _ in range(40):
        prev = rng.randrange(13)
        entries = terms[prev : rng.randrange(prev, 13)]
        mail.append(append(4, prev, terms[prev - 1] if prev else 0, entries, commit=rng.randrange(prev + 1)))
    solo = Solo(terms=[1, 1, 1, 3, 3, 3] if terms[0] == 2 else [])
    longest = 0
    for message in mail:
        reply = answer(*solo.receive(message))
        if reply.success:
            longest = max(longest, reply.match_index)
        assert solo.terms[:longest] == terms[:longest], "what was acknowledged stays"
        assert solo.node.commit_index <= longest


@pytest.mark.parametrize(
    "message", [append(5, 2, 4, [5]), append(5, 1, 1, [5]), append(5, 0, 0, [2, 2])], ids=["prev", "entry", "first"]
)
def test_a_conflict_with_what_is_committed_stops_the_node(message: AppendEntries) -> None:
    """A committed entry is never replaced: a node that is told to do so must stop (5.4.3, Figure 3)."""
    solo = Solo(terms=[1, 1, 1], commit_index=2)
    with pytest.raises(InvariantViolated, match="committed"):
        solo.receive(message)


# ------------------------------------------------------------------------------ the leader


@pytest.mark.parametrize("follower", FIGURE_7)
def test_figure_7_every_follower_is_brought_in_line(follower: str) -> None:
    """A leader handles inconsistencies by forcing the followers' logs to duplicate its own (5.3, Figure 7)."""
    leader, log = stored(FIGURE_7_LEADER, term=7), FIGURE_7[follower]
    world = World(3, disks={"n1": leader, "n2": stored(log, term=7), "n3": stored(FIGURE_7_LEADER, term=7)})
    world.lose = lambda m: m.from_id == "n2" and not isinstance(m, AppendEntriesReply)  # n2 does not stand for election
    won = world.elect()
    assert won.node_id != "n2"
    assert world.run_until(world.converged, 1.0)
    assert list(world.nodes["n2"].log.terms(1, 12)) == [*FIGURE_7_LEADER, won.current_term]


def test_probing_takes_a_term_per_round_trip() -> None:
    """With the conflicting term in the refusal, one AppendEntries is needed per term, not per entry (5.3)."""
    shared, n = 1000, 100_000
    ours = [1] * shared + [2 + 2 * (k // 5000) for k in range(n - shared)]
    theirs = [1] * shared + [3 + 2 * (k // 5000) for k in range(n // 2)]
    assert len(set(ours[shared:])) == 20
    leader, follower = Solo(terms=ours, term=60, n=2), Solo(terms=theirs, term=60, n=2)
    trips, at_follower = 0, list(leader.lead())
    while at_follower:
        trips += 1
        replies = follower.receive(*[retarget(m) for m in at_follower])
        at_follower = appends(leader.receive(*[reply_as_n2(m) for m in replies]))
        assert trips < 120
    assert follower.terms == leader.terms
    # Ten terms of the follower conflict; then come 99 batches of 1024 entries in windows of 64.
    assert trips <= 10 + 6


def retarget(request: AppendEntries) -> AppendEntries:
    """The same request, as if n2 sent it to n1, as every bench is called n1."""
    return append(
        request.term,
        request.prev_log_index,
        request.prev_log_term,
        request.entry_terms,
        request.leader_commit,
        sequence=request.sequence,
    )


def reply_as_n2(message: Message) -> AppendEntriesReply:
    r = answer(message)
    return AppendEntriesReply(
        "n2",
        "n1",
        r.term,
        r.request_term,
        r.success,
        r.match_index,
        r.rejected_index,
        r.conflict_term,
        r.conflict_index,
        r.sequence,
    )


def test_a_follower_far_behind_catches_up_in_batches() -> None:
    """100 000 entries travel in about 100 batches, once each (5.3; dissertation, 10.2.1: pipelining)."""
    world = World(3, delay=(0.002, 0.002), disks={"n1": stored([1] * 100_000), "n2": stored([1] * 100_000)})
    world.elect()
    assert world.run_until(world.converged, 3.0)
    assert entries_sent(world, to="n3") <= 100_000 + 10


def test_reordered_batches_do_not_multiply() -> None:
    """A batch that overtakes another is refused and sent again with its successors, which must not cause more refusals.

    A stream between two nodes keeps the order; only injected delays reorder batches.
    """
    world = World(3, delay=(0.001, 0.004), disks={"n1": stored([1] * 20_000), "n2": stored([1] * 20_000)})
    world.elect()
    assert world.run_until(world.converged, 3.0)
    assert entries_sent(world, to="n3") < 10 * 20_000


def test_batches_keep_to_their_limits() -> None:
    """A batch has at most max_batch_entries and max_batch_bytes; a larger entry travels alone."""
    solo = Solo(2, max_batch_entries=3, max_batch_bytes=10 + 3 * ENTRY_BYTES)
    solo.receive(*[ack(m) for m in solo.lead()])
    sizes = [1] * 7 + [4, 4, 4, 75, 1]
    said = appends(solo.propose(*[b"x" * size for size in sizes]).messages)
    assert [[len(p) for p in m.entry_payloads] for m in said] == [[1] * 3, [1] * 3, [1, 4, 4], [4], [75], [1]]
    assert all(b.prev_log_index == a.prev_log_index + len(a.entry_terms) for a, b in pairwise(said))


def test_the_window_is_bounded_and_moves_with_answers() -> None:
    """At most max_inflight batches are unanswered per follower."""
    solo = Solo(2, max_batch_entries=1, max_inflight=4)
    solo.receive(*[ack(m) for m in solo.lead()])
    first = appends(solo.propose(*[b"x"] * 10).messages)
    assert len(first) == 4
    assert not appends(solo.propose(b"y").messages)
    second = appends(solo.receive(ack(first[1])))
    assert [m.prev_log_index for m in second] == [5, 6], "two were answered, two more go"
    third = appends(solo.receive(ack(second[-1])))
    assert [m.prev_log_index for m in third] == [7, 8, 9, 10], "an answer covers all batches before it"


def test_the_window_is_bounded_in_bytes() -> None:
    """At most max_inflight_bytes are unanswered; below that, one more batch may begin."""
    solo = Solo(2, max_batch_entries=1, max_inflight_bytes=30 + 2 * ENTRY_BYTES)
    solo.receive(*[ack(m) for m in solo.lead()])
    first = appends(solo.propose(*[b"x" * 12] * 10).messages)
    assert len(first) == 3
    assert len(appends(solo.receive(ack(first[0])))) == 1


def test_batches_follow_each_other_without_waiting() -> None:
    """Pipelining: the leader updates nextIndex when it has sent, not when it is answered (dissertation, 10.2.1)."""
    solo = Solo(3)
    solo.lead()
    for k in range(2, 7):
        (message,) = appends(solo.propose(b"x").messages, "n2")
        assert message.prev_log_index == k - 1


def test_match_index_never_goes_back() -> None:
    """matchIndex increases monotonically; late and doubled answers change nothing (Figure 2)."""
    solo = Solo(3)
    first = [m for m in solo.lead() if m.to_id == "n2" and m.entry_terms]
    more = appends(solo.propose(b"a", b"b").messages, "n2")
    solo.receive(ack(more[0]))
    assert solo.node.progress["n2"].match_index == 3
    solo.receive(ack(first[0]), ack(first[0], 0), ack(more[0]), refusal(first[0], 0, 1), refusal(more[0], 0, 1))
    assert solo.node.progress["n2"].match_index == 3
    assert solo.node.progress["n2"].next_index > 3


def test_late_answers_of_an_earlier_leadership_are_ignored() -> None:
    """An answer speaks of the term of its request: what matched then may be erased now (5.1)."""
    solo = Solo(3)
    solo.lead()
    old = appends(solo.propose(b"a", b"b", b"c").messages, "n2")[0]
    solo.receive(append(2, leader="n3"))
    solo.lead()
    late = ack(old)
    solo.receive(AppendEntriesReply("n2", "n1", 3, late.request_term, True, 4, 0, 0, 0, 10**6))
    assert solo.node.progress["n2"].match_index == 0
    assert solo.node.progress["n2"].acked_sequence == 0
    assert solo.node.commit_index == 0


def is_batch(message: Message, to: str) -> bool:
    return isinstance(message, AppendEntries) and message.to_id == to and bool(message.entry_terms)


def entries_sent(world: World, *, to: str) -> int:
    return sum(len(m.entry_terms) for m in world.sent if isinstance(m, AppendEntries) and m.to_id == to)


# ------------------------------------------------------------------------------ what is lost, what is slow


def lose_once(world: World, which: type, *, peer: str) -> list[Message]:
    """Lose the next message with entries to the peer, or with success from it; the returned list will name it."""
    lost: list[Message] = []

    def lose(message: Message) -> bool:
        if lost or peer not in (message.from_id, message.to_id) or not isinstance(message, which):
            return False
        if isinstance(message, AppendEntries) and not message.entry_terms:
            return False
        if isinstance(message, AppendEntriesReply) and message.match_index < world.nodes[message.to_id].log.last_index:
            return False
        lost.append(message)
        return True

    world.lose = lose
    return lost


@pytest.mark.parametrize("which", [AppendEntries, AppendEntriesReply])
def test_a_lost_batch_or_answer_is_resent_though_heartbeats_get_through(which: type) -> None:
    """If AppendEntries RPCs are lost, the leader retries indefinitely (5.3).

    Answered heartbeats do not confirm a batch.
    """
    world = World(2, heartbeat_interval=RPC_TIMEOUT / 5)
    leader = world.elect()
    assert world.run_until(world.converged, 1.0)
    (peer,) = set(world.ids) - {leader.node_id}
    lost, start = lose_once(world, which, peer=peer), world.now
    world.propose(leader.node_id, b"x")
    assert world.run_until(world.converged, 1.0)
    assert len(lost) == 1
    assert world.now - start < 2 * RPC_TIMEOUT
    assert world.leader() is leader


def test_a_batch_lost_in_the_middle_is_found_at_once() -> None:
    """The next batch is refused and reveals the hole, so the leader waits for no timeout (5.3)."""
    world = World(3, rpc_timeout=10.0)
    leader = world.elect()
    assert world.run_until(world.converged, 1.0)
    peer = min(set(world.ids) - {leader.node_id})
    lost, start = lose_once(world, AppendEntries, peer=peer), world.now
    for _ in range(3):
        world.propose(leader.node_id, b"x")
    assert world.run_until(lambda: leader.progress[peer].match_index == leader.log.last_index, 1.0)
    assert len(lost) == 1
    assert world.now - start < 0.050


def test_resending_backs_off_but_never_ends() -> None:
    """A silent follower costs little, and the leader asks it forever: by heartbeats and by resending (5.3)."""
    solo = Solo(3, check_quorum=False, heartbeat_interval=1000.0, election_timeout_min=1e4, election_timeout_max=2e4)
    solo.lead()
    sent = [len(appends(solo.timeout().messages)) for _ in range(40)]
    assert all(sent), "a deadline that passes does something"
    assert solo.now > 20 * RPC_TIMEOUT


def test_backing_off_is_bounded_by_what_healing_may_take() -> None:
    """Batches to one node are lost for long, as in a full queue, while heartbeats get through (5.3).

    Whenever the loss ends, the log converges within 10 longest election timeouts.
    """
    for lost_for in range(10, 30, 2):
        world = World(3)
        leader = world.elect()
        peer = next(i for i in world.ids if i != leader.node_id)
        world.lose = partial(is_batch, to=peer)
        world.propose(leader.node_id, b"x")
        world.run(lost_for)
        world.heal()
        assert world.run_until(world.converged, 10 * ET_MAX), f"lost for {lost_for} s"


@pytest.mark.parametrize("heartbeat", [0.010, 0.050, 0.140])
def test_answers_slower_than_the_rpc_timeout_are_believed(heartbeat: float) -> None:
    """A request that is repeated asks the same: the answer to the first is as good as that to the last. With the
    way there and back longer than the rpc timeout there is never any other (5.3)."""
    world = World(3, delay=(0.015, 0.017), rpc_timeout=0.020, heartbeat_interval=heartbeat, max_inflight=4)
    leader = world.elect()
    for k in range(50):
        world.propose(leader.node_id, b"%d" % k)
        world.run(0.020)
    assert world.run_until(world.converged, 2 * ET_MAX)
    assert len(world.committed) == 51


def test_entries_that_move_are_waited_for_and_others_are_asked_after() -> None:
    """An answer to a part of a batch restarts the deadline; like a heartbeat's, it has the batch's sequence.

    Answered heartbeats say nothing about a batch that may be lost (5.3).
    """
    solo = Solo(2)
    solo.receive(*[ack(m) for m in solo.lead()])
    (batch,) = appends(solo.propose(b"large").messages)
    part = replace(ack(batch), match_index=1)
    for _ in range(20):
        beats = appends(solo.wait(0.8 * RPC_TIMEOUT).messages)
        assert not any(beat.entry_terms for beat in beats)
        solo.receive(part, *map(ack, beats))
        assert not solo.node.progress["n2"].probing
    for _ in range(2):
        beats = appends(solo.wait(0.8 * RPC_TIMEOUT).messages)
        assert not any(beat.entry_terms for beat in beats)
        if not solo.node.progress["n2"].probing:
            solo.receive(*map(ack, beats))
    assert solo.node.progress["n2"].probing, "the last part is older than the timeout"
    (beat, *_) = beats
    again = appends(solo.receive(refusal(beat, 0, 2)))
    again = appends(solo.receive(*map(ack, again)))
    assert [list(m.entry_payloads) for m in again if m.entry_payloads] == [[b"large"]]


def test_a_slow_disk_at_a_follower_is_waited_for() -> None:
    """If an fsync is slower than the rpc timeout, the follower still advances, and is not flooded with copies."""
    world = World(3, seed=3)
    world.disk_latency["n3"] = (3.5 * RPC_TIMEOUT, 4.5 * RPC_TIMEOUT)
    world.lose = lambda m: m.from_id == "n3" and not isinstance(m, AppendEntriesReply)  # n3 does not stand for election
    leader = world.elect()
    assert leader.node_id != "n3"
    world.sent.clear()
    for k in range(100):
        world.propose(leader.node_id, b"%d" % k)
        world.run(0.02)
    assert leader.commit_index > 90, "a quorum is quick"
    assert world.run_until(world.converged, 2.0)
    assert entries_sent(world, to="n3") < 3 * 100
    assert world.leader() is leader


def test_a_follower_that_was_away_at_the_election_is_sent_what_it_lacks_only() -> None:
    """nextIndex starts behind the leader's last entry, and backs up only as far as the logs differ (5.3).

    The old leader comes back a second after the election of the new one, with its whole log of 5000 entries. A lost
    first request must not make the new leader send all of them again.
    """
    world = World(3)
    old = world.elect()
    for _ in range(5):
        world.propose(old.node_id, *[b"x"] * 1000)
    assert world.run_until(world.converged, 1.0)
    world.crash(old.node_id)
    world.elect()
    world.run(1.0)
    world.sent.clear()
    world.restart(old.node_id)
    assert world.run_until(world.converged, 1.0)
    assert entries_sent(world, to=old.node_id) < 20


def test_one_lost_first_batch_does_not_send_the_whole_log() -> None:
    """An unanswered request is sent again from its own position, not from the log's first entry (5.3)."""
    world = World(3, disks={i: stored([1] * 5000) for i in ("n1", "n2", "n3")})
    lost: list[str] = []

    def first_to_each(message: Message) -> bool:
        lose = isinstance(message, AppendEntries) and bool(message.entry_terms) and message.to_id not in lost
        lost.extend([message.to_id] if lose else [])
        return lose

    world.lose = first_to_each
    world.elect()
    assert world.run_until(world.converged, 1.0)
    assert len(lost) == 2
    assert max(entries_sent(world, to=i) for i in lost) < 20


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_replication_survives_a_bad_link(loss: float) -> None:
    """Lost, doubled and reordered messages cost time only (5.3)."""
    for seed in range(10):
        world = World(3, seed, loss=loss, duplicate=0.3, delay=(0.0005, 0.010))
        for k in range(30):
            if world.led() and (leader := world.leader()):
                world.propose(leader.node_id, b"%d" % k)
            world.run(0.01)
        world.heal()
        assert world.run_until(world.converged, 10 * ET_MAX), f"seed {seed}"
        assert len(world.committed) >= 30


def test_a_refusal_of_what_is_matched_does_not_start_a_storm() -> None:
    """A follower whose disk loses acknowledged entries breaks a promise on which Raft rests.

    The leader cannot repair that, but it must not answer each refusal with the next request.
    """
    solo = Solo(2, terms=[1] * 10)
    solo.receive(*[ack(m) for m in solo.lead()])
    messages = appends(solo.propose(b"x").messages)
    solo.wait(RPC_TIMEOUT)
    rounds = 0
    while messages and rounds < 50:
        rounds += 1
        messages = appends(solo.receive(*[refusal(m, 0, 6) for m in messages]))
    assert rounds < 50


def test_a_heartbeat_goes_where_the_logs_agree() -> None:
    """A heartbeat is answered at once and carries the commit index, whatever batches are under way (5.2)."""
    solo = Solo(2)
    solo.receive(*[ack(m) for m in solo.lead()])
    solo.propose(b"a", b"b")
    (beat,) = appends(solo.wait(HEARTBEAT).messages)
    assert (beat.prev_log_index, list(beat.entry_terms), beat.leader_commit) == (1, [], 1)


def test_payloads_arrive_with_their_terms() -> None:
    """Log matching: same index and term, same command (5.3)."""
    solo = Solo(2, terms=[1, 2])
    solo.receive(append(3, 1, 1, [3, 3]))
    assert solo.node.log.payloads(1, 4) == [payload(1, 1), payload(2, 3), payload(3, 3)]
