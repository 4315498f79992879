"""Resumed runs: finished cells stay, and the rest runs."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestration import InfrastructureError, NodeExit, NodeFailed, PlacementRefused
from raft_actor_node.errors import ConfigError
from sweeps.api import Sweep
from sweeps.judge.program import judge as judge_cell
from sweeps.show.live import PlainView
from sweeps.spec.parameters import Parameters
from sweeps.store.lock import RunLock
from sweeps.store.reader import find_run, read_run
from tests.sweeps.conftest import GOOD, FakeJudge
from tests.sweeps.fakes import FakeBackend, FakeCluster, VirtualBackend
from tests.sweeps.run.test_runner import BRIEF, execute, execute_virtually, journal, sweep
from tests.sweeps.test_cli import sweep as command

ROOT = Path(__file__).parents[2]
THREE_CELLS = f"name: tiny\norder: sequential\nbase: {{phases: {BRIEF}}}\naxes: {{load.clients: [2, 4, 6]}}"
LOST = NodeExit("n2", "infrastructure", None, "the actor on 10.0.0.3 is gone (wait()): its node died", 1, "10.0.0.3")


async def resume(path: Path, backend: FakeBackend) -> tuple[int, str]:
    """Resume the run; return its exit code and the output."""
    console = Console(file=io.StringIO(), width=200)
    code, _ = await Sweep.resume(
        path, ["sweep"], backend.connect, lambda progress: PlainView(console, progress), announce=console.print
    )
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and modification time of every file in a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def loses_a_host(cluster: FakeCluster) -> None:
    cluster.unexpected_exits.append(LOST)


async def test_an_interrupted_run_is_completed_and_what_was_done_is_not_touched(tmp_path: Path) -> None:
    backend = FakeBackend()
    running = asyncio.create_task(execute(sweep(THREE_CELLS), backend, tmp_path))
    async with asyncio.timeout(20):
        while len(backend.clusters) < 2:
            await asyncio.sleep(0.005)
            assert not running.done()
        os.kill(os.getpid(), signal.SIGINT)
        code, path, _ = await running
    assert code == 130
    first, second = read_run(path).cells
    assert [cell.result["status"] for cell in (first, second)] == ["ok", "interrupted"]
    before = files(first.path)

    again = FakeBackend()
    code, printed = await resume(path, again)
    assert code == 0
    assert "1 of 3 cells are done" in printed
    assert [cluster.plan.cell_id for cluster in again.clusters] == [
        cell.id for cell in sweep(THREE_CELLS).cells if cell.id != first.params["cell"]
    ]
    assert files(first.path) == before
    run = read_run(path)
    assert [cell.result["status"] for cell in run.cells] == ["ok"] * 3
    assert (run.manifest["complete"], run.manifest["exit_code"]) == (True, 0)
    assert len(run.manifest["resumed"]) == 1
    assert run.manifest["cells"] == [cell.id for cell in sweep(THREE_CELLS).cells]
    events = [(line["event"], line.get("done")) for line in journal(path)]
    assert [each for each in events if each[0].startswith("run ")] == [
        ("run started", 0), ("run interrupted", None), ("run resumed", 1), ("run finished", None),
    ]  # fmt: skip

    nobody = FakeBackend()
    assert (await resume(path, nobody))[0] == 0
    assert nobody.clusters == [], "there is nothing left to do"


async def test_a_cell_that_lost_a_host_goes_on_to_its_end_is_marked_and_runs_again(tmp_path: Path) -> None:
    backend = FakeBackend(lambda cluster: None if backend.clusters else loses_a_host(cluster))
    code, path, printed = await execute(sweep(), backend, tmp_path)
    assert code == 1
    lost, good = read_run(path).cells
    assert (lost.result["status"], good.result["status"]) == ("infrastructure", "ok")
    assert lost.result["reason"] == f"node n2 on host 10.0.0.3 ended (infrastructure): {LOST.log_tail}"
    assert "INFRASTRUCTURE: node n2 on host 10.0.0.3" in printed
    assert lost.result["phases_s"]["measure"] >= 0.3, "the measurement went on to its end"
    assert lost.inspection()["settled"]["nodes"].keys() == {"n1", "n2", "n3"}
    assert lost.result["verdict"]["verdict"] == "ok", "of what is left; the status stays what it is"
    assert "kept" not in lost.result

    assert (await resume(path, FakeBackend()))[0] == 0
    assert [cell.params["cell"] for cell in read_run(path).cells] == [good.params["cell"], lost.params["cell"]]
    assert {cell.result["status"] for cell in read_run(path).cells} == {"ok"}


@pytest.mark.parametrize(("lost", "verdict"), [(["n2"], "violated"), (["n2", "n3"], "unknown")])
def test_no_leader_is_no_violation_when_what_a_quorum_ran_on_is_lost(
    tmp_path: Path, lost: list[str], verdict: str
) -> None:
    def loses(cluster: FakeCluster) -> None:
        cluster.unexpected_exits += [LOST._replace(node_id=node_id) for node_id in lost]
        cluster.addresses.subscribe = lambda _: setattr(cluster, "elects", False)  # type: ignore[method-assign]

    raft = "{election_timeout: 50ms-100ms, heartbeat_interval: 20ms, rpc_timeout: 20ms}"
    text = f"name: tiny\nbase: {{raft: {raft}, phases: {{boot: 300ms, warmup: 50ms, measure: 100ms}}}}"
    _, path, _ = execute_virtually(text, VirtualBackend(loses), tmp_path)
    [cell] = read_run(path).cells
    findings = judge_cell(cell.path, Parameters().checks)["findings"]
    [finding] = [each for each in findings if each["check"] == "liveness"]
    assert finding["reason"].startswith("no leader within 1 s at the end")
    assert finding["verdict"] == verdict
    shown = command("show", "tiny", "--out", str(tmp_path)).stdout
    assert f"cells lost their infrastructure; `sweep resume {path}` runs them again" in shown


async def test_a_violation_stands_however_its_cell_ended(tmp_path: Path, judge: FakeJudge) -> None:
    judge.verdict = {"verdict": "violated", "reason": "two leaders", "findings": []}
    code, path, _ = await execute(sweep(f"name: tiny\nbase: {{phases: {BRIEF}}}"), FakeBackend(loses_a_host), tmp_path)
    assert code == 3
    assert read_run(path).cells[0].result["status"] == "infrastructure"
    judge.verdict = GOOD
    assert (await resume(path, FakeBackend()))[0] == 3
    assert read_run(path).cells[0].result["verdict"]["reason"] == "two leaders"


async def test_a_sweep_without_a_place_for_its_nodes_stops_and_is_completed_later(tmp_path: Path) -> None:
    backend = FakeBackend()
    backend.refusals[1] = PlacementRefused("placement: strict_spread of 3 nodes needs 3 hosts, there are 2")
    code, path, printed = await execute(sweep(THREE_CELLS), backend, tmp_path)
    assert code == 1
    run = read_run(path)
    assert [cell.result["status"] for cell in run.cells] == ["ok", "infrastructure"]
    assert (run.manifest["complete"], run.manifest["exit_code"]) == (False, 1)
    assert run.manifest["stopped"] == "placement: strict_spread of 3 nodes needs 3 hosts, there are 2"
    assert "stopped, with 1 cells left: placement: strict_spread" in printed
    assert journal(path)[-1]["event"] == "run stopped"
    shown = command("show", "tiny", "--out", str(tmp_path)).stdout
    assert "incomplete: placement: strict_spread of 3 nodes needs 3 hosts" in shown

    assert (await resume(path, FakeBackend()))[0] == 0
    run = read_run(path)
    assert len(run.cells) == 3
    assert "stopped" not in run.manifest


def test_a_sweep_whose_ray_is_gone_ends_its_cell_and_stops(tmp_path: Path) -> None:
    def goes(cluster: FakeCluster) -> None:
        asyncio.get_running_loop().call_later(0.5, setattr, backend, "lost", "Ray's head (x) has not answered for 15 s")

    backend = VirtualBackend(goes)
    text = "name: tiny\nbase: {phases: {warmup: 50ms, measure: 60s}}\naxes: {load.clients: [2, 4]}"
    code, path, _ = execute_virtually(text, backend, tmp_path)
    assert code == 1
    [cell] = read_run(path).cells
    assert cell.result["status"] == "infrastructure"
    assert cell.result["reason"] == "Ray's head (x) has not answered for 15 s"
    assert cell.operations().measured.any()
    assert read_run(path).manifest["stopped"] == "Ray's head (x) has not answered for 15 s"


async def test_a_load_generator_that_is_lost_ends_its_cell(tmp_path: Path) -> None:
    class Lossy(FakeBackend):
        async def host(self, factory: Any, *args: Any, **kwargs: Any) -> Any:
            worker = await super().host(factory, *args, **kwargs)
            if len(self.workers) == 1:

                async def call(method: str, *args: Any, **kwargs: Any) -> Any:
                    raise InfrastructureError(f"the actor on 10.0.0.9 is gone ({method}())")

                worker.call = call  # type: ignore[method-assign]
            return worker

    code, path, _ = await execute(sweep(), Lossy(), tmp_path)
    assert code == 1
    lost, good = read_run(path).cells
    assert lost.result["status"] == "infrastructure"
    assert lost.result["reason"] == "the actor on 10.0.0.9 is gone (connect())"
    assert good.result["status"] == "ok"


async def test_a_disk_that_is_full_is_the_hosts_and_an_error_of_the_node_is_its_own(tmp_path: Path) -> None:
    full = NodeExit("n2", "exit", 6, "DiskError: n2/log: No space left on device", 1, "10.0.0.3")
    own = NodeExit("n3", "exit", 7, "InvariantViolated: two leaders", 1, "10.0.0.4")

    def spoil(cluster: FakeCluster) -> None:
        cluster.unexpected_exits += [full] if not backend.clusters else [full, own]

    backend = FakeBackend(spoil)
    backend.refusals[2] = NodeFailed("n1", "ended before it served: exit code 6 (disk error)", 6, "No space left")
    code, path, _ = await execute(sweep(THREE_CELLS), backend, tmp_path)
    assert code == 1
    disk, broken, never = read_run(path).cells
    assert never.result["status"] == "infrastructure"
    assert disk.result["status"] == "infrastructure"
    assert disk.result["reason"] == (
        "node n2 on host 10.0.0.3 ended (exit): exit code 6 (disk error): DiskError: n2/log: No space left on device;"
        " make room"
    )
    assert broken.result["status"] == "failed", "a bug is not excused by a host that was lost as well"
    assert broken.result["reason"] == "node n3 ended (exit): exit code 7 (invariant broken)"


async def test_what_cannot_be_resumed_says_why(tmp_path: Path) -> None:
    _, path, _ = await execute(sweep(), FakeBackend(), tmp_path)
    lock = RunLock(path)
    with pytest.raises(ConfigError, match="still runs"):
        await resume(path, FakeBackend())
    lock.release()
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "cells": ["0123456789"], "commit": "abc"}))
    with pytest.raises(ConfigError, match=r"gives other cells than when the run began, with abc"):
        await resume(path, FakeBackend())


async def test_checks_that_were_deferred_are_made_up_for_without_a_cluster(tmp_path: Path, judge: FakeJudge) -> None:
    text = f"name: tiny\nbase: {{phases: {BRIEF}, checks: {{when: defer}}}}"
    asked = asyncio.Event()

    async def never(folder: Path, checks: Any) -> dict[str, Any]:
        asked.set()
        await asyncio.Event().wait()
        return GOOD

    judge.look = never
    running = asyncio.create_task(execute(sweep(text), FakeBackend(), tmp_path))
    async with asyncio.timeout(20):
        await asked.wait()
        os.kill(os.getpid(), signal.SIGINT)
        code, path, _ = await running
    assert code == 130
    assert read_run(path).cells[0].result["verdict"]["verdict"] == "pending"
    judge.look = judge._tell
    nobody = FakeBackend()
    assert (await resume(path, nobody))[0] == 0
    assert nobody.clusters == []
    assert read_run(path).cells[0].result["verdict"]["verdict"] == "ok"


async def test_a_torn_line_of_the_journal_is_cut_off(tmp_path: Path) -> None:
    _, path, _ = await execute(sweep(), FakeBackend(), tmp_path)
    lines = (path / "journal.jsonl").read_text()
    (path / "journal.jsonl").write_text(lines + '{"time": "20')
    await resume(path, FakeBackend())
    assert (path / "journal.jsonl").read_text().startswith(lines + '{"time": ')
    assert journal(path)[-1]["event"] == "run finished"


def test_a_simulated_run_is_resumed_by_the_command(tmp_path: Path) -> None:
    words = ("-o", "target=sim", "-o", "cluster.nodes=3", "-o", "phases.measure=200ms", "--out", str(tmp_path))
    whole = command("run", "quick", *words)
    assert whole.exit_code == 0, whole.output
    path = find_run(tmp_path, None)
    cells = read_run(path).cells
    cell = cells[-1]
    result = json.loads((cell.path / "result.json").read_text())
    (cell.path / "result.json").write_text(json.dumps({**result, "status": "interrupted"}))
    resumed = command("resume", "--out", str(tmp_path))
    assert resumed.exit_code == 0, resumed.output
    assert f"{len(cells) - 1} of {len(cells)} cells are done" in resumed.stdout
    assert [each.result["status"] for each in read_run(path).cells] == ["ok"] * len(cells)


def test_a_driver_that_is_killed_at_any_write_leaves_a_run_that_is_read_and_completed(tmp_path: Path) -> None:
    """Kills at 25 of the writes; by hand, killed.py can try them all."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweeps.killed", str(tmp_path / "runs"), "25"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
