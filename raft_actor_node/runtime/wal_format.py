"""The format of a write-ahead log, and how it is read after a restart.

Pure: bytes in, bytes out, no files. The node (wal.py) and a simulated disk share it. Integers are unsigned and
little-endian, checksums are CRC-32, offsets count bytes from the start of the file.

Log file (one segment, which only grows; only a torn tail is ever cut off)

    segment header   magic 8s, version u32, segment number u64, nonce 8s, length of cluster id u16,
                     length of node id u16, length of members u16, cluster id, node id, members (UTF-8; the
                     sorted node ids of all members, separated by commas), crc u32 of all before.
                     Version 1 has no members; such a log is rewritten when it is opened
    unit             one per append, that is one per fsync
      header (60 B)  nonce 8s          marks a unit. Random and secret from clients, so that no payload can
                                       look like a unit when a damaged log is searched
                     offset u64        of this unit
                     first_index u64   log index of its first entry; it replaces everything the log held
                                       from there on (paper, section 5.3: conflicting suffixes are deleted)
                     commit_index u64  entries up to here were known to be committed
                     durable_offset    u64, the log was known to be on disk up to here when this was written
                     body length u64, count u32 of entries
                     chain u32         CRC of the fields above and the body, continuing the chain of the
                                       previous unit (for the first unit: the crc of the segment header)
                     crc u32           of the header up to here
      body           count terms u64, count payload lengths u32, the payloads in sequence

    room           zeros after the last unit, written in advance so that appends need not change the file size

Durable mark       magic 8s, nonce 8s, offset u64, chain u32, crc u32. The log is on disk up to offset,
                   where its chain is `chain`.

The chain excludes the stored checksums, because the CRC of data followed by its own CRC is a constant.

Recovery reads the units in order. It judges the first bad unit, or the end of the file:

    below the durable mark                     promised: DataCorrupt
    above, and a valid unit header follows     that was written after this unit was synced, so promised: DataCorrupt
    above, and only zeros follow               room: the end of the log
    above, and nothing valid follows           torn, never acknowledged: the end of the log

Damage to the last unit alone, above the mark, cannot be distinguished from a torn write.
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
"""Maximum number of entries in one unit of a rewritten log."""
_REWRITTEN_BYTES = 4 << 20
"""Payload bytes at which a unit of a rewritten log ends; the last entry may exceed it."""


class Segment(NamedTuple):
    """Header of a log file, with its size: the units begin after it."""

    number: int
    nonce: bytes
    cluster_id: str
    node_id: str
    members: tuple[str, ...]
    """Node ids in order; empty in a log of version 1."""
    header_bytes: int
    crc: int


class DurableMark(NamedTuple):
    """The log is known to be on disk up to `offset`, where its chain is `chain`."""

    offset: int
    chain: int


@dataclass
class ReplayedLog:
    """The valid part of a log, with entry i at position i-1, and where the next unit goes."""

    end: int
    chain: int
    durable_offset: int
    """The log is known to have been on disk up to here, from the durable mark or from a unit."""
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
    """Return the error for damage at an offset of a file; its one-line message names both."""
    return DataCorrupt(f"{name}: offset {offset}: {what}; nothing was changed")


def encode_segment_header(number: int, nonce: bytes, cluster_id: str, node_id: str, members: Iterable[str]) -> bytes:
    """Return the header of a new log file."""
    texts = [text.encode() for text in (cluster_id, node_id, ",".join(sorted(members)))]
    lengths = map(len, texts)
    header = _SEGMENT_STRUCTS[VERSION].pack(_SEGMENT_MAGIC, VERSION, number, nonce, *lengths) + b"".join(texts)
    return header + _CRC.pack(crc32(header))


def decode_segment_header(data: bytes, name: str) -> Segment:
    """Decode the header of the log file `name`.

    Raises DataCorrupt if the header is damaged. A log file is created atomically, so its header is never torn.
    """
    cut_short = corrupt(name, 0, f"the file header is cut short to {len(data)} bytes")
    if len(data) < _SEGMENT_BEGIN.size:
        raise cut_short
    magic, version = _SEGMENT_BEGIN.unpack_from(data)
    if magic != _SEGMENT_MAGIC:
        raise corrupt(name, 0, "this is no write-ahead log")
    layout = _SEGMENT_STRUCTS.get(version)
    if layout is None:
        raise corrupt(
            name, 8, f"format {version}; this program reads formats 1 to {VERSION}: use the version that wrote it"
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


def rewrite(segment: Segment, log: ReplayedLog, members: Iterable[str]) -> bytes:
    """Return a log file of the present version, with these members, for the content of an older log."""
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
    """Return header, body and new chain of the unit at `offset`. `chain` is that of the previous unit."""
    count = len(terms)
    lengths_and_terms = struct.pack(f"<{count}Q{count}I", *terms, *map(len, payloads))
    body = b"".join((lengths_and_terms, *payloads))
    fields = _UNIT_FIELDS.pack(nonce, offset, first_index, commit_index, durable_offset, len(body), count)
    chain = crc32(body, crc32(fields, chain))
    header = fields + _CRC.pack(chain)
    return header + _CRC.pack(crc32(header)), body, chain


def encode_mark(nonce: bytes, mark: DurableMark) -> bytes:
    """Encode the durable mark of the log with this nonce."""
    record = _MARK_FIELDS.pack(_MARK_MAGIC, nonce, mark.offset, mark.chain)
    return record + _CRC.pack(crc32(record))


def decode_mark(data: bytes, nonce: bytes) -> DurableMark | None:
    """Decode a durable mark. Return None if it is damaged or of another log."""
    if len(data) != _MARK.size:
        return None
    magic, of_log, offset, chain, crc = _MARK.unpack(data)
    if magic != _MARK_MAGIC or of_log != nonce or crc != crc32(data[: -_CRC.size]):
        return None
    return DurableMark(offset, chain)


def replay(data: bytes, segment: Segment, mark: DurableMark | None, name: str) -> ReplayedLog:
    """Read the valid part of the log file `name`; after its `end` there is room or a torn tail.

    Raises DataCorrupt, naming file and offset, for damage that a torn write cannot explain.
    """
    mark_offset = segment.header_bytes if mark is None else mark.offset
    log = ReplayedLog(segment.header_bytes, segment.crc, mark_offset)
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


def _unit_at(data: bytes, view: memoryview, log: ReplayedLog, nonce: bytes) -> _Unit | None:
    """Return the unit that continues the log; None if there is no valid unit."""
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
    """Return the fields of the unit header at this offset; None if there is no valid header."""
    header = data[offset : offset + _UNIT.size]
    if len(header) < _UNIT.size:
        return None
    fields: tuple[bytes, int, int, int, int, int, int, int, int] = _UNIT.unpack(header)
    if fields[0] != nonce or fields[1] != offset or fields[-1] != crc32(header[: -_CRC.size]):
        return None
    return fields


def _find_unit(data: bytes, offset: int, nonce: bytes) -> int | None:
    """Return the offset of the first valid unit header at or after `offset`; None if there is none.

    Its body does not matter: a unit is written only after the previous unit was synced.
    """
    while (offset := data.find(nonce, offset)) >= 0:
        if _header_at(data, offset, nonce) is not None:
            return offset
        offset += 1
    return None


def _take(data: bytes, unit: _Unit, log: ReplayedLog, name: str) -> None:
    """Append the entries of a unit to the log, all or none.

    The checksums of the unit are valid, so a contradiction is a bug of the writer. Reading on would make it worse.
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
