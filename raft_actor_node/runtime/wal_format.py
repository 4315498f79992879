"""The bytes of a write-ahead log, and what they mean when they are read again.

Pure: bytes in, bytes out, no files. The node (wal.py) and a simulated disk share it. Integers are
unsigned and little-endian, checksums are CRC-32, offsets count bytes from the start of the file.

Log file (one segment, it only grows; a torn tail is the only thing ever cut off)

    segment header   magic 8s, version u32, segment number u64, nonce 8s, length of cluster id u16,
                     length of node id u16, length of members u16, cluster id, node id, members (UTF-8; the
                     node ids of all members in order, with commas between), crc u32 of all before.
                     In version 1 there are no members; such a log is rewritten when it is opened
    unit             one per append, that is one per fsync
      header (60 B)  nonce 8s          marks a unit. Random and kept from clients, so that no payload can
                                       pass for a unit when a damaged log is searched
                     offset u64        of this unit
                     first_index u64   log index of its first entry; whatever the log held from there on
                                       is replaced (paper, section 5.3: conflicting suffixes are deleted)
                     commit_index u64  entries up to here were known to be committed
                     durable_offset    u64, the log was known to be on disk up to here when this was written
                     body length u64, count u32 of entries
                     chain u32         CRC of the fields above and the body, continuing the chain of the
                                       unit before (for the first unit: the crc of the segment header)
                     crc u32           of the header up to here
      body           count terms u64, count payload lengths u32, the payloads one after the other

    room           zeros behind the last unit, written ahead so that appends need not change the file's size

Durable mark       magic 8s, nonce 8s, offset u64, chain u32, crc u32. The log is on disk up to offset,
                   where its chain is `chain`.

The chain leaves the stored checksums out: a CRC that runs over data followed by its own CRC is a constant.

Reading again. Units are taken in order. The first bad one, or the end of the file, is judged:

    below the durable mark                       promised: DataCorrupt
    above, and a unit header is valid behind it  written after this unit was synced, so promised: DataCorrupt
    above, and only zeros behind                 room: the end of the log
    above, and nothing valid behind              torn, never acknowledged: ends the log

Damage that hits just the last unit, above the mark, looks exactly like a tear; nobody can tell them apart.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple
from zlib import crc32

from raft_actor_node.errors import DataCorrupt

VERSION = 2
NONCE_BYTES = 8

_SEGMENT_STRUCTS = {1: struct.Struct("<8sIQ8sHH"), VERSION: struct.Struct("<8sIQ8sHHH")}
_SEGMENT_BEGIN = struct.Struct("<8sI")
_SEGMENT_MAGIC = b"RAFTWAL\n"
_UNIT_FIELDS = struct.Struct("<8sQQQQQI")
_UNIT = struct.Struct("<8sQQQQQIII")
_ENTRY_BYTES = 8 + 4
_MARK_FIELDS = struct.Struct("<8s8sQI")
_MARK = struct.Struct("<8s8sQII")
_MARK_MAGIC = b"RAFTMARK"
_CRC = struct.Struct("<I")
_REWRITTEN_ENTRIES = 4096
"""Entries in one unit of a log that is rewritten,"""
_REWRITTEN_BYTES = 4 << 20
"""or bytes of payload, and one entry more."""


class Segment(NamedTuple):
    """What the header of a log file says, and where the units begin."""

    number: int
    nonce: bytes
    cluster_id: str
    node_id: str
    members: tuple[str, ...]
    """Node ids in order; empty in a log of version 1."""
    header_bytes: int
    crc: int


class DurableMark(NamedTuple):
    """Up to `offset`, where the chain is `chain`, the log is known to be on disk."""

    offset: int
    chain: int


@dataclass
class Replay:
    """The log as far as it is good: entry i at position i-1, and where the next unit goes."""

    end: int
    chain: int
    durable_offset: int
    """Up to here it is known to have been on disk: by the durable mark, or by the last unit."""
    terms: array[int] = field(default_factory=lambda: array("Q"))
    payloads: list[bytes] = field(default_factory=list)
    commit_index: int = 0


class _Unit(NamedTuple):
    first_index: int
    commit_index: int
    durable_offset: int
    body: memoryview
    body_offset: int
    entries: int
    chain: int


def corrupt(name: str, offset: int, what: str) -> DataCorrupt:
    """The error for damage at an offset of a file: one line that names both."""
    return DataCorrupt(f"{name}: offset {offset}: {what}; nothing was changed")


def encode_segment_header(number: int, nonce: bytes, cluster_id: str, node_id: str, members: Iterable[str]) -> bytes:
    """The header of a new log file."""
    texts = [text.encode() for text in (cluster_id, node_id, ",".join(sorted(members)))]
    lengths = map(len, texts)
    header = _SEGMENT_STRUCTS[VERSION].pack(_SEGMENT_MAGIC, VERSION, number, nonce, *lengths) + b"".join(texts)
    return header + _CRC.pack(crc32(header))


def decode_segment_header(data: bytes, name: str) -> Segment:
    """The header of the log file `name`. Raises DataCorrupt: headers appear whole, so none is ever torn."""
    cut_short = corrupt(name, 0, f"the file header is cut short to {len(data)} bytes")
    if len(data) < _SEGMENT_BEGIN.size:
        raise cut_short
    magic, version = _SEGMENT_BEGIN.unpack_from(data)
    if magic != _SEGMENT_MAGIC:
        raise corrupt(name, 0, "this is no write-ahead log")
    layout = _SEGMENT_STRUCTS.get(version)
    if layout is None:
        raise corrupt(
            name, 8, f"format {version}; this program reads formats 1 to {VERSION}: start the one that wrote it"
        )
    if len(data) < layout.size:
        raise cut_short
    _, _, number, nonce, *lengths = layout.unpack_from(data)
    *starts, end = accumulate(lengths, initial=layout.size)
    if len(data) < end + _CRC.size:
        raise cut_short
    (crc,) = _CRC.unpack_from(data, end)
    if crc != crc32(data[:end]):
        raise corrupt(name, 0, "the file header fails its checksum")
    cluster_id, node_id, *rest = (data[start:stop].decode() for start, stop in pairwise((*starts, end)))
    members = tuple(rest[0].split(",")) if rest else ()
    return Segment(number, nonce, cluster_id, node_id, members, end + _CRC.size, crc)


def rewrite(segment: Segment, log: Replay, members: Iterable[str]) -> bytes:
    """The log file, of the present version and with these members, for what a log of an older version holds."""
    header = encode_segment_header(segment.number, segment.nonce, segment.cluster_id, segment.node_id, members)
    (chain,) = _CRC.unpack_from(header, len(header) - _CRC.size)
    parts, offset = [header], len(header)
    start = end = 0
    while end < len(log.terms):
        start, size = end, 0
        while end < len(log.terms) and end - start < _REWRITTEN_ENTRIES and (not size or size < _REWRITTEN_BYTES):
            size += len(log.payloads[end])
            end += 1
        unit_header, body, chain = encode_unit(
            segment.nonce,
            offset,
            chain,
            first_index=start + 1,
            terms=log.terms[start:end],
            payloads=log.payloads[start:end],
            commit_index=min(log.commit_index, end),
            durable_offset=offset,
        )
        parts += unit_header, body
        offset += len(unit_header) + len(body)
    return b"".join(parts)


def encode_unit(
    nonce: bytes,
    offset: int,
    chain: int,
    *,
    first_index: int,
    terms: Sequence[int],
    payloads: Sequence[bytes],
    commit_index: int,
    durable_offset: int,
) -> tuple[bytes, bytes, int]:
    """Header, body and new chain of the unit that goes to `offset`, behind a unit that ended with `chain`."""
    count = len(terms)
    lengths_and_terms = struct.pack(f"<{count}Q{count}I", *terms, *map(len, payloads))
    body = b"".join((lengths_and_terms, *payloads))
    fields = _UNIT_FIELDS.pack(nonce, offset, first_index, commit_index, durable_offset, len(body), count)
    chain = crc32(body, crc32(fields, chain))
    header = fields + _CRC.pack(chain)
    return header + _CRC.pack(crc32(header)), body, chain


def encode_mark(nonce: bytes, mark: DurableMark) -> bytes:
    """The durable mark of the log with this nonce."""
    record = _MARK_FIELDS.pack(_MARK_MAGIC, nonce, mark.offset, mark.chain)
    return record + _CRC.pack(crc32(record))


def decode_mark(data: bytes, nonce: bytes) -> DurableMark | None:
    """The durable mark, or None when it is damaged or of another log."""
    if len(data) != _MARK.size:
        return None
    magic, of_log, offset, chain, crc = _MARK.unpack(data)
    if magic != _MARK_MAGIC or of_log != nonce or crc != crc32(data[: -_CRC.size]):
        return None
    return DurableMark(offset, chain)


def replay(data: bytes, segment: Segment, mark: DurableMark | None, name: str) -> Replay:
    """Read the log file `name` as far as it is good; behind `end` is room, or a torn tail.

    Raises DataCorrupt, naming file and offset, for any damage that a torn write does not explain.
    """
    mark_offset = segment.header_bytes if mark is None else mark.offset
    log = Replay(segment.header_bytes, segment.crc, mark_offset)
    view = memoryview(data)
    below_mark = mark is not None
    while True:
        if below_mark and log.end >= mark_offset:
            if (log.end, log.chain) != mark:
                raise corrupt(name, log.end, f"the log does not fit its durable mark at offset {mark_offset}")
            below_mark = False
        if log.end == len(data):
            break
        unit = _unit_at(data, view, log, segment.nonce)
        if unit is None:
            break
        _take(data, unit, log, name)
    if below_mark:
        raise corrupt(name, log.end, f"a unit is damaged or missing, and the log was on disk up to {mark_offset}")
    behind = _find_unit(data, log.end + 1, segment.nonce)
    if behind is not None:
        raise corrupt(name, log.end, f"a unit is damaged, and a later one is valid at offset {behind}")
    return log


def _unit_at(data: bytes, view: memoryview, log: Replay, nonce: bytes) -> _Unit | None:
    """The unit that continues the log, or None when its bytes are not one."""
    header = _header_at(data, log.end, nonce)
    if header is None:
        return None
    _, _, first_index, commit_index, durable_offset, body_bytes, count, chain, _ = header
    start = log.end + _UNIT.size
    if body_bytes > len(data) - start:
        return None
    body = view[start : start + body_bytes]
    if chain != crc32(body, crc32(view[log.end : log.end + _UNIT_FIELDS.size], log.chain)):
        return None
    return _Unit(first_index, commit_index, durable_offset, body, start, count, chain)


def _header_at(data: bytes, offset: int, nonce: bytes) -> tuple[bytes, int, int, int, int, int, int, int, int] | None:
    """The fields of a valid unit header at this offset, if there is one."""
    header = data[offset : offset + _UNIT.size]
    if len(header) < _UNIT.size:
        return None
    fields: tuple[bytes, int, int, int, int, int, int, int, int] = _UNIT.unpack(header)
    if fields[0] != nonce or fields[1] != offset or fields[-1] != crc32(header[: -_CRC.size]):
        return None
    return fields


def _find_unit(data: bytes, offset: int, nonce: bytes) -> int | None:
    """Where the first valid unit header at or behind `offset` is. Its body does not matter: a unit is
    begun only after the one before it was synced."""
    while (offset := data.find(nonce, offset)) >= 0:
        if _header_at(data, offset, nonce) is not None:
            return offset
        offset += 1
    return None


def _take(data: bytes, unit: _Unit, log: Replay, name: str) -> None:
    """Append the entries of a unit to the log, all or none.

    Its checksums hold, so a contradiction is a fault of the writer, and reading on would make it worse.
    """
    prefix = unit.first_index - 1
    payload_bytes = len(unit.body) - _ENTRY_BYTES * unit.entries
    if (
        not log.commit_index <= prefix <= len(log.terms)
        or not log.commit_index <= unit.commit_index <= prefix + unit.entries
        or unit.durable_offset > log.end
        or payload_bytes < 0
    ):
        raise corrupt(name, log.end, "a unit contradicts the log before it")
    numbers = struct.unpack_from(f"<{unit.entries}Q{unit.entries}I", unit.body)
    lengths = numbers[unit.entries :]
    if sum(lengths) != payload_bytes:
        raise corrupt(name, log.end, "a unit contradicts itself")
    if prefix < len(log.terms):
        del log.terms[prefix:]
        del log.payloads[prefix:]
    log.terms.extend(numbers[: unit.entries])
    bounds = accumulate(lengths, initial=unit.body_offset + _ENTRY_BYTES * unit.entries)
    log.payloads.extend([data[start:end] for start, end in pairwise(bounds)])
    log.commit_index = unit.commit_index
    log.durable_offset = max(log.durable_offset, unit.durable_offset)
    log.chain = unit.chain
    log.end = unit.body_offset + len(unit.body)
