"""Raft as a pure state machine: events and the time in, effects out.

This package reads no clock, opens no file or socket, writes no log and draws no randomness of its own. The entry point
is `RaftNode` in node.py; the simulator and the real process drive the same class.
"""

from raft_actor_node.core.effects import Accepted, Effects, HardState, Persist, ReadReady
from raft_actor_node.core.events import Event, Paused, Persisted, Propose, Reachable, Read, Receive
from raft_actor_node.core.log import Log
from raft_actor_node.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Message,
    RequestVote,
    RequestVoteReply,
)
from raft_actor_node.core.node import RaftNode, RaftParameters
from raft_actor_node.core.trace import TraceEvent
from raft_actor_node.core.types import NodeId, Role

__all__ = [
    "Accepted",
    "AppendEntries",
    "AppendEntriesReply",
    "Effects",
    "Event",
    "HardState",
    "Log",
    "Message",
    "NodeId",
    "Paused",
    "Persist",
    "Persisted",
    "Propose",
    "RaftNode",
    "RaftParameters",
    "Reachable",
    "Read",
    "ReadReady",
    "Receive",
    "RequestVote",
    "RequestVoteReply",
    "Role",
    "TraceEvent",
]
