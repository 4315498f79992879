"""What a load generator records while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.load.latencies import Latencies, to_ms
from sweeps.load.operations import ATTEMPTS, COLUMNS, MOST_ATTEMPTS
from sweeps.spec.metrics import PERCENTILES


class Recorder:
    """Columns that grow by doubling; rows come in batches. Attempts beyond the range of their column are stored as its
    maximum."""

    def __init__(self, capacity: int = 1 << 16) -> None:
        self._columns = {name: np.empty(capacity, dtype) for name, dtype in COLUMNS.items()}
        self.rows = 0

    def extend(self, *columns: Sequence[int] | int) -> None:
        """Append a batch: one sequence per column, in the order of COLUMNS, all of one length; after the first
        a single number may stand for many of it."""
        assert not isinstance(columns[0], int)
        begin, end = self.rows, self.rows + len(columns[0])
        if end > len(self._columns["kind"]):
            self._grow(end)
        for name, values in zip(COLUMNS, columns, strict=True):
            # Of counts only: the other columns have bounds elsewhere, and a changed identity would be another's.
            self._columns[name][begin:end] = np.minimum(values, MOST_ATTEMPTS) if name == ATTEMPTS else values
        self.rows = end

    def _grow(self, rows: int) -> None:
        capacity = max(rows, 2 * len(self._columns["kind"]))
        for name, column in self._columns.items():
            self._columns[name] = np.resize(column, capacity)

    def column(self, name: str, begin: int = 0) -> NDArray[Any]:
        """A view of the rows [begin, rows) of one column; it is valid until the next extend."""
        return self._columns[name][begin : self.rows]

    def columns(self) -> dict[str, NDArray[Any]]:
        """A copy of every column."""
        return {name: column[: self.rows].copy() for name, column in self._columns.items()}


@dataclass(frozen=True)
class Snapshot:
    """The load at one moment, for a person who watches; rates and percentiles are since the last snapshot."""

    ok: int = 0
    failed: int = 0
    unknown: int = 0
    dropped: int = 0
    outstanding: int = 0
    per_second: float = 0.0
    recent: Latencies = field(default_factory=Latencies, compare=False, repr=False)
    """Of what was decided or dropped since the last snapshot; of what was dropped, the time since it was due."""

    @classmethod
    def together(cls, parts: Sequence[Snapshot]) -> Snapshot:
        """Of several generators: counts and rates add up, latencies are pooled."""
        names = ("ok", "failed", "unknown", "dropped", "outstanding", "per_second")
        sums: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in names}
        return cls(**sums, recent=Latencies.pooled(part.recent for part in parts))

    def recent_ms(self, percentile: str) -> tuple[float | None, bool]:
        """A recent percentile in milliseconds, of however few, and whether it is a lower bound; None: of nothing."""
        if not len(self.recent):
            return None, False
        [(value, at_least)] = self.recent.at_ranks([self.recent.rank(PERCENTILES[percentile])])
        return to_ms(value), at_least
