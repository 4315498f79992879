"""Actors, disks, Ray's head and the driver are lost in the middle of a sweep on a real Ray."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestration.ray_cluster import guard
from orchestration.ray_cluster.actor import temporary_folder
from sweeps.store.reader import StoredRun, read_run
from tests.orchestration.waiting import gone
from tests.ray_head import ray_head
from tests.testbed.traces import load_s

FULL_DISK = Path(__file__).with_name("full_disk.py")
WARMUP_S, MEASURE_S = 0.2, 3
BASE: dict[str, Any] = {
    "cluster": {"nodes": 3},
    "raft": {"election_timeout": "300ms-600ms", "heartbeat_interval": "75ms"},
    "load": {"clients": 8, "mix": {"put": 0.5, "get": 0.5}},
    "phases": {"warmup": f"{WARMUP_S}s", "measure": f"{MEASURE_S}s"},
    "checks": {"when": "between-cells"},
}
LONG = {"load": {"clients": 2}, "phases": {"warmup": f"{WARMUP_S}s", "measure": "100s"}}
AFTER_A_SILENCE_S = 60.0
"""Ray's head counts as lost after a silence of 15 s; then the cell must end."""

pytestmark = pytest.mark.timeout(180)


class Sweeping:
    """`sweep` as a process of its own."""

    def __init__(self, folder: Path, name: str = "lost") -> None:
        self.folder, self.name = folder, name
        self.process: subprocess.Popen[str]

    def spec(self, base: dict[str, Any], **more: Any) -> str:
        path = self.folder / "spec.yaml"
        storage = {"storage": {"dir": str(self.folder / "logs")}}
        path.write_text(
            json.dumps({"name": self.name, "order": "sequential", "base": {**BASE, **storage, **base}, **more})
        )
        return str(path)

    def start(self, *words: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sweeps.cli", *words, "--plain", "--out", str(self.folder / "results")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **env},
            start_new_session=True,
        )

    def finish(self, timeout_s: float = 120.0) -> tuple[int, str]:
        """Wait for its end; return the exit code and the output."""
        output, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output

    @property
    def path(self) -> Path:
        return next((self.folder / "results" / self.name).glob("2*"))

    def read(self) -> StoredRun:
        return read_run(self.path)

    @property
    def files(self) -> Path:
        """The folder of the nodes of all cells. Their logs are elsewhere."""
        return temporary_folder() / f"{self.name}-{self.path.name}"

    def nodes(self, cell: str) -> dict[str, int]:
        """Node id -> pid of the cell's running nodes."""
        folder = str(self.files / cell)
        found = {}
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            for word in words:
                if word.startswith(folder) and word.endswith(".json"):
                    found[Path(word).stem] = int(entry.parent.name)
        return found

    def until_measured(self, position: int = 0) -> dict[str, int]:
        """Wait until the cell at this position has been measured for 0.5 s; return the pids of its nodes."""

        def begun() -> str | None:
            if not list((self.folder / "results").glob(f"{self.name}/2*/journal.jsonl")):
                return None
            events = [json.loads(line) for line in (self.path / "journal.jsonl").read_text().splitlines()]
            cells = [event["cell"] for event in events if event["event"] == "cell started"]
            return cells[position] if len(cells) > position else None

        def measured() -> bool:
            return load_s(self.files.glob(f"{cell}-*/*.trace.jsonl")) > WARMUP_S + 0.5

        cell = self.wait(begun, "the cell begins")
        self.wait(measured, "it is measured")
        return self.nodes(cell)

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.02)
        return found


@contextmanager
def sweeping_in(folder: Path, name: str = "lost") -> Iterator[Sweeping]:
    """A sweep that ends with the context. Its nodes' files are removed, as a killed sweep leaves them behind."""
    one = Sweeping(folder, name)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGINT)
            try:
                one.process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.communicate()
        shutil.rmtree(one.files, ignore_errors=True)


@pytest.fixture
def sweeping(tmp_path: Path) -> Iterator[Sweeping]:
    with sweeping_in(tmp_path) as one:
        yield one


def test_an_actor_and_then_the_driver_are_killed_and_the_run_is_completed(sweeping: Sweeping) -> None:
    """The actor's cell is marked and the next one is ok; the driver leaves no process behind."""
    # In an open load, operations stay due on schedule, however long earlier ones take.
    load = {**BASE["load"], "mode": "open", "rate": 200, "clients": 1024}
    sweeping.start("run", sweeping.spec({"load": load}, repeats=3), "--address", "local")
    nodes = sweeping.until_measured()
    os.kill(psutil.Process(nodes["n2"]).ppid(), signal.SIGKILL)
    nodes = sweeping.until_measured(2)
    sweeping.process.kill()
    sweeping.process.communicate()
    deadline = time.monotonic() + 10
    while not all(map(gone, nodes.values())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run = sweeping.read()
    assert run.manifest["complete"] is False
    lost, good = run.cells
    assert lost.result["status"] == "infrastructure"
    assert lost.result["reason"].startswith("node n2 on host ")
    assert "is gone" in lost.result["reason"]
    operations = lost.operations()
    begin, end = operations.measure_ns
    assert end - begin == MEASURE_S * 10**9, "the measurement went on to its end"
    assert operations["intended_ns"].max() > end - 500_000_000, "and so did the load"
    assert set(lost.traces()) == {"n1", "n2", "n3"}, "another actor had the files"
    assert lost.result["verdict"]["verdict"] != "violated", lost.result["verdict"]
    assert good.result["status"] == "ok", good.result

    before = {path: path.read_bytes() for path in good.path.rglob("*") if path.is_file()}
    sweeping.start("resume", "--address", "local")
    code, output = sweeping.finish()
    assert code == 0, output
    assert "1 of 3 cells are done" in output
    assert {path: path.read_bytes() for path in good.path.rglob("*") if path.is_file()} == before
    run = sweeping.read()
    assert run.manifest["complete"] is True
    assert [cell.result["status"] for cell in run.cells] == ["ok"] * 3
    [files], [logs] = sweeping.files.iterdir(), (sweeping.folder / "logs").glob("*/*")
    assert files.name == logs.name, "what the killed driver had, and nothing else"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
def test_a_node_whose_disk_is_full_says_so_and_its_cell_is_no_result(sweeping: Sweeping) -> None:
    program = [sys.executable, "-P", str(FULL_DISK), "n2", str(3 << 20)]
    base = {
        "cluster": {"nodes": 3, "command": program},
        "storage": {"dir": str(sweeping.folder / "logs"), "allow_memory_fs": True},
        "load": {"clients": 16, "mix": {"put": 1}, "value_bytes": "16KiB"},
    }
    sweeping.start("run", sweeping.spec(base), "--address", "local", PYTHONPATH=str(FULL_DISK.parents[2]))
    code, output = sweeping.finish()
    assert code == 1, output
    assert "INFRASTRUCTURE: node n2" in output
    [cell] = sweeping.read().cells
    assert cell.result["status"] == "infrastructure"
    assert "node n2 on host " in cell.result["reason"]
    assert "exit code 6 (disk error)" in cell.result["reason"]
    assert cell.result["reason"].endswith("No space left on device; the log accepts no more writes; make room")
    operations = cell.operations()
    assert operations.success_ns().max() > operations.measure_ns[1] - 500_000_000, "the others went on to the end"


def head_process(folder: str) -> int:
    """The pid of Ray's head."""
    for entry in Path("/proc").glob("[0-9]*"):
        if guard.belongs(int(entry.name), folder) and b"gcs_server" in (entry / "cmdline").read_bytes().split(b"\0")[0]:
            return int(entry.name)
    raise AssertionError("there is no head")


def test_a_head_that_is_lost_ends_the_sweep_with_a_reason(tmp_path: Path) -> None:
    """The head is killed or stopped. Both cases run in parallel, as each mostly waits."""

    def lose(number: signal.Signals) -> None:
        folder, name = tmp_path / number.name, f"lost-head-{int(number)}"
        folder.mkdir()
        with ray_head() as (address, place), sweeping_in(folder, name) as sweeping:
            sweeping.start("run", sweeping.spec(LONG, repeats=2), "--address", address, RAY_AUTH_MODE="disabled")
            nodes = sweeping.until_measured()
            os.kill(head_process(place), number)
            check_that_it_has_stopped(sweeping, nodes)

    with ThreadPoolExecutor() as executor:
        list(executor.map(lose, (signal.SIGKILL, signal.SIGSTOP)))


def check_that_it_has_stopped(sweeping: Sweeping, nodes: dict[str, int]) -> None:
    code, output = sweeping.finish(AFTER_A_SILENCE_S)
    assert code == 1, output
    assert "Ray's head has not answered for 15 s" in output
    assert all(map(gone, nodes.values())), "the nodes have ended with the cell"
    run = sweeping.read()
    [cell] = run.cells
    assert cell.result["status"] == "infrastructure"
    assert cell.result["reason"] == "Ray's head has not answered for 15 s"
    assert len(cell.operations()) > 0
    assert set(cell.traces()) == {"n1", "n2", "n3"}
    assert run.manifest["complete"] is False
    assert run.manifest["stopped"] == "Ray's head has not answered for 15 s"
