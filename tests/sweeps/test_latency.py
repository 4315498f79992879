"""Columns of operations, percentiles and windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.latency import COLUMNS, FAIL, KINDS, OK, UNKNOWN, Operations, Recorder, Snapshot, percentiles, pool

MS = 1_000_000
S = 1_000 * MS


def operations(*rows: dict[str, Any], measure_ns: tuple[int, int] = (0, 10 * S), **extra: Any) -> Operations:
    """Operations from rows that name only what matters; times in nanoseconds."""
    columns = {}
    for name, dtype in COLUMNS.items():
        default = {"intended_ns": "start_ns"}.get(name, "")
        values = [row.get(name, row.get(default, OK if name == "outcome" else 0)) for row in rows]
        columns[name] = np.array(values, dtype)
    return Operations(columns, measure_ns, **extra)


def test_recorder_keeps_every_row_while_it_grows() -> None:
    recorder = Recorder(capacity=4)
    for batch in ([1, 2, 3], [4, 5], list(range(6, 40))):
        recorder.extend(*([batch] * len(COLUMNS)))
    assert recorder.rows == 39
    for name, dtype in COLUMNS.items():
        column = recorder.columns()[name]
        assert column.dtype == dtype
        assert column.tolist() == list(range(1, 40))
    assert recorder.column("end_ns", 37).tolist() == [38, 39]


@pytest.mark.parametrize(
    ("count", "printed"),
    [
        (0, set()),
        (1, {"max"}),
        (19, {"max"}),
        (20, {"p50", "max"}),
        (99, {"p50", "max"}),
        (100, {"p50", "p90", "max"}),
        (999, {"p50", "p90", "max"}),
        (1000, {"p50", "p90", "p99", "max"}),
        (9999, {"p50", "p90", "p99", "max"}),
        (10000, {"p50", "p90", "p99", "p99.9", "max"}),
    ],
)
def test_a_percentile_with_fewer_than_ten_samples_above_it_is_not_printed(count: int, printed: set[str]) -> None:
    found = percentiles(np.arange(1, count + 1) * MS)
    assert {name for name, value in found.items() if value is not None} == printed


def test_percentiles_are_samples_of_nearest_rank() -> None:
    shuffled = np.random.default_rng(1).permutation(np.arange(1, 10_001)) * MS
    assert percentiles(shuffled) == {"p50": 5000.0, "p90": 9000.0, "p99": 9900.0, "p99.9": 9990.0, "max": 10_000.0}


def test_latency_counts_from_when_the_operation_was_due() -> None:
    late = operations({"intended_ns": 1 * S, "start_ns": 3 * S, "end_ns": 4 * S, "kind": KINDS["put"]})
    assert late.latency_ns("put").tolist() == [3 * S]
    assert late.latency_ns("get").tolist() == []


def test_warm_up_and_drain_are_excluded_by_when_operations_were_due() -> None:
    ops = operations(
        {"start_ns": 1 * S, "end_ns": 3 * S},
        {"start_ns": 2 * S, "end_ns": 2 * S + 1},
        {"start_ns": 4 * S - 1, "end_ns": 5 * S},
        {"start_ns": 4 * S, "end_ns": 4 * S + 1},
        measure_ns=(2 * S, 4 * S),
    )
    assert ops.measured.tolist() == [False, True, True, False]
    assert ops.throughput() == 1.0  # the first two ended inside: two in two seconds
    assert ops.throughput_series() == [1.0, 1.0]


def test_failed_and_unknown_operations_stay_in() -> None:
    ops = operations(
        {"end_ns": 1 * MS, "outcome": OK},
        {"end_ns": 10 * S, "outcome": UNKNOWN},
        {"end_ns": 2 * S, "outcome": FAIL},
    )
    assert sorted(ops.latency_ns()) == [1 * MS, 2 * S, 10 * S]
    assert [ops.count(outcome) for outcome in (OK, FAIL, UNKNOWN)] == [1, 1, 1]
    assert ops.success_ns().tolist() == [1 * MS]


def test_an_operation_is_under_fault_when_any_part_of_its_life_is() -> None:
    ops = operations(
        {"start_ns": 0, "end_ns": 1 * S - 1},
        {"start_ns": 0, "end_ns": 1 * S},
        {"start_ns": int(1.5 * S), "end_ns": int(1.6 * S)},
        {"start_ns": 2 * S - 1, "end_ns": 3 * S},
        {"start_ns": 2 * S, "end_ns": 3 * S},
        fault_ns=np.array([[1 * S, 2 * S]], np.int64),
    )
    assert ops.under_fault.tolist() == [False, True, True, True, False]
    assert len(ops.latency_ns(where=~ops.under_fault)) == 2


def test_dropped_operations_are_counted_within_the_measurement() -> None:
    ops = operations(measure_ns=(10, 20), dropped_ns=np.array([9, 10, 19, 20], np.int64))
    assert ops.dropped() == 2


def test_the_longest_gap_includes_both_ends_of_the_measurement() -> None:
    ops = operations({"end_ns": 2 * S}, {"end_ns": 3 * S}, {"end_ns": 9 * S, "outcome": UNKNOWN})
    assert ops.longest_gap_ns() == 7 * S
    assert operations().longest_gap_ns() == 10 * S


def test_repeats_are_pooled_and_not_averaged() -> None:
    fast = operations(*({"end_ns": 1 * MS} for _ in range(50)))
    slow = operations(*({"end_ns": 100 * MS} for _ in range(50)))
    assert percentiles(pool([fast, slow])) == {"p50": 1.0, "p90": 100.0, "p99": None, "p99.9": None, "max": 100.0}


def test_arrays_are_read_with_numpy_alone(tmp_path: Path) -> None:
    ops = operations(
        {"start_ns": 5, "end_ns": 9, "kind": 3, "key": 7, "written": 2**63},
        dropped_ns=np.array([1, 2], np.int64),
        fault_ns=np.array([[3, 4]], np.int64),
        composite_ids=np.array([2**41, 2**42], np.uint64),
        composite_end=np.array([2], np.int64),
    )
    ops.save(tmp_path / "latency.npz")
    with np.load(tmp_path / "latency.npz", allow_pickle=False) as file:
        assert set(file.files) == {
            *COLUMNS, "dropped_ns", "measure_ns", "fault_ns", "composite_ids", "composite_end", "generator_error_ns",
            "first_reader",
        }  # fmt: skip
        assert {name: file[name].dtype for name in COLUMNS} == {
            name: np.dtype(dtype) for name, dtype in COLUMNS.items()
        }
    again = Operations.load(tmp_path / "latency.npz")
    assert again.measure_ns == ops.measure_ns
    assert again["written"].tolist() == [2**63]
    assert again.dropped_ns.tolist() == [1, 2]
    assert again.fault_ns.tolist() == [[3, 4]]
    assert again.composite_ids.tolist() == [2**41, 2**42]
    assert again.composite_end.tolist() == [2]
    assert [file.name for file in tmp_path.iterdir()] == ["latency.npz"]


def test_a_file_from_before_there_were_several_generators_can_be_read(tmp_path: Path) -> None:
    ops = operations({"start_ns": 5, "end_ns": 9}, {"start_ns": 6, "end_ns": 9})
    ops.save(tmp_path / "latency.npz")
    with np.load(tmp_path / "latency.npz") as file:
        arrays = {name: file[name] for name in file.files if not name.startswith("generator")}
    np.savez(tmp_path / "latency.npz", **arrays)
    again = Operations.load(tmp_path / "latency.npz")
    assert again["generator"].tolist() == [0, 0]
    assert (again.generator_error_ns.tolist(), again.lost, again.error_ns) == ([0], 0, 0)


def test_generators_and_the_errors_of_their_clocks_are_kept(tmp_path: Path) -> None:
    ops = operations({"start_ns": 5, "end_ns": 9}, generator_error_ns=np.array([0, 70, -1], np.int64))
    ops = replace(ops, columns={**ops.columns, "generator": np.array([1], np.uint8)})
    ops.save(tmp_path / "latency.npz")
    again = Operations.load(tmp_path / "latency.npz")
    assert again["generator"].tolist() == [1]
    assert (again.generator_error_ns.tolist(), again.lost, again.error_ns) == ([0, 70, -1], 1, 70)


def test_snapshots_of_several_generators_add_up_and_their_latencies_are_pooled() -> None:
    one = Snapshot(ok=1, failed=2, dropped=3, per_second=4.0, recent_ms=np.full(99, 1.0, np.float32))
    other = Snapshot(ok=10, unknown=5, outstanding=6, per_second=0.5, recent_ms=np.full(2, 100.0, np.float32))
    both = Snapshot.together([one, other])
    assert both == Snapshot(ok=11, failed=2, unknown=5, dropped=3, outstanding=6, per_second=4.5)
    assert (both.p50_ms, both.p99_ms) == (1.0, 100.0)
    assert (Snapshot().p50_ms, Snapshot.together([]).p99_ms) == (None, None)
