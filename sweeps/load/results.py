"""Results of several load generators, and their merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestration.face import Host, HostClock
from sweeps.load.generator import LoadResult
from sweeps.load.latencies import Ints
from sweeps.load.node_stats import NodeStats
from sweeps.load.operations import COLUMNS, GENERATOR, KINDS
from sweeps.load.values import CLIENT_SHIFT

_TIMES = ("intended_ns", "start_ns", "end_ns")


@dataclass(frozen=True)
class Merged:
    """The rows of several generators, on the driver's clock. The fields are those of LoadResult."""

    columns: dict[str, NDArray[Any]]
    composite_ids: NDArray[np.uint64]
    composite_end: Ints
    dropped_ns: Ints
    dropped_kind: NDArray[np.uint8]


def merged(parts: Mapping[int, tuple[LoadResult, int]]) -> Merged:
    """Merge what the generators recorded.

    `parts` maps the number of a generator to its result and its clock offset: ahead of the driver's, in nanoseconds.

    Rows of several generators are sorted by start_ns. Whole columns are shifted, so latencies remain differences on
    one clock. Rows refer to composites by position; the positions are renumbered for the common table.
    """
    columns: dict[str, list[NDArray[Any]]] = {name: [np.empty(0, dtype)] for name, dtype in COLUMNS.items()}
    columns[GENERATOR] = [np.empty(0, np.uint8)]
    ids, ends = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    dropped, dropped_kind = [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
    for number, (result, offset_ns) in parts.items():
        before = sum(map(len, ends))
        appended = result.columns["kind"] == KINDS["append"]  # an append observes a length, not a value
        for name, column in result.columns.items():
            if name in _TIMES and offset_ns:
                column = column - offset_ns  # noqa: PLW2901
            elif name in ("observed", "expected") and before:
                composite = (column > 0) & (column < 1 << CLIENT_SHIFT) & ~(appended & (name == "observed"))
                column = np.where(composite, column + np.uint64(before), column)  # noqa: PLW2901
            columns[name].append(column)
        columns[GENERATOR].append(np.full(len(appended), number, np.uint8))
        ends.append(result.composite_end + sum(map(len, ids)))
        ids.append(result.composite_ids)
        dropped.append(result.dropped_ns - offset_ns)
        dropped_kind.append(result.dropped_kind)
    whole = {name: _joined(pieces) for name, pieces in columns.items()}
    if len(parts) > 1:
        order = np.argsort(whole["start_ns"], kind="stable")
        whole = {name: column[order] for name, column in whole.items()}
    by_time = np.argsort(_joined(dropped), kind="stable")
    return Merged(whole, _joined(ids), _joined(ends), _joined(dropped)[by_time], _joined(dropped_kind)[by_time])


def _joined(pieces: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate the pieces, of which the first is empty. If only one other piece exists, return it uncopied."""
    return pieces[-1] if len(pieces) <= 2 else np.concatenate(pieces)


@dataclass(frozen=True)
class Generator:
    """One load generator after the load."""

    host: Host
    clients: int
    clock: HostClock
    """Clock of its host during the load, relative to the driver's."""
    result: LoadResult | None
    """What the generator recorded, on the clock of its host; None if the generator was lost."""
    lost: str | None = None
    """Why the result is missing, in one line."""

    def figures(self, window_ns: tuple[int, int]) -> NodeStats:
        """Return what the generator measured about itself within a window on the driver's clock."""
        if self.result is None:
            return NodeStats()
        times = self.result.sample_ns - self.clock.offset_ns
        inside = (times >= window_ns[0]) & (times < window_ns[1])
        cpu, times = self.result.cpu_ns[inside], times[inside]
        share = float(cpu[-1] - cpu[0]) / float(times[-1] - times[0]) if len(times) > 1 else None
        return NodeStats(cpu_share=share, loop_lag_us=(self.result.loop_lag_ns[inside] // 1000).tolist())

    def as_json(self, window_ns: tuple[int, int]) -> dict[str, Any]:
        """Return its entry in result.json: host, clients, clock relative to the driver's, and figures."""
        figures = self.figures(window_ns).as_json()
        return {
            "host": self.host.address,
            "hostname": self.host.name,
            "clients": self.clients,
            "offset_ns": self.clock.offset_ns,
            "error_ns": self.clock.error_ns,
            "lost": self.lost,
            **{name: figures[name] for name in ("cpu_share", "loop_lag_p99_us", "loop_lag_max_us")},
        }


@dataclass(frozen=True)
class GroupResult:
    """What all generators recorded."""

    generators: tuple[Generator, ...]

    def merge(self) -> Merged:
        """Merge the rows of the generators that were not lost."""
        return merged(
            {
                number: (each.result, each.clock.offset_ns)
                for number, each in enumerate(self.generators)
                if each.result is not None
            }
        )

    @property
    def error_ns(self) -> Ints:
        """Error bound of each generator's times, in nanoseconds; -1 if the generator was lost."""
        return np.array([-1 if each.lost else each.clock.error_ns for each in self.generators], np.int64)
