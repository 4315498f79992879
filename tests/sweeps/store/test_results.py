"""The run directory."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.errors import ConfigError
from sweeps import cli
from sweeps.analysis.cell_data import CellData
from sweeps.analysis.events import PhaseEvent
from sweeps.analysis.summary import summarise
from sweeps.judge.expectations import pending
from sweeps.spec.grid import Cell, make_cells
from sweeps.spec.resolve import resolve
from sweeps.spec.source import read_source
from sweeps.store.manifest import file_system, manifest
from sweeps.store.reader import find_run, read_run
from sweeps.store.results_csv import csv_row
from sweeps.store.writer import CellFiles, RunWriter, describe
from tests.sweeps.analysis.test_summary import puts

FACTS = manifest(seed=1, command_line=["sweep", "run"], spec_name="tiny", storage_dir="auto")


def cells(text: str = "axes: {cluster.nodes: [3, 5]}\norder: sequential") -> list[Cell]:
    source = read_source(text, "file.yaml")
    return make_cells(resolve(source), source)


def write(writer: RunWriter, cell: Cell, status: str = "ok", reason: str | None = None) -> Path:
    ops = puts(100)
    found = {"cell": cell.id, "status": status, "reason": reason, **summarise(CellData(cell.parameters, ops, ()))}
    late_first = [TraceRecord("n1", 1, 9, "commit", 1), PhaseEvent(3, "boot")]
    found["verdict"] = pending("not checked yet")
    files = CellFiles(ops, late_first, {"faults": []}, {"n1": "line\n"}, {"n1": ["{}", "tor"]}, {"settled": None})
    return writer.write_cell(cell, found, files)


def test_a_run_directory_has_everything_the_issue_names(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "name: tiny\n", FACTS)
    first, second = cells()
    folder = write(writer, first)
    write(writer, second, "failed", "node n2 ended, by itself")
    writer.journal("cell finished", cell=first.id)
    writer.finish(complete=True, exit_code=1)

    assert {path.name for path in writer.path.iterdir()} == {
        "spec.yaml", "manifest.json", "journal.jsonl", "results.csv", "cells",
    }  # fmt: skip
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "params.json", "result.json", "latency.npz", "events.jsonl", "schedule.json", "nodes/n1.log",
        "inspection.json", "traces/n1.jsonl.gz",
    }  # fmt: skip
    assert [json.loads(line)["time_ns"] for line in (folder / "events.jsonl").read_text().splitlines()] == [3, 9]
    assert json.loads((folder / "params.json").read_text())["parameters"]["cluster"]["nodes"] == 3
    assert len(np.load(folder / "latency.npz")["kind"]) == 100
    stored = read_run(writer.path).cells[0]
    assert stored.traces() == {"n1": ["{}", "tor"]}
    assert stored.inspection() == {"settled": None}
    with (writer.path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == [first.id, second.id]
    assert [row["cluster.nodes"] for row in rows] == ["3", "5"]
    assert rows[1]["reason"] == "node n2 ended, by itself"
    assert rows[0]["latency_put_p50_ms"] == "5.0"
    assert rows[0]["latency_put_p99.9_ms"] == ""
    assert rows[0]["load.mode"] == "closed"
    assert rows[0]["lower_bounds"] == ""
    stages = ("detected", "elected", "heard", "committed", "succeeded")
    columns = [f"failover_{stage}_{name}" for stage in stages for name in ("median_ms", "p90_ms", "max_ms", "count")]
    assert [name for name in rows[0] if name.startswith("failover_")] == columns


def test_the_table_of_all_cells_tells_which_columns_are_lower_bounds() -> None:
    [cell] = cells("base: {load: {mode: open, rate: 10}}")
    ops = puts(100, dropped=dict.fromkeys(range(9 * 10**9, 9 * 10**9 + 40), "put"))
    row = csv_row(describe(cell), {"status": "ok", **summarise(CellData(cell.parameters, ops, (), faults_asked=2))})
    assert isinstance(row["latency_put_p90_ms"], float), "the column stays a number"
    assert row["lower_bounds"] == "; ".join(
        ("latency_all_p90_ms", "latency_all_max_ms", "latency_put_p90_ms", "latency_put_max_ms")
    )
    assert set(row["lower_bounds"].split("; ")) < set(row)
    assert (row["load.mode"], row["faults"], row["faults_asked"]) == ("open", 0, 2)


def test_the_table_of_all_cells_tells_how_many_nodes_each_host_had(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "", FACTS)
    placed, unplaced = cells()
    placement = {f"n{i}": {"host": f"10.0.0.{1 + i // 2}", "hostname": "x"} for i in (1, 2, 3)}
    found: dict[str, Any] = {"cell": placed.id, "status": "ok", "placement": placement}
    writer.write_cell(placed, found, CellFiles(None, (), None, {}))
    write(writer, unplaced)
    with (writer.path / "results.csv").open(newline="") as file:
        assert [row["hosts"] for row in csv.DictReader(file)] == ["10.0.0.1 x 1; 10.0.0.2 x 2", ""]


def test_the_table_of_all_cells_tells_what_was_simulated_and_with_less_load(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "", FACTS)
    [cell] = cells("base: {target: sim}")
    changed = {"load.rate": [1000.0, 391.7], "load.clients": [99, 9]}
    found: dict[str, Any] = {"cell": cell.id, "status": "ok", "load_scaled": changed}
    writer.write_cell(cell, found, CellFiles(None, (), None, {}))
    write(writer, cells()[0])
    with (writer.path / "results.csv").open(newline="") as file:
        simulated, real = csv.DictReader(file)
    assert (real["target"], real["load_scaled"]) == ("raft", "")
    assert (simulated["target"], simulated["load_scaled"]) == (
        "sim", "load.rate 391.7, not 1000.0; load.clients 9, not 99",
    )  # fmt: skip


def test_the_manifest_says_what_is_needed_to_make_the_numbers_again(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "name: tiny\n", FACTS)
    stored = json.loads((writer.path / "manifest.json").read_text())
    assert stored["seed"] == 1
    assert stored["command_line"] == ["sweep", "run"]
    assert {"python", "raft-lab", "ray", "grpcio", "protobuf", "numpy"} <= set(stored["versions"])
    assert {"cpu", "cores", "memory_bytes", "kernel", "system"} <= set(stored["host"])
    assert "commit" in stored


def test_a_run_is_incomplete_until_it_says_otherwise(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "name: tiny\n", FACTS)
    assert read_run(writer.path).manifest["complete"] is False
    write(writer, cells()[0])
    running = read_run(writer.path)
    assert running.manifest["complete"] is False
    assert [cell.params["cell"] for cell in running.cells] == [cells()[0].id]
    assert len(running.cells[0].operations()) == 100
    writer.finish(complete=True, exit_code=0)
    assert read_run(writer.path).manifest["complete"] is True


def test_a_run_ends_once(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "once", "", {})
    writer.finish(complete=True, exit_code=0)
    writer.finish(complete=False, exit_code=130)
    assert read_run(writer.path).manifest["exit_code"] == 0


def test_a_run_goes_on_where_it_began_and_says_where_each_part_ran(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "place", "", {})
    writer.add_place({"private_ray": False, "ray": "the cluster"})
    writer.finish(complete=False, exit_code=130)
    again, _ = RunWriter.reopen(writer.path, (), {})
    with pytest.raises(
        ConfigError, match=r"^--address: the run began on a Ray cluster \(the cluster\), and this is a pri"
    ):
        again.add_place({"private_ray": True, "ray": "here"})
    again.add_place({"private_ray": False, "ray": "the cluster again"})
    manifest = read_run(writer.path).manifest
    assert (manifest["ray"], manifest["resumed"][-1]["ray"]) == ("the cluster", "the cluster again")


def test_no_half_written_file_is_left(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "name: tiny\n", FACTS)
    write(writer, cells()[0])
    assert not [path for path in writer.path.rglob("*") if ".partial" in path.name]
    with pytest.raises(ValueError, match="Out of range float"):
        writer.add_facts({"bad": float("nan")})
    assert read_run(writer.path).manifest["name"] == "tiny"


def test_latest_points_to_the_newest_run_of_a_sweep_and_of_all(tmp_path: Path) -> None:
    first = RunWriter.create(tmp_path, "one", "", FACTS)
    second = RunWriter.create(tmp_path, "two", "", FACTS)
    third = RunWriter.create(tmp_path, "one", "", FACTS)
    assert first.path != third.path
    assert (tmp_path / "latest").resolve() == third.path
    assert find_run(tmp_path, None) == third.path
    assert find_run(tmp_path, "two") == second.path
    assert find_run(tmp_path, f"one/{first.path.name}") == first.path
    assert find_run(tmp_path, str(first.path)) == first.path
    assert not (tmp_path / "latest").readlink().is_absolute()


@pytest.mark.parametrize("run", [None, "nothing", "../else"])
def test_a_run_that_is_not_there(tmp_path: Path, run: str | None) -> None:
    with pytest.raises(ConfigError, match="no run here"):
        find_run(tmp_path, run)


def test_a_damaged_run_is_said_in_one_line(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "", FACTS)
    folder = write(writer, cells()[0])
    (folder / "result.json").write_text("{")
    with pytest.raises(ConfigError, match="is not a run that can be read"):
        read_run(writer.path)


@pytest.mark.parametrize("command", ["show", "check", "history"])
@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("manifest.json", "[]", "must be a JSON object, not list"),
        ("manifest.json", "{", "Expecting property name"),
        ("manifest.json", '{"format": []}', "format: must be a number"),
        ("result.json", "{}", "status, verdict missing"),
        ("result.json", "null", "must be a JSON object, not NoneType"),
        ("result.json", '{"status": "ok", "verdict": []}', "verdict: must be an object with a verdict"),
        ("params.json", "{}", "cell, axes, repeat, parameters missing"),
        ("params.json", "[" * 100_000, "maximum recursion depth exceeded"),
    ],
    ids=range(8),
)
def test_a_damaged_file_is_named(tmp_path: Path, command: str, name: str, text: str, says: str) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "", FACTS)
    folder = write(writer, cells()[0])
    writer.finish(complete=True, exit_code=0)
    file = writer.path / name if name == "manifest.json" else folder / name
    file.write_text(text)
    done = CliRunner().invoke(cli.main, [command, str(writer.path)])
    assert done.exit_code == 2
    [line] = done.output.splitlines()
    assert line.startswith(f"sweep: {writer.path}: is not a run that can be read: {file}: ")
    assert says in line


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"^--out .*file: cannot be written: Not a directory; a part of the path is a file: "
    ):
        RunWriter.create(tmp_path / "file", "tiny", "", FACTS)


def test_columns_that_come_later_get_a_place_in_every_row(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "", FACTS)
    first, second = cells()
    nothing: dict[str, Any] = {"cell": first.id, "status": "failed", "reason": "no leader", "metrics": {}}
    nothing["verdict"] = pending("not checked yet")
    writer.write_cell(first, nothing, CellFiles(None, (), None, {}))
    write(writer, second)
    with (writer.path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["throughput_per_s"] == ""
    assert rows[1]["throughput_per_s"] == "10.0"
    assert not (writer.path / "cells" / first.id / "latency.npz").exists()
    with pytest.raises(FileNotFoundError):
        read_run(writer.path).cells[0].operations()


def test_the_file_system_of_a_path_that_is_gone_is_that_of_its_parent(tmp_path: Path) -> None:
    found = file_system(tmp_path)
    assert found is None or " on " in found
    assert file_system(tmp_path / "gone" / "deeper") == found
