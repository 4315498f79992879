"""The story of a simulation, as a person reads it."""

from __future__ import annotations

import pytest

from orchestration.sim_cluster.story import describe_event, describe_message, describe_operations, describe_results
from raft_actor_node.core import (
    AppendEntries,
    AppendEntriesReply,
    Message,
    RequestVote,
    RequestVoteReply,
    TraceEvent,
)
from raft_actor_node.pb import kv_pb2
from tests.orchestration.sim.runs import simulate


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (RequestVote("n1", "n2", 3, 7, 2, False, 11), "RequestVote term 3 last 7/2 #11"),
        (RequestVote("n1", "n2", 3, 7, 2, True, 11), "PreVote term 3 last 7/2 #11"),
        (RequestVoteReply("n2", "n1", 3, 3, True, False, 11), "RequestVoteReply term 3 granted for 3 #11"),
        (RequestVoteReply("n2", "n1", 4, 3, False, True, 11), "PreVoteReply term 4 refused for 3 #11"),
        (AppendEntries("n1", "n2", 3, 7, 2, (), (), 6, 12), "AppendEntries term 3 after 7/2 commit 6 #12"),
        (
            AppendEntries("n1", "n2", 3, 7, 2, (3, 3), (b"a", b"b"), 6, 12),
            "AppendEntries term 3 after 7/2 +2 [9e83486d] commit 6 #12",
        ),
        (AppendEntriesReply("n2", "n1", 3, 3, True, 9, 0, 0, 0, 12), "AppendEntriesReply term 3 match 9 #12"),
        (
            AppendEntriesReply("n2", "n1", 3, 3, False, 0, 7, 2, 5, 12),
            "AppendEntriesReply term 3 refused 7, conflict 5/2 #12",
        ),
    ],
)
def test_a_message_is_a_line(message: Message, line: str) -> None:
    assert describe_message(message) == line


def test_an_event_is_a_line() -> None:
    assert describe_event(TraceEvent("vote_granted", 3, peer_id="n2")) == "* vote_granted n2, term 3"
    assert (
        describe_event(TraceEvent("became_follower", 3, detail="higher term"))
        == "* became_follower, term 3 (higher term)"
    )
    assert describe_event(TraceEvent("commit", 3, 9)) == "* commit at 9, term 3"


def test_what_clients_say_and_hear_is_a_line() -> None:
    asked = [
        kv_pb2.Operation(
            id=4, kind=kv_pb2.COMPARE_AND_SWAP, key=b"k", value=b"new", expected=b"old", session_id=2, sequence=7
        ),
        kv_pb2.Operation(id=5, kind=kv_pb2.GET, key=b"k"),
        kv_pb2.Operation(id=6, kind=kv_pb2.PUT, key=b"k", value=(1 << 40 | 3).to_bytes(8, "big") + b"...."),
    ]
    assert describe_operations(asked) == (
        "#4 compare_and_swap k new if old in 2/7; #5 get k; #6 put k 0000010000000003"
    )
    told = [
        kv_pb2.OperationResult(id=4, found=True),
        kv_pb2.OperationResult(id=5, found=True, value=b"new"),
        kv_pb2.OperationResult(id=6, error=kv_pb2.NOT_LEADER, leader_hint="n2"),
        kv_pb2.OperationResult(id=7, number=12),
    ]
    assert describe_results(told) == "#4 ok found; #5 ok found new; #6 NOT_LEADER, try n2; #7 ok 12"


def test_a_story_tells_of_faults_lives_terms_and_answers() -> None:
    lines = simulate(1, story=True).story.splitlines()
    times = [float(line.split(" | ")[0]) for line in lines]
    assert times == sorted(times)
    for words in ("life 2 begins", "became_leader", "RequestVoteReply", "AppendEntries", "< load", "> load", "lost: "):
        assert any(words in line for line in lines), words
