"""Numbers mean what they say: an outage shows in all percentiles, and faults that were not put in force are counted."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sweeps import cli
from sweeps.analysis.events import faults_of
from sweeps.api import CellResult, Run, Sweep
from sweeps.spec.metrics import PERCENTILES
from sweeps.spec.source import read_source

PAGE = Path(__file__).parents[3] / "docs/explanation/numbers.md"
SPEC = """
name: numbers
base:
  target: sim
  raft: {election_timeout: 300ms-600ms, heartbeat_interval: 75ms, rpc_timeout: 200ms}
  phases: {warmup: 500ms, measure: 10s}
cases:
  outage:
    load: {mode: open, rate: 200, clients: 10, keys: 50}
    chaos: {crash: all, at: 2s, restart_after: 3s}
  slow restarts:
    load: {clients: 8, think: 50ms}
    sim: {boot: 1500ms-1600ms}
    chaos: {crash: leader, every: 1s, restart_after: 500ms}
  slow restarts, expected:
    load: {clients: 8, think: 50ms}
    sim: {boot: 1500ms-1600ms}
    chaos: {crash: leader, every: 1s, restart_after: 500ms}
    expect: safe
"""
OUTAGE_MS = 3000.0


@pytest.fixture(autouse=True)
def judge() -> None:
    """Keep the real judge."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Sweep.from_source(read_source(SPEC, "numbers.yaml")).run(tmp_path_factory.mktemp("numbers"))


def cell_of(run: Run, case: str) -> CellResult:
    [found] = [cell for cell in run.cells if cell.stored.params["axes"]["case"] == case]
    return found


@pytest.fixture
def outage(run: Run) -> CellResult:
    return cell_of(run, "outage")


def shown(run: Run, width: int = 80) -> str:
    done = CliRunner().invoke(cli.main, ["show", str(run.path)], env={"COLUMNS": str(width)})
    assert done.exit_code in (0, 4), done.output
    return done.output


def test_an_outage_is_in_the_percentiles_though_few_operations_were_started_in_it(outage: CellResult) -> None:
    """Ten clients wait through the outage, and about 600 operations find none of them free.

    Of the operations that were started, less than 1 % waited.
    """
    result = outage.result
    assert result["longest_gap_ms"] >= OUTAGE_MS
    assert result["operations"]["dropped"] > 500
    started = outage.latency("all")
    assert np.sort(started)[int(len(started) * 0.985)] < OUTAGE_MS * 1e6, "without what was dropped it would not show"
    for kind in ("all", "put", "get"):
        figures = result["latency_ms"][kind]
        assert figures["p90"] > OUTAGE_MS
        assert {"p90", "max"} <= set(figures["lower_bounds"])
    assert result["latency_ms"]["all"]["p99"] >= result["longest_gap_ms"]
    assert "latency.all.p99" in result["lower_bounds"]
    assert set(outage.operations().dropped_kind) == {1, 2}


def test_each_dropped_operation_counts_with_the_time_to_the_end(outage: CellResult) -> None:
    operations, latencies = outage.operations(), outage.latencies("put")
    begin, end = operations.measure_ns
    mine = (operations.dropped_kind == 1) & (operations.dropped_ns >= begin) & (operations.dropped_ns < end)
    assert latencies.at_least.sum() == mine.sum(), "all others succeeded"
    assert sorted(latencies.ns[latencies.at_least]) == sorted(end - operations.dropped_ns[mine])
    assert sorted(latencies.ns[~latencies.at_least]) == sorted(outage.latency("put"))


def test_the_manual_says_how_to_come_to_the_same_percentiles_with_numpy_alone(outage: CellResult) -> None:
    [code] = re.findall(r"```python\n(import numpy as np\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    figures = outage.result["latency_ms"]["put"]
    shown = {name: figures[name] for name in (*PERCENTILES, "max") if figures[name] is not None}
    assert {"p50", "p90", "max"} <= set(shown)
    for name, value in shown.items():
        thousandths = {**PERCENTILES, "max": 1000}[name]
        source = code.replace("CELL", str(outage.stored.path)).replace("990", str(thousandths))
        found: dict[str, Any] = {}
        exec(source, found)
        assert round(found["p99"] / 1e6, 4) == value, name
        assert bool(found["at_least"]) == (name in figures["lower_bounds"]), name


def test_the_csv_keeps_numbers_and_says_which_are_lower_bounds(run: Run, outage: CellResult) -> None:
    with (run.path / "results.csv").open(newline="") as file:
        [row] = [row for row in csv.DictReader(file) if row["case"] == "outage"]
    bounds = row["lower_bounds"].split("; ")
    assert {"latency_put_p90_ms", "latency_all_p99_ms"} <= set(bounds)
    assert float(row["latency_all_p99_ms"]) == outage.result["latency_ms"]["all"]["p99"]


def test_slow_restarts_postpone_faults_and_what_did_not_fit_is_counted(run: Run) -> None:
    """Each crash takes two seconds, and the schedule has one crash per second."""
    cell = cell_of(run, "slow restarts")
    injected, asked = cell.result["faults"], cell.result["faults_asked"]
    assert asked == 10
    assert 4 <= injected <= 6
    events = [event for event in faults_of(cell.stored.events()) if event.kind == "crash"]
    down = 0
    for event in events:
        down += {"inject": 1, "heal": -1}.get(event.action, 0)
        assert down <= 1, "the leader was to be crashed again after it was back"
    assert sum(event.action == "skip" for event in events) == asked - injected
    assert cell.verdict == "unknown"
    assert cell.result["verdict"]["reason"].startswith(
        f"coverage: {injected} of {asked} crash faults were put in force; "
    )
    assert run.exit_code == 4
    assert cell_of(run, "slow restarts, expected").result["verdict"].get("unexpected") in (None, False)


def test_the_table_of_cases_says_so(run: Run) -> None:
    injected = cell_of(run, "slow restarts").result["faults"]
    lines = " ".join(shown(run).split())
    assert f"case=slow restarts: coverage: {injected} of 10 crash faults were put in force" in lines
    assert (
        f"case=slow restarts, expected: {cell_of(run, 'slow restarts, expected').result['faults']} of 10 faults"
        in lines
    )
