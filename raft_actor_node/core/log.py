"""The replicated log in memory.

Terms and payloads are two parallel sequences, because an object per entry would cost more than the entry. Indexes start
at 1. Index 0, of term 0, precedes the first entry and matches every log.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

ENTRY_BYTES = 16
"""Upper bound on what an entry adds to a message besides its payload: its term, and the length of the payload."""


def entries_bytes(payloads: Sequence[bytes]) -> int:
    """Return the size of entries with these payloads, in memory and in messages."""
    return sum(map(len, payloads)) + ENTRY_BYTES * len(payloads)


class Log:
    """Entries 1 to last_index. Terms never decrease along a log, so binary search works on them."""

    __slots__ = ("_payloads", "_terms")

    def __init__(self, terms: Iterable[int] = (), payloads: Iterable[bytes] = ()) -> None:
        self._terms = terms if isinstance(terms, array) else array("Q", terms)
        self._payloads = payloads if isinstance(payloads, list) else list(payloads)
        if len(self._terms) != len(self._payloads):
            raise ValueError(f"{len(self._terms)} terms, but {len(self._payloads)} payloads: give as many of each")

    @property
    def last_index(self) -> int:
        """Index of the last entry; 0 if the log is empty."""
        return len(self._payloads)

    @property
    def last_term(self) -> int:
        """Term of the last entry; 0 if the log is empty."""
        return self._terms[-1] if self._terms else 0

    def term_at(self, index: int) -> int:
        """Return the term of the entry at `index`. Raises IndexError past the end."""
        if index < 0:
            raise IndexError(index)
        return self._terms[index - 1] if index else 0

    def matches(self, index: int, term: int) -> bool:
        """Return whether the entry at `index` exists and has `term` (consistency check of section 5.3)."""
        return index <= self.last_index and self.term_at(index) == term

    def append(self, terms: Sequence[int], payloads: Sequence[bytes]) -> None:
        """Append entries."""
        self._terms.extend(terms)
        self._payloads.extend(payloads)

    def truncate(self, first_index: int) -> None:
        """Erase the entries from `first_index` on."""
        del self._terms[first_index - 1 :]
        del self._payloads[first_index - 1 :]

    def terms(self, lo: int, hi: int) -> array[int]:
        """Return the terms of the entries in [lo, hi)."""
        return self._terms[lo - 1 : hi - 1]

    def payloads(self, lo: int, hi: int) -> list[bytes]:
        """Return the payloads of the entries in [lo, hi)."""
        return self._payloads[lo - 1 : hi - 1]

    def batch_end(self, lo: int, max_entries: int, max_bytes: int) -> tuple[int, int]:
        """Return (hi, bytes) of the longest batch [lo, hi) within the limits; at least one entry if there is any.

        Bytes are the payloads plus ENTRY_BYTES per entry, because many small entries fill a message too.
        """
        hi = min(lo + max_entries, self.last_index + 1)
        size = entries_bytes(self._payloads[lo - 1 : hi - 1])
        while size > max_bytes and hi > lo + 1:
            hi -= 1
            size -= len(self._payloads[hi - 1]) + ENTRY_BYTES
        return hi, size

    def first_difference(self, first_index: int, terms: Sequence[int]) -> int:
        """Return the index of the first of these entries that is not in the log with the same term.

        Return first_index + len(terms) if the log has all of them. The log may then be longer, and nothing may be
        erased: an old AppendEntries implies nothing about later entries.
        """
        known = self._terms[first_index - 1 : first_index - 1 + len(terms)]
        if list(known) == list(terms[: len(known)]):
            return first_index + len(known)
        return first_index + next(i for i, (a, b) in enumerate(zip(known, terms, strict=False)) if a != b)

    def first_index_of(self, term: int) -> int:
        """Return the first index whose term is at least `term`; last_index + 1 if there is none."""
        return bisect_left(self._terms, term) + 1

    def last_index_of(self, term: int) -> int | None:
        """Return the last index of an entry of `term`; None if there is none."""
        end = bisect_right(self._terms, term)
        return end if end and self._terms[end - 1] == term else None

    def up_to_date(self, last_index: int, last_term: int) -> bool:
        """Return whether a log with this last entry is at least as up-to-date as this log (section 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)
