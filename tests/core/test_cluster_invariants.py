"""Each rule of a cluster is broken here once, and the error names the rule: a rule that cannot fail is worthless.

Each test starts from a healthy world (`settled`). Then it shows one node in a forbidden state (`seen`), or spoils a
disk, a message or a result. No test depends on a bug of the core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from raft_actor_node.core import (
    AppendEntries,
    AppendEntriesReply,
    Effects,
    Event,
    HardState,
    Message,
    Persist,
    RaftNode,
    Read,
    ReadReady,
    Receive,
    RequestVote,
    RequestVoteReply,
    Role,
    TraceEvent,
)
from raft_actor_node.core.effects import Accepted
from raft_actor_node.core.events import Propose
from raft_actor_node.core.invariants.cluster import ClusterInvariants
from raft_actor_node.core.invariants.liveness import established_leader, patience_s
from raft_actor_node.core.invariants.rules import Rule
from raft_actor_node.errors import InvariantViolated
from raft_actor_node.kv.commands import Kind, encode
from raft_actor_node.kv.reference import Reference
from raft_actor_node.kv.store import Result, Store
from tests.core.harness import ET_MAX, Applied, World


def settled(n: int = 3, **changes: Any) -> tuple[World, RaftNode, RaftNode]:
    """A world whose nodes all hold the same three committed entries and know it; its leader, and a follower."""
    world = World(n, 1, **changes)
    leader = world.elect()
    world.propose(leader.node_id, b"x")
    world.propose(leader.node_id, b"y")
    assert world.run_until(world.converged, ET_MAX)
    world.run(0.02)  # the messages under way arrive
    return world, leader, next(node for node in world.nodes.values() if node is not leader)


def seen(world: World, node: RaftNode, *events: Event, effects: Effects | None = None, **changes: Any) -> None:
    """Show the invariants a step that leaves the node in this state."""
    before = node.snapshot()
    for name, value in changes.items():
        setattr(node, name, value)
    world.invariants.stepped(node, before, events, effects or Effects(), world.now)


def leads(world: World, node: RaftNode, term: int) -> None:
    """Show the node as the leader of a term of which it was told."""
    told = heartbeat(node, node.peers[0], term)
    seen(world, node, told, current_term=term, voted_for=None, role=Role.LEADER, progress={})


def says(world: World, node: RaftNode, message: Message) -> None:
    seen(world, node, effects=Effects(messages=[message]))


def synced(
    world: World, node: RaftNode, state: HardState | None = None, first: int = 1, terms: Sequence[int] = ()
) -> None:
    persist = Persist(1, state, first, list(terms), [b""] * len(terms), 0)
    world.invariants.synced(node.node_id, persist, world.now)


def extend(node: RaftNode, *payloads: bytes, term: int | None = None) -> None:
    node.log.append([node.current_term if term is None else term] * len(payloads), payloads)


def vote_request(
    node: RaftNode, candidate: str, term: int, *, pre_vote: bool = False, ends: tuple[int, int] | None = None
) -> Receive:
    """A candidate's request, whose log ends at this index and term; by default at those of the node's own log."""
    index, last_term = ends or (node.log.last_index, node.log.last_term)
    return Receive(RequestVote(candidate, node.node_id, term, index, last_term, pre_vote, 1))


def heartbeat(node: RaftNode, leader: str, term: int) -> Receive:
    return Receive(AppendEntries(leader, node.node_id, term, 0, 0, [], [], 0, 1))


def answer(leader: RaftNode, peer: str, match_index: int, sequence: int) -> Receive:
    term = leader.current_term
    return Receive(AppendEntriesReply(peer, leader.node_id, term, term, True, match_index, 0, 0, 0, sequence))


def promise(node: RaftNode, to: str, match_index: int) -> AppendEntriesReply:
    term = node.current_term
    return AppendEntriesReply(node.node_id, to, term, term, True, match_index, 0, 0, 0, 99)


def vote_for(node: RaftNode, candidate: str, term: int, *, pre_vote: bool = False) -> RequestVoteReply:
    return RequestVoteReply(node.node_id, candidate, term, term, True, pre_vote, 99)


def breaks(rule: Rule, act: Callable[[], object]) -> InvariantViolated:
    """Check that the act breaks this rule, and that the error says so."""
    with pytest.raises(InvariantViolated) as caught:
        act()
    assert caught.value.rule == rule
    assert str(caught.value).startswith(f"{rule}:")
    return caught.value


def others(world: World, *nodes: RaftNode) -> list[RaftNode]:
    return [node for node in world.nodes.values() if node not in nodes]


def test_a_world_in_order_breaks_nothing() -> None:
    """The stage of these tests is sound; the error names rule, node and time, and the first error is kept."""
    world, leader, follower = settled()
    seen(world, leader)
    seen(world, follower)
    assert world.invariants.violation is None
    error = breaks(Rule.COMMIT_INDEX, lambda: seen(world, follower, commit_index=1))
    assert (error.node_id, error.time_s) == (follower.node_id, world.now)
    assert follower.node_id in str(error)
    assert world.invariants.violation is error


# ------------------------------------------------------------------------------ elections


def test_two_leaders_in_a_term() -> None:
    world, _, follower = settled()
    breaks(Rule.ELECTION_SAFETY, lambda: seen(world, follower, role=Role.LEADER))


def test_a_leader_without_the_votes_of_a_quorum() -> None:
    """A candidate may count a vote twice, count one of an older term, or take half of an even cluster as a quorum."""
    for n, voters in ((3, 1), (4, 2), (5, 2)):
        world, leader, follower = settled(n)
        for voter in [follower, *others(world, leader, follower)][:voters]:
            synced(world, voter, HardState(9, follower.node_id))
        with pytest.raises(InvariantViolated, match="with the votes of") as caught:
            leads(world, follower, 9)
        assert caught.value.rule == Rule.ELECTION_SAFETY


def test_a_term_led_again_after_a_restart() -> None:
    world, leader, _ = settled()
    world.crash(leader.node_id)
    world.restart(leader.node_id)
    again = world.nodes[leader.node_id]
    breaks(Rule.ELECTION_SAFETY, lambda: seen(world, again, role=Role.LEADER))


def test_entries_from_a_node_that_does_not_lead() -> None:
    world, leader, follower = settled()
    message = AppendEntries(follower.node_id, leader.node_id, follower.current_term, 0, 0, [], [], 0, 99)
    breaks(Rule.ELECTION_SAFETY, lambda: says(world, follower, message))


def test_a_vote_that_changes_within_a_term() -> None:
    world, leader, follower = settled()
    assert follower.voted_for == leader.node_id
    breaks(Rule.ONE_VOTE, lambda: seen(world, follower, voted_for=follower.node_id))


def test_a_second_vote_on_disk_and_in_a_message() -> None:
    world, leader, follower = settled()
    third = others(world, leader, follower)[0]
    synced(world, follower, HardState(7, leader.node_id))
    breaks(Rule.ONE_VOTE, lambda: synced(world, follower, HardState(7, third.node_id)))
    world, leader, follower = settled()
    synced(world, follower, HardState(7, leader.node_id))
    says(world, follower, vote_for(follower, leader.node_id, 7))
    world.invariants._disks[follower.node_id].voted_for = third.node_id  # a disk that forgets
    breaks(Rule.ONE_VOTE, lambda: says(world, follower, vote_for(follower, third.node_id, 7)))


def test_another_vote_after_a_restart() -> None:
    world, leader, follower = settled()
    third = others(world, leader, follower)[0]
    world.crash(follower.node_id)
    world.disks[follower.node_id].hard_state = HardState(follower.current_term, third.node_id)
    breaks(Rule.ONE_VOTE, lambda: world.restart(follower.node_id))


def test_a_vote_nobody_asked_for() -> None:
    world, leader, follower = settled()
    told = heartbeat(follower, leader.node_id, 9)
    breaks(Rule.ONE_VOTE, lambda: seen(world, follower, told, current_term=9, voted_for=leader.node_id))


@pytest.mark.parametrize("ends", [(1, 1), (99, 0)])
def test_a_vote_for_a_log_that_is_not_up_to_date(ends: tuple[int, int]) -> None:
    """Neither a shorter log nor a longer one of an older term (5.4.1)."""
    world, leader, follower = settled()
    request = vote_request(follower, leader.node_id, 9, ends=ends)
    breaks(Rule.ELECTION_RESTRICTION, lambda: seen(world, follower, request, current_term=9, voted_for=leader.node_id))


@pytest.mark.parametrize("entries", [0, 1])
def test_what_else_arrives_is_no_excuse_for_a_vote(entries: int) -> None:
    """Only entries that arrived before the request may have changed the voter's log."""
    world, leader, follower = settled()
    request = vote_request(follower, "n9", 9, ends=(1, 1))
    terms, payloads = [1] * entries, [b""] * entries
    append = Receive(AppendEntries(leader.node_id, follower.node_id, 1, 0, 0, terms, payloads, 0, 1))
    breaks(
        Rule.ELECTION_RESTRICTION,
        lambda: seen(world, follower, request, append, current_term=9, voted_for="n9"),
    )
    if entries:
        world, _, follower = settled()
        seen(world, follower, append, request, current_term=9, voted_for="n9")
        assert world.invariants.violation is None


def test_a_leader_that_comes_and_goes_within_one_step() -> None:
    """In one step the node leads and then sees a higher term; its leadership is judged all the same."""
    world, leader, follower = settled()
    led = Effects(trace=[TraceEvent("became_leader", 9)])
    told = heartbeat(follower, leader.node_id, 10)
    breaks(Rule.ELECTION_SAFETY, lambda: seen(world, follower, told, effects=led, current_term=10, voted_for=None))


def test_a_term_that_decreases() -> None:
    world, _, follower = settled()
    breaks(Rule.TERM, lambda: seen(world, follower, current_term=0, voted_for=None))
    breaks(Rule.TERM, lambda: synced(world, follower, HardState(0, None)))
    world.crash(follower.node_id)
    world.disks[follower.node_id].hard_state = HardState()
    breaks(Rule.TERM, lambda: world.restart(follower.node_id))


def test_an_entry_of_a_later_term_than_its_node() -> None:
    world, _, follower = settled()
    extend(follower, b"z", term=9)
    breaks(Rule.TERM, lambda: seen(world, follower))


# ------------------------------------------------------------------------------ pre-vote, check quorum


def test_a_pre_vote_that_changes_term_or_vote() -> None:
    """A node that is asked for a pre-vote changes nothing (dissertation, 9.6)."""
    world, leader, follower = settled()
    request = vote_request(follower, leader.node_id, 9, pre_vote=True)
    breaks(Rule.PRE_VOTE, lambda: seen(world, follower, request, current_term=9, voted_for=None))
    world, leader, follower = settled()
    events = (heartbeat(follower, leader.node_id, 9), request)
    breaks(Rule.PRE_VOTE, lambda: seen(world, follower, *events, current_term=9, voted_for=leader.node_id))


def test_a_candidate_without_a_quorum_of_pre_votes() -> None:
    world, leader, follower = settled(5)
    term = follower.current_term + 1
    granted = [Receive(vote_for(node, follower.node_id, term, pre_vote=True)) for node in others(world, follower)]
    stand: dict[str, Any] = {"current_term": term, "voted_for": follower.node_id, "role": Role.CANDIDATE}
    before = (follower.current_term, follower.voted_for, follower.role)
    breaks(Rule.PRE_VOTE, lambda: seen(world, follower, *granted[:1], *granted[:1], **stand))
    follower.current_term, follower.voted_for, follower.role = before
    seen(world, follower, *granted[:2], **stand)
    world, leader, follower = settled(pre_vote=False)
    seen(world, follower, **stand | {"current_term": follower.current_term + 1, "voted_for": follower.node_id})
    assert leader.current_term < follower.current_term


def test_a_candidate_that_skips_terms() -> None:
    world, _, follower = settled(pre_vote=False)
    stand: dict[str, Any] = {
        "current_term": follower.current_term + 2,
        "voted_for": follower.node_id,
        "role": Role.CANDIDATE,
    }
    breaks(Rule.PRE_VOTE, lambda: seen(world, follower, **stand))


def test_a_leader_that_hears_no_quorum_and_does_not_step_down() -> None:
    """A leader must step down within two longest election timeouts, even by a slow clock."""
    world, leader, follower = settled()
    heard = world.now
    seen(world, leader, answer(leader, follower.node_id, 3, 99))
    world.now = heard + 2 * ET_MAX - 0.001
    seen(world, leader)
    world.now = heard + 2 * ET_MAX + 0.001
    breaks(Rule.CHECK_QUORUM, lambda: seen(world, leader))
    world.invariants._slowest_clock = 0.9
    seen(world, leader)
    world.now = heard + 2 * ET_MAX / 0.9 + 0.001
    breaks(Rule.CHECK_QUORUM, lambda: seen(world, leader))
    seen(world, leader, answer(leader, follower.node_id, 3, 100))  # the pause is over: it reads its mail


# ------------------------------------------------------------------------------ logs


def test_a_leader_that_replaces_its_own_entry() -> None:
    world, leader, _ = settled()
    extend(leader, b"a", b"b")
    seen(world, leader)
    leader.log.truncate(leader.log.last_index)
    breaks(Rule.APPEND_ONLY, lambda: seen(world, leader))


def test_two_payloads_of_one_index_and_term() -> None:
    world, leader, follower = settled()
    extend(leader, b"a")
    seen(world, leader)
    extend(follower, b"b")
    breaks(Rule.LOG_MATCHING, lambda: seen(world, follower))


def test_two_histories_before_one_index_and_term() -> None:
    """A skipped check of prev_log_term leaves this behind."""
    world, leader, follower = settled()
    for node, middle in ((leader, 3), (follower, 2)):
        seen(world, node, heartbeat(node, "n9", 5), current_term=5, voted_for=None, role=Role.FOLLOWER)
        extend(node, b"a%d" % middle, term=middle)
        extend(node, b"b", term=5)
    seen(world, leader)
    breaks(Rule.LOG_MATCHING, lambda: seen(world, follower))


def test_terms_that_decrease_along_a_log() -> None:
    world, leader, follower = settled()
    seen(world, follower, heartbeat(follower, leader.node_id, 5), current_term=5, voted_for=None)
    extend(follower, b"a", term=5)
    extend(follower, b"b", term=4)
    breaks(Rule.LOG_MATCHING, lambda: seen(world, follower))


def test_a_disk_on_which_entries_stand_behind_others_than_in_memory() -> None:
    world, leader, follower = settled()
    third = others(world, leader, follower)[0]
    synced(world, third, HardState(5, None), 4, [2])
    seen(world, leader, heartbeat(leader, "n9", 5), current_term=5, voted_for=None, role=Role.FOLLOWER)
    extend(leader, b"a", term=3)
    extend(leader, b"b", term=5)
    seen(world, leader)
    breaks(Rule.LOG_MATCHING, lambda: synced(world, third, None, 5, [5]))


def test_an_append_success_for_what_the_leader_does_not_hold() -> None:
    """The follower counts all that it holds, instead of what the message verified (Figure 2, receiver 5)."""
    world, leader, follower = settled()
    extend(follower, b"left over")
    seen(world, follower)
    synced(world, follower, None, 4, [follower.current_term])
    breaks(Rule.LOG_MATCHING, lambda: says(world, follower, promise(follower, leader.node_id, 4)))


def test_what_goes_to_the_disk_is_what_the_log_holds() -> None:
    world, _, follower = settled()
    last, term = follower.log.last_index, follower.current_term

    def hand(first: int, *terms: int) -> None:
        seen(world, follower, effects=Effects(persist=Persist(9, None, first, terms, [b""] * len(terms), 0)))

    extend(follower, b"z")
    seen(world, follower)
    breaks(Rule.DISK, lambda: hand(last + 1, term + 1))
    breaks(Rule.DISK, lambda: hand(last + 1))
    breaks(Rule.DISK, lambda: hand(last + 2))
    hand(last + 1, term)
    breaks(Rule.DISK, lambda: hand(last + 1, term))  # two writes under way


# ------------------------------------------------------------------------------ what a disk keeps


def lose(world: World, node: RaftNode, count: int) -> None:
    disk = world.disks[node.node_id]
    del disk.terms[-count:], disk.payloads[-count:]
    disk.commit_index = 0


def test_a_disk_that_lost_what_it_reported_as_durable() -> None:
    """A false fsync, a directory that was not synced, or a log that was cut at a bad checksum."""
    world, _, follower = settled()
    world.crash(follower.node_id)
    lose(world, follower, 1)
    breaks(Rule.DISK, lambda: world.restart(follower.node_id))


def test_a_disk_that_lost_the_vote_or_holds_more_than_was_written() -> None:
    world, _, follower = settled()
    world.crash(follower.node_id)
    world.disks[follower.node_id].hard_state = HardState(follower.current_term, None)
    breaks(Rule.DISK, lambda: world.restart(follower.node_id))
    world, _, follower = settled()
    world.crash(follower.node_id)
    world.disks[follower.node_id].terms.append(follower.current_term)
    world.disks[follower.node_id].payloads.append(b"stale")
    breaks(Rule.DISK, lambda: world.restart(follower.node_id))


@pytest.mark.parametrize(("kept", "fine"), [(0, True), (1, False), (2, False), (3, True)])
def test_a_write_that_was_under_way_is_there_as_a_whole_or_not_at_all(kept: int, fine: bool) -> None:
    world, _, follower = settled()
    extend(follower, b"a", b"b", b"c")
    persist = Persist(9, None, 4, follower.log.terms(4, 7), follower.log.payloads(4, 7), 0)
    seen(world, follower, effects=Effects(persist=persist))
    world.crash(follower.node_id)
    disk = world.disks[follower.node_id]
    disk.terms += persist.terms[:kept]
    disk.payloads += persist.payloads[:kept]
    if fine:
        world.restart(follower.node_id)
    else:
        breaks(Rule.DISK, lambda: world.restart(follower.node_id))


def test_entries_without_the_hard_state_that_goes_before_them() -> None:
    world, leader, follower = settled()
    seen(world, follower, heartbeat(follower, leader.node_id, 5), current_term=5, voted_for=None)
    extend(follower, b"a")
    seen(world, follower, effects=Effects(persist=Persist(9, HardState(5, None), 4, [5], [b"a"], 0)))
    world.crash(follower.node_id)
    world.disks[follower.node_id].terms.append(5)
    world.disks[follower.node_id].payloads.append(b"a")
    breaks(Rule.DISK, lambda: world.restart(follower.node_id))


# ------------------------------------------------------------------------------ commits


def test_a_new_leader_without_a_committed_entry() -> None:
    world, leader, follower = settled()
    third = others(world, leader, follower)[0]
    world.crash(third.node_id)
    lose(world, third, 3)
    del world.invariants._disks[third.node_id]  # as if the invariants had missed the loss
    world.restart(third.node_id)
    third = world.nodes[third.node_id]
    for voter in (follower, third):
        synced(world, voter, HardState(9, third.node_id))
    breaks(Rule.LEADER_COMPLETENESS, lambda: leads(world, third, 9))


def test_an_old_leader_commits_what_a_new_one_lacks() -> None:
    """The commit may come after the election that should have prevented it."""
    world, leader, follower = settled()
    third = others(world, leader, follower)[0]
    for voter in (follower, third):
        synced(world, voter, HardState(9, third.node_id))
    leads(world, third, 9)
    extend(leader, b"late")
    seen(world, leader)
    for node in (leader, follower):
        synced(world, node, None, 4, [leader.current_term])
    breaks(Rule.LEADER_COMPLETENESS, lambda: seen(world, leader, commit_index=4))


def test_other_entries_committed_than_elsewhere() -> None:
    world, _, follower = settled()
    world.crash(follower.node_id)
    world.disks[follower.node_id].commit_index = 0
    world.restart(follower.node_id)
    again = world.nodes[follower.node_id]
    again.log._payloads[1] = b"other"
    breaks(Rule.STATE_MACHINE_SAFETY, lambda: seen(world, again, commit_index=3))


def test_an_entry_taken_for_committed_that_no_leader_committed() -> None:
    """commit_index = min(leader_commit, last log index), instead of the last entry that was verified."""
    world, _, follower = settled()
    extend(follower, b"left over")
    seen(world, follower)
    breaks(Rule.STATE_MACHINE_SAFETY, lambda: seen(world, follower, commit_index=4))
    world, leader, follower = settled()
    for node in world.nodes.values():
        extend(node, b"z")
        seen(world, node)
        synced(world, node, None, 4, [node.current_term])
    seen(world, leader, commit_index=4)
    told = Receive(AppendEntries(leader.node_id, follower.node_id, leader.current_term, 3, 1, [], [], 4, 99))
    breaks(Rule.STATE_MACHINE_SAFETY, lambda: seen(world, follower, told, commit_index=4))
    told = Receive(AppendEntries(leader.node_id, follower.node_id, leader.current_term, 3, 1, [1], [b"z"], 4, 99))
    seen(world, follower, told, commit_index=4)


def test_a_committed_entry_erased() -> None:
    world, _, follower = settled()
    follower.log.truncate(3)
    breaks(Rule.STATE_MACHINE_SAFETY, lambda: seen(world, follower))


def test_a_commit_index_that_goes_back_or_beyond_the_log() -> None:
    world, leader, follower = settled()
    breaks(Rule.COMMIT_INDEX, lambda: seen(world, follower, commit_index=2))
    breaks(Rule.COMMIT_INDEX, lambda: seen(world, leader, commit_index=9))


def test_an_entry_of_an_older_term_committed_by_counting() -> None:
    """Figure 8: the entry is on a majority, and yet not committed."""
    world, leader, follower = settled()
    third = others(world, leader, follower)[0]
    extend(third, b"old")
    for node in (follower, third):
        synced(world, node, HardState(9, third.node_id), 4, [third.current_term])
    leads(world, third, 9)
    breaks(Rule.OWN_TERM, lambda: seen(world, third, commit_index=4))
    extend(third, b"new")
    for node in (follower, third):
        synced(world, node, None, 5, [9])
    seen(world, third, commit_index=5)


@pytest.mark.parametrize(("n", "holders"), [(1, 0), (3, 1), (4, 2), (5, 2)])
def test_a_commit_of_what_no_quorum_holds_durably(n: int, holders: int) -> None:
    """A leader that counts itself before its fsync, copies that were not promised, or half of an even cluster."""
    world = World(n, 1)
    leader = world.elect()
    world.propose(leader.node_id, b"x", b"y")
    assert world.run_until(world.converged, ET_MAX)
    extend(leader, b"z")
    seen(world, leader)
    last = leader.log.last_index
    for node in others(world, leader)[:holders]:
        synced(world, node, None, last, [leader.current_term])
    breaks(Rule.DURABLE_QUORUM, lambda: seen(world, leader, commit_index=last))


def test_a_committed_entry_that_leaves_a_disk() -> None:
    world, _, follower = settled()
    breaks(Rule.DURABLE_QUORUM, lambda: synced(world, follower, None, 2, [follower.current_term + 1]))


def test_a_committed_entry_that_leaves_the_disks_of_a_quorum() -> None:
    """Nodes that do not know of the commit may lose the entry to an older leader whose entries were under way."""
    world = World(5, 1)
    leader = world.elect()
    assert world.run_until(world.converged, ET_MAX)
    extend(leader, b"z")
    seen(world, leader)
    last = leader.log.last_index
    for node in world.nodes.values():
        synced(world, node, None, last, [leader.current_term])
    seen(world, leader, commit_index=last)
    first, second, third, _ = others(world, leader)
    for node in (first, second):
        synced(world, node, None, last, [leader.current_term + 1])
    breaks(Rule.DURABLE_QUORUM, lambda: synced(world, third, None, last, [leader.current_term + 1]))


def test_a_start_with_more_committed_than_ever_was() -> None:
    world, _, follower = settled()
    extend(follower, b"z")
    seen(world, follower)
    synced(world, follower, None, 4, [follower.current_term])
    disk = world.disks[follower.node_id]
    world.crash(follower.node_id)
    disk.terms.append(follower.current_term)
    disk.payloads.append(b"z")
    disk.commit_index = 4
    breaks(Rule.DURABLE_QUORUM, lambda: world.restart(follower.node_id))


def test_a_leaders_view_of_a_follower() -> None:
    """match_index only grows, only counts promised entries, and stays below next_index."""
    world, leader, follower = settled()
    progress = leader.progress[follower.node_id]
    progress.match_index = 2
    breaks(Rule.MATCH_INDEX, lambda: seen(world, leader))
    progress.match_index, progress.next_index = 4, 5
    breaks(Rule.DURABLE_QUORUM, lambda: seen(world, leader))
    seen(world, leader, answer(leader, follower.node_id, 4, 99))
    progress.next_index = 4
    breaks(Rule.NEXT_INDEX, lambda: seen(world, leader))


# ------------------------------------------------------------------------------ promises


def test_a_vote_that_leaves_before_its_fsync() -> None:
    world, leader, follower = settled()
    breaks(Rule.PROMISE, lambda: says(world, follower, vote_for(follower, leader.node_id, 9)))
    request = RequestVote(follower.node_id, leader.node_id, 9, 3, 1, pre_vote=False, sequence=99)
    breaks(Rule.PROMISE, lambda: says(world, follower, request))
    synced(world, follower, HardState(9, None))
    breaks(Rule.PROMISE, lambda: says(world, follower, vote_for(follower, leader.node_id, 9)))
    synced(world, follower, HardState(9, leader.node_id))
    says(world, follower, vote_for(follower, leader.node_id, 9))


def test_entries_promised_before_their_fsync() -> None:
    world, leader, follower = settled()
    for node in (leader, follower):
        extend(node, b"z")
        seen(world, node)
    breaks(Rule.PROMISE, lambda: says(world, follower, promise(follower, leader.node_id, 4)))
    synced(world, follower, None, 4, [leader.current_term])
    says(world, follower, promise(follower, leader.node_id, 4))
    synced(world, follower, None, 4, [leader.current_term + 1])
    breaks(Rule.PROMISE, lambda: says(world, follower, promise(follower, leader.node_id, 4)))


def test_a_term_shown_before_its_fsync() -> None:
    world, leader, follower = settled()
    refusal = AppendEntriesReply(follower.node_id, leader.node_id, 9, 1, False, 0, 0, 0, 0, 1)
    breaks(Rule.PROMISE, lambda: says(world, follower, refusal))


# ------------------------------------------------------------------------------ the state machine


def test_applying_more_than_is_committed_or_out_of_order() -> None:
    world, _, follower = settled()
    told = world.invariants.applied
    breaks(Rule.LAST_APPLIED, lambda: told(follower.node_id, 4, [None], Applied(4), world.now))
    breaks(Rule.LAST_APPLIED, lambda: told(follower.node_id, 4, [], Applied(4), world.now))
    breaks(Rule.STATE_MACHINE_SAFETY, lambda: told(follower.node_id, 3, [None], Applied(3), world.now))


KEY = b"k"
OPEN = encode(Kind.OPEN_SESSION)
PUT, OTHER, APPEND = (
    encode(kind, KEY, value, session_id=2, sequence=sequence)
    for kind, value, sequence in ((Kind.PUT, b"one", 1), (Kind.PUT, b"two", 2), (Kind.APPEND, b"+", 3))
)


class Replicas:
    """Stores of a world in which these commands are committed behind the leader's no-op."""

    def __init__(self, *payloads: bytes) -> None:
        self.world = World(3, 1)
        self.world._apply = lambda node: None  # type: ignore[method-assign] # the test applies
        self.world.invariants._model = Reference(value_bytes=100)
        leader = self.world.elect()
        self.world.propose(leader.node_id, *payloads)
        assert self.world.run_until(self.world.converged, ET_MAX)
        self.stores = {i: Store(value_bytes=100) for i in self.world.ids}
        self.log = leader.log

    def apply(self, node_id: str, hi: int, *, spoil: Callable[[Store, list[Result]], None] | None = None) -> None:
        """Let a node apply entries up to `hi`; `spoil` is the bug."""
        store = self.stores[node_id]
        lo = store.last_applied + 1
        results = store.apply(lo, self.log.terms(lo, hi + 1), self.log.payloads(lo, hi + 1))
        if spoil:
            spoil(store, results)
        self.world.invariants.applied(node_id, lo, results, store, self.world.now)


def test_replicas_in_order_break_nothing() -> None:
    replicas = Replicas(OPEN, PUT, OTHER, PUT, APPEND, APPEND)
    for i, steps in (("n1", (7,)), ("n2", (3, 7)), ("n3", (1, 2, 3, 4, 5, 6, 7))):
        for hi in steps:
            replicas.apply(i, hi)
    replicas.world.invariants.compare_states(replicas.stores, replicas.world.now)
    assert {store.get(KEY) for store in replicas.stores.values()} == {b"two+"}


def test_a_command_that_takes_effect_twice() -> None:
    """A retry is applied again, visible in its result (append) or only in the state (put)."""
    replicas = Replicas(OPEN, PUT, OTHER, PUT, APPEND, APPEND)
    replicas.apply("n1", 6)

    def append_again(store: Store, results: list[Result]) -> None:
        store._values[KEY] += b"+"
        results[-1] = Result(number=len(store._values[KEY]))

    def put_again(store: Store, _: list[Result]) -> None:
        store._values[KEY] = b"one"

    breaks(Rule.ONCE, lambda: replicas.apply("n1", 7, spoil=append_again))
    replicas = Replicas(OPEN, PUT, OTHER, PUT)
    replicas.apply("n1", 4)
    breaks(Rule.ONCE, lambda: replicas.apply("n1", 5, spoil=put_again))


def test_a_command_without_effect_and_a_result_unlike_elsewhere() -> None:
    replicas = Replicas(OPEN, PUT)
    breaks(
        Rule.STATE_MACHINE_SAFETY,
        lambda: replicas.apply("n1", 3, spoil=lambda store, _: store._values.clear()),
    )
    world, _, follower = settled()
    world.invariants._lives[follower.node_id].applied = 2
    breaks(
        Rule.STATE_MACHINE_SAFETY,
        lambda: world.invariants.applied(follower.node_id, 3, [b"?"], Applied(3), world.now),
    )


def test_another_state_after_the_same_entries() -> None:
    """An unreplicated session table does not show in any value."""
    replicas = Replicas(OPEN, PUT)
    replicas.apply("n1", 3)
    replicas.apply("n2", 3)
    replicas.stores["n2"]._sessions.clear()
    compare = replicas.world.invariants.compare_states
    breaks(Rule.SAME_STATE, lambda: compare(replicas.stores, replicas.world.now))


def test_states_are_compared_on_the_way_too() -> None:
    replicas = Replicas(OPEN, *[encode(Kind.PUT, b"%d" % k, b"v") for k in range(200)])
    replicas.apply("n1", 100)

    def forget(store: Store, _: list[Result]) -> None:
        del store._values[b"7"]

    replicas.apply("n2", 50)
    breaks(Rule.SAME_STATE, lambda: replicas.apply("n2", 100, spoil=forget))


# ------------------------------------------------------------------------------ reads


def ready(world: World, node: RaftNode, index: int, *events: Event, read_id: int = 1, **changes: Any) -> None:
    seen(world, node, *events, effects=Effects(reads=[ReadReady(read_id, index)]), **changes)


def confirmed(world: World, leader: RaftNode) -> list[Receive]:
    """Answers of a quorum to requests that leave from now on."""
    round_ = [AppendEntries(leader.node_id, p, leader.current_term, 0, 0, [], [], 0, 1000) for p in leader.peers]
    seen(world, leader, effects=Effects(messages=[*round_]))
    return [answer(leader, peer, 3, 1000) for peer in leader.peers]


def test_a_read_in_order() -> None:
    world, leader, _ = settled()
    checked = world.invariants.reads_checked
    seen(world, leader, Read(1))
    ready(world, leader, 3, *confirmed(world, leader))
    assert world.invariants.reads_checked == checked + 1
    breaks(Rule.READ, lambda: ready(world, leader, 3))  # a second time


def test_a_read_index_from_before_its_arrival() -> None:
    world, leader, _ = settled()
    seen(world, leader, Read(1))
    replies = confirmed(world, leader)
    breaks(Rule.READ, lambda: ready(world, leader, 2, *replies))


def test_a_read_that_misses_what_another_node_acknowledged() -> None:
    world, leader, follower = settled()
    lagging = world.nodes[follower.node_id]
    world.crash(follower.node_id)
    world.disks[follower.node_id].commit_index = 0
    world.restart(follower.node_id)
    lagging = world.nodes[follower.node_id]
    assert world.invariants.acknowledged == 3
    assert lagging.commit_index == 0
    seen(world, lagging, Read(1))
    breaks(Rule.READ, lambda: ready(world, lagging, 0))
    assert leader.commit_index == 3


def test_a_read_by_a_leader_that_nobody_confirmed_since() -> None:
    """The read has no round of its own, or its acknowledgements are older than the read."""
    world, leader, _ = settled()
    replies = confirmed(world, leader)
    seen(world, leader, Read(1), Read(2))
    breaks(Rule.READ, lambda: ready(world, leader, 3))
    breaks(Rule.READ, lambda: ready(world, leader, 3, *replies, read_id=2))


def test_a_read_by_a_follower_or_beyond_what_is_committed() -> None:
    world, leader, follower = settled()
    seen(world, follower, Read(1))
    breaks(Rule.READ, lambda: ready(world, follower, 3))
    seen(world, leader, Read(1))
    replies = confirmed(world, leader)
    extend(leader, b"z")
    breaks(Rule.READ, lambda: ready(world, leader, 4, *replies))


def test_a_read_before_the_leaders_own_no_op_is_committed() -> None:
    world, leader, follower = settled()
    third = others(world, leader, follower)[0]
    for voter in (follower, third):
        synced(world, voter, HardState(9, third.node_id))
    leads(world, third, 9)
    seen(world, third, Read(1))
    replies = confirmed(world, third)
    breaks(Rule.READ, lambda: ready(world, third, 3, *replies))


def test_a_read_answered_from_a_state_that_lags() -> None:
    world, leader, _ = settled()
    world.invariants.answered(leader.node_id, 3, 3, world.now)
    breaks(Rule.READ, lambda: world.invariants.answered(leader.node_id, 3, 2, world.now))


def test_only_what_a_client_was_told_counts_as_acknowledged() -> None:
    """If another leader replaced a suffix of a proposal, only the prefix was acknowledged."""
    world, leader, _ = settled()
    invariants = world.invariants
    extend(leader, b"a", b"b")
    accepted = Effects(accepted=[Accepted(77, 4, leader.current_term)])
    seen(world, leader, Propose(77, (b"a", b"b")), effects=accepted)
    assert invariants.acknowledged == 3
    for node in world.nodes.values():
        synced(world, node, None, 4, [leader.current_term] * 2)
    seen(world, leader, commit_index=4)
    invariants.applied(leader.node_id, 4, [None], Applied(4), world.now)
    assert invariants.acknowledged == 4
    seen(world, leader, commit_index=5)
    invariants.applied(leader.node_id, 5, [None], Applied(5), world.now)
    assert invariants.acknowledged == 5


# ------------------------------------------------------------------------------ liveness


def test_an_established_leader_is_one_that_a_quorum_follows() -> None:
    assert patience_s(ET_MAX) == 10 * ET_MAX
    assert patience_s(ET_MAX, 0.5) == 20 * ET_MAX
    world = World(3, 1)
    nodes = list(world.nodes.values())
    assert established_leader(nodes) is None
    leader = world.elect()
    world.run(ET_MAX)
    assert established_leader(nodes) is leader
    assert established_leader(others(world, leader)) is None
    assert established_leader([leader]) is None, "nobody follows it"
    world.isolate(leader.node_id)
    world.run(3 * ET_MAX)
    new = established_leader(nodes)
    assert new is not None
    assert new.current_term > leader.current_term


def test_the_observer_starts_on_disks_that_are_older_than_it() -> None:
    """Entries that were committed before are adopted from the first incarnation of each node."""
    world, _, _ = settled()
    invariants = ClusterInvariants()
    for node in world.nodes.values():
        invariants.started(node, 0.0)
    assert list(invariants.committed_terms) == [term for term, _ in world.committed]
