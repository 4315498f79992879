"""Encoding of term and vote, and the choice between their two copies.

Pure, like wal_format.py. A node that forgets its vote could vote twice in a term, and no peer could correct it (paper,
section 5.2 and Figure 2, persistent state). So there are two copies, A and B, each a file that is overwritten in place:
magic 8s, nonce of the log 8s, sequence u64 (incremented by each save), term u64, length of voted_for u16 (65535: no
vote), voted_for 90s in UTF-8, crc u32. That is 128 bytes, less than a disk sector.

A save writes A, syncs A, writes B, syncs B; only then may the node promise anything. So at every moment at least one
copy is on disk and not being written. Let n be the last promised state, and n+1 the state being saved:

    crash at                 A            B            recovered
    before, while writing A  n, bad, n+1  n            n, or n+1 if A is whole: both keep the promise
    while writing B          n+1          n, bad, n+1  n+1
    after                    n+1          n+1          n+1, promised

A promised state n is in both copies, so damage to one copy at rest leaves the other. Damage to A between the two writes
leaves n in B, and n+1 was not promised. Two bad copies require two faults and raise DataCorrupt, because a guess could
lead to a second vote. Recovery makes both copies valid and durable before the node sends anything. It replaces the
worse copy by an atomic rename, so a crash during recovery never leaves two bad copies.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from raft_actor_node.errors import DataCorrupt

_MAGIC = b"RAFTHARD"
_FIELDS = struct.Struct("<8s8sQQH90s")
_RECORD = struct.Struct("<8s8sQQH90sI")
_CRC_BYTES = 4
_NO_VOTE = 0xFFFF
VOTED_FOR_BYTES = 90
"""Maximum length of a node id voted for, in UTF-8."""


class StoredHardState(NamedTuple):
    """Term and vote (paper, Figure 2), numbered by `sequence` in the order of the saves."""

    sequence: int
    term: int
    voted_for: str | None


INITIAL = StoredHardState(0, 0, None)


def encode_hard_state(nonce: bytes, state: StoredHardState) -> bytes:
    """Encode one copy. Raises ValueError if the node id voted for is too long."""
    voted = b"" if state.voted_for is None else state.voted_for.encode()
    if len(voted) > VOTED_FOR_BYTES:
        raise ValueError(f"voted_for: at most {VOTED_FOR_BYTES} bytes, not {len(voted)}")
    voted_bytes = _NO_VOTE if state.voted_for is None else len(voted)
    record = _FIELDS.pack(_MAGIC, nonce, state.sequence, state.term, voted_bytes, voted)
    return record + struct.pack("<I", crc32(record))


def decode_hard_state(data: bytes) -> tuple[bytes, StoredHardState] | None:
    """Return the nonce and the state in one copy; None if it is damaged."""
    if len(data) != _RECORD.size:
        return None
    magic, nonce, sequence, term, voted_bytes, voted, crc = _RECORD.unpack(data)
    if magic != _MAGIC or crc != crc32(data[:-_CRC_BYTES]):
        return None
    voted_for = None if voted_bytes == _NO_VOTE else voted[:voted_bytes].decode()
    return nonce, StoredHardState(sequence, term, voted_for)


def newest(copies: Sequence[bytes | None], nonce: bytes, directory: str) -> StoredHardState:
    """Return the state to recover from the copies of the log with this nonce. A copy is None if its file is missing.

    Raises DataCorrupt if no copy is valid, or if two copies with the same sequence differ.
    """
    decoded = [decode_hard_state(copy) for copy in copies if copy is not None]
    good = [item[1] for item in decoded if item is not None and item[0] == nonce]
    if not good:
        raise DataCorrupt(f"{directory}: no copy of term and vote is good; nothing was changed")
    best = max(good, key=lambda state: state.sequence)
    if any(state != best for state in good if state.sequence == best.sequence):
        raise DataCorrupt(f"{directory}: the two copies of term and vote contradict each other; nothing was changed")
    return best
