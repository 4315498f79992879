"""What a sweep over several hosts must survive: all sizes, lost hosts, unplugged cables, a killed driver.

With NIGHTLY=1 in the environment the tests run the full lengths of the requirements; without it they take 15 minutes.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from chaos.linearizability import check
from orchestration.testbed.hosts import ROOT, NamespaceHost, Testbed
from orchestration.testbed.ray_hosts import RayHosts, start_ray
from sweeps.api import CellResult, Run
from sweeps.judge.histories import history_of
from sweeps.load.operations import KINDS, OK
from tests.testbed.traces import committed, leader, traces
from tests.testbed.waiting import eventually

NIGHTLY = bool(os.environ.get("NIGHTLY"))
ROUNDS = 20 if NIGHTLY else 3
HOSTS = 4
LONGEST_S = 1.0
"""Longest election timeout; long enough that a machine may stall for a second within the required limit."""
GAP_S = 3 * LONGEST_S
"""Limit of the unavailability for clients, at the 90th percentile."""
CLIENTS = 1024
"""Enough clients for every operation that becomes due during an outage. Each client opens a session: one entry."""
CUT_S = 5.0
REJOIN_S = 3.0
GONE_S = 10.0
CELL_S = 90.0
"""Time limit for a cell to reach its load; far longer than needed."""
SPEC = """
name: bars
base:
  cluster: {{nodes: {nodes}}}
  raft:    {{election_timeout: 500ms-{longest_s:g}s, heartbeat_interval: 50ms, rpc_timeout: 150ms}}
  client:  {{rpc_timeout: 500ms, retry_budget: 10s}}
  load:    {{mode: open, rate: 200, clients: {clients}, keys: 20, mix: {{put: 0.5, get: 0.5}}}}
  phases:  {{warmup: 1s, measure: {measure_s:g}s}}
repeats: {repeats}
"""
OURS = (b"raft_actor_node", b"ObjectHost", b"\0sweeps.")
"""Words in the command lines of nodes, of actors, of drivers and judges."""


@dataclass
class Sweeping:
    """A sweep that runs on the head of a testbed, and the load of its cells."""

    bed: Testbed
    ray: RayHosts
    out: Path
    process: subprocess.Popen[str]
    over: set[str] = field(default_factory=set)
    """Names of the folders of cells that were disturbed already."""

    def loaded(self, entries: int) -> dict[str, Path]:
        """Wait until the next cell has a leader that committed `entries` entries of load; return its nodes' traces."""
        begin = time.monotonic()
        while True:
            files = [file for file in traces(self.bed) if file.parent.name not in self.over]
            cell = files[0].parent.name if files else ""
            found = {file.name.partition(".")[0]: file for file in files if file.parent.name == cell}
            leads = leader(found.values())
            if leads is not None and committed(leads) >= CLIENTS + entries:
                self.over.add(cell)
                return found
            assert self.process.poll() is None, f"the sweep has ended: {self.log()}"
            assert time.monotonic() < begin + CELL_S, f"no load within {CELL_S:g} s: {self.log()}"
            time.sleep(0.05)

    def host(self, trace: Path) -> NamespaceHost:
        """Return the host on which the node of this trace runs."""
        return next(host for host in self.bed.hosts if host.folder in trace.parents)

    def log(self) -> str:
        """Return the output of the sweep so far."""
        return (self.out / "log").read_text()

    def wait(self, timeout_s: float) -> tuple[int, Run]:
        """Wait for the end of the sweep; return its exit code and its results."""
        code = self.process.wait(timeout_s)
        return code, Run.read(self.out / "results/bars/latest")


@contextmanager
def sweeping(bed: Testbed, ray: RayHosts, out: Path, *words: str) -> Iterator[Sweeping]:
    with (out / "log").open("w") as log:
        command = (sys.executable, "-m", "sweeps.cli", *words, "--plain", "--address", ray.address)
        process = bed.head.start(*command, env=ray.env, cwd=out, stdout=log, stderr=subprocess.STDOUT)
    with process:
        try:
            yield Sweeping(bed, ray, out, process)
        finally:
            process.kill()


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Testbed]:
    with Testbed(HOSTS, shared=[tmp_path]) as testbed:
        yield testbed


@pytest.fixture
def ray(bed: Testbed) -> RayHosts:
    return start_ray(bed)


def spec(folder: Path, **values: float) -> str:
    (folder / "bars.yaml").write_text(SPEC.format(clients=CLIENTS, longest_s=LONGEST_S, **values))
    return "bars.yaml"


@pytest.mark.timeout(3600 if NIGHTLY else 600)
def test_scalability_is_ok_with_an_even_share_for_each_host(tmp_path: Path) -> None:
    sizes = {3, 5, 7, 9, 11, 13, 15} if NIGHTLY else {3, 7, 15}
    short = [
        f"cluster.nodes={sorted(sizes)}",
        "phases.warmup=1s",
        "phases.measure=3s",
        f"load={{mode: open, rate: 200, clients: {CLIENTS}}}",
    ]
    words = ["scalability", *([] if NIGHTLY else [word for option in short for word in ("-o", option)]), "--plain"]
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.testbed", "--hosts", str(HOSTS), "sweep", *words, "--out", "results"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = Run.read(tmp_path / "results/scalability/latest").cells
    assert {len(cell.result["placement"]) for cell in cells} == sizes
    for cell in cells:
        assert (cell.result["status"], cell.verdict) == ("ok", "ok")
        nodes = Counter(place["host"] for place in cell.result["placement"].values())
        total = nodes.total()
        assert len(nodes) == min(total, HOSTS)
        assert set(nodes.values()) <= {total // len(nodes), -(-total // len(nodes))}


@pytest.mark.timeout(60 + 90 * ROUNDS)
def test_the_leaders_host_is_lost(bed: Testbed, ray: RayHosts, tmp_path: Path) -> None:
    """It loses power suddenly; a new machine takes its place for the next cell."""
    rng = random.Random(4)
    lost = []
    with sweeping(bed, ray, tmp_path, "run", spec(tmp_path, nodes=5, measure_s=8, repeats=ROUNDS)) as sweep:
        for _ in range(ROUNDS):
            leads = leader(sweep.loaded(entries=rng.randrange(150, 350)).values())
            assert leads is not None
            host = sweep.host(leads)
            bed.lose(host)
            lost.append(host.address)
            ray.join(bed.renew(host))
        code, run = sweep.wait(CELL_S)
    assert code == 1, sweep.log()
    assert [cell.result["status"] for cell in run.cells] == ["infrastructure"] * ROUNDS
    for cell, address in zip(run.cells, lost, strict=True):
        assert address in cell.result["reason"]
        assert cell.verdict == "unknown"
    told("host of the leader lost", run.cells)


@pytest.mark.timeout(60 + 90 * ROUNDS)
def test_the_cable_of_the_leaders_host_is_pulled_and_put_back(bed: Testbed, ray: RayHosts, tmp_path: Path) -> None:
    rng = random.Random(4)
    back_s = []
    with sweeping(bed, ray, tmp_path, "run", spec(tmp_path, nodes=5, measure_s=12, repeats=ROUNDS)) as sweep:
        for _ in range(ROUNDS):
            nodes = sweep.loaded(entries=rng.randrange(150, 350))
            old = leader(nodes.values())
            assert old is not None
            host = sweep.host(old)
            bed.link_down(host)
            time.sleep(CUT_S)
            others = [trace for trace in nodes.values() if sweep.host(trace) is not host]
            index = max(map(committed, others))
            assert committed(old) < index
            bed.link_up(host)
            back_s.append(eventually(lambda old=old, index=index: committed(old) >= index, "it rejoins", REJOIN_S))
        code, run = sweep.wait(CELL_S)
    print(f"rejoined after {', '.join(f'{seconds:.2f}' for seconds in back_s)} s")
    assert code == 0, sweep.log()
    assert [(cell.result["status"], cell.verdict) for cell in run.cells] == [("ok", "ok")] * ROUNDS
    told("cable of the leader's host", run.cells)


def told(what: str, cells: list[CellResult]) -> None:
    """Check that no acknowledged write is lost and that clients are served again in time; print the gaps."""
    gaps_s = []
    for cell in cells:
        operations = cell.stored.operations()
        found = check(history_of(cell.stored), time_limit_s=60)
        assert found.verdict == "ok", found
        columns = operations.columns
        ends = np.append(operations.success_ns(), operations.measure_ns[1])  # a gap that never ends counts too
        widest = int(np.diff(ends).argmax())
        gap = ends[widest : widest + 2]
        gaps_s.append(float(gap[1] - gap[0]) / 1e9)
        ok = columns["outcome"] == OK
        written = columns["key"][ok & (columns["kind"] == KINDS["put"]) & (columns["end_ns"] <= gap[0])]
        read_back = columns["key"][ok & (columns["kind"] == KINDS["get"]) & (columns["start_ns"] >= gap[1])]
        assert len(written) > 100
        assert set(written.tolist()) <= set(read_back.tolist())
    print(f"{what}: gaps {', '.join(f'{gap:.2f}' for gap in gaps_s)} s")
    assert np.percentile(gaps_s, 90) < GAP_S


@pytest.mark.timeout(300)
def test_a_driver_that_is_killed_leaves_nothing_and_its_run_is_resumed(
    bed: Testbed, ray: RayHosts, tmp_path: Path
) -> None:
    with sweeping(bed, ray, tmp_path, "run", spec(tmp_path, nodes=4, measure_s=3, repeats=3)) as sweep:
        sweep.loaded(entries=50)
        sweep.loaded(entries=50)  # at the second cell: one is done, one runs, one is to come
        running = ours(bed)
        assert all(any(word in line for line in running) for word in OURS)
        sweep.process.kill()
        sweep.process.wait()
        gone_s = eventually(lambda: not ours(bed), "nothing of ours runs on any host", GONE_S)
    print(f"driver killed: nothing left after {gone_s:.1f} s")
    killed = Run.read(tmp_path / "results/bars/latest")
    [first] = [cell.stored.path for cell in killed.cells if cell.result["status"] == "ok"]
    kept = (first / "latency.npz").stat()
    with sweeping(bed, ray, tmp_path, "resume", str(killed.path)) as sweep:
        code, run = sweep.wait(120)
    assert code == 0, sweep.log()
    assert run.path == killed.path
    assert [(cell.result["status"], cell.verdict) for cell in run.cells] == [("ok", "ok")] * 3
    again = (first / "latency.npz").stat()
    assert (again.st_ino, again.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns), "what is done is not run again"
    assert not ours(bed)


def ours(bed: Testbed) -> list[bytes]:
    """Return the command lines of this project's processes on all hosts."""
    found = []
    for pid in (pid for host in (bed.head, *bed.hosts) for pid in host.pids()):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if any(word in line for word in OURS):
            found.append(line)
    return found
