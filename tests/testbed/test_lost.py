"""Hosts that are lost during a sweep, and leftovers on hosts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestration.ray_cluster.owner import OWNER_VARIABLE
from orchestration.testbed.hosts import NamespaceHost, Testbed, TestbedError
from orchestration.testbed.ray_hosts import RayHosts, start_ray
from sweeps.api import Run
from tests.testbed.traces import load_s, traces
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.timeout(400)

BASE: dict[str, Any] = {
    "cluster": {"nodes": 4},
    "raft": {"election_timeout": "300ms-600ms", "heartbeat_interval": "75ms"},
    "load": {"clients": 8},
    "phases": {"warmup": "500ms", "measure": "8s"},
}
ORPHAN = f"""
import os, subprocess, sys
env = {{**os.environ, "{OWNER_VARIABLE}": str(os.readlink("/proc/self/ns/pid")) + f":{{os.getpid()}}:1"}}
sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
subprocess.Popen(sleep, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Testbed]:
    with Testbed(4, shared=[tmp_path]) as testbed:
        yield testbed


@pytest.fixture
def ray(bed: Testbed) -> RayHosts:
    return start_ray(bed)


def start(bed: Testbed, ray: RayHosts, *words: str) -> subprocess.Popen[str]:
    """Start `sweep` on the head."""
    command = [sys.executable, "-m", "sweeps.cli", *words, "--address", ray.address]
    return bed.head.start(*command, env=ray.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def spec(folder: Path, cluster: dict[str, Any], repeats: int, measure: str = "8s", **sections: dict[str, Any]) -> str:
    path = folder / "lost.yaml"
    changed = {"phases": {"measure": measure}, "cluster": cluster, **sections}
    base = BASE | {name: BASE.get(name, {}) | section for name, section in changed.items()}
    path.write_text(json.dumps({"name": "lost", "repeats": repeats, "order": "sequential", "base": base}))
    return str(path)


def command(pid: int) -> bytes:
    """Return the words of a process's command, each followed by a zero byte."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def nodes(host: NamespaceHost) -> list[int]:
    """Return the processes of Raft nodes on a host."""
    return [pid for pid in host.pids() if b"\0raft_actor_node\0--config\0" in command(pid)]


def test_the_sweep_goes_on_with_the_hosts_that_are_left(bed: Testbed, ray: RayHosts, tmp_path: Path) -> None:
    """The sweep loses a node and a part of its load with the host."""
    lost = bed.hosts[2]
    out = ("--plain", "--out", str(tmp_path))
    # In an open load the next operation is due no matter how long earlier operations take.
    load = {"on": "every_host", "mode": "open", "rate": 200, "clients": 1024}
    process = start(bed, ray, "run", spec(tmp_path, {}, 3, load=load), *out)
    eventually(lambda: load_s(traces(bed)) > 2, "in the middle of the measurement", 60)
    lost.kill()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    run = Run.read(tmp_path / "lost/latest")
    first, *others = run.cells
    assert first.result["status"] == "infrastructure", output
    assert first.result["reason"].startswith(f"node n3 on host {lost.address} ended (infrastructure): "), output
    operations = first.operations()
    assert operations.measure_ns[1] - operations.measure_ns[0] == 8 * 10**9
    assert operations["intended_ns"].max() > operations.measure_ns[1] - 10**9, "the load went on to the end"
    assert first.verdict == "unknown"
    findings = {each["check"]: each for each in first.result["verdict"]["findings"]}
    assert findings["invariants"]["reason"] == "no trace of n3"
    assert "1 of 4 load generators are lost" in findings["linearizability"]["reason"]
    assert [each["host"] for each in first.result["generators"] if each["lost"]] == [lost.address]
    assert set(operations["generator"].tolist()) == {0, 1, 3}
    assert [cell.result["status"] for cell in others][-1] == "ok", output
    placed = {place["host"] for place in others[-1].result["placement"].values()}
    assert placed == {host.address for host in bed.hosts if host is not lost}

    process = start(bed, ray, "resume", *out)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert [cell.result["status"] for cell in Run.read(tmp_path / "lost/latest").cells] == ["ok"] * 3


def test_what_breaks_on_a_host_that_stays_costs_one_cell_each(bed: Testbed, ray: RayHosts, tmp_path: Path) -> None:
    """A Ray worker is killed on one host, the disk of another is full for a while, Ray itself is killed on a third."""
    worker, disk, raylet = bed.hosts[:3]
    logs = "/var/tmp/logs"
    disk.run("mkdir", logs)
    disk.run("mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", logs)
    storage = {"dir": logs, "allow_memory_fs": True}
    load = {"mix": {"put": 1}, "value_bytes": "4KiB"}
    out = ("--plain", "--out", str(tmp_path))
    process = start(bed, ray, "run", spec(tmp_path, {}, 4, "5s", storage=storage, load=load), *out)
    over: set[str] = set()

    until_loaded(bed, over)
    [node] = nodes(worker)
    os.kill(psutil.Process(node).ppid(), signal.SIGKILL)

    until_loaded(bed, over)
    with pytest.raises(TestbedError, match="No space left on device"):
        disk.run("dd", "if=/dev/zero", f"of={logs}/filler", "bs=1M", "status=none")
    eventually(lambda: not nodes(disk), "the node has ended of its full disk", 20)
    disk.run("rm", f"{logs}/filler")

    until_loaded(bed, over)
    [killed] = [pid for pid in raylet.pids() if b"/raylet/raylet\0" in command(pid)]
    os.kill(killed, signal.SIGKILL)
    gone_s = eventually(lambda: not nodes(raylet), "the node has gone with Ray", 20)
    print(f"the node is gone {gone_s:.1f} s after Ray on its host was killed")

    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    run = Run.read(tmp_path / "lost/latest")
    *broken, last = run.cells
    reasons = [cell.result["reason"] for cell in broken]
    for cell, (node_id, host) in zip(broken, [("n1", worker), ("n2", disk), ("n3", raylet)], strict=True):
        assert cell.result["status"] == "infrastructure", output
        assert cell.result["reason"].startswith(f"node {node_id} on host {host.address} ended "), reasons
        assert cell.verdict != "violated", cell.result["verdict"]
    assert "disk error" in reasons[1], reasons
    assert "No space left on device" in reasons[1], reasons
    assert last.result["status"] == "ok", output
    placed = {place["host"] for place in last.result["placement"].values()}
    assert placed == {host.address for host in bed.hosts if host is not raylet}

    output, _ = start(bed, ray, "resume", *out).communicate(timeout=200)
    assert [cell.result["status"] for cell in Run.read(tmp_path / "lost/latest").cells] == ["ok"] * 4, output


def until_loaded(bed: Testbed, over: set[str]) -> None:
    """Wait until the next cell that is not in `over` has 2 s of load, and add it to `over`."""

    def loaded() -> bool:
        files = [file for file in traces(bed) if file.parent.name not in over]
        return load_s(files) > 2

    eventually(loaded, "in the middle of the measurement", 60)
    over |= {file.parent.name for file in traces(bed)}


def test_the_sweep_stops_where_there_is_no_place_any_more(bed: Testbed, ray: RayHosts, tmp_path: Path) -> None:
    lost = bed.hosts[0]
    words = ("run", spec(tmp_path, {"placement": "strict_spread"}, 4), "--plain", "--out", str(tmp_path))
    process = start(bed, ray, *words)
    eventually(lambda: nodes(lost), "its node runs", 60)
    lost.kill()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    run = Run.read(tmp_path / "lost/latest")
    assert {cell.result["status"] for cell in run.cells} == {"infrastructure"}
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["complete"] is False
    assert "strict_spread of 4 nodes needs 4 hosts, there are 3" in manifest["stopped"], output
    assert "strict_spread of 4 nodes needs 4 hosts, there are 3" in output


def test_a_head_that_no_host_reaches_ends_the_sweep_and_nothing_runs_on(
    bed: Testbed, ray: RayHosts, tmp_path: Path
) -> None:
    """The unplugged head runs the driver, which loses all hosts at once."""
    process = start(bed, ray, "run", spec(tmp_path, {}, 2), "--plain", "--out", str(tmp_path))
    eventually(lambda: load_s(traces(bed)) > 2, "in the middle of the measurement", 60)
    bed.link_down(bed.head)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    run = Run.read(tmp_path / "lost/latest")
    assert {(cell.result["status"], cell.verdict) for cell in run.cells} == {("infrastructure", "unknown")}, output
    stopped = json.loads((run.path / "manifest.json").read_text())["stopped"]
    assert stopped.startswith("placement: no host of the Ray cluster offers a CPU"), output
    bed.link_up(bed.head)
    gone_s = eventually(lambda: not any(map(nodes, bed.hosts)), "no node runs on", 60)
    print(f"the nodes are gone {gone_s:.1f} s after the head is back")


def test_what_is_left_on_any_host_is_cleaned_and_what_runs_is_not(bed: Testbed, ray: RayHosts, tmp_path: Path) -> None:
    process = start(bed, ray, "run", spec(tmp_path, {}, 1, "40s"), "--plain", "--out", str(tmp_path))
    eventually(lambda: all(map(nodes, bed.hosts)), "its nodes run", 60)
    second = bed.hosts[1]
    left = "/tmp/raft-lab-0/old-run/cell"
    second.run("mkdir", "-p", left)
    second.run(sys.executable, "-c", ORPHAN)
    [orphan] = [pid for pid in second.pids() if b"time.sleep(1000)" in command(pid)]
    told = start(bed, ray, "clean", "--dry-run").communicate(timeout=60)[0]
    assert f"{second.address}: would remove folder {left}" in told
    assert f"{second.address}: would remove process " in told
    assert f"{bed.hosts[0].address}: nothing is left over" in told, told
    assert orphan in second.pids()
    told = start(bed, ray, "clean").communicate(timeout=60)[0]
    assert f"{second.address}: removed folder {left}" in told
    assert f"{second.address}: removed process " in told
    assert told.count("nothing is left over") == 4, told
    assert orphan not in second.pids()
    assert "lost-" not in told
    assert process.poll() is None
    assert second.run("ls", "/tmp/raft-lab-0").strip().startswith("lost-")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert second.run("ls", "/tmp/raft-lab-0").strip() == ""
