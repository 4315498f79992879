"""Unique values: their bytes identify the writes that made them.

A put writes the 8 bytes of its id, then padding. An append adds its id alone. So the bytes of any value yield the ids
of the writes that made it, in order. A row of `latency.npz` has room for one number per value:

    0               no value: the key does not exist
    2**40 and more  the id of the only write that made it; from 2**63 on, bytes that no client wrote
    1 to 2**40 - 1  one plus the position of its ids in the table of composites

If a value lacks its padding, BARE (2**62) is added to its first id. An append to a missing key leaves such a value,
but so does a put whose value was truncated. chaos/history.py looks up which kind of write has the id.

Values shorter than 8 bytes hold only the end of their ids, and repeat. All such values are in the table of composites,
because their own numbers could be mistaken for rows of the table.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from chaos.history import BARE

ID_BYTES = 8
CLIENT_SHIFT = 40
"""Number of low bits of an id that hold the number of the write. The bits above hold the client's number plus one."""
FOREIGN = 1 << 63
"""Flag of a substitute id, for bytes that no client can have written."""


class Values:
    """Makes values of one length, and decodes bytes into the ids in them."""

    def __init__(self, value_bytes: int) -> None:
        self._length = value_bytes
        self._id_bytes = min(ID_BYTES, value_bytes)
        self._mask = (1 << 8 * self._id_bytes) - 1
        self._unique = self._id_bytes == ID_BYTES
        self._least = 1 << CLIENT_SHIFT if self._unique else 1 << 64
        self._padding = b"." * (value_bytes - self._id_bytes)
        self._rows: dict[tuple[bool, bytes], int] = {}
        self._ids = array("Q")
        self._ends = array("q")

    def make(self, written: int) -> bytes:
        """Return the value of the put with this id."""
        return (written & self._mask).to_bytes(self._id_bytes, "big") + self._padding

    def piece(self, written: int) -> bytes:
        """Return the bytes of the append with this id."""
        return (written & self._mask).to_bytes(self._id_bytes, "big")

    def numbers(self, values: Iterable[bytes | None]) -> list[int]:
        """Return the number that represents each value; see the module."""
        # A single expression, because every operation of a run passes through here.
        length, padding, least, of = self._length, self._padding, self._least, int.from_bytes
        return [
            0
            if value is None
            else written
            if len(value) == length and value.endswith(padding) and (written := of(value[:ID_BYTES])) >= least
            else self._rare(value)
            for value in values
        ]

    def composites(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the ids of all composites, concatenated, and the end of each composite."""
        return np.array(self._ids, np.uint64), np.array(self._ends, np.int64)

    def _rare(self, value: bytes) -> int:
        head, tail = value[: self._id_bytes], value[self._id_bytes :]
        bare = not tail.startswith(self._padding)
        key = head + tail.removeprefix(self._padding)
        if (row := self._rows.get((bare, key))) is not None:
            return row
        ids = self._pieces(key)
        if bare and ids[0] < BARE:
            ids[0] += BARE
        if len(ids) == 1 and self._unique:
            return ids[0]
        self._ids.extend(ids)
        self._ends.append(len(self._ids))
        self._rows[bare, key] = row = len(self._ends)
        return row

    def _pieces(self, key: bytes) -> list[int]:
        size = self._id_bytes
        if not size:
            return [0]
        if not key or len(key) % size:
            return [FOREIGN | zlib.crc32(key)]
        if not self._unique:
            return [int.from_bytes(key[at : at + size], "big") for at in range(0, len(key), size)]
        return [each if each >> CLIENT_SHIFT else each | FOREIGN for each in struct.unpack(f">{len(key) // 8}Q", key)]
