"""Raft itself, as a pure state machine: events and the time in, effects out.

Nothing in here reads a clock, opens a file or a socket, logs, or draws randomness that was not passed in.
The door is `RaftNode` in node.py; the simulator and the real process drive the very same one.
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
