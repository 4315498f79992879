"""When an entry is committed (paper, sections 5.3 and 5.4.2; dissertation, section 10.2.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raft_actor_node.core import AppendEntries, AppendEntriesReply, Receive
from tests.core.bench import Solo, ack, append, appends, request_vote, requests, vote
from tests.core.harness import ET_MAX, World, stored


def leading(n: int, **kwargs: object) -> tuple[Solo, dict[str, AppendEntries]]:
    """A leader in term 1 whose no-op is committed; then two entries are under way."""
    solo = Solo(n, **kwargs)  # type: ignore[arg-type]
    solo.receive(*[ack(m) for m in solo.lead()])
    assert solo.node.commit_index == 1
    solo.sync = False
    return solo, {m.to_id: m for m in appends(solo.propose(b"a", b"b").messages)}


@pytest.mark.parametrize(("n", "quorum"), [(2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_majority_of_all_nodes_commits(n: int, quorum: int) -> None:
    """An entry is committed once the leader has replicated it on a majority of the servers (5.3)."""
    solo, sent = leading(n)
    solo.fsync()
    for copies, message in enumerate(sent.values(), start=2):
        solo.receive(ack(message))
        assert solo.node.commit_index == (3 if copies >= quorum else 1)


def test_the_leader_counts_its_own_copy_only_when_durable() -> None:
    """The leader may write to its disk in parallel, and counts itself when that is done (10.2.1)."""
    solo, sent = leading(3)
    assert solo.node.durable_index == 1
    solo.receive(*[ack(sent["n2"], 2)])
    assert solo.node.commit_index == 1, "one durable copy of index 2, at n2"
    solo.fsync()
    assert solo.node.commit_index == 2


def test_followers_may_commit_before_the_leader_has_written() -> None:
    """A majority of followers may commit an entry even before the leader has written it (10.2.1)."""
    solo, sent = leading(3)
    solo.receive(*[ack(m) for m in sent.values()])
    assert (solo.node.commit_index, solo.node.durable_index) == (3, 1)


def test_a_single_node_commits_after_its_own_fsync_only() -> None:
    """A majority of one is one durable copy; before the fsync there is none (5.3)."""
    solo, _ = leading(1)
    assert solo.node.commit_index == 1
    effects = solo.propose(b"c")
    assert effects.persist is None, "one write at a time"
    solo.fsync()
    assert solo.node.commit_index == 3
    solo.fsync()
    assert solo.node.commit_index == 4


@pytest.mark.parametrize("why", ["AppendEntriesReply", "RequestVote", "AppendEntries"])
def test_a_commit_is_told_in_the_term_and_the_step_in_which_it_happened(why: str) -> None:
    """Clients are answered in this step, so the trace must have the commit before a new term is durable.

    If the process lost the record, it would be unknown what was promised, and by whose counting (5.4.2).
    """
    solo, sent = leading(3, check_quorum=False)
    solo.fsync()
    ends = {
        "AppendEntriesReply": replace(ack(sent["n3"]), term=7, success=False),
        "RequestVote": request_vote(7, 3, 1, candidate="n3"),
        "AppendEntries": append(7, 3, 1, leader="n3"),
    }
    effects = solo.step(Receive(ack(sent["n2"])), Receive(ends[why]))
    assert solo.node.current_term == 7
    assert effects.persist is not None, "the term is not durable"
    assert [(event.kind, event.term, event.index) for event in effects.trace] == [("commit", 1, 3)]
    told = [(event.kind, event.term) for event in solo.fsync().trace]
    assert ("became_follower", 7) in told
    assert not [kind for kind, _ in told if kind == "commit"], "once only"


def test_a_leader_that_wins_with_entries_unwritten_does_not_count_them() -> None:
    """Entries of an older leader that are still under way to the disk do not count as a copy (10.2.1)."""
    solo = Solo(3)
    solo.sync = False
    solo.receive(append(1, 0, 0, [1, 1]))
    solo.fsync()
    solo.receive(append(1, 2, 1, [1, 1], sequence=2))
    assert solo.pending
    assert solo.node.durable_index == 2
    election, _ = solo.timeout(), solo.fsync()
    solo.sync = True
    ballot = requests(solo.receive(*map(vote, requests(election.messages))))
    solo.sync = False
    said = appends(solo.receive(*map(vote, ballot)))
    assert solo.node.role.name == "LEADER"
    solo.receive(*[ack(m) for m in said if m.to_id == "n2"])
    assert solo.node.commit_index == 0
    solo.fsync()
    assert solo.node.commit_index == 5


def test_figure_8_an_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    """Only entries from the leader's current term are committed by counting replicas (5.4.2, Figure 8 c)."""
    solo = Solo(5, terms=[1, 2], term=3)
    said = solo.lead()
    for m in said:
        solo.receive(AppendEntriesReply(m.to_id, "n1", 4, 4, True, 2, 0, 0, 0, m.sequence))
    assert {p.match_index for p in solo.node.progress.values()} == {2}
    assert solo.node.commit_index == 0, "on all five, and may still be overwritten"


def test_figure_8_an_entry_of_the_own_term_commits_all_before_it() -> None:
    """Once an entry of the current term is committed, all prior ones are, indirectly (5.4.2, Figure 8 e)."""
    solo = Solo(5, terms=[1, 2], term=3)
    for m in [m for m in solo.lead() if m.entry_terms][:2]:
        solo.receive(ack(m))
    assert solo.node.commit_index == 3


def test_figure_8_replayed() -> None:
    """(a) to (d): a leader of term 4 brings the entry of term 2 to a majority and crashes.

    S5 comes back and erases that entry with its own of term 3. No node may have committed the erased entry meanwhile
    (5.4.2, Figure 8).
    """
    figure = {"n1": [1, 2], "n2": [1, 2], "n3": [1], "n4": [1], "n5": [1, 3]}
    world = World(5, max_batch_entries=1, disks={i: stored(terms, term=3) for i, terms in figure.items()})
    world.crash("n5")
    world.lose = lambda m: isinstance(m, AppendEntries) and any(term > 3 for term in m.entry_terms)
    assert world.led()
    assert world.run_until(lambda: world.nodes["n3"].durable_index == world.nodes["n4"].durable_index == 2, 1.0)
    world.run(0.1)  # (c): the entry of term 2 is everywhere but at S5, and its leader knows
    leader = world.leader()
    assert leader
    assert leader.node_id in ("n1", "n2")
    assert sorted(p.match_index for p in leader.progress.values()) == [0, 2, 2, 2]
    assert world.committed == []
    world.crash("n1")
    world.crash("n2")
    world.lose = lambda _: False
    world.restart("n5")
    assert world.elect().node_id == "n5"  # (d)
    world.heal()
    assert world.run_until(world.converged, 10 * ET_MAX)
    assert [term for term, _ in world.committed[:2]] == [1, 3]


@pytest.mark.parametrize(
    ("prev", "entries", "leader_commit", "expected"),
    [(0, [1, 1], 9, 2), (0, [1, 1], 1, 1), (2, [1], 9, 3), (1, [], 9, 1), (0, [], 9, 0), (4, [], 3, 3)],
)
def test_a_follower_commits_up_to_the_last_entry_this_message_verified(
    prev: int, entries: list[int], leader_commit: int, expected: int
) -> None:
    """commitIndex = min(leaderCommit, index of last *new* entry) (Figure 2, AppendEntries, receiver 5).

    Entries behind the last new one may be another leader's.
    """
    solo = Solo(terms=[1, 1, 1, 1, 1])
    solo.receive(append(2, prev, 1 if prev else 0, entries, commit=leader_commit))
    assert solo.node.commit_index == expected


def test_a_followers_commit_index_never_goes_back() -> None:
    """commitIndex increases monotonically, even if old messages arrive late (Figure 2)."""
    solo = Solo(terms=[1, 1, 1, 1])
    solo.receive(append(1, 4, 1, [], commit=4))
    for message in (append(1, 4, 1, [], commit=2), append(1, 0, 0, [1], commit=9), append(2, 1, 1, [1], commit=1)):
        solo.receive(message)
        assert solo.node.commit_index == 4


def test_a_refused_append_commits_nothing() -> None:
    """A follower whose log does not match cannot know which of its entries are committed (5.3)."""
    solo = Solo(terms=[1, 1])
    solo.receive(append(2, 5, 2, [], commit=2), append(2, 2, 2, [], commit=2))
    assert solo.node.commit_index == 0


@pytest.mark.parametrize("check_quorum", [True, False])
def test_a_leader_in_a_minority_commits_nothing_and_its_suffix_is_overwritten(check_quorum: bool) -> None:
    """Entries on a minority are not committed, and the next leader replaces them (5.3, 5.4).

    A majority is one of all nodes, not of those that can be reached.
    """
    world = World(5, check_quorum=check_quorum)
    old = world.elect()
    assert world.run_until(world.converged, 1.0)
    friend = next(i for i in world.ids if i != old.node_id)
    world.isolate(old.node_id, friend)
    frozen = old.commit_index
    for k in range(5):
        world.propose(old.node_id, b"lost %d" % k)
    new = world.elect(after=old.current_term)
    world.propose(new.node_id, b"kept")
    world.run(1.0)
    world.propose(old.node_id, b"lost, too")
    world.run(1.0)
    assert old.commit_index == frozen
    assert new.commit_index > frozen
    world.heal()
    assert world.run_until(world.converged, 1.0)
    payloads = [entry for _, entry in world.committed]
    assert b"kept" in payloads
    assert not any(entry.startswith(b"lost") for entry in payloads)


def test_an_even_split_commits_nothing_anywhere() -> None:
    """Half of the nodes is no majority (5.2, 5.3)."""
    world = World(4)
    old = world.elect()
    assert world.run_until(world.converged, 1.0)
    friend = next(i for i in world.ids if i != old.node_id)
    world.isolate(old.node_id, friend)
    committed = len(world.committed)
    for i in world.ids:
        world.propose(i, b"x")
    world.run(10 * ET_MAX)
    assert len(world.committed) == committed
    assert world.leader() is None
    world.heal()
    world.elect()
    assert world.run_until(world.converged, 1.0)


def test_commit_is_told_to_followers_by_the_next_heartbeat() -> None:
    """A follower applies an entry once it learns that the entry is committed; heartbeats carry the index (5.3)."""
    world = World(3)
    leader = world.elect()
    world.propose(leader.node_id, b"x")
    assert world.run_until(world.converged, 0.2)


def test_each_commit_is_traced_once() -> None:
    """The trace has the new commit index of a step, and nothing if the index did not move."""
    solo, sent = leading(3)
    solo.sync = True
    events = [Receive(ack(sent["n2"])), Receive(ack(sent["n3"])), Receive(ack(sent["n3"]))]
    assert [(e.kind, e.index) for e in solo.step(*events).trace] == [("commit", 3)]
    assert solo.step(events[0]).trace == []
