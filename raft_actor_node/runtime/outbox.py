"""Queues of messages to a peer, and the splitting and reassembly of large AppendEntries.

Each flow (runtime/faults.py) to each peer has an outbox. Only messages that have not left can be replaced. So a sender
takes from its outbox as late as possible: when the connection and the bandwidth have room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from google.protobuf.message import DecodeError

from raft_actor_node.config import TransportSettings
from raft_actor_node.core import AppendEntries, Message, RequestVote
from raft_actor_node.core.log import ENTRY_BYTES
from raft_actor_node.core.messages import Request
from raft_actor_node.pb import raft_pb2 as pb
from raft_actor_node.runtime.codec import Fragment, decode_append, encode_append

MESSAGE_BYTES = 64
"""Size in bytes that a queue counts for a message, besides its payloads."""
FRAGMENT_BYTES = 64 * 1024
"""Maximum bytes that travel in one piece, unless a single message without entries is larger. Each piece costs about
0.1 ms of CPU at either end. Below about 1 MB/s, a piece takes longer than the default rpc_timeout. The leader then
probes with small messages, and does not send the entries again."""
CONTACT_S = 0.020
"""Minimum seconds between fragments that count as a sign of life. On a fast link, a message is complete sooner."""


@dataclass(slots=True)
class TransportCounters:
    """Messages between peers since the process started."""

    sent: int = 0
    received: int = 0
    refused: int = 0
    unsent: int = 0


class Outbox:
    """Queue of messages of one flow to one peer, bounded in bytes; messages that do not fit are lost.

    A newer request replaces older requests that it makes useless. Raft permits the loss of any message, and the newer
    request does everything that the older would have done: see `_supersedes`. All replies stay: each may carry
    information that no later one has (a match index, a refusal). There is at most one per accepted request.
    """

    def __init__(self, settings: TransportSettings, counters: TransportCounters, news: Callable[[], object]) -> None:
        """`news` is called when there is a message to take."""
        self._limit = settings.queue_bytes
        self._counters = counters
        self._news = news
        self._waiting: deque[tuple[int, Message]] = deque()
        self._bytes = 0
        self._cutting: AppendEntries | None = None
        """The message of which only some parts have been taken."""
        self._head: AppendEntries | None = None
        self._encoded = b""
        self._offset = 0

    def __len__(self) -> int:
        """Number of messages that wait, at least in part."""
        return len(self._waiting) + (self._cutting is not None)

    def put(self, message: Message) -> None:
        """Add a message, and discard those that it makes useless."""
        if isinstance(message, AppendEntries | RequestVote) and len(self) and not self._make_way(message):
            return
        size = MESSAGE_BYTES
        if isinstance(message, AppendEntries) and message.entry_payloads:
            size += sum(map(len, message.entry_payloads)) + ENTRY_BYTES * len(message.entry_payloads)
        if self._waiting and self._bytes + size > self._limit:
            self._counters.unsent += 1
            return
        self._waiting.append((size, message))
        self._bytes += size
        self._news()

    def take(self) -> list[Message | Fragment]:
        """Remove and return what may leave in one piece: some messages, or a part of a large one; may be empty."""
        if self._cutting is not None:
            return [self._cut()]
        room = FRAGMENT_BYTES
        taken: list[Message | Fragment] = []
        while self._waiting and (not taken or self._waiting[0][0] <= room):
            size, message = self._waiting.popleft()
            self._bytes -= size
            if size > FRAGMENT_BYTES and isinstance(message, AppendEntries):
                self._cutting, self._offset = message, 0
                self._head = replace(message, entry_terms=(), entry_payloads=())
                self._encoded = encode_append(message).SerializeToString()
                return [self._cut()]
            room -= size
            taken.append(message)
        return taken

    def clear(self) -> None:
        """Discard all messages; they count as unsent."""
        self._counters.unsent += len(self)
        self._waiting.clear()
        self._bytes = 0
        self._end_cutting()

    def _cut(self) -> Fragment:
        assert self._head is not None
        data = self._encoded[self._offset : self._offset + FRAGMENT_BYTES]
        fragment = Fragment(self._head, self._offset, len(self._encoded), data)
        self._offset += len(data)
        if self._offset == len(self._encoded):
            self._end_cutting()
        return fragment

    def _end_cutting(self) -> None:
        self._cutting, self._head, self._encoded = None, None, b""

    def _make_way(self, new: Request) -> bool:
        """Discard messages that `new` makes useless. Return False if an equivalent of `new` is already being sent."""
        cutting = self._cutting
        if cutting is not None and isinstance(new, AppendEntries) and cutting.sequence < new.sequence:
            if (cutting.term, cutting.prev_log_index) == (new.term, new.prev_log_index):
                return False  # same leader, same first entry; the leader will send any further entries later
            if _supersedes(new, cutting):
                self._end_cutting()
        kept = [each for each in self._waiting if not _supersedes(new, each[1])]
        if len(kept) < len(self._waiting):
            self._waiting = deque(kept)
            self._bytes = sum(size for size, _ in kept)
        return True


def _supersedes(new: Request, old: Message) -> bool:
    """Return whether a request makes an older request to the same peer useless.

    The sequence counts all requests of a sender: a higher sequence means a later request, of the same or a later term.
    * Vote requests: the candidate counts only answers to its present ballot, to which `new` belongs.
    * AppendEntries without entries: `new` has at least the same commit index, its answer confirms at least the same
      reads, and it probes the index that matters to the leader now.
    * AppendEntries with entries: `new` begins at the same or an earlier index, and the leader will resend all later
      entries. Or the term of `new` is later, and the receiver would refuse `old`.
    """
    if not isinstance(old, AppendEntries | RequestVote) or old.sequence >= new.sequence:
        return False  # duplicated or reordered by a link fault, whose effect must reach the peer
    if isinstance(old, AppendEntries) and isinstance(new, AppendEntries) and new.entry_payloads:
        return bool(old.entry_payloads) and (old.term < new.term or old.prev_log_index >= new.prev_log_index)
    return type(old) is type(new) and not (isinstance(old, AppendEntries) and old.entry_payloads)


class Assembler:
    """Reassembly of the fragments of one stream; it holds at most one incomplete message."""

    def __init__(self, limit: int) -> None:
        """`limit` is the maximum size of a message in bytes."""
        self._limit = limit
        self._head: AppendEntries | None = None
        self._total = 0
        self._parts: list[bytes] = []
        self._received = 0
        self._lost: AppendEntries | None = None
        self.heard_at = -inf
        """When a fragment last counted as a sign of life."""

    def add(self, fragment: Fragment) -> AppendEntries | None:
        """Add the next fragment; return the message once it is complete.

        Raises ValueError if the fragment does not continue the message, or the message is malformed. The incomplete
        message is then discarded.
        """
        head, offset = fragment.head, fragment.offset
        if offset == 0:  # possibly in the middle of another message, which its sender has discarded
            self._head, self._total, self._parts, self._received = head, fragment.total, [], 0
            self._lost = None  # chaos may have duplicated the message: the second copy has the same head
        elif (head, fragment.total, offset) != (self._head, self._total, self._received):
            self.clear()
            raise ValueError(f"fragment at {offset} of {fragment.total} B does not continue the fragments before it")
        self._parts.append(fragment.data)
        self._received += len(fragment.data)
        if not fragment.data or self._received > self._total or self._total > self._limit:
            self.clear()
            why = f"empty, beyond the total, or of a message above {self._limit} B"
            raise ValueError(f"fragment of {len(fragment.data)} B at {offset} of {fragment.total} B: {why}")
        if self._received < self._total:
            return None
        encoded = b"".join(self._parts)
        self.clear()
        try:
            message = decode_append(pb.AppendEntriesRequest.FromString(encoded), head.from_id, head.to_id)
        except DecodeError as error:
            raise ValueError(f"fragments: {error}") from None
        if replace(message, entry_terms=head.entry_terms, entry_payloads=head.entry_payloads) != head:
            raise ValueError("fragments: the complete message differs from its announced head")
        return message

    def lose(self, fragment: Fragment) -> None:
        """Discard the fragment's message, including its later fragments."""
        self.clear()
        self._lost = fragment.head

    def is_lost(self, fragment: Fragment) -> bool:
        """Return whether a fragment belongs to a lost message."""
        return fragment.offset > 0 and fragment.head == self._lost

    def clear(self) -> None:
        """Discard the incomplete message."""
        self._head, self._parts, self._received = None, [], 0
