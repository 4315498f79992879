"""A small sweep through all layers: the command line, Ray, node processes, chaos, load, the run directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.spec.parameters import with_value
from sweeps.store.reader import StoredCell, StoredRun, read_run

FOREIGN_NODE = Path(__file__).parent.parent / "orchestration" / "foreign_node.py"
FOREIGN = [sys.executable, str(FOREIGN_NODE)]
CRASH = {"crash": "leader", "at": "1/3", "restart_after": "1500ms"}
BASE = {
    "cluster": {"nodes": 3},
    "raft": {"election_timeout": "300ms-600ms", "heartbeat_interval": "75ms"},
    "load": {"mode": "open", "rate": 100, "clients": 256, "mix": {"put": 0.6, "get": 0.4}},
    "phases": {"warmup": "200ms", "measure": "3s"},
}
SPEC = {
    "name": "tiny",
    "order": "sequential",
    "axes": {"cluster.command": ["default", FOREIGN], "chaos": ["none", CRASH]},
    "exclude": [{"cluster.command": FOREIGN, "chaos": CRASH}],
    "thresholds": {"failed": "< 1"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    folder = tmp_path_factory.mktemp("tiny")
    base = with_value(BASE, "storage.dir", str(folder / "logs"))
    (folder / "tiny.yaml").write_text(json.dumps({**SPEC, "base": base}))
    command = [sys.executable, "-m", "sweeps.cli", "run", str(folder / "tiny.yaml"), "--out", str(folder / "results")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((folder / "logs").rglob("*")), "the logs of good cells are removed"
    return read_run((folder / "results" / "latest").resolve())


@pytest.fixture(scope="module")
def calm(run: StoredRun) -> StoredCell:
    return run.cells[0]


@pytest.fixture(scope="module")
def crashed(run: StoredRun) -> StoredCell:
    return run.cells[1]


@pytest.fixture(scope="module")
def foreign(run: StoredRun) -> StoredCell:
    return run.cells[2]


pytestmark = pytest.mark.timeout(180)


def test_every_cell_is_good_and_the_run_complete(run: StoredRun) -> None:
    assert run.manifest["complete"] is True
    assert [cell.result["status"] for cell in run.cells] == ["ok"] * 3
    assert len((run.path / "results.csv").read_text().splitlines()) == 1 + 3


def test_the_manifest_has_the_figures_of_the_host(run: StoredRun) -> None:
    hosts = run.manifest["hosts"]
    [host] = hosts["hosts"]
    assert host["error"] is None
    assert host["is_driver"]
    assert host["code"] == hosts["driver"]
    assert host["storage"]["folder"].endswith("/logs"), "there nodes have their logs"
    assert host["storage"]["fsync"]["count"] > 0
    assert (hosts["ray"]["private"], hosts["ray"]["authentication"]) == (True, "token")


def test_every_cell_was_checked(run: StoredRun, foreign: StoredCell) -> None:
    checks = ["linearizability", "invariants", "inspection", "exits", "state", "durability", "liveness", "coverage"]
    for cell in run.cells[:2]:
        verdict = cell.result["verdict"]
        assert [(each["check"], each["verdict"]) for each in verdict["findings"]] == [(check, "ok") for check in checks]
    verdict = foreign.result["verdict"]
    assert verdict["verdict"] == "ok"
    absent = ["invariants", "inspection", "state", "durability"]
    assert verdict["not_checked"] == absent, "it traces nothing, and tells nothing of itself"


def test_operations_of_every_kind_succeed(calm: StoredCell) -> None:
    operations = calm.operations()
    counts = calm.result["operations"]
    assert counts["failed"] == 0
    assert set(counts["by_kind"]) == {"put", "get"}
    assert counts["ok"] == int(np.count_nonzero(operations.measured & (operations["outcome"] == 1))) > 100
    assert (operations["end_ns"] > operations["start_ns"]).all()


def test_the_nodes_tell_about_themselves(calm: StoredCell) -> None:
    assert set(calm.result["nodes"]) == {"n1", "n2", "n3"}
    for figures in calm.result["nodes"].values():
        assert figures["fsync_p50_us"] > 0
        assert figures["cpu_share"] > 0
        assert 10 * 2**20 < figures["resident_bytes"] < 200 * 2**20
    assert {path.name for path in (calm.path / "nodes").iterdir()} == {"n1.log", "n2.log", "n3.log"}


def test_the_crash_of_the_leader_is_survived_and_timed(crashed: StoredCell) -> None:
    assert crashed.result["faults"] == 1
    failover = crashed.result["failovers"][0]
    assert failover["old_leader"] != failover["new_leader"]
    stages = [failover[f"{stage}_ms"] for stage in ("detected", "elected", "committed", "succeeded")]
    assert stages == sorted(stages)
    assert stages[0] > 0
    assert crashed.result["elections"]["won"] >= 1
    schedule = json.loads((crashed.path / "schedule.json").read_text())
    assert schedule["faults"][0]["crash"] == [failover["old_leader"]]
    operations = crashed.operations()
    (begin, end), *_ = operations.fault_ns.tolist()
    assert operations.measure_ns[0] <= begin < end


def test_events_of_nodes_and_faults_are_on_one_clock(crashed: StoredCell) -> None:
    events = [json.loads(line) for line in (crashed.path / "events.jsonl").read_text().splitlines()]
    times = [event["time_ns"] for event in events]
    assert times == sorted(times)
    kinds = [event["kind"] for event in events]
    assert kinds.count("started") == 4, "three nodes, and one of them twice"
    failover, crash = crashed.result["failovers"][0], kinds.index("crash")
    assert failover["old_leader"] in dict(leaders(events[:crash]))
    assert (failover["new_leader"], failover["term"]) in leaders(events[crash:])


def leaders(events: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """The elected nodes with their terms. There may be others than the one that the test asserts."""
    return [(event["node"], event["term"]) for event in events if event["kind"] == "became_leader"]


def test_a_foreign_program_is_measured_and_what_it_does_not_tell_is_not_made_up(foreign: StoredCell) -> None:
    assert foreign.result["operations"]["ok"] > 100
    assert foreign.result["elections"] == {"started": None, "won": None, "first_term": None, "last_term": None}
    assert foreign.result["nodes"]["n1"]["fsync_p50_us"] is None
    assert foreign.result["nodes"]["n1"]["cpu_share"] is None
