"""The rules of the paper that tests of tests/core do not cover; README.md lists the test of each rule.

Each test restates its rule and ends with the section. Rules of one server are played on the bench. Rules of several are
played in the world, whose checks (Figure 3) run after every step.
"""

from __future__ import annotations

import pytest

from raft_actor_node.core import (
    AppendEntries,
    AppendEntriesReply,
    Propose,
    Read,
    Receive,
    RequestVote,
    RequestVoteReply,
    Role,
)
from raft_actor_node.core.node import NO_OP
from raft_actor_node.kv.commands import Kind, encode
from raft_actor_node.kv.store import Store
from tests.core.bench import Solo, ack, append, appends, refusal, request_vote, requests, vote
from tests.core.harness import ET_MAX, ET_MIN, HEARTBEAT, World, stored

# ------------------------------------------------------------------------------ 5.1, basics


def test_a_follower_is_passive() -> None:
    """Followers issue no requests on their own; they only respond to leaders and candidates (5.1)."""
    solo = Solo(5, terms=[1, 1])
    for said in (
        solo.receive(append(1, 2, 1, [1], sequence=7)),
        solo.receive(append(1, 9, 1, sequence=8)),
        solo.receive(request_vote(2, 9, 1, candidate="n3")),
        solo.receive(RequestVoteReply("n4", "n1", 2, 2, True, False, 1)),
        solo.receive(AppendEntriesReply("n4", "n1", 2, 2, True, 3, 0, 0, 0, 1)),
        solo.step(Propose(1, [b"x"])).messages,
        solo.step(at=solo.now + ET_MIN * 0.99).messages,
    ):
        assert all(isinstance(message, AppendEntriesReply | RequestVoteReply) for message in said)
    assert solo.node.role == Role.FOLLOWER


def test_requests_leave_in_parallel() -> None:
    """RPCs are issued in parallel: no request waits for the answer of another server (5.1)."""
    solo = Solo(7)
    assert [r.to_id for r in solo.stand()] == list(solo.node.peers)
    solo = Solo(7)
    solo.lead()
    assert {m.to_id for m in appends(solo.propose(b"x").messages) if m.entry_terms} == set(solo.node.peers)


def test_a_term_may_end_without_a_leader_and_never_has_two() -> None:
    """Time is divided into terms of any length with consecutive numbers; no term has two leaders (5.1).

    A split vote ends a term without a leader.
    """
    empty = 0
    for seed in range(20):
        # All nodes have one timeout: they stand together and split the vote, until random delays separate them.
        world = World(4, seed, election_timeout_max=ET_MIN, pre_vote=False)
        world.run(2.0)
        reached = max(node.current_term for node in world.nodes.values())
        assert set(world.leaders) <= set(range(1, reached + 1))  # by term: the world refuses a second leader
        empty += reached - len(world.leaders)
    assert empty > 20


def test_a_leader_leads_until_the_end_of_its_term() -> None:
    """A candidate that wins serves as leader for the rest of its term, and does not lead in that term again (5.1).

    Only a higher term ends its leadership.
    """
    world = World(5)
    leader = world.elect()
    term = leader.current_term
    world.run(100 * ET_MAX)
    assert (leader.role, leader.current_term) == (Role.LEADER, term)
    assert list(world.leaders) == [term]
    solo = Solo(5, check_quorum=False)
    said = solo.lead()
    for message in (
        request_vote(1, 9, 1, candidate="n3"),
        request_vote(9, 9, 1, candidate="n4", pre_vote=True),
        RequestVoteReply("n2", "n1", 1, 1, False, False, 1),
        refusal(said[0], 0, 1),
        append(0, leader="n5"),
    ):
        solo.receive(message)
        assert (solo.node.role, solo.node.current_term) == (Role.LEADER, 1)
    solo.wait(100 * ET_MAX)
    assert solo.node.role == Role.LEADER
    solo.receive(append(2, leader="n5"))
    solo.receive(*(RequestVoteReply(peer, "n1", 1, 1, True, False, 1) for peer in solo.node.peers))
    assert (solo.node.role, solo.node.current_term) == (Role.FOLLOWER, 2)


# ------------------------------------------------------------------------- 5.2, leader election


def test_an_election_ends_in_one_of_three_ways() -> None:
    """A candidate goes on until it wins, another server is leader, or a timeout passes with no winner (5.2)."""
    won, lost, split = (Solo(pre_vote=False) for _ in range(3))
    for solo in (won, lost, split):
        assert len(solo.stand()) == 2
        assert solo.node.role == Role.CANDIDATE
    won.receive(RequestVoteReply("n2", "n1", 1, 1, True, False, 1))
    lost.receive(append(1, leader="n3"))
    split.wait(ET_MAX)
    assert (won.node.role, won.node.current_term) == (Role.LEADER, 1)
    assert (lost.node.role, lost.node.current_term, lost.node.leader_id) == (Role.FOLLOWER, 1, "n3")
    assert (split.node.role, split.node.current_term) == (Role.CANDIDATE, 2)


# --------------------------------------------------------------------------- 5.3, replication


def test_a_command_is_appended_and_sent_to_all() -> None:
    """The leader appends a client's command to its log as a new entry and sends it to each of the others (5.3)."""
    solo = Solo(5)
    solo.receive(*map(ack, solo.lead()))
    effects = solo.propose(b"x", b"y")
    assert solo.terms == [1, 1, 1]
    assert [(m.to_id, list(m.entry_payloads)) for m in appends(effects.messages)] == [
        (peer, [b"x", b"y"]) for peer in solo.node.peers
    ]


@pytest.mark.parametrize("n", [3, 5, 7])
def test_an_entry_is_committed_in_one_round_trip_to_a_majority(n: int) -> None:
    """Normally one round of RPCs to a majority replicates an entry; a slow minority does not delay it (5.3)."""
    world = World(n, delay=(0.010, 0.010), disk=(0.001, 0.001))
    leader = world.elect()
    world.run(0.2)
    slow = [i for i in world.ids if i != leader.node_id][: (n - 1) // 2]
    world.disk_latency.update(dict.fromkeys(slow, (0.200, 0.200)))
    world.propose(leader.node_id, b"x")
    index, begin = leader.log.last_index, world.now
    assert world.run_until(lambda: leader.commit_index >= index, 1.0)
    assert world.now - begin == pytest.approx(0.010 + 0.001 + 0.010)


@pytest.mark.parametrize(("n", "tolerated"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (7, 3)])
def test_a_majority_that_is_up_is_enough_and_less_is_not(n: int, tolerated: int) -> None:
    """Raft accepts, replicates and applies new entries as long as a majority of the servers is up (5.3)."""
    world = World(n)
    for down in range(tolerated + 1):
        leader = world.elect()
        committed = len(world.committed)
        world.propose(leader.node_id, b"%d" % down)
        assert world.run_until(lambda c=committed: len(world.committed) > c, ET_MAX)  # type: ignore[misc]
        world.crash(leader.node_id)
    committed = len(world.committed)
    for _ in range(10):
        world.run(ET_MAX)
        for i in world.nodes:
            world.propose(i, b"x")
    assert len(world.committed) == committed
    world.heal()
    world.elect()
    assert world.run_until(world.converged, ET_MAX)
    assert len(world.committed) > committed


def test_a_follower_is_sent_what_it_lacks_for_ever() -> None:
    """The leader retries until all followers store all entries, even after it has answered the client (5.3)."""
    world = World(3)
    leader = world.elect()
    away = next(i for i in world.ids if i != leader.node_id)
    world.crash(away)
    for k in range(20):
        world.propose(leader.node_id, b"%d" % k)
    world.run(100 * ET_MAX)
    assert leader.commit_index == leader.log.last_index
    world.restart(away)
    assert world.run_until(world.converged, ET_MAX)


def test_entries_and_what_is_committed_in_them_reach_everybody_in_order() -> None:
    """Committed entries are durable, and all state machines execute them in log order (5.3).

    The leader sends the highest committed index with every AppendEntries.
    """
    world = World(5, loss=0.2, duplicate=0.2, delay=(0.001, 0.050))
    applied = {i: [b""] * 0 for i in world.ids}
    for k in range(60):
        if leader := world.leader():
            world.propose(leader.node_id, b"%d" % k)
        world.run(0.020)
        for i, node in world.nodes.items():
            applied[i] += node.log.payloads(len(applied[i]) + 1, node.commit_index + 1)
    world.heal()
    world.elect()
    assert world.run_until(world.converged, 10 * ET_MAX)
    story = [payload for _, payload in world.committed]
    assert min(map(len, applied.values())) > 20
    assert all(story[: len(done)] == done for done in applied.values())


def test_a_leader_never_overwrites_or_erases_its_own_log() -> None:
    """Leader append-only: whatever a leader receives in its term, its log only grows (5.3, Figure 3)."""
    solo = Solo(5, terms=[1, 2, 2], term=3)
    said = appends(solo.lead())
    log = [1, 2, 2, 4]
    for message in (
        append(3, 1, 1, [3, 3], leader="n2"),  # of a former leader
        append(2, 0, 0, [2, 2], leader="n3"),
        AppendEntriesReply("n2", "n1", 4, 4, False, 0, 3, 1, 1, said[0].sequence),
        AppendEntriesReply("n3", "n1", 4, 4, False, 0, 3, 0, 1, said[1].sequence),
        request_vote(4, 9, 3, candidate="n4"),
    ):
        solo.receive(message)
        assert solo.terms == log
    assert solo.node.role == Role.LEADER
    solo.propose(b"x")
    assert solo.terms == [*log, 4]


def test_one_entry_per_index_and_term() -> None:
    """A leader creates at most one entry at an index in its term, and entries never move (5.3, log matching).

    Logs that hold an entry of the same index and term agree in its command, and in all entries before it.
    """
    terms_seen = 0
    for seed in range(10):
        world = World(5, seed, loss=0.3, delay=(0.0, 0.050))
        made: dict[tuple[int, int], tuple[bytes, ...]] = {}
        for k in range(80):
            for i in world.ids:
                world.propose(i, b"%s %d" % (i.encode(), k))  # only a leader accepts it
            world.run(0.020)
            if k % 10 == 9 and (leader := world.leader()):
                world.crash(leader.node_id)
                world.restart(leader.node_id)
            for node in world.nodes.values():
                terms = node.log.terms(1, node.log.last_index + 1)
                payloads = tuple(node.log.payloads(1, node.log.last_index + 1))
                for index in range(1, len(terms) + 1):
                    prefix = payloads[:index]
                    assert made.setdefault((index, terms[index - 1]), prefix) == prefix
        terms_seen += len({term for _, term in made})
    assert terms_seen > 20


def test_probing_sends_no_entries_until_the_logs_agree() -> None:
    """After a refusal the leader goes back with empty AppendEntries (5.3; dissertation, section 3.5).

    Once it has found where the logs agree, it sends everything from there on.
    """
    solo = Solo(terms=[1, 2, 2, 3, 3, 3], term=3, check_quorum=False)
    probe = appends(solo.lead(), "n2")[0]
    for lacks, asked in ((4, 3), (2, 1), (1, 0)):
        said = solo.receive(refusal(probe, 0, lacks))
        said += solo.propose(b"x").messages + solo.wait(HEARTBEAT).messages
        to_n2 = appends(said, "n2")
        assert to_n2
        assert not any(m.entry_terms for m in to_n2)
        assert any(m.entry_terms for m in appends(said, "n3")), "the others are sent what is new"
        solo.receive(*map(ack, appends(said, "n3")))
        probe = to_n2[0]
        assert probe.prev_log_index == asked
    sent = appends(solo.receive(ack(probe)), "n2")
    assert [term for m in sent for term in m.entry_terms] == solo.terms[probe.prev_log_index :]


def test_success_means_that_the_logs_are_the_same_up_to_there() -> None:
    """If AppendEntries succeeds, the follower's log is the leader's up through the new entries (5.3)."""
    succeeded = 0
    for seed in range(10):
        world = World(3, seed, loss=0.3, duplicate=0.2, delay=(0.0, 0.050))
        for k in range(60):
            world.sent.clear()
            for i in world.ids:
                world.propose(i, b"%s %d" % (i.encode(), k))
            world.run(0.020)
            if k % 15 == 14 and (leader := world.leader()):
                world.crash(leader.node_id)
                world.restart(leader.node_id)
            for m in world.sent:
                if not isinstance(m, AppendEntriesReply) or not m.success or not m.match_index:
                    continue
                follower, asker = world.nodes[m.from_id], world.nodes[m.to_id]
                if follower.current_term == asker.current_term == m.request_term and asker.role == Role.LEADER:
                    end = m.match_index + 1
                    assert follower.log.terms(1, end) == asker.log.terms(1, end)
                    assert follower.log.payloads(1, end) == asker.log.payloads(1, end)
                    succeeded += 1
    assert succeeded > 100


def test_match_index_begins_at_0_and_is_made_anew_after_an_election() -> None:
    """After election matchIndex[] is reset to 0, and nextIndex[] to behind the leader's last entry (Figure 2)."""
    solo = Solo(3)
    for term in (1, 3):
        last = solo.node.log.last_index
        said = solo.lead()
        assert solo.node.current_term == term
        assert {m.prev_log_index for m in said if m.entry_terms} == {last}
        assert [progress.match_index for progress in solo.node.progress.values()] == [0, 0]
        solo.receive(*map(ack, said))
        solo.receive(*map(ack, appends(solo.propose(b"x").messages)))
        assert [progress.match_index for progress in solo.node.progress.values()] == [last + 2] * 2
        solo.receive(append(term + 1, leader="n3"))


# ------------------------------------------------------------------------------- 5.4, safety


@pytest.mark.parametrize("seed", range(10))
def test_whoever_wins_holds_all_that_is_committed(seed: int) -> None:
    """A candidate cannot win unless its log holds all committed entries (5.4.1).

    The majority that votes and the majority that stores the entries have a server in common.
    """
    world = World(5, seed)
    leader = world.elect()
    assert world.run_until(world.converged, ET_MAX)
    stale = [i for i in world.ids if i != leader.node_id][:2]
    world.isolate(*stale)
    world.propose(leader.node_id, b"x")
    assert world.run_until(lambda: b"x" in {p for _, p in world.committed}, ET_MAX)
    world.crash(leader.node_id)
    world.cuts.clear()
    new = world.elect(after=leader.current_term)
    assert new.node_id not in stale
    assert b"x" in new.log.payloads(1, new.log.last_index + 1)


def test_entries_keep_the_term_in_which_they_were_made() -> None:
    """A leader that replicates entries from earlier terms keeps their original term numbers (5.4.2)."""
    solo = Solo(terms=[1, 2, 2], term=4)
    first = solo.lead()[0]
    refused = AppendEntriesReply("n2", "n1", 5, 5, False, 0, 3, 0, 1, first.sequence)
    probe = appends(solo.receive(refused), "n2")[-1]
    assert (probe.prev_log_index, probe.term) == (0, 5)
    entries = appends(solo.receive(ack(probe, 0)), "n2")[-1]
    assert list(entries.entry_terms) == [1, 2, 2, 5]


def test_entries_flow_from_the_leader_to_followers_only() -> None:
    """A leader takes no entries from others, not even with a vote or an answer of a server that has more (5.4)."""
    figure = {"n1": [1, 1], "n2": [1, 1], "n3": [1, 1], "n4": [1, 1, 1, 1], "n5": [1, 1, 1, 1]}
    world = World(5, disks={i: stored(terms, term=2) for i, terms in figure.items()})
    world.isolate("n4", "n5")
    assert world.elect().log.last_index == 3
    world.heal()
    assert world.run_until(world.converged, 10 * ET_MAX)
    assert [term for term, _ in world.committed[:2]] == [1, 1]
    assert world.committed[2][0] > 2, "what only n4 and n5 had was never committed, and is gone"


# ------------------------------------------------------------------------ 8, client interaction


def test_a_follower_knows_the_most_recent_leader_it_heard() -> None:
    """A server that is not leader rejects a request and names the leader, which AppendEntries told it (8)."""
    solo = Solo()
    effects = solo.step(Propose(1, [b"x"]))
    assert (effects.refused, solo.node.leader_id) == ([1], None)
    solo.receive(append(1, leader="n3"))
    assert (solo.step(Propose(2, [b"x"])).refused, solo.node.leader_id) == ([2], "n3")
    solo.receive(append(2, leader="n2"))
    assert solo.node.leader_id == "n2"


@pytest.mark.parametrize("seed", range(5))
def test_a_command_that_is_sent_again_after_its_leader_crashed_takes_effect_once(seed: int) -> None:
    """A leader commits a command and crashes before it answers; the client sends the command to the next leader (8).

    The state machine knows the serial number and gives the first answer again.
    """
    world = World(3, seed)
    leader = world.elect()
    world.propose(leader.node_id, encode(Kind.OPEN_SESSION))
    command = encode(Kind.APPEND, b"k", b"abc", session_id=leader.log.last_index, sequence=1)
    world.propose(leader.node_id, command)
    both = leader.log.last_index
    assert world.run_until(lambda: leader.commit_index >= both, ET_MAX)
    world.crash(leader.node_id)
    new = world.elect()
    assert command in new.log.payloads(1, new.commit_index + 1)
    world.propose(new.node_id, command)
    again = new.log.last_index
    assert world.run_until(lambda: new.commit_index >= again, ET_MAX)
    store = Store(value_bytes=100)
    results = store.apply(1, [term for term, _ in world.committed], [payload for _, payload in world.committed])
    assert results[both - 1] == results[again - 1]
    assert results[again - 1].number == 3
    assert store.get(b"k") == b"abc"


def test_a_leader_opens_its_term_with_a_no_op() -> None:
    """To learn which entries are committed, a leader commits a blank no-op entry at the start of its term (8)."""
    solo = Solo(terms=[1, 1], term=1)
    said = solo.lead()
    assert solo.terms == [1, 1, 2]
    assert [list(m.entry_payloads) for m in said if m.entry_terms] == [[NO_OP], [NO_OP]]
    assert solo.node.commit_index == 0
    solo.receive(*[ack(m) for m in said if m.entry_terms][:1])
    assert solo.node.commit_index == 3


def test_a_deposed_leader_that_does_not_know_it_answers_no_read() -> None:
    """A leader must check that it has not been deposed before it answers a read, whatever it believes (8)."""
    world = World(5, check_quorum=False)
    old = world.elect()
    world.isolate(old.node_id)
    new = world.elect(after=old.current_term)
    world.propose(new.node_id, b"newer")
    world.run(1.0)
    assert old.role == new.role == Role.LEADER
    stale, fresh = world.read(old.node_id), world.read(new.node_id)
    world.run(1.0)
    assert world.read_results.get(fresh) == new.commit_index
    assert stale not in world.read_results
    world.heal()
    world.run(1.0)
    assert world.read_results[stale] is None, "refused once it hears of the other"


def test_a_read_writes_nothing_into_the_log() -> None:
    """Read-only operations are handled without writing anything into the log (8)."""
    solo = Solo()
    solo.receive(*map(ack, solo.lead()))
    before = solo.terms
    effects = solo.step(Read(1))
    assert (solo.terms, effects.persist, solo.pending) == (before, None, None)
    answers = [ack(m) for m in appends(effects.messages)]
    assert not any(m.entry_terms for m in appends(effects.messages))
    read = solo.step(*map(Receive, answers))
    assert [each.read_id for each in read.reads] == [1]
    assert (solo.terms, read.persist) == (before, None)


def test_nobody_but_the_leader_serves_clients() -> None:
    """Clients send all requests to the leader (8): candidates refuse as followers do."""
    for solo in (Solo(), Solo(pre_vote=False)):
        ballot = requests(solo.timeout().messages)
        assert all(isinstance(m, RequestVote) for m in ballot)
        assert solo.node.role in (Role.PRE_CANDIDATE, Role.CANDIDATE)
        assert solo.step(Propose(1, [b"x"])).refused == [1]
    solo.receive(*map(vote, ballot))
    assert solo.node.role == Role.LEADER
    assert not solo.propose(b"x").refused
    assert all(isinstance(m, AppendEntries) for m in solo.propose(b"y").messages)
