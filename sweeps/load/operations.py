"""Operations as columns: one row per operation, one numpy array per property.

`Recorder` grows the columns while load runs. `Operations` holds them after the cell, and in `latency.npz`. All times
are nanoseconds on the monotonic clock of the driver's host. Times of a load generator on another host are corrected by
the offset of its clock. That offset has a bounded error (orchestration/ray_cluster/worker.py). Differences between
times of one generator are free of that error.

| array        | dtype  | meaning                                                                             |
|--------------|--------|-------------------------------------------------------------------------------------|
| intended_ns  | int64  | when the operation was due; in a closed loop the same as start_ns                   |
| start_ns     | int64  | when it was handed to the client                                                    |
| end_ns       | int64  | when its outcome was known, or when the client gave up                              |
| kind         | uint8  | 1 put, 2 get, 3 delete, 4 cas, 5 append                                             |
| outcome      | uint8  | 1 ok, 2 fail (no effect), 3 unknown (may have taken effect, now or later)           |
| attempts     | uint16 | number of requests sent for it; 65535: that many or more                            |
| key          | uint32 | number of the key                                                                   |
| client       | uint32 | number of the client, that is, of the session                                       |
| written      | uint64 | id of the value it wrote, 0 for none: the first 8 bytes of the value, big-endian    |
| observed     | uint64 | get, and cas that did not swap: the value seen, 0 for none; append: the new length  |
| expected     | uint64 | cas: the value it expected, 0 for none                                              |
| found        | uint8  | 1 if a get saw a value, a delete removed one, or a cas swapped                      |
| generator    | uint8  | number of the load generator; with several, rows are in order of start_ns           |
| dropped_ns   | int64  | due times of the operations that no client was free to start (open loop), ascending |
| dropped_kind | uint8  | kind of each dropped operation, as above; 0: unknown (file of an earlier version)   |
| measure_ns   | int64  | [begin, end) of the measurement                                                     |
| fault_ns     | int64  | [begin, end) of each window with a fault in force: disjoint, ascending, shape (n, 2) |
| first_reader | int64  | clients with this number or a higher one read every written key once, at the end;   |
|              |        | 2**32: there are no reads at the end                                                |
| composite_ids | uint64 | ids of the values that several writes made, concatenated                           |
| composite_end | int64  | where the ids of each such value end                                               |
| generator_error_ns | int64 | error bound of each generator's times, either way; -1: the generator was lost,   |
|              |        | and its operations with it                                                          |

A file without `generator` and `generator_error_ns` has one generator, on the driver's host. A file without
`first_reader` has no reads at the end.

The latency of an operation that succeeded is exact. All other operations have a lower bound. An operation that failed,
or whose outcome is unknown, counts with the time until the client gave up. A dropped operation is never served; it
counts with the time from when it was due to the end of the measurement. Percentiles include all operations.

A value seen or expected is represented by the id of the write that made it. If appends lengthened the value, several
writes made it. Such a composite is represented by a number below 2**40: 1 for the first composite, 2 for the second,
and so on (values.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raft_actor_node.files import replacing
from sweeps.load.latencies import Ints, Latencies, Mask, no_times

ATTEMPTS = "attempts"
"""The column that may overflow: a client counts retries for as long as its budget lasts."""
MOST_ATTEMPTS = 65_535
"""Maximum of the column `attempts`."""
COLUMNS: dict[str, type[np.generic]] = {
    "intended_ns": np.int64,
    "start_ns": np.int64,
    "end_ns": np.int64,
    "kind": np.uint8,
    "outcome": np.uint8,
    ATTEMPTS: np.uint16,
    "key": np.uint32,
    "client": np.uint32,
    "written": np.uint64,
    "observed": np.uint64,
    "expected": np.uint64,
    "found": np.uint8,
}
GENERATOR = "generator"
"""The column that is added when results are merged: a generator does not know its own number."""
KINDS = {"put": 1, "get": 2, "delete": 3, "cas": 4, "append": 5}
OK, FAIL, UNKNOWN = 1, 2, 3
NO_READER = 2**32


@dataclass(frozen=True)
class Operations:
    """All operations of a cell, including warm-up and reads at the end."""

    columns: Mapping[str, NDArray[Any]]
    measure_ns: tuple[int, int]
    dropped_ns: Ints = field(default_factory=no_times)
    dropped_kind: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    fault_ns: Ints = field(default_factory=lambda: np.empty((0, 2), np.int64))
    composite_ids: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    composite_end: Ints = field(default_factory=no_times)
    generator_error_ns: Ints = field(default_factory=lambda: np.zeros(1, np.int64))
    first_reader: int = NO_READER

    def __len__(self) -> int:
        return len(self.columns["kind"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    @property
    def lost(self) -> int:
        """Number of load generators whose operations were lost."""
        return int(np.count_nonzero(self.generator_error_ns < 0))

    @property
    def error_ns(self) -> int:
        """Error bound of any time, either way, in nanoseconds."""
        return int(self.generator_error_ns.max(initial=0))

    @property
    def measured(self) -> Mask:
        """Mask of the operations that were due in the measurement."""
        due = self.columns["intended_ns"]
        return (due >= self.measure_ns[0]) & (due < self.measure_ns[1])

    @property
    def under_fault(self) -> Mask:
        """Mask of the operations during which a fault was in force at any moment."""
        return self._touched(self.columns["intended_ns"], self.columns["end_ns"])

    def _touched(self, begin_ns: Ints, end_ns: Ints) -> Mask:
        touched = np.zeros(len(begin_ns), np.bool_)
        for begin, end in self.fault_ns:
            touched |= (begin_ns < end) & (end_ns >= begin)
        return touched

    def of_kind(self, kind: str) -> Mask:
        """Return the mask of the operations of one kind; `all` is every kind."""
        return _of_kind(self.columns["kind"], kind)

    def _dropped(self, kind: str) -> Mask:
        """Return the mask of the dropped operations that were due in the measurement."""
        begin, end = self.measure_ns
        return (self.dropped_ns >= begin) & (self.dropped_ns < end) & _of_kind(self.dropped_kind, kind)

    def latencies(self, kind: str = "all", *, under_fault: bool | None = None) -> Latencies:
        """Return the latencies, from when operations were due, of the operations due in the measurement.

        `under_fault` selects those that were, or were not, under a fault. Failed, unknown and dropped operations are
        included as lower bounds, so that an outage shows. A dropped operation counts with the time to the end of the
        measurement. It is under a fault if one was in force when it was due; later faults did not cause the drop.
        """
        chosen, dropped, end_ns = self.measured & self.of_kind(kind), self._dropped(kind), self.measure_ns[1]
        if under_fault is not None:
            chosen &= self.under_fault == under_fault
            dropped &= self._touched(self.dropped_ns, self.dropped_ns) == under_fault
        never_ns = end_ns - self.dropped_ns[dropped]
        return Latencies.pooled(
            (
                Latencies(
                    self.columns["end_ns"][chosen] - self.columns["intended_ns"][chosen],
                    self.columns["outcome"][chosen] != OK,
                ),
                Latencies(never_ns, np.ones(len(never_ns), np.bool_)),
            )
        )

    def count(self, outcome: int, kind: str = "all") -> int:
        """Count the measured operations with an outcome."""
        return int(np.count_nonzero(self.measured & self.of_kind(kind) & (self.columns["outcome"] == outcome)))

    def dropped(self, kind: str = "all") -> int:
        """Count the operations that were due in the measurement and could not be started."""
        return int(np.count_nonzero(self._dropped(kind)))

    def success_ns(self) -> Ints:
        """Return when operations of the load succeeded, in ascending order."""
        of_load = self.columns["client"] < self.first_reader
        ends: Ints = np.sort(self.columns["end_ns"][of_load & (self.columns["outcome"] == OK)])
        return ends

    def read_back(self) -> tuple[int, int]:
        """Return the number of keys that acknowledged writes changed, and how many of these were read at the end."""
        at_end = self.columns["client"] >= self.first_reader
        read = self.columns["key"][at_end & (self.columns["outcome"] == OK)]
        keys = written_keys(self.columns)
        return len(keys), int(np.isin(keys, read).sum())

    def throughput(self) -> float:
        """Return the operations per second that succeeded within the measurement."""
        begin, end = self.measure_ns
        within = np.diff(np.searchsorted(self.success_ns(), (begin, end)))[0]
        return float(within) * 1e9 / (end - begin) if end > begin else 0.0

    def throughput_series(self, step_s: float = 1.0) -> list[float]:
        """Return the operations per second that succeeded, for each whole step of the measurement."""
        begin, end = self.measure_ns
        step_ns = int(step_s * 1e9)
        edges = np.arange(begin, end + 1, step_ns)
        return [round(float(count) / step_s, 1) for count in np.diff(np.searchsorted(self.success_ns(), edges))]

    def longest_gap_ns(self) -> int:
        """Return the longest time within the measurement in which no operation succeeded."""
        begin, end = self.measure_ns
        ends = self.success_ns()
        inside = ends[(ends >= begin) & (ends < end)]
        return int(np.diff(np.concatenate(([begin], inside, [end]))).max())

    def save(self, path: Path) -> None:
        """Write an uncompressed .npz that `numpy.load` alone can read. An existing file is replaced atomically."""
        with replacing(path, "wb") as file:
            arrays: dict[str, Any] = {
                **self.columns,
                "dropped_ns": self.dropped_ns,
                "dropped_kind": self.dropped_kind,
                "measure_ns": np.array(self.measure_ns, np.int64),
                "fault_ns": self.fault_ns,
                "composite_ids": self.composite_ids,
                "composite_end": self.composite_end,
                "generator_error_ns": self.generator_error_ns,
                "first_reader": np.int64(self.first_reader),
            }
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Operations:
        """Read a file that `save` wrote."""
        with np.load(path) as file:
            begin, end = file["measure_ns"]
            columns = {name: file[name] for name in COLUMNS}
            names = ["dropped_ns", "dropped_kind", "fault_ns", "composite_ids", "composite_end", "generator_error_ns"]
            more: dict[str, Any] = {name: file[name] for name in names if name in file.files}
            more.setdefault("dropped_kind", np.zeros(len(more["dropped_ns"]), np.uint8))
            if "first_reader" in file.files:
                more["first_reader"] = int(file["first_reader"])
            columns[GENERATOR] = (
                file[GENERATOR] if GENERATOR in file.files else np.zeros(len(columns["kind"]), np.uint8)
            )
            return cls(columns, (int(begin), int(end)), **more)


def written_keys(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.uint32]:
    """Return the keys that an acknowledged write changed, in ascending order."""
    kind, swapped = columns["kind"], columns["found"] == 1
    changed = (kind != KINDS["get"]) & ((kind != KINDS["cas"]) | swapped) & (columns["outcome"] == OK)
    keys: NDArray[np.uint32] = np.unique(columns["key"][changed])
    return keys


def pool(cells: Iterable[Operations], kind: str = "all") -> Latencies:
    """Pool the latencies of several repeats; percentiles must not be averaged."""
    return Latencies.pooled(cell.latencies(kind) for cell in cells)


def _of_kind(kinds: NDArray[Any], kind: str) -> Mask:
    return np.ones(len(kinds), np.bool_) if kind == "all" else kinds == KINDS[kind]
