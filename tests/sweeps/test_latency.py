"""Columns of operations, percentiles and windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.latency import COLUMNS, FAIL, KINDS, OK, UNKNOWN, Operations, Recorder, percentiles, pool

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
