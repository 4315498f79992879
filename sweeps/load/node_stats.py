"""What nodes and load generators measure about themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweeps.load.latencies import Ints
from sweeps.spec.metrics import MIN_ABOVE


@dataclass(frozen=True)
class NodeStats:
    """What a node or a load generator measured about itself during the measurement."""

    cpu_share: float | None = None
    """CPU time per elapsed time; 1 is one core."""
    resident_bytes: int | None = None
    fsync_us: Sequence[int] = ()
    loop_lag_us: Sequence[int] = ()
    round_trip_us: Sequence[int] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the figures for result.json: medians, 99th percentiles and maxima, in microseconds."""
        return {
            "cpu_share": None if self.cpu_share is None else round(self.cpu_share, 3),
            "resident_bytes": self.resident_bytes,
            "fsync_p50_us": percentile(self.fsync_us, 0.5),
            "fsync_p99_us": percentile(self.fsync_us, 0.99),
            "loop_lag_p99_us": percentile(self.loop_lag_us, 0.99),
            "loop_lag_max_us": percentile(self.loop_lag_us, 1.0),
            "round_trip_p50_us": percentile(self.round_trip_us, 0.5),
        }


def percentile(samples: Sequence[int] | Ints, q: float) -> int | None:
    """Return a percentile by nearest rank; None if fewer than 10 samples are above it, except for the maximum."""
    count = len(samples)
    if not count or (q < 1 and count * (1 - q) < MIN_ABOVE):
        return None
    return int(np.quantile(np.asarray(samples), q, method="inverted_cdf"))
