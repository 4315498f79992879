"""Translation of messages and faults to and from their wire forms in proto/. Only this module does it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from raft_actor_node.core import AppendEntries, AppendEntriesReply, Message, RequestVote, RequestVoteReply
from raft_actor_node.core.messages import Reply, Request, fault
from raft_actor_node.kv.commands import check
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.pb import chaos_pb2
from raft_actor_node.pb import raft_pb2 as pb


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of an encoded AppendEntries: bytes from `offset` on, of `total`.

    `head` is the AppendEntries without its entries, equal in all parts.
    """

    head: AppendEntries
    offset: int
    total: int
    data: bytes


def encode_append(message: AppendEntries) -> pb.AppendEntriesRequest:
    """Return the wire form of an AppendEntries."""
    return pb.AppendEntriesRequest(
        term=message.term,
        prev_log_index=message.prev_log_index,
        prev_log_term=message.prev_log_term,
        entry_terms=message.entry_terms,
        entry_payloads=message.entry_payloads,
        leader_commit=message.leader_commit,
        sequence=message.sequence,
    )


def encode_fragment(fragment: Fragment) -> pb.PeerRequest:
    """Return the wire form of a fragment."""
    return pb.PeerRequest(
        fragment=pb.AppendEntriesFragment(
            head=encode_append(fragment.head), offset=fragment.offset, total=fragment.total, data=fragment.data
        )
    )


def decode_fragment(fragment: pb.AppendEntriesFragment, from_id: str, to_id: str) -> Fragment:
    """Return the fragment in a wire message. Raises ValueError if it is malformed."""
    head = decode_append(fragment.head, from_id, to_id)
    if head.entry_terms:
        raise ValueError("the head of a fragment has entries")
    return Fragment(head, fragment.offset, fragment.total, fragment.data)


def decode_append(append: pb.AppendEntriesRequest, from_id: str, to_id: str) -> AppendEntries:
    """Return the AppendEntries in a wire message. Raises ValueError if it is malformed."""
    message = decode_request(pb.PeerRequest(append_entries=append), from_id, to_id)
    assert isinstance(message, AppendEntries)
    return message


def encode_request(message: Request) -> pb.PeerRequest:
    """Return the wire form of a request."""
    if isinstance(message, AppendEntries):
        return pb.PeerRequest(append_entries=encode_append(message))
    return pb.PeerRequest(
        request_vote=pb.RequestVoteRequest(
            term=message.term,
            last_log_index=message.last_log_index,
            last_log_term=message.last_log_term,
            pre_vote=message.pre_vote,
            sequence=message.sequence,
        )
    )


def decode_request(request: pb.PeerRequest, from_id: str, to_id: str) -> Request:
    """Return the request in a wire message. Raises ValueError if no correct node can have sent it."""
    message = _request_of(request, from_id, to_id)
    if found := fault(message):
        raise ValueError(found)
    if isinstance(message, AppendEntries):
        index = message.prev_log_index
        try:
            for payload in message.entry_payloads:
                index += 1
                if payload:
                    check(payload)
        except ValueError as error:
            raise ValueError(f"AppendEntries: entry {index}: {error}") from None
    return message


def _request_of(request: pb.PeerRequest, from_id: str, to_id: str) -> Request:
    kind = request.WhichOneof("body")
    if kind == "append_entries":
        append = request.append_entries
        return AppendEntries(
            from_id,
            to_id,
            append.term,
            append.prev_log_index,
            append.prev_log_term,
            array("Q", append.entry_terms),
            list(append.entry_payloads),
            append.leader_commit,
            append.sequence,
        )
    if kind == "request_vote":
        vote = request.request_vote
        return RequestVote(
            from_id, to_id, vote.term, vote.last_log_index, vote.last_log_term, vote.pre_vote, vote.sequence
        )
    raise ValueError("a request without a body")


def encode_reply(message: Reply) -> pb.PeerReply:
    """Return the wire form of a reply."""
    if isinstance(message, AppendEntriesReply):
        return pb.PeerReply(
            append_entries=pb.AppendEntriesReply(
                term=message.term,
                request_term=message.request_term,
                success=message.success,
                match_index=message.match_index,
                rejected_index=message.rejected_index,
                conflict_term=message.conflict_term,
                conflict_index=message.conflict_index,
                sequence=message.sequence,
            )
        )
    return pb.PeerReply(
        request_vote=pb.RequestVoteReply(
            term=message.term,
            request_term=message.request_term,
            vote_granted=message.vote_granted,
            pre_vote=message.pre_vote,
            sequence=message.sequence,
        )
    )


def decode_reply(reply: pb.PeerReply, from_id: str, to_id: str) -> Reply:
    """Return the reply in a wire message. Raises ValueError if no correct node can have sent it."""
    message = _reply_of(reply, from_id, to_id)
    if found := fault(message):
        raise ValueError(found)
    return message


def _reply_of(reply: pb.PeerReply, from_id: str, to_id: str) -> Reply:
    kind = reply.WhichOneof("body")
    if kind == "append_entries":
        append = reply.append_entries
        return AppendEntriesReply(
            from_id,
            to_id,
            append.term,
            append.request_term,
            append.success,
            append.match_index,
            append.rejected_index,
            append.conflict_term,
            append.conflict_index,
            append.sequence,
        )
    if kind == "request_vote":
        vote = reply.request_vote
        return RequestVoteReply(
            from_id, to_id, vote.term, vote.request_term, vote.vote_granted, vote.pre_vote, vote.sequence
        )
    raise ValueError("a reply without a body")


def encoded_bytes(message: Message | Fragment) -> int:
    """Return the size of a message's wire form in bytes."""
    if isinstance(message, Fragment):
        return encode_fragment(message).ByteSize()
    if isinstance(message, AppendEntries | RequestVote):
        return encode_request(message).ByteSize()
    return encode_reply(message).ByteSize()


_LINK_MESSAGES = {"all": chaos_pb2.ALL_MESSAGES, "requests": chaos_pb2.REQUESTS, "replies": chaos_pb2.REPLIES}
_LINK_MESSAGE_NAMES = {number: name for name, number in _LINK_MESSAGES.items()}
_DISK_ERRORS = {"": chaos_pb2.NO_DISK_ERROR, "ENOSPC": chaos_pb2.NO_SPACE, "EIO": chaos_pb2.IO_ERROR}
_DISK_ERROR_NAMES: dict[int, str] = {number: name for name, number in _DISK_ERRORS.items()}
_DISK_CALLS = {"write": chaos_pb2.DISK_WRITE, "fsync": chaos_pb2.DISK_FSYNC}
_DISK_CALL_NAMES: dict[int, str] = {number: name for name, number in _DISK_CALLS.items()}


def encode_rule(rule: LinkRule) -> chaos_pb2.LinkRule:
    """Return the wire form of a link rule."""
    return chaos_pb2.LinkRule(**rule.model_dump(exclude={"messages"}), messages=_LINK_MESSAGES[rule.messages])


def decode_rule(rule: chaos_pb2.LinkRule) -> LinkRule:
    """Return the link rule in a wire message. Raises pydantic's ValidationError if it is malformed."""
    return LinkRule.model_validate(
        {
            "from_id": rule.from_id,
            "to_id": rule.to_id,
            "messages": _LINK_MESSAGE_NAMES.get(rule.messages, rule.messages),
            "cut": rule.cut,
            "drop": rule.drop,
            "duplicate": rule.duplicate,
            "delay_ms": rule.delay_ms,
            "jitter_ms": rule.jitter_ms,
            "tail_ms": rule.tail_ms,
            "late_ms": rule.late_ms,
            "bytes_per_s": rule.bytes_per_s,
        }
    )


def encode_node_faults(faults: NodeFaults) -> chaos_pb2.NodeFaults:
    """Return the wire form of the faults inside a node."""
    disk = faults.disk
    if disk is None:
        return chaos_pb2.NodeFaults()
    return chaos_pb2.NodeFaults(
        disk=chaos_pb2.DiskFault(
            fsync_latency_ms=disk.fsync_latency_ms,
            stall=disk.stall,
            error=_DISK_ERRORS[disk.error],
            on=_DISK_CALLS[disk.on],
        )
    )


def decode_node_faults(faults: chaos_pb2.NodeFaults) -> NodeFaults:
    """Return the node faults in a wire message. Raises pydantic's ValidationError if they are malformed."""
    if not faults.HasField("disk"):
        return NodeFaults()
    disk = faults.disk
    return NodeFaults.model_validate(
        {
            "disk": {
                "fsync_latency_ms": disk.fsync_latency_ms,
                "stall": disk.stall,
                "error": _DISK_ERROR_NAMES.get(disk.error, disk.error),
                "on": _DISK_CALL_NAMES.get(disk.on, disk.on),
            }
        }
    )
