"""Tables, lines and the live display, as text."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console, RenderableType

from chaos.checks.finding import Finding
from chaos.checks.verdict import as_json
from sweeps.analysis.cell_data import CellData
from sweeps.analysis.summary import summarise
from sweeps.judge.expectations import pending, with_verdict
from sweeps.load.latencies import Latencies
from sweeps.load.recorder import LoadSnapshot
from sweeps.run.progress import PHASES, Progress
from sweeps.show.formats import clock, duration
from sweeps.show.live import LiveView, PlainView, cell_line, screen, spark
from sweeps.show.plan import cells_table, needs_lines, presets_table
from sweeps.show.tables import Row, notes, rows, summary
from sweeps.spec.estimate import cell_s, needs
from sweeps.spec.grid import Cell, make_cells
from sweeps.spec.resolve import resolve
from sweeps.spec.source import read_source
from sweeps.store.results_csv import csv_row
from sweeps.store.writer import describe
from tests.sweeps.analysis.test_latency import MS, operations
from tests.sweeps.analysis.test_summary import puts

SPEC = """
order: sequential
base: {phases: {warmup: 1s, measure: 9s}}
axes:
  cluster.nodes: [3, 5, 7]
  chaos: [none, {crash: leader, at: 1/3, restart_after: 2s}]
"""


def cells(text: str = SPEC) -> list[Cell]:
    source = read_source(text, "file.yaml")
    return make_cells(resolve(source), source)


def text_of(renderable: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def repeat(cell: Cell, status: str = "ok", reason: str | None = None, count: int = 100) -> tuple[Any, Any]:
    result = summarise(CellData(cell.parameters, puts(count), ()))
    return describe(cell), {"cell": cell.id, "status": status, "reason": reason, **result}


def test_one_row_per_combination_with_its_axes() -> None:
    found = rows([repeat(cell) for cell in cells()])
    assert [dict(row.axes) for row in found[:2]] == [
        {"cluster.nodes": "3", "chaos": "none"},
        {"cluster.nodes": "3", "chaos": "crash leader"},
    ]
    lines = text_of(summary(found)).splitlines()
    assert lines[0].split()[:3] == ["nodes", "chaos", "op/s"]
    assert len(lines) == 1 + 6
    assert "5 ms" in lines[1]


def test_repeats_are_pooled_and_show_their_spread() -> None:
    slow = operations(*({"start_ns": i, "end_ns": i + 50 * MS, "kind": 1} for i in range(100)))
    stored = iter([puts(50), slow])
    repeats = [repeat(cell) for cell in cells("repeats: 2")]
    repeats[1][1]["throughput_per_s"] = 30.0
    [row] = rows(repeats, lambda identity: next(stored))
    assert row.latency_ms["put"]["p50"] == 50.0
    assert row.throughputs == [10.0, 30.0]
    assert "20 (10-30)" in text_of(summary([row]))


def test_what_lost_its_host_does_not_count_beside_what_did_not() -> None:
    repeats = [repeat(cell, status) for cell, status in zip(cells("repeats: 2"), ("infrastructure", "ok"), strict=True)]
    repeats[0][1]["throughput_per_s"] = 30.0
    for (_, result), won in zip(repeats, (7, 1), strict=True):
        result |= {"elections": {"won": won}, "failovers": [{"succeeded_ms": won}], "faults": won, "faults_asked": won}
    for (_, result), hosts in zip(repeats, ("abc", "aba"), strict=True):
        result["placement"] = {f"n{number}": {"host": host} for number, host in enumerate(hosts)}
    [row] = rows(repeats)
    assert (row.throughputs, row.elections, row.failovers_ms, row.faults) == ([10.0], 1, [1], (1, 1))
    assert row.notes[-1] == "its repeats had different shares of nodes per host: 1+1+1, 2+1"
    [row] = rows(repeats[:1])
    assert row.throughputs == [30.0], "where there is nothing else it is what there is"


def test_a_failed_cell_says_so_and_why() -> None:
    cell, other = cells()[:2]
    found = rows([repeat(cell), repeat(other, "failed", "node n2 ended (exit): exit code 7 (invariant broken)")])
    assert "failed" in text_of(summary(found)).splitlines()[2]
    assert "cluster.nodes=3 chaos=crash leader: node n2 ended (exit): exit code 7 (invariant broken)" in notes(found)


def test_a_closed_loop_confesses() -> None:
    closed, open_ = cells("axes: {load: [{mode: closed}, {mode: open, rate: 5}]}\norder: sequential")
    assert any(line.startswith("closed loop") for line in notes(rows([repeat(closed)])))
    assert notes(rows([repeat(open_)])) == []


def test_a_table_with_failovers_fits_100_columns() -> None:
    row = Row(
        {"cluster.nodes": "15", "chaos": "crash leader"},
        ["ok"],
        [12345.6],
        {"put": {"p50": 2.91, "p99": 111.3}, "get": {"p50": 1.66, "p99": 107.0}},
        [317.2],
        unknown=3,
        elections=1,
    )
    header, line = text_of(summary([row])).splitlines()
    for word in ("failover", "elections", "failed", "unknown"):
        assert word in header
    assert " ".join(line.split()) == "15 crash leader 12,346 2.91 ms 111 ms 1.66 ms 107 ms 317 ms 1 0 3 ok"


OUTAGE = Row(
    {"cluster.nodes": "15", "chaos": "crash leader"},
    ["ok"],
    [12345.6],
    {
        "put": {"p50": 2.91, "p99": 2272.0, "lower_bounds": ["p99", "max"]},
        "get": {"p50": 1012.4, "p99": None, "lower_bounds": ["p50", "max"]},
    },
    [317.2],
    dropped=12_345,
    faults=(12, 24),
    elections=1,
    open_loop=True,
    verdicts=[("unknown", False)],
)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_lower_bound_is_marked_in_tables_of_any_width(width: int) -> None:
    shown = text_of(summary([OUTAGE]), width)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    assert "…" not in shown, "nothing is cut off, least of all a digit"
    for words in ("2.91 ms", "≥2.27 s", "≥1.01 s", *(("12 of 24", "12,345") if width >= 120 else ())):
        assert words in shown, words
    assert "≥2.91" not in shown
    assert any(note.startswith("≥: a lower bound; ") for note in notes([OUTAGE]))


def test_the_faults_have_a_column_where_not_all_were_put_in_force() -> None:
    struck = replace(OUTAGE, faults=(24, 24))
    assert "faults" not in text_of(summary([struck]), 200)
    header, short, all_of_them = text_of(summary([OUTAGE, struck]), 200).splitlines()
    begin, end = header.index("faults") - 2, header.index("faults") + 6
    assert (short[begin:end], all_of_them[begin:end]) == ("12 of 24", "      24")


def test_without_lower_bounds_nothing_is_said_of_them() -> None:
    known = {kind: {**found, "lower_bounds": []} for kind, found in OUTAGE.latency_ms.items()}
    calm = replace(OUTAGE, latency_ms=known)
    assert "≥" not in text_of(summary([calm]), 200) + "".join(notes([calm]))


def test_repeats_say_what_is_the_median_and_what_is_a_sum() -> None:
    assert any(note.startswith("repeats: op/s is the median") for note in notes([replace(OUTAGE, repeats=3)]))
    assert not any(note.startswith("repeats") for note in notes([OUTAGE]))


def test_the_line_of_a_cell_tells_of_lower_bounds_and_of_faults_that_did_not_fit() -> None:
    cell = cells()[1]
    params, result = repeat(cell)
    dropping = puts(100, dropped=dict.fromkeys(range(9 * 10**9, 9 * 10**9 + 40), "put"))
    result |= summarise(CellData(cell.parameters, dropping, (), faults_asked=24)) | {"faults": 12}
    line = cell_line(1, 6, params, result)
    assert "put p50 5 ms p99 -" in line
    assert "12 of 24 faults  " in line
    slow = puts(100, dropped=dict.fromkeys(range(9 * 10**9, 9 * 10**9 + 4000), "put"))
    assert "put p50 ≥1 s p99 ≥1 s" in cell_line(
        1, 6, params, {**result, **summarise(CellData(cell.parameters, slow, ()))}
    )


def test_a_run_of_an_earlier_version_says_that_it_left_dropped_operations_out() -> None:
    params, result = repeat(cells()[0])
    del result["lower_bounds"], result["faults_asked"]
    result["latency_ms"] = {
        kind: {n: v for n, v in found.items() if n != "lower_bounds"} for kind, found in result["latency_ms"].items()
    }
    result["operations"]["dropped"] = 7
    found = rows([(params, result)])
    assert "faults" not in text_of(summary(found))
    assert any("7 dropped operations are not in the percentiles" in note for note in notes(found))


def test_what_users_write_is_no_markup() -> None:
    [cell] = cells("base: {cluster: {command: [/bin/node, --flag]}}\naxes: {cluster.command: [[/bin/node, '[red]']]}")
    assert "[/bin/node, [red]]" in text_of(summary(rows([repeat(cell)])))
    source = read_source("axes: {cluster.command: [[/bin/node]]}", "file.yaml")
    spec = resolve(source)
    assert "[/bin/node]" in text_of(cells_table(spec, make_cells(spec, source)))


def test_more_than_two_kinds_share_their_columns() -> None:
    numbers = {"p50": 1.0, "p99": 2.0}
    two = Row({"a": "b"}, ["ok"], [1.0], dict.fromkeys(("all", "put", "get"), numbers))
    three = Row({"a": "b"}, ["ok"], [1.0], dict.fromkeys(("all", "put", "get", "cas"), numbers))
    assert "put p50" in text_of(summary([two]))
    header = text_of(summary([two, three])).splitlines()[0].split()
    assert header[:4] == ["a", "op/s", "p50", "p99"]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(None, "-"), (0.1234, "0.123 ms"), (2.345, "2.35 ms"), (999.4, "999 ms"), (999.6, "1 s"), (12345.0, "12.3 s")],
)
def test_durations(milliseconds: float | None, text: str) -> None:
    assert duration(milliseconds) == text


def test_clock() -> None:
    assert [clock(s) for s in (0, 65.4, 3723)] == ["0:00", "1:05", "1:02:03"]


def test_spark() -> None:
    assert spark([0, 1, 4, 8], 10) == "·▁▄█"
    assert spark([1, 2, 3], 2) == "▅█"
    assert spark([], 5) == ""
    assert spark([0, 0], 5) == "··"


def test_the_line_of_a_cell() -> None:
    cell = cells()[0]
    params, result = repeat(cell)
    result |= {"phases_s": {"boot": 2.0, "measure": 9.0}, "flags": ["cpu: 1.9 of 2 cores were in use"]}
    assert cell_line(1, 6, params, result) == (
        "[1/6] nodes=3 chaos=none  ok  10 op/s  put p50 5 ms p99 -  0 failed, 0 unknown  (11 s)"
        "  ! cpu: 1.9 of 2 cores were in use"
    )
    assert "FAILED: no leader" in cell_line(1, 6, params, {**result, "status": "failed", "reason": "no leader"})


@pytest.mark.parametrize(
    ("times_ms", "words"),
    [
        ([606.0], "failover 606 ms"),
        ([606.0, 510.0], "failover median 558 ms max 606 ms (2)"),
        ([510.0, 1210.0, 606.0], "failover median 606 ms max 1.21 s (3)"),
        ([606.0, None, None], "failover 2 of 3 none"),
        ([None], "failover 1 of 1 none"),
    ],
)
def test_the_line_of_a_cell_tells_of_its_failovers_once(times_ms: list[float | None], words: str) -> None:
    params, result = repeat(cells()[0])
    result |= {"failovers": [{"succeeded_ms": time} for time in times_ms]}
    line = cell_line(1, 6, params, result)
    assert f"  {words}  " in line
    assert line.count("failover") == 1


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def running() -> tuple[Progress, Clock]:
    """The second of six cells, three seconds into its measurement."""
    clock = Clock()
    progress = Progress("quick", cells(), clock=clock)
    progress.where = "results/quick/20260101-120000   Ray: private"
    progress.begin_cell(progress.cells[0])
    clock.now = 20.0
    progress.end_cell(*repeat(progress.cells[0]))
    progress.begin_cell(progress.cells[1])
    clock.now = 24.0
    progress.enter("measure", 9.0)
    progress.leads("n2", 3)
    progress.leads("n3", 4)
    progress.asks(3)
    progress.fault("crash n2", counts=True)
    recent = Latencies(np.array([2_500_000] * 98 + [9_750_000] * 2), np.array([False] * 98 + [True] * 2))
    progress.load(LoadSnapshot(ok=12_345, unknown=2, per_second=4321.0, recent=recent))
    clock.now = 27.0
    return progress, clock


def test_the_live_display_shows_the_cell_that_runs() -> None:
    progress, _ = running()
    shown = text_of(screen(progress, 30))
    for words in (
        "quick  1 of 6 cells", "0:27 elapsed", "cell 2 of 6: nodes=3 chaos=crash leader", "measure 3/9 s", "n3",
        "4,321", "12,345", "2.5 ms", "≥9.75 ms", "1 of 3", "crash n2", "results",
    ):  # fmt: skip
        assert words in shown, words
    assert [words for words in ("leader", "term", "elections", "faults") if words not in shown] == []


@pytest.mark.parametrize("height", [20, 30, 50])
def test_the_live_display_fits_the_terminal(height: int) -> None:
    progress, _ = running()
    for _ in range(60):
        progress.done.append(progress.done[0])
    lines = text_of(screen(progress, height)).splitlines()
    assert len(lines) <= height
    assert all(len(line.rstrip()) <= 100 for line in lines)


def test_every_phase_can_be_shown() -> None:
    progress, _ = running()
    for phase in PHASES:
        progress.enter(phase)
        assert f"{phase} 0 s" in text_of(screen(progress, 30))


def test_verdicts_are_shown_also_those_that_come_late() -> None:
    progress, _ = running()
    params, result = progress.done[0]
    progress.done[0] = params, with_verdict(result, pending("deferred"), "ok")
    progress.end_cell(*repeat(progress.cells[1]))
    assert "pending" in text_of(screen(progress, 30))
    progress.check_cell(0)
    assert "checking cell 1 of 6: nodes=3 chaos=none" in text_of(screen(progress, 30))
    stale = {"verdict": "violated", "reason": "linearizability: key 7: stale", "findings": []}
    progress.end_check(0, with_verdict(result, stale, "ok"))
    shown = text_of(screen(progress, 30))
    assert "violated" in shown
    assert "checking" not in shown
    assert "verdict VIOLATED: linearizability: key 7: stale" in cell_line(1, 6, *progress.done[0])
    findings = [Finding("linearizability", "violated", "key 7: stale"), Finding("coverage", "ok", "")]
    expected = with_verdict(result, as_json(findings), "violated")
    assert "verdict violated (expected): linearizability" in cell_line(1, 6, params, expected)
    assert "cluster.nodes=3 chaos=none: violated: linearizability: key 7: stale" in notes(rows([progress.done[0]]))


def test_what_was_not_checked_is_shown_beside_the_verdict() -> None:
    cell = cells()[0]
    params, result = repeat(cell)
    partly = {"verdict": "ok", "reason": "", "findings": [], "not_checked": ["invariants", "state"]}
    result = with_verdict(result, partly, "ok")
    [row] = rows([(params, result)])
    assert "ok, not checked: invariants, state" in " ".join(text_of(summary([row]), width=160).split())
    assert "verdict ok, not checked: invariants, state" in cell_line(1, 6, params, result)
    assert csv_row(params, result)["not_checked"] == "invariants; state"


def test_a_simulation_says_that_it_is_one() -> None:
    cell = cells("base: {target: sim}")[0]
    params, result = repeat(cell)
    lines = notes(rows([(params, {**result, "load_scaled": {"load.think": ["0s", "34ms"]}})]))
    assert "cluster.nodes=3: simulated with less load: load.think 34ms, not 0s" in lines
    assert lines[-1].startswith("simulated: times are those of the simulated world")


def test_the_time_left_learns_from_the_cells_that_are_done() -> None:
    progress, clock = running()
    estimate = sum(cell_s(cell) for cell in progress.cells[2:])
    assert progress.left_s > estimate  # the first cell took longer outside its load than estimated
    before = progress.left_s
    clock.now += 2.0
    assert progress.left_s == pytest.approx(before - 2.0)
    assert 0.0 < progress.share < 1.0


def test_the_plain_view_prints_a_line_per_cell() -> None:
    progress, _ = running()
    console = Console(file=io.StringIO(), width=40)
    with PlainView(console, progress) as view:
        view.cell_done(progress)
        view.note("[red]not markup[/red]")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 2
    assert lines[0].startswith("[1/6] nodes=3 chaos=none  ok")
    assert lines[1] == "[red]not markup[/red]"


def test_the_live_view_starts_and_stops() -> None:
    progress, _ = running()
    console = Console(file=io.StringIO(), width=100, height=30, force_terminal=True)
    with LiveView(console, progress) as view:
        view.note("a note")
        view.cell_done(progress)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a note" in shown
    assert "cell 2 of 6" in shown


def test_the_plan_lists_cells_and_needs() -> None:
    source = read_source(SPEC, "file.yaml")
    spec = resolve(source)
    found = make_cells(spec, source)
    listed = text_of(cells_table(spec, found))
    assert all(cell.id in listed for cell in found)
    assert "{crash: leader, at: 1/3, restart_after: 2s}" in listed
    assert [line.split()[0] for line in needs_lines(found)] == ["time", "hosts", "processes", "memory", "disk"]
    assert needs(found).processes == 15
    assert "cells" in text_of(presets_table([(spec, found)]))


def test_the_plan_says_how_many_hosts_its_placements_need_and_use() -> None:
    some = cells("axes: {cluster.placement: [majority, {per_host: 2}], cluster.nodes: [3, 7]}")
    assert "hosts      at least 4, at most 4 are used" in needs_lines(some)
    assert needs(cells("base: {cluster: {nodes: 5}}")).hosts == (1, 5)


def test_the_plan_counts_the_generators_of_all_hosts() -> None:
    alone, everywhere, chosen = cells("axes: {load.on: [driver, every_host, {hosts: [a, b]}]}\norder: sequential")
    assert [needs([cell]).processes for cell in (alone, everywhere, chosen)] == [7, 9, 8]
    assert needs([everywhere]).memory_bytes > needs([chosen]).memory_bytes > needs([alone]).memory_bytes


def test_more_nodes_and_larger_values_need_more() -> None:
    small, large = cells("axes: {load.value_bytes: [64, 1MiB]}\norder: sequential")
    assert needs([large]).disk_bytes > 10 * needs([small]).disk_bytes
    few, many = cells("axes: {cluster.nodes: [3, 15]}\norder: sequential")
    assert needs([many]).memory_bytes > needs([few]).memory_bytes
    assert needs([few, many]).processes == needs([many]).processes
