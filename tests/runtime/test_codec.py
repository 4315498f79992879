"""Messages of peers are checked before the core sees them: an invalid one has no effect and never ends a node.

tests/core/harness.py checks for every message that the rules accept what a correct node sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_actor_node.core import AppendEntriesReply, Message, Receive, Role
from raft_actor_node.errors import InvariantViolated
from raft_actor_node.kv.commands import Kind, encode
from raft_actor_node.pb import raft_pb2 as pb
from raft_actor_node.runtime.codec import decode_reply, decode_request
from tests.core.bench import Solo, ack, append, appends

COMMAND = encode(Kind.PUT, b"k", b"v")
MOST = 2**63 - 1
SMALL = st.integers(0, 7)
NUMBERS = SMALL | SMALL | SMALL | st.sampled_from([MOST - 1, MOST, MOST + 1, 2**64 - 1])
DOCUMENTED = ("leaders n", "conflict with a leader at committed index", "erases committed entry")
"""The errors that rightly stop a node: a second leader in a term, and a conflict below the commit index."""


def append_entries(**changes: Any) -> pb.PeerRequest:
    """A request in term 5, with two entries behind entry 2 of term 1."""
    values = {
        "term": 5,
        "prev_log_index": 2,
        "prev_log_term": 1,
        "entry_terms": [2, 5],
        "entry_payloads": [COMMAND, b""],
        "leader_commit": 2,
        "sequence": 1,
    }
    return pb.PeerRequest(append_entries=pb.AppendEntriesRequest(**(values | changes)))


def request_vote(**changes: Any) -> pb.PeerRequest:
    values = {"term": 5, "last_log_index": 3, "last_log_term": 4, "sequence": 1}
    return pb.PeerRequest(request_vote=pb.RequestVoteRequest(**(values | changes)))


def vote(**changes: Any) -> pb.PeerReply:
    values = {"term": 5, "request_term": 5, "vote_granted": True, "sequence": 1}
    return pb.PeerReply(request_vote=pb.RequestVoteReply(**(values | changes)))


def success(**changes: Any) -> pb.PeerReply:
    values = {"term": 5, "request_term": 5, "success": True, "match_index": 3, "sequence": 1}
    return pb.PeerReply(append_entries=pb.AppendEntriesReply(**(values | changes)))


def refusal(**changes: Any) -> pb.PeerReply:
    values = {"term": 5, "request_term": 5, "rejected_index": 4, "conflict_index": 2, "sequence": 1}
    return pb.PeerReply(append_entries=pb.AppendEntriesReply(**(values | changes)))


@pytest.mark.parametrize(
    "request_",
    [
        append_entries(),
        append_entries(entry_terms=[], entry_payloads=[]),
        append_entries(prev_log_index=0, prev_log_term=0),
        append_entries(entry_terms=[1, 1], leader_commit=MOST),
        request_vote(),
        request_vote(last_log_index=0, last_log_term=0, term=1),
        request_vote(pre_vote=True),
    ],
)
def test_what_a_correct_peer_asks_is_accepted(request_: pb.PeerRequest) -> None:
    decode_request(request_, "n2", "n1")


@pytest.mark.parametrize(
    "request_",
    [
        append_entries(term=0, entry_terms=[], entry_payloads=[], prev_log_index=0, prev_log_term=0),
        append_entries(entry_terms=[3, 1]),
        append_entries(entry_terms=[1, 3, 2], entry_payloads=[b""] * 3),
        append_entries(entry_terms=[0, 1]),
        append_entries(entry_terms=[0, 0], prev_log_index=0, prev_log_term=0),
        append_entries(entry_terms=[1, 1], prev_log_term=2),
        append_entries(entry_terms=[5, 6]),
        append_entries(entry_terms=[2]),
        append_entries(entry_payloads=[COMMAND]),
        append_entries(prev_log_index=0, prev_log_term=5),
        append_entries(prev_log_index=2, prev_log_term=0),
        append_entries(prev_log_term=6, entry_terms=[], entry_payloads=[]),
        append_entries(prev_log_index=MOST - 1),
        append_entries(leader_commit=MOST + 1),
        append_entries(sequence=MOST + 1),
        append_entries(term=MOST + 1),
        append_entries(entry_payloads=[COMMAND + b"x", b""]),
        append_entries(entry_payloads=[COMMAND[:-1], b""]),
        append_entries(entry_payloads=[b"\0", b""]),
        append_entries(entry_payloads=[b"", encode(Kind.APPEND, b"k", b"v", longest=3)[:-1]]),
        request_vote(term=0, last_log_index=0, last_log_term=0),
        request_vote(last_log_term=5),
        request_vote(last_log_term=0),
        request_vote(last_log_index=0),
        request_vote(last_log_index=MOST + 1),
        request_vote(term=MOST + 1),
        pb.PeerRequest(),
    ],
)
def test_what_no_correct_peer_asks_is_refused(request_: pb.PeerRequest) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_request(request_, "n2", "n1")


@pytest.mark.parametrize(
    "reply",
    [
        vote(),
        vote(term=6, vote_granted=False),
        vote(term=3, vote_granted=False),
        vote(term=4, pre_vote=True),
        vote(term=0, request_term=1, pre_vote=True),
        success(),
        success(match_index=0),
        refusal(),
        refusal(conflict_term=5),
        refusal(term=7, rejected_index=0, conflict_index=0),
    ],
)
def test_what_a_correct_peer_answers_is_accepted(reply: pb.PeerReply) -> None:
    decode_reply(reply, "n2", "n1")


@pytest.mark.parametrize(
    "reply",
    [
        vote(request_term=0, term=0),
        vote(term=6),
        vote(term=4),
        vote(term=5, pre_vote=True),
        vote(term=MOST + 1, vote_granted=False),
        success(request_term=0, term=0),
        success(term=6),
        success(request_term=6),
        success(rejected_index=1),
        success(conflict_index=1),
        success(conflict_term=1),
        success(match_index=MOST + 1),
        success(sequence=MOST + 1),
        refusal(match_index=1),
        refusal(conflict_index=0),
        refusal(conflict_index=5),
        refusal(rejected_index=0),
        refusal(conflict_term=6),
        refusal(term=4),
        refusal(term=6),
        pb.PeerReply(),
    ],
)
def test_what_no_correct_peer_answers_is_refused(reply: pb.PeerReply) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_reply(reply, "n2", "n1")


def changed(make: Any, fields: Sequence[str], flags: Sequence[str], lists: bool) -> st.SearchStrategy[Any]:
    """Valid messages of one kind, with any of their fields changed."""
    change: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(fields, NUMBERS) | dict.fromkeys(flags, st.booleans())
    if lists:
        change["entry_terms"] = st.lists(NUMBERS, max_size=4)
        change["entry_payloads"] = st.lists(st.sampled_from([b"", COMMAND, b"no command"]), max_size=4)
    return st.fixed_dictionaries({}, optional=change).map(lambda values: make(**values))


MESSAGES = st.one_of(
    changed(append_entries, ["term", "prev_log_index", "prev_log_term", "leader_commit", "sequence"], [], lists=True),
    changed(request_vote, ["term", "last_log_index", "last_log_term", "sequence"], ["pre_vote"], lists=False),
    changed(vote, ["term", "request_term", "sequence"], ["vote_granted", "pre_vote"], lists=False),
    *(
        changed(
            make,
            ["term", "request_term", "match_index", "rejected_index", "conflict_term", "conflict_index", "sequence"],
            ["success"],
            lists=False,
        )
        for make in (success, refusal)
    ),
)


def node_in(role: str) -> Solo:
    """A node in a term near 5, with four entries of which two are committed."""
    solo = Solo(terms=[1, 1, 2, 4], term=4, commit_index=2)
    if role == "candidate":
        solo.stand()
    elif role == "leader":
        solo.lead()
    elif role == "heard":
        solo.receive(append(5, 4, 4))
    return solo


@settings(max_examples=600, deadline=None)
@given(
    role=st.sampled_from(["new", "follower", "heard", "candidate", "leader"]),
    batches=st.lists(st.tuples(st.sampled_from(["n2", "n3"]), st.lists(MESSAGES, min_size=1, max_size=3)), max_size=4),
    sync=st.booleans(),
)
def test_no_batch_ends_a_node_but_by_the_documented_stop(
    role: str, batches: list[tuple[str, list[pb.PeerRequest | pb.PeerReply]]], sync: bool
) -> None:
    solo = Solo() if role == "new" else node_in(role)
    solo.sync = sync
    for peer, batch in batches:
        try:
            messages: list[Message] = [
                decode_request(each, peer, "n1") if isinstance(each, pb.PeerRequest) else decode_reply(each, peer, "n1")
                for each in batch
            ]
        except ValueError:
            continue  # the check refuses the whole batch, and the core never sees it
        try:
            solo.step(*map(Receive, messages))
            for _ in range(3):
                solo.wait(0.05)
                if solo.pending:
                    solo.fsync()
        except InvariantViolated as error:
            if not any(each in str(error) for each in DOCUMENTED):
                raise
            return
        assert all(0 < one <= other for one, other in pairwise([1, *solo.terms]))
        assert solo.node.commit_index <= solo.node.log.last_index


@pytest.mark.parametrize(
    "changes",
    [{"match_index": 9}, {"match_index": MOST}, {"sequence": 10**6}, {"success": False, "rejected_index": 9}],
)
def test_a_leader_ignores_answers_to_what_it_never_asked(changes: dict[str, Any]) -> None:
    """Each answer is valid by itself, but does not fit what the leader sent. A read must not count it either."""
    solo = node_in("leader")
    [beat] = appends(solo.receive(), "n2") or appends(solo.wait(0.05).messages, "n2")[:1]
    before, progress = solo.node.snapshot(), repr(solo.node.progress)
    values = {"success": True, "match_index": 0, "rejected_index": 0, "sequence": beat.sequence} | changes
    refused = not values["success"]
    reply = AppendEntriesReply(
        "n2",
        "n1",
        beat.term,
        beat.term,
        values["success"],
        0 if refused else values["match_index"],
        values["rejected_index"],
        0,
        int(refused),
        values["sequence"],
    )
    assert solo.receive(reply) == []
    assert (solo.node.snapshot(), repr(solo.node.progress)) == (before, progress)
    assert solo.node.role == Role.LEADER
    assert solo.node.counters.replies_refused == 1
    solo.receive(ack(beat, 4))
    assert solo.node.progress["n2"].match_index == 4
