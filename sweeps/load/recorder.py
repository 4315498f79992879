"""The records of a running load generator."""

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
    """Columns that grow by doubling; rows are added in batches.

    Attempts beyond the range of their column are stored as its maximum.
    """

    def __init__(self, capacity: int = 1 << 16) -> None:
        self._columns = {name: np.empty(capacity, dtype) for name, dtype in COLUMNS.items()}
        self.rows = 0

    def extend(self, *columns: Sequence[int] | int) -> None:
        """Append a batch: one sequence per column, in the order of COLUMNS, all of the same length.

        Any column but the first may be a single number, which is repeated.
        """
        assert not isinstance(columns[0], int)
        begin, end = self.rows, self.rows + len(columns[0])
        if end > len(self._columns["kind"]):
            self._grow(end)
        for name, values in zip(COLUMNS, columns, strict=True):
            # Only counts may be capped: the other columns are bounded elsewhere, and a capped id would be another id.
            self._columns[name][begin:end] = np.minimum(values, MOST_ATTEMPTS) if name == ATTEMPTS else values
        self.rows = end

    def _grow(self, rows: int) -> None:
        capacity = max(rows, 2 * len(self._columns["kind"]))
        for name, column in self._columns.items():
            self._columns[name] = np.resize(column, capacity)

    def column(self, name: str, begin: int = 0) -> NDArray[Any]:
        """Return a view of the rows [begin, rows) of a column. It is valid until the next `extend`."""
        return self._columns[name][begin : self.rows]

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return a copy of every column."""
        return {name: column[: self.rows].copy() for name, column in self._columns.items()}


@dataclass(frozen=True)
class LoadSnapshot:
    """The load at one moment, for display. Rates and percentiles cover the time since the last snapshot."""

    ok: int = 0
    failed: int = 0
    unknown: int = 0
    dropped: int = 0
    outstanding: int = 0
    per_second: float = 0.0
    recent: Latencies = field(default_factory=Latencies, compare=False, repr=False)
    """Latencies of operations decided since the last snapshot; for dropped operations, the time since they were due."""

    @classmethod
    def together(cls, parts: Sequence[LoadSnapshot]) -> LoadSnapshot:
        """Combine snapshots of several generators: add counts and rates, pool latencies."""
        names = ("ok", "failed", "unknown", "dropped", "outstanding", "per_second")
        sums: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in names}
        return cls(**sums, recent=Latencies.pooled(part.recent for part in parts))

    def recent_ms(self, percentile: str) -> tuple[float | None, bool]:
        """Return a recent percentile in milliseconds, and whether it is a lower bound.

        Any number of samples suffices. Without samples the percentile is None.
        """
        if not len(self.recent):
            return None, False
        [(value, at_least)] = self.recent.at_ranks([self.recent.rank(PERCENTILES[percentile])])
        return to_ms(value), at_least
