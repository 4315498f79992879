"""Columns of operations, percentiles and windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.analysis.latency import percentiles
from sweeps.load.latencies import Latencies
from sweeps.load.operations import COLUMNS, FAIL, KINDS, MOST_ATTEMPTS, OK, UNKNOWN, Operations, pool
from sweeps.load.recorder import LoadSnapshot, Recorder

MS = 1_000_000
S = 1_000 * MS


def operations(
    *rows: dict[str, Any],
    measure_ns: tuple[int, int] = (0, 10 * S),
    dropped: dict[int, str] | None = None,
    **extra: Any,
) -> Operations:
    """Operations from rows that name only the columns that matter; times are in nanoseconds.

    `dropped` maps the due time of each dropped operation to its kind.
    """
    if dropped is not None:
        extra["dropped_ns"] = np.array([*dropped], np.int64)
        extra["dropped_kind"] = np.array([KINDS[kind] for kind in dropped.values()], np.uint8)
    columns = {}
    for name, dtype in COLUMNS.items():
        default = {"intended_ns": "start_ns"}.get(name, "")
        values = [row.get(name, row.get(default, OK if name == "outcome" else 0)) for row in rows]
        columns[name] = np.array(values, dtype)
    return Operations(columns, measure_ns, **extra)


def known(ns: Any) -> Latencies:
    """Latencies of operations that succeeded."""
    return Latencies(ns, np.zeros(len(ns), np.bool_))


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


def test_attempts_beyond_their_column_are_stored_as_its_maximum() -> None:
    """An operation that is retried for hours must not cost the batch in which it ends."""
    recorder = Recorder()
    recorder.extend(*([1, 65_535, 70_000] if name == "attempts" else [1, 2, 3] for name in COLUMNS))
    assert recorder.column("attempts").tolist() == [1, 65_535, 65_535]
    assert recorder.column("key").tolist() == [1, 2, 3]
    assert COLUMNS["attempts"](MOST_ATTEMPTS) == np.iinfo(COLUMNS["attempts"]).max


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
    found = percentiles(known(np.arange(1, count + 1) * MS))
    assert found.pop("lower_bounds") == []
    assert {name for name, value in found.items() if value is not None} == printed


def test_percentiles_are_samples_of_nearest_rank() -> None:
    shuffled = np.random.default_rng(1).permutation(np.arange(1, 10_001)) * MS
    found = {"p50": 5000.0, "p90": 9000.0, "p99": 9900.0, "p99.9": 9990.0, "max": 10_000.0, "lower_bounds": []}
    assert percentiles(known(shuffled)) == found


def test_latency_counts_from_when_the_operation_was_due() -> None:
    late = operations({"intended_ns": 1 * S, "start_ns": 3 * S, "end_ns": 4 * S, "kind": KINDS["put"]})
    assert late.latencies("put").ns.tolist() == [3 * S]
    assert late.latencies("get").ns.tolist() == []


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
    found = ops.latencies()
    assert sorted(zip(found.ns.tolist(), found.at_least.tolist(), strict=True)) == [
        (1 * MS, False),
        (2 * S, True),
        (10 * S, True),
    ]
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
    assert (len(ops.latencies(under_fault=False)), len(ops.latencies(under_fault=True))) == (2, 3)


def test_dropped_operations_are_counted_within_the_measurement() -> None:
    ops = operations(measure_ns=(10, 20), dropped={9: "put", 10: "get", 19: "put", 20: "put"})
    assert [ops.dropped(kind) for kind in ("all", "put", "get", "cas")] == [2, 1, 1, 0]


def test_what_was_dropped_counts_with_the_rest_of_the_measurement() -> None:
    """A dropped operation is never served: it waited at least from its due time to the end of the measurement."""
    ops = operations(
        {"start_ns": 1 * S, "end_ns": 2 * S, "kind": KINDS["put"]},
        dropped={3 * S: "put", 4 * S: "get", 10 * S: "put"},
    )
    for kind, ns, at_least in (
        ("all", [1 * S, 7 * S, 6 * S], [False, True, True]),
        ("put", [1 * S, 7 * S], [False, True]),
        ("get", [6 * S], [True]),
    ):
        found = ops.latencies(kind)
        assert (found.ns.tolist(), found.at_least.tolist()) == (ns, at_least), kind


def test_what_was_dropped_is_under_the_fault_in_force_when_it_was_due() -> None:
    """A later fault does not count, although the lower bound of the latency lasts until the end of the measurement."""
    dropped = dict.fromkeys((1 * S, 4 * S, 5 * S - 1, 5 * S), "put")
    ops = operations(dropped=dropped, fault_ns=np.array([[4 * S, 5 * S]], np.int64))
    assert ops.latencies(under_fault=True).ns.tolist() == [6 * S, 5 * S + 1]
    assert ops.latencies(under_fault=False).ns.tolist() == [9 * S, 5 * S]


# 1000 operations as (count, milliseconds, lower bound or not), the expected p50, p90, p99 and maximum, and the names of
# those that are lower bounds.
BOUNDED: list[tuple[list[tuple[int, int, bool]], list[float], list[str]]] = [
    ([(980, 5, False), (20, 8000, True)], [5, 5, 8000, 8000], ["p99", "max"]),
    # If the row above left its lower bounds out, its p99 would be 5 ms. Below, all bounds lie above the 990th sample.
    ([(990, 5, False), (10, 8000, True)], [5, 5, 5, 8000], ["max"]),
    # Lower bounds below the percentile make it one: with the true latencies the percentile could be higher.
    ([(10, 1, True), (490, 5, False), (500, 9, False)], [5, 9, 9, 9], ["p50", "max"]),
    # Ties: whatever the true latencies are, the 500th sample stays 5 ms.
    ([(10, 1, True), (600, 5, False), (390, 9, False)], [5, 9, 9, 9], ["max"]),
    ([(1000, 3, True)], [3, 3, 3, 3], ["p50", "p90", "p99", "max"]),
]


@pytest.mark.parametrize(("parts", "values", "bounds"), BOUNDED)
def test_a_percentile_that_rests_on_lower_bounds_is_one(
    parts: list[tuple[int, int, bool]], values: list[float], bounds: list[str]
) -> None:
    ns = np.concatenate([np.full(count, ms * MS) for count, ms, _ in parts])
    at_least = np.concatenate([np.full(count, bound) for count, _, bound in parts])
    order = np.random.default_rng(1).permutation(len(ns))
    found = percentiles(Latencies(ns[order], at_least[order]))
    assert [found[name] for name in ("p50", "p90", "p99", "max")] == values
    assert found["lower_bounds"] == bounds


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=40), st.integers(1, 1000))
def test_a_percentile_is_known_when_no_lower_bound_could_change_it(
    samples: list[tuple[int, bool]], thousandths: int
) -> None:
    ns, at_least = (np.array(column) for column in zip(*samples, strict=True))
    latencies = Latencies(ns, at_least)
    rank = latencies.rank(thousandths)
    [(value, bound)] = latencies.at_ranks([rank])
    assert value == np.sort(ns)[rank - 1]
    longer = np.sort(np.where(at_least, 1000, ns))[rank - 1]
    assert bound == (longer != value)


def test_the_longest_gap_includes_both_ends_of_the_measurement() -> None:
    ops = operations({"end_ns": 2 * S}, {"end_ns": 3 * S}, {"end_ns": 9 * S, "outcome": UNKNOWN})
    assert ops.longest_gap_ns() == 7 * S
    assert operations().longest_gap_ns() == 10 * S


def test_repeats_are_pooled_and_not_averaged() -> None:
    fast = operations(*({"end_ns": 1 * MS} for _ in range(50)))
    slow = operations(*({"end_ns": 100 * MS} for _ in range(50)))
    found = {"p50": 1.0, "p90": 100.0, "p99": None, "p99.9": None, "max": 100.0, "lower_bounds": []}
    assert percentiles(pool([fast, slow])) == found
    dropping = operations({"end_ns": 1 * MS}, dropped=dict.fromkeys(range(60), "put"))
    assert percentiles(pool([fast, dropping]))["lower_bounds"] == ["p50", "p90", "max"]


def test_arrays_are_read_with_numpy_alone(tmp_path: Path) -> None:
    ops = operations(
        {"start_ns": 5, "end_ns": 9, "kind": 3, "key": 7, "written": 2**63},
        dropped={1: "put", 2: "cas"},
        fault_ns=np.array([[3, 4]], np.int64),
        composite_ids=np.array([2**41, 2**42], np.uint64),
        composite_end=np.array([2], np.int64),
    )
    ops.save(tmp_path / "latency.npz")
    with np.load(tmp_path / "latency.npz", allow_pickle=False) as file:
        assert set(file.files) == {
            *COLUMNS, "dropped_ns", "dropped_kind", "measure_ns", "fault_ns", "composite_ids", "composite_end",
            "generator_error_ns", "first_reader",
        }  # fmt: skip
        assert {name: file[name].dtype for name in COLUMNS} == {
            name: np.dtype(dtype) for name, dtype in COLUMNS.items()
        }
    again = Operations.load(tmp_path / "latency.npz")
    assert again.measure_ns == ops.measure_ns
    assert again["written"].tolist() == [2**63]
    assert (again.dropped_ns.tolist(), again.dropped_kind.tolist()) == ([1, 2], [KINDS["put"], KINDS["cas"]])
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


def test_a_file_that_does_not_tell_the_kinds_of_what_was_dropped_can_be_read(tmp_path: Path) -> None:
    operations({"end_ns": 9}, dropped={1: "put", 2: "cas"}).save(tmp_path / "latency.npz")
    with np.load(tmp_path / "latency.npz") as file:
        arrays = {name: file[name] for name in file.files if name != "dropped_kind"}
    np.savez(tmp_path / "latency.npz", **arrays)
    again = Operations.load(tmp_path / "latency.npz")
    assert [again.dropped(kind) for kind in ("all", "put", "cas")] == [2, 0, 0]


def test_generators_and_the_errors_of_their_clocks_are_kept(tmp_path: Path) -> None:
    ops = operations({"start_ns": 5, "end_ns": 9}, generator_error_ns=np.array([0, 70, -1], np.int64))
    ops = replace(ops, columns={**ops.columns, "generator": np.array([1], np.uint8)})
    ops.save(tmp_path / "latency.npz")
    again = Operations.load(tmp_path / "latency.npz")
    assert again["generator"].tolist() == [1]
    assert (again.generator_error_ns.tolist(), again.lost, again.error_ns) == ([0, 70, -1], 1, 70)


def test_snapshots_of_several_generators_add_up_and_their_latencies_are_pooled() -> None:
    one = LoadSnapshot(ok=1, failed=2, dropped=3, per_second=4.0, recent=known(np.full(99, 1 * MS)))
    waiting = Latencies(np.full(2, 100 * MS), np.ones(2, np.bool_))
    other = LoadSnapshot(ok=10, unknown=5, outstanding=6, per_second=0.5, recent=waiting)
    both = LoadSnapshot.together([one, other])
    assert both == LoadSnapshot(ok=11, failed=2, unknown=5, dropped=3, outstanding=6, per_second=4.5)
    assert (both.recent_ms("p50"), both.recent_ms("p99")) == ((1.0, False), (100.0, True))
    assert (LoadSnapshot().recent_ms("p50"), LoadSnapshot.together([]).recent_ms("p99")) == (
        (None, False),
        (None, False),
    )
