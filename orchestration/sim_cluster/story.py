"""The story of a simulation: a line for every event, and the hash of all lines.

Two runs are equal if and only if their stories are equal, so the digest is always computed. The lines are kept only on
request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from zlib import crc32

from orchestration.sim_cluster.loop import START_S, SimLoop
from raft_actor_node.core import AppendEntries, AppendEntriesReply, Message, RequestVote, TraceEvent
from raft_actor_node.pb import kv_pb2

_LINES_PER_UPDATE = 512


class Story:
    """A sequence of lines `time in seconds | who | what`."""

    def __init__(self, loop: SimLoop, *, keep: bool) -> None:
        self.lines: list[str] = []
        """All lines so far, if they are kept."""
        self._keep = keep
        self._loop = loop
        self._hash = hashlib.sha256()
        self._waiting: list[str] = []

    def tell(self, who: str, what: str) -> None:
        """Add an event that happens now."""
        line = f"{self._loop.time() - START_S:13.9f} | {who:8} | {what}"
        self._waiting.append(line)
        if len(self._waiting) == _LINES_PER_UPDATE:
            self._update()

    def digest(self) -> str:
        """Return the SHA-256 of the story so far."""
        self._update()
        return self._hash.hexdigest()

    def text(self) -> str:
        """Return the story so far, if it is kept."""
        self._update()
        return "".join(f"{line}\n" for line in self.lines)

    def _update(self) -> None:
        if self._waiting:
            self._hash.update("\n".join([*self._waiting, ""]).encode())
            if self._keep:
                self.lines += self._waiting
            self._waiting.clear()


def describe_event(event: TraceEvent) -> str:
    """Describe a trace event in one line."""
    index = f" at {event.index}" if event.index else ""
    peer = f" {event.peer_id}" if event.peer_id else ""
    detail = f" ({event.detail})" if event.detail else ""
    return f"* {event.kind}{peer}{index}, term {event.term}{detail}"


def describe_message(message: Message) -> str:
    """Describe a message in one line, with a checksum of its payloads."""
    match message:
        case AppendEntries():
            count = len(message.entry_terms)
            entries = f" +{count} [{crc32(b''.join(message.entry_payloads)):08x}]" if count else ""
            return (
                f"AppendEntries term {message.term} after {message.prev_log_index}/{message.prev_log_term}{entries}"
                f" commit {message.leader_commit} #{message.sequence}"
            )
        case AppendEntriesReply():
            if message.success:
                return f"AppendEntriesReply term {message.term} match {message.match_index} #{message.sequence}"
            return (
                f"AppendEntriesReply term {message.term} refused {message.rejected_index}, conflict "
                f"{message.conflict_index}/{message.conflict_term} #{message.sequence}"
            )
        case RequestVote():
            kind = "PreVote" if message.pre_vote else "RequestVote"
            return (
                f"{kind} term {message.term} last {message.last_log_index}/{message.last_log_term} #{message.sequence}"
            )
    kind = "PreVoteReply" if message.pre_vote else "RequestVoteReply"
    answer = "granted" if message.vote_granted else "refused"
    return f"{kind} term {message.term} {answer} for {message.request_term} #{message.sequence}"


def describe_operations(operations: Iterable[kv_pb2.Operation]) -> str:
    """Describe a client's operations in one line."""
    return "; ".join(_describe_operation(operation) for operation in operations)


def _describe_operation(operation: kv_pb2.Operation) -> str:
    key = f" {_short(operation.key)}" if operation.key else ""
    value = f" {_short(operation.value)}" if operation.value else ""
    expected = f" if {_short(operation.expected)}" if operation.HasField("expected") else ""
    session = f" in {operation.session_id}/{operation.sequence}" if operation.session_id else ""
    name = kv_pb2.OperationKind.Name(operation.kind).lower()
    return f"#{operation.id} {name}{key}{value}{expected}{session}"


def describe_results(results: Iterable[kv_pb2.OperationResult]) -> str:
    """Describe the answers to a client in one line."""
    return "; ".join(_describe_result(result) for result in results)


def _describe_result(result: kv_pb2.OperationResult) -> str:
    if result.error:
        hint = f", try {result.leader_hint}" if result.leader_hint else ""
        return f"#{result.id} {kv_pb2.ErrorCode.Name(result.error)}{hint}"
    found = " found" if result.found else ""
    value = f" {_short(result.value)}" if result.HasField("value") else ""
    number = f" {result.number}" if result.number else ""
    return f"#{result.id} ok{found}{value}{number}"


def _short(data: bytes) -> str:
    """Return short text without its padding; for other data the first 8 bytes in hex, which hold the id of a value."""
    text = data.rstrip(b".").decode("ascii", "backslashreplace")
    return text if len(text) <= 24 and text.isprintable() else data[:8].hex()
