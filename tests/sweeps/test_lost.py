"""What nodes run on is lost in the middle of a sweep: actors, disks, Ray's head, the driver. On a real Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.ray_cluster import guard
from orchestration.ray_cluster.actor import temporary_folder
from sweeps.results import StoredRun, read_run
from tests.orchestration.waiting import gone

FULL_DISK = Path(__file__).with_name("full_disk.py")
BASE: dict[str, Any] = {
    "cluster": {"nodes": 3},
    "raft": {"election_timeout": "300ms-600ms", "heartbeat_interval": "75ms"},
    "load": {"clients": 8, "mix": {"put": 0.5, "get": 0.5}},
    "phases": {"warmup": "200ms", "measure": "4s"},
    "checks": {"when": "between-cells"},
}
AFTER_A_SILENCE_S = 60.0
"""A head is taken for lost after 15 s; then the cell ends."""

pytestmark = pytest.mark.timeout(180)


class Sweeping:
    """`sweep` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str]

    def spec(self, base: dict[str, Any], **more: Any) -> str:
        path = self.folder / "lost.yaml"
        storage = {"storage": {"dir": str(self.folder / "logs")}}
        path.write_text(
            json.dumps({"name": "lost", "order": "sequential", "base": {**BASE, **storage, **base}, **more})
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
        """Exit code and output."""
        output, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output

    @property
    def path(self) -> Path:
        return next((self.folder / "results" / "lost").glob("2*"))

    def read(self) -> StoredRun:
        return read_run(self.path)

    def nodes(self, cell: str) -> dict[str, int]:
        """Node id to pid, of the nodes of a cell that run."""
        folder = str(temporary_folder() / f"lost-{self.path.name}" / cell)
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
        """Wait until the cell in this position has measured for a moment; the pids of its nodes."""

        def begun() -> str | None:
            if not list((self.folder / "results").glob("lost/2*/journal.jsonl")):
                return None
            events = [json.loads(line) for line in (self.path / "journal.jsonl").read_text().splitlines()]
            cells = [event["cell"] for event in events if event["event"] == "cell started"]
            return cells[position] if len(cells) > position else None

        def runs() -> dict[str, int] | None:
            pids = self.nodes(cell)
            return pids if len(pids) == 3 else None

        cell = self.wait(begun, "the cell begins")
        self.wait(runs, "its nodes run")
        time.sleep(2.5)  # the load runs by then, and for a while longer
        return self.nodes(cell)

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.02)
        return found


@pytest.fixture
def sweeping(tmp_path: Path) -> Iterator[Sweeping]:
    one = Sweeping(tmp_path)
    yield one
    if one.process.poll() is None:
        one.process.send_signal(signal.SIGINT)
        try:
            one.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.communicate()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_an_actor_that_is_killed_marks_its_cell_and_the_next_one_is_good(sweeping: Sweeping) -> None:
    sweeping.start("run", sweeping.spec({}, repeats=2), "--address", "local")
    nodes = sweeping.until_measured()
    os.kill(parent(nodes["n2"]), signal.SIGKILL)
    code, output = sweeping.finish()
    assert code == 1, output
    lost, good = sweeping.read().cells
    assert lost.result["status"] == "infrastructure"
    assert lost.result["reason"].startswith("node n2 on host ")
    assert "is gone" in lost.result["reason"]
    assert "INFRASTRUCTURE: node n2" in output
    begin, end = lost.operations().measure_ns
    operations = lost.operations()
    assert end - begin == 4_000_000_000, "the measurement went on to its end"
    assert operations["start_ns"].max() > end - 500_000_000, "and so did the load"
    assert set(lost.traces()) == {"n1", "n2", "n3"}, "another actor had the files"
    assert lost.result["verdict"]["verdict"] != "violated", lost.result["verdict"]
    assert good.result["status"] == "ok", good.result
    assert not list((sweeping.folder / "logs").rglob("*"))
    assert not (temporary_folder() / f"lost-{sweeping.path.name}").exists()

    before = {path: path.read_bytes() for path in good.path.rglob("*") if path.is_file()}
    sweeping.start("resume", "--address", "local")
    code, output = sweeping.finish()
    assert code == 0, output
    assert "1 of 2 cells are done" in output
    assert {path: path.read_bytes() for path in good.path.rglob("*") if path.is_file()} == before
    assert [cell.result["status"] for cell in sweeping.read().cells] == ["ok", "ok"]


def test_a_driver_that_is_killed_leaves_nothing_running_and_its_run_is_completed(sweeping: Sweeping) -> None:
    sweeping.start("run", sweeping.spec({}, repeats=2), "--address", "local")
    nodes = sweeping.until_measured(1)
    sweeping.process.kill()
    sweeping.process.communicate()
    deadline = time.monotonic() + 10
    while not all(map(gone, nodes.values())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run = sweeping.read()
    assert run.manifest["complete"] is False
    assert [cell.result["status"] for cell in run.cells] == ["ok"]
    sweeping.start("resume", "--address", "local")
    code, output = sweeping.finish()
    assert code == 0, output
    run = sweeping.read()
    assert run.manifest["complete"] is True
    assert [cell.result["status"] for cell in run.cells] == ["ok", "ok"]


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
    [cell] = sweeping.read().cells
    assert cell.result["status"] == "infrastructure"
    assert "node n2 on host " in cell.result["reason"]
    assert "exit code 6 (disk error)" in cell.result["reason"]
    assert "No space left on device" in cell.result["reason"]
    begin, end = cell.operations().measure_ns
    assert end - begin == 4_000_000_000
    assert (cell.operations()["outcome"] == 1).any() or len(cell.operations()) > 0


def head_process(folder: str) -> int:
    """The process that is Ray's head."""
    for entry in Path("/proc").glob("[0-9]*"):
        if guard.belongs(int(entry.name), folder) and b"gcs_server" in (entry / "cmdline").read_bytes().split(b"\0")[0]:
            return int(entry.name)
    raise AssertionError("there is no head")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_a_head_that_is_lost_ends_the_sweep_with_a_reason(
    sweeping: Sweeping, ray_head: tuple[str, str], number: signal.Signals
) -> None:
    address, folder = ray_head
    phases = {"phases": {"warmup": "200ms", "measure": "100s"}}
    sweeping.start("run", sweeping.spec(phases, repeats=2), "--address", address, RAY_AUTH_MODE="disabled")
    nodes = sweeping.until_measured()
    os.kill(head_process(folder), number)
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
