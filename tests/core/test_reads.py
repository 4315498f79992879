"""Linearizable reads without log entries (paper, section 8; dissertation, section 6.4)."""

from __future__ import annotations

import pytest

from raft_actor_node.core import AppendEntries, Effects, Read, Receive
from tests.core.bench import Solo, ack, append, appends
from tests.core.harness import ET_MAX, HEARTBEAT, World


def ready(effects: Effects) -> list[tuple[int, int]]:
    return [(r.read_id, r.index) for r in effects.reads]


def settled(n: int = 3, **kwargs: object) -> Solo:
    """A leader that committed its no-op."""
    solo = Solo(n, **kwargs)  # type: ignore[arg-type]
    solo.receive(*[ack(m) for m in solo.lead()])
    assert solo.node.commit_index == solo.node.log.last_index
    return solo


def test_a_read_waits_for_a_round_that_began_after_it() -> None:
    """The leader exchanges heartbeats with a majority before it answers a read-only request (8)."""
    solo = settled(5)
    effects = solo.step(Read(1))
    round_ = appends(effects.messages)
    assert not effects.reads
    assert {m.to_id for m in round_} == {"n2", "n3", "n4", "n5"}
    assert ready(solo.step(Receive(ack(round_[0])))) == []
    assert ready(solo.step(Receive(ack(round_[1])))) == [(1, 1)]


def test_answers_to_older_requests_do_not_confirm_a_read() -> None:
    """Only a heartbeat sent after the read arrived proves that the node led then (6.4)."""
    solo = settled(3)
    old = appends(solo.propose(b"x").messages) + appends(solo.wait(HEARTBEAT).messages)
    assert not solo.step(Read(1)).reads
    effects = solo.step(*[Receive(ack(m)) for m in old])
    assert ready(effects) == []
    fresh = appends(effects.messages)  # the round that was under way had to end first
    assert ready(solo.step(Receive(ack(fresh[0])))) == [(1, 1)]


def test_a_read_and_older_answers_in_one_step_do_not_mix() -> None:
    """Messages that were in the mailbox beside the read were sent before it (6.4)."""
    solo = settled(3)
    old = appends(solo.wait(HEARTBEAT).messages)
    assert ready(solo.step(Read(1), *[Receive(ack(m)) for m in old])) == []
    old = appends(solo.wait(HEARTBEAT).messages)
    assert (2, 1) not in ready(solo.step(*[Receive(ack(m)) for m in old], Read(2)))


def test_one_voter_that_answers_twice_is_no_quorum() -> None:
    """A majority is one of servers (6.4)."""
    solo = settled(5)
    round_ = appends(solo.step(Read(1)).messages)
    again = appends(solo.wait(HEARTBEAT).messages)
    mine = [m for m in round_ + again if m.to_id == "n2"]
    assert ready(solo.step(*[Receive(ack(m)) for m in mine * 3])) == []


@pytest.mark.parametrize(("n", "needed"), [(2, 1), (3, 1), (4, 2), (5, 2), (6, 3)])
def test_a_quorum_of_all_voters_confirms(n: int, needed: int) -> None:
    """The leader counts itself and needs a majority of the full cluster, also of an even one (6.4)."""
    solo = settled(n)
    for k, m in enumerate(appends(solo.step(Read(1)).messages), start=1):
        assert bool(solo.step(Receive(ack(m))).reads) == (k == needed)


def test_a_read_before_the_no_op_is_committed_waits_for_it() -> None:
    """A leader does not know which entries are committed until one of its own term is (8)."""
    solo = Solo(3, terms=[1, 1])
    first = solo.lead()
    assert not solo.step(Read(1)).reads
    messages = [m for m in first if not m.entry_terms]
    for _ in range(3):  # its leadership is confirmed again and again, but it knows no commit index
        effects = solo.step(*[Receive(ack(m, 0)) for m in messages])
        messages = appends(effects.messages) or appends(solo.wait(HEARTBEAT).messages)
        assert ready(effects) == []
    no_op = next(m for m in first if m.entry_terms)
    assert ready(solo.step(Receive(ack(no_op)))) == [(1, 3)]


def test_the_read_index_is_the_commit_index_at_arrival() -> None:
    """A read sees everything that was committed when it arrived, and need not wait for more (6.4)."""
    solo = settled(3)
    writes = appends(solo.propose(b"a").messages)
    solo.receive(ack(writes[0]))
    fresh = appends(solo.step(Read(1)).messages)
    more = appends(solo.propose(b"b").messages)
    solo.sync = False
    assert ready(solo.step(Receive(ack(fresh[0])))) == [(1, 2)]
    assert more


def test_an_answered_write_is_a_confirmation_too() -> None:
    """Any AppendEntries that was sent after the read and answered proves leadership (6.4)."""
    solo = settled(3)
    solo.step(Read(1))
    write = next(m for m in appends(solo.propose(b"a").messages) if m.entry_terms)
    assert ready(solo.step(Receive(ack(write)))) == [(1, 1)]


def test_a_refusal_of_this_term_confirms_too() -> None:
    """A follower that refuses because of its log acknowledges the leader all the same (6.4)."""
    world = World(3)
    leader = world.elect()
    peer = next(i for i in world.ids if i != leader.node_id)
    world.isolate(next(i for i in world.ids if i not in (leader.node_id, peer)))
    read_id = world.read(leader.node_id)
    world.run(0.02)
    assert world.read_results[read_id] is not None


def test_reads_share_rounds() -> None:
    """The leader amortizes one round over any number of reads that have accumulated (6.4)."""
    solo = settled(3)
    first = appends(solo.step(Read(0)).messages)
    waiting = [appends(solo.step(Read(k)).messages) for k in range(1, 200)]
    assert sum(map(len, waiting)) == 0, "one round at a time: these wait for the next"
    effects = solo.step(*[Receive(ack(m)) for m in first])
    assert ready(effects) == [(0, 1)]
    second = appends(effects.messages)
    assert len(second) == 2
    assert ready(solo.step(Receive(ack(second[0])))) == [(k, 1) for k in range(1, 200)]


def test_a_lost_round_is_replaced_by_the_next_heartbeat() -> None:
    """A lost message does not block reads (5.1: servers retry)."""
    solo = settled(3)
    solo.step(Read(1))
    beat = appends(solo.wait(HEARTBEAT).messages)
    assert ready(solo.step(Receive(ack(beat[0])))) == [(1, 1)]


def test_a_single_node_answers_at_once() -> None:
    """A majority of one needs no confirmation (6.4)."""
    solo = Solo(1)
    solo.timeout()
    assert ready(solo.step(Read(1))) == [(1, 1)]


def test_reads_are_refused_by_who_does_not_lead() -> None:
    """A node that does not lead cannot know what was acknowledged (8)."""
    solo = Solo(3)
    assert solo.step(Read(1)).reads_refused == [1]
    solo.stand()
    assert solo.step(Read(2)).reads_refused == [2]


def test_waiting_reads_are_refused_when_leadership_ends() -> None:
    """A deposed leader answers no waiting read (6.4), not even one that was confirmed in the same step."""
    solo = settled(3)
    solo.step(Read(1))
    effects = solo.step(Read(2), Receive(append(5, leader="n2")))
    assert (effects.reads, effects.reads_refused) == ([], [1, 2])
    solo = settled(3)
    fresh = appends(solo.step(Read(3)).messages)
    effects = solo.step(Receive(ack(fresh[0])), Receive(append(5, leader="n2")))
    assert (effects.reads, effects.reads_refused) == ([], [3])


def test_a_new_leadership_starts_its_rounds_anew() -> None:
    """Answers to an earlier leadership do not confirm reads of this one (6.4)."""
    solo = settled(3)
    old = appends(solo.step(Read(1)).messages)
    solo.receive(append(2, leader="n2"))
    solo.receive(*[ack(m) for m in solo.lead()])
    fresh = appends(solo.step(Read(2)).messages)
    assert ready(solo.step(*[Receive(ack(m)) for m in old])) == []
    assert ready(solo.step(Receive(ack(fresh[0]))))[0][0] == 2


@pytest.mark.parametrize("check_quorum", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_a_paused_leader_answers_no_stale_read_on_waking(seed: int, check_quorum: bool) -> None:
    """A leader that was paused during an election must not answer from its old state (8).

    Its mailbox may hold reads, answers to its last heartbeats, and completions of its own writes.
    """
    world = World(3, seed, check_quorum=check_quorum)
    old = world.elect()
    for _ in range(3):
        world.propose(old.node_id, b"x")
    world.run(0.001)
    world.pause(old.node_id)
    early = world.read(old.node_id)
    new = world.elect(after=old.current_term)
    world.propose(new.node_id, b"newer")
    world.run(5 * ET_MAX)
    late = world.read(old.node_id)  # must see "newer", which the world checks
    world.resume(old.node_id)
    after = world.read(old.node_id)
    world.run(1.0)
    assert world.read_results[late] is None
    assert world.read_results[early] is None
    assert world.read_results[after] is None


def test_a_leader_in_a_minority_answers_no_read() -> None:
    """Without a majority there is no confirmation; with check quorum the reads are refused (6.4, 6.2)."""
    for check_quorum in (True, False):
        world = World(5, check_quorum=check_quorum)
        old = world.elect()
        world.isolate(old.node_id, next(i for i in world.ids if i != old.node_id))
        read_id = world.read(old.node_id)
        world.run(5 * ET_MAX)
        assert world.read_results.get(read_id) is None
        assert (read_id in world.read_results) == check_quorum


def test_reads_see_every_acknowledged_write() -> None:
    """Random reads at any node while leaders come and go: the world checks each (8)."""
    answered = 0
    for seed in range(15):
        world = World(3, seed, duplicate=0.2, delay=(0.001, 0.030))
        for k in range(100):
            world.propose(world.ids[k % 3], b"%d" % k)
            world.run(0.01)
            world.read(world.ids[(k + seed) % 3])
            if k % 25 == 20 and (leader := world.leader()):
                world.heal()
                world.delay = (0.001, 0.030)
                world.isolate(leader.node_id)
        answered += sum(index is not None for index in world.read_results.values())
    assert answered > 100


def test_no_append_is_sent_for_reads_that_nobody_asked() -> None:
    """Rounds are for reads and heartbeats only."""
    solo = settled(3)
    beat = [m for m in solo.wait(HEARTBEAT).messages if isinstance(m, AppendEntries)]
    assert len(solo.receive(*[ack(m) for m in beat])) == 0
