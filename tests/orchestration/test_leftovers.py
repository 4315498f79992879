"""The program that runs a cluster leaves nothing behind, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.ray_cluster import guard
from orchestration.ray_cluster.actor import temporary_folder
from tests.orchestration.waiting import eventually, remaining, state
from tests.ray_head import ray_head

DRIVER = Path(__file__).with_name("driver.py")
ROOT = Path(guard.__file__).parents[2]
PATIENCE_S = 30.0
"""An orderly end waits for nodes to flush and for Ray to shut down."""


def of_ray(folder: str) -> list[int]:
    """The processes of the Ray instance that has its files in this folder."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if guard.belongs(pid, folder)]


def all_gone(pids: set[int]) -> bool:
    return not remaining(pids)


@dataclass
class Driver:
    """A running driver.py."""

    process: subprocess.Popen[str]
    run_id: str
    description: str
    nodes: list[int]
    actors: list[int]
    folder: str

    @property
    def files(self) -> Path:
        return temporary_folder() / self.run_id


@contextlib.asynccontextmanager
async def driver(foreign: tuple[str, ...], address: str = "local", **environment: str) -> AsyncIterator[Driver]:
    run_id = f"test-{uuid.uuid4().hex[:8]}"
    process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [sys.executable, str(DRIVER), address, run_id, *foreign],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        start_new_session=True,  # otherwise a Ctrl-C for the driver would also reach the tests
    )
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        assert line, "the driver did not come up"
        yield Driver(process, run_id, **json.loads(line))
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)
        # A killed program cannot remove the files of its nodes; they stay as evidence.
        await asyncio.to_thread(shutil.rmtree, temporary_folder() / run_id, ignore_errors=True)


async def test_sigkill_of_the_driver(foreign: tuple[str, ...]) -> None:
    async with driver(foreign) as victim:
        assert state(victim.nodes[1]) == "T"
        ours = {*victim.nodes, *victim.actors, *of_ray(victim.folder)}
        # Ray's own: gcs_server, raylet, monitor, dashboard, log monitor, two agents.
        assert len(ours - {*victim.nodes, *victim.actors}) >= 5
        os.kill(victim.process.pid, signal.SIGKILL)
        await eventually(functools.partial(all_gone, ours), "every process is gone", PATIENCE_S)
        await eventually(lambda: not Path(victim.folder).exists(), "the folder of Ray is gone", PATIENCE_S)
        assert of_ray(victim.folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_signal_to_the_driver(foreign: tuple[str, ...], number: signal.Signals) -> None:
    async with driver(foreign) as victim:
        ours = {*victim.nodes, *victim.actors, *of_ray(victim.folder)}
        assert victim.files.exists()
        # As a terminal does it: Ctrl-C goes to the whole process group, Ray's own processes included.
        os.killpg(victim.process.pid, number)
        await eventually(functools.partial(all_gone, ours), "every process is gone", PATIENCE_S)
        await eventually(lambda: not Path(victim.folder).exists(), "the folder of Ray is gone", PATIENCE_S)
        if number is signal.SIGINT:
            await asyncio.to_thread(victim.process.wait)
            assert not victim.files.exists()


async def test_attached_to_a_cluster(foreign: tuple[str, ...]) -> None:
    with ray_head() as (address, folder):
        before = set(of_ray(folder))
        for number in (signal.SIGKILL, signal.SIGINT):
            async with driver(foreign, "auto", RAY_ADDRESS=address, RAY_AUTH_MODE="disabled") as victim:
                assert victim.folder == folder
                assert f"the cluster at {address}" in victim.description
                ours = {*victim.nodes, *victim.actors}
                os.kill(victim.process.pid, number)
                await eventually(functools.partial(all_gone, ours), "nodes and actors are gone", PATIENCE_S)
        core = {pid for pid in before if not _title(pid).startswith("ray::IDLE")}
        assert core <= set(of_ray(folder))  # the cluster itself belongs to the user and must stay


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


def test_a_guard_whose_machine_is_suspended_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time limit counts only time in which it could scan, not time in which it was suspended."""
    now_s, looks = 0.0, iter([3, 1, 0, 0])

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += 2 * guard._GIVE_UP_S

    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: now_s, sleep=sleep))
    monkeypatch.setattr(guard, "kill_all", lambda _: next(looks))
    guard.clean_up(str(tmp_path))
    assert next(looks, None) is None


def test_guard_leaves_others_alone(tmp_path: Path) -> None:
    """A process that only reads the folder is left alone."""
    log = tmp_path / "raylet.log"
    log.write_text("")
    reader: Any = subprocess.Popen(["tail", "-f", log], stdout=subprocess.DEVNULL, cwd=tmp_path)
    try:
        assert not guard.belongs(reader.pid, str(tmp_path))
        assert not guard.belongs(os.getpid(), str(tmp_path))
        guard.clean_up(str(tmp_path))
        assert reader.poll() is None
        assert not tmp_path.exists()
    finally:
        reader.kill()
        reader.wait()
