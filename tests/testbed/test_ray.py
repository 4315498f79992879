"""A Ray cluster over hosts with addresses, clocks, disks and process ids of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.testbed.hosts import ROOT, Testbed
from orchestration.testbed.ray_hosts import RayHosts
from sweeps.api import Run

DRIVER = str(Path(__file__).with_name("driver.py"))


def test_a_sweep_over_hosts_is_ok_although_their_clocks_differ(tmp_path: Path) -> None:
    """Run by the command. The leader is killed during the sweep, so that a failover contains times of several hosts."""
    options = ("cluster.nodes=4", "phases.measure=3s", "chaos={crash: leader, at: 1/3, restart_after: 1s}")
    words = ["quick", *(word for option in options for word in ("-o", option)), "--plain", "--out", "results"]
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.testbed", "--hosts", "4", "sweep", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 hosts" in done.stdout
    [cell] = Run.read(tmp_path / "results/quick/latest").cells
    assert (cell.result["status"], cell.verdict) == ("ok", "ok")
    [failover] = cell.result["failovers"]
    assert 0 < failover["detected_ms"] < failover["succeeded_ms"] < 100_000, "clocks differ by 1000 s and more"
    for i, clock in enumerate(cell.stored.inspection()["clocks"].values(), 1):
        assert abs(clock["offset_ns"] - i * 1000 * 10**9) <= clock["error_ns"]


@pytest.fixture(scope="module")
def placed(bed: Testbed, ray: RayHosts) -> dict[str, dict[str, Any]]:
    """Return the report of a program on the head about its cluster of 4 nodes."""
    env = ray.env | {"RAY_ADDRESS": ray.address}
    facts: dict[str, dict[str, Any]] = json.loads(bed.head.run(sys.executable, DRIVER, "4", env=env, timeout_s=90))
    return facts


def test_each_host_has_a_node_that_serves_on_its_address(bed: Testbed, placed: dict[str, dict[str, Any]]) -> None:
    assert sorted(node["host"] for node in placed.values()) == sorted(host.address for host in bed.hosts)
    for node in placed.values():
        assert node["serves"].rpartition(":")[0] == node["host"]
        assert node["hostname"] == bed.host(node["host"]).name


def test_the_measured_clock_offsets_are_right_within_their_bounds(
    bed: Testbed, placed: dict[str, dict[str, Any]]
) -> None:
    for node in placed.values():
        true_ns = bed.host(node["host"]).clock_offset_ns - bed.head.clock_offset_ns
        assert 0 < node["error_ns"] < 1e9
        assert abs(node["offset_ns"] - true_ns) <= node["error_ns"]


def test_nothing_of_a_cluster_stays_on_the_hosts(bed: Testbed, placed: dict[str, dict[str, Any]]) -> None:
    assert placed
    for host in bed.hosts:
        assert b"raft_actor_node" not in b"".join(_command_lines(host.pids()))
        assert host.run("sh", "-c", "find /tmp/raft-lab-* /var/tmp/raft-lab-* -type f 2>/dev/null; true") == ""


def _command_lines(pids: dict[int, int]) -> Iterator[bytes]:
    for pid in pids:
        try:
            yield Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
