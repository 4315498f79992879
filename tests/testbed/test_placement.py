"""Placement on hosts with addresses of their own, as a user asks for it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from orchestration.testbed.hosts import Testbed
from orchestration.testbed.ray_hosts import RayHosts
from sweeps.api import Run
from sweeps.spec.grid import show
from tests.testbed.commands import Done, options, sweep

LATE = str(Path(__file__).with_name("placed_late.py"))


def run(bed: Testbed, ray: RayHosts, folder: Path, *each: str) -> Done:
    """Run `sweep run` with these options."""
    return sweep(bed, ray, "run", "quick", *options(*each), "--out", str(folder), timeout_s=150)


def test_nodes_are_where_each_cell_wants_them_and_the_results_say_so(
    bed: Testbed, ray: RayHosts, tmp_path: Path
) -> None:
    third = bed.hosts[2]
    placements = f"spread,majority,{{per_host: 2}},{{hosts: [{third.name}, {bed.hosts[0].address}]}}"
    code, output, errors = run(
        bed,
        ray,
        tmp_path,
        f"cluster.placement={placements}",
        "cluster.nodes=5",
        "chaos=none",
        "phases.measure=1s",
        "phases.warmup=0s",
        "checks.least_operations=1",
    )
    assert code == 0, output + errors
    assert "placement: the nodes of a cell are on 2 to 4 of 5 hosts" in output
    results = Run.read(tmp_path / "quick/latest")
    with (results.path / "results.csv").open(newline="") as file:
        columns = {row["cell"]: row["hosts"] for row in csv.DictReader(file)}
    shares = {}
    for cell in results.cells:
        placed = cell.result["placement"]
        assert list(placed) == ["n1", "n2", "n3", "n4", "n5"]
        assert all(bed.host(place["host"]).name == place["hostname"] for place in placed.values())
        count = Counter(place["hostname"] for place in placed.values())
        shares[show(cell.stored.params["axes"]["cluster.placement"])] = dict(count)
        assert columns[cell.id].count(";") == len(count) - 1
    assert shares == {
        "spread": {"host1": 2, "host2": 1, "host3": 1, "host4": 1},
        "majority": {"host1": 3, "host2": 1, "host3": 1},
        "{per_host: 2}": {"host1": 2, "host2": 2, "host3": 1},
        f"{{hosts: [host3, {bed.hosts[0].address}]}}": {"host3": 3, "host1": 2},
    }


def test_too_few_hosts_are_refused_before_anything_starts(bed: Testbed, ray: RayHosts, tmp_path: Path) -> None:
    begin = time.monotonic()
    code, output, errors = run(bed, ray, tmp_path, "cluster.placement=strict_spread", "cluster.nodes=3,5")
    assert time.monotonic() - begin < 60
    assert (code, "[1/" in output) == (2, False), output + errors
    names = ", ".join(f"{host.address} ({host.name})" for host in bed.hosts)
    run_folder = (tmp_path / "quick/latest").resolve()
    assert errors == (
        f"sweep: placement: strict_spread of 5 nodes needs 5 hosts, there are 4: {names} "
        f"(and without a CPU: {bed.head.address} ({bed.head.name})); "
        f"`sweep resume {run_folder}` then runs the remaining cells\n"
    )
    manifest = json.loads((run_folder / "manifest.json").read_text())
    assert (manifest["exit_code"], manifest["complete"]) == (2, False)


def test_a_host_that_is_lost_after_it_was_chosen_is_told_within_a_minute(
    bed: Testbed, ray: RayHosts, tmp_path: Path
) -> None:
    """Its processes end at once, before Ray's head notices it."""
    go, lost = tmp_path / "go", bed.hosts[3]
    env = ray.env | {"RAY_ADDRESS": ray.address}
    process = bed.head.start(sys.executable, LATE, "4", str(go), env=env, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert lost.address in process.stdout.readline()
        lost.kill()
        go.touch()
        told, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    seconds, _, reason = told.splitlines()[-1].partition(" ")  # Ray itself prints lines before
    assert reason == f"{lost.address} ({lost.name}) left the Ray cluster", told
    assert float(seconds) < 60
