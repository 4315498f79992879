"""Leftovers are found and removed, and nothing else. Without Ray."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestration.ray_cluster import actor, guard, leftovers, owner
from orchestration.ray_cluster.actor import NodeSpec, NodeSupervisor
from orchestration.ray_cluster.leftovers import Cleaned, clean, clean_hosts
from orchestration.ray_cluster.owner import OWNER_VARIABLE, Leftover, end_process, hold, start_ticks
from raft_actor_node.config import NodeConfig
from raft_actor_node.origin import Origin
from tests.orchestration.waiting import eventually, gone

SLEEP = (sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clean only this test's own folders, because other tests may run on this machine."""
    folder = tmp_path / "raft-lab-0"
    monkeypatch.setattr(actor, "temporary_folder", lambda: folder)
    monkeypatch.setattr(leftovers, "temporary_folder", lambda: folder)
    monkeypatch.setattr(leftovers, "_ray_places", lambda: {tmp_path})
    return folder


class Sleepers:
    """Processes that do nothing, with an owner in their environment."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, whose: str | None) -> int:
        env = {**os.environ, **({} if whose is None else {OWNER_VARIABLE: whose})}
        return self.run(SLEEP, env)

    def run(self, command: Sequence[str], env: dict[str, str] | None = None) -> int:
        self.running.append(subprocess.Popen(command, env=env))
        pid = self.running[-1].pid
        while not Path(f"/proc/{pid}/cmdline").read_bytes():
            assert not gone(pid)  # the shim has not executed the command yet
        return pid


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    started = Sleepers()
    yield started
    for process in started.running:
        process.kill()
        process.wait()


def processes(found: list[Leftover]) -> set[int]:
    return {int(each.what.partition(":")[0]) for each in found if each.kind == "process"}


def test_a_process_whose_owner_is_gone_is_ended_and_no_other(base: Path, sleepers: Sleepers) -> None:
    with subprocess.Popen(SLEEP) as dead:
        whose = f"{owner._namespace()}:{dead.pid}:{start_ticks(dead.pid)}"
        dead.kill()
    orphan = sleepers.start(whose)
    reused = sleepers.start(f"{owner._namespace()}:{os.getpid()}:{start_ticks(os.getpid()) - 1}")
    owned = sleepers.start(owner.owner())
    elsewhere = sleepers.start(f"pid:[1]:{dead.pid}:1")
    nobodys = sleepers.start(None)
    assert processes(clean(dry_run=True)) >= {orphan, reused}
    assert not any(map(gone, (orphan, reused, owned, elsewhere, nobodys)))
    assert processes(clean()) & {orphan, reused, owned, elsewhere, nobodys} == {orphan, reused}
    assert gone(orphan)
    assert gone(reused), "that pid is another process by now"
    assert not any(map(gone, (owned, elsewhere, nobodys)))


def test_a_process_is_ended_only_when_it_was_started_then(sleepers: Sleepers) -> None:
    pid = sleepers.start(None)
    assert not end_process(pid, start_ticks(pid) + 1)
    assert not end_process(pid, 0)
    assert not gone(pid)
    assert end_process(pid, start_ticks(pid))
    assert gone(pid)
    assert start_ticks(pid) == 0, "one that has ended is not there, reaped or not"


def test_a_folder_that_nobody_holds_is_removed_and_no_other(base: Path, tmp_path: Path) -> None:
    left, held, beside = base / "run-1" / "cell-1", base / "run-2" / "cell-1", base / "probe"
    for folder in (left, held, beside):
        folder.mkdir(parents=True)
    (left / "n1.log").write_text("x")
    (beside / "file").write_text("x")
    holder = hold(held)
    other = tmp_path / "results"
    other.mkdir()
    told = [Leftover("folder", str(left))]
    assert [each for each in clean(dry_run=True) if each.kind == "folder"] == told
    assert left.exists()
    assert [each for each in clean() if each.kind == "folder"] == told
    assert not left.parent.exists()
    assert held.exists()
    assert (beside / "file").exists()
    assert other.exists()
    os.close(holder)
    assert [each.what for each in clean() if each.kind == "folder"] == [str(held)]


def test_a_folder_of_another_user_is_not_ours(base: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a folder away")
    cell = base / "run" / "cell"
    cell.mkdir(parents=True)
    os.chown(cell, 12345, 12345)
    assert [each for each in clean() if each.kind == "folder"] == []
    assert cell.exists()


def test_a_folder_that_is_removed_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = tmp_path / "run" / "cell", owner.fcntl.flock
    removed = []

    def late(descriptor: int, how: int) -> None:
        if not removed:
            folder.rmdir()
            removed.append(folder)
        real(descriptor, how)

    monkeypatch.setattr(owner.fcntl, "flock", late)
    held = hold(folder)
    assert os.path.samestat(os.fstat(held), folder.stat())
    os.close(held)


def test_a_folder_is_held_while_others_remove_what_is_empty(tmp_path: Path) -> None:
    folder, over = tmp_path / "run" / "cell", threading.Event()

    def remove() -> None:
        while not over.wait(random.uniform(0, 0.0005)):
            for each in (folder, folder.parent):
                with contextlib.suppress(OSError):
                    each.rmdir()

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for _ in range(3000):
            os.close(hold(folder))
    finally:
        over.set()
        remover.join()


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "cell"):
        with pytest.raises(NotADirectoryError):
            hold(folder)


async def test_a_private_ray_is_left_over_when_its_driver_and_its_guard_are_gone(
    base: Path, tmp_path: Path, sleepers: Sleepers
) -> None:
    folder = tmp_path / f"{owner.RAY_PREFIX}{uuid.uuid4().hex[:8]}"
    told = [Leftover("ray", str(folder))]

    def found(*, dry_run: bool = False) -> list[Leftover]:
        return [each for each in clean(dry_run=dry_run) if each.kind == "ray"]

    held = hold(folder)
    agent = sleepers.run([*SLEEP, f"--temp-dir={folder}"])
    assert guard.belongs(agent, str(folder))
    assert found() == [], "its driver lives"
    watcher = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [sys.executable, "-I", "-S", guard.__file__, str(folder)], stdin=subprocess.PIPE
    )
    await eventually(lambda: str(folder) in leftovers._guarded(), "its guard is there")
    os.close(held)
    assert found() == [], "its guard lives"
    watcher.kill()
    watcher.communicate()
    assert found(dry_run=True) == told
    assert not gone(agent)
    assert found() == told
    assert gone(agent)
    assert not folder.exists()


def supervisor(program: str) -> NodeSupervisor:
    config = NodeConfig(cluster_id="c", node_id="n1", members=["n1"]).model_dump(mode="json")
    command = (sys.executable, "-c", program)
    return NodeSupervisor(
        NodeSpec("n1", "run", "cell", config, command, "/", "127.0.0.1", "127.0.0.1", 10.0, Origin("", ""))
    )


TWO = """
import json, os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"], start_new_session=True)
os.write(int(os.environ["RAFT_REPORT_FD"]), json.dumps({"address": "127.0.0.1:1", "pid": child.pid}).encode() + b"\\n")
time.sleep(1000)
"""


async def test_what_a_supervisor_has_is_held_until_it_is_closed(base: Path) -> None:
    running = supervisor(TWO)
    started = await running.start([], bootstrap=True)
    assert started.ticks == start_ticks(started.pid) != 0
    assert [each for each in clean() if str(base) in each.what] == []
    assert not gone(started.pid)
    assert running._process is not None
    child = json.loads(running._process._reported.result())["pid"]
    await running.close()
    assert end_process(child, start_ticks(child))  # its own session keeps it from ending with the node
    assert [each.what for each in clean() if str(base) in each.what] == [str(base / "run" / "cell")]


OWNER = """
import asyncio, sys
from pathlib import Path
from orchestration.ray_cluster import actor
from tests.orchestration.test_clean import TWO, supervisor
actor.temporary_folder = lambda: Path(sys.argv[1])
async def main():
    running = supervisor(TWO)
    started = await running.start([], bootstrap=True)
    child = running._process._reported.result()
    print(started.pid, started.ticks, eval(child)["pid"], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_supervisor_in_the_place_of_one_that_was_killed_ends_what_that_left(base: Path) -> None:
    """The node ends with its owner; a process that it started in another session does not."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [sys.executable, "-c", OWNER, str(base)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
    )
    assert process.stdout is not None
    pid, ticks, child = map(int, (await asyncio.to_thread(process.stdout.readline)).split())
    process.kill()
    process.communicate()
    await eventually(lambda: gone(pid), "the node is gone with its owner")
    assert not gone(child)
    cell = Leftover("folder", str(base / "run" / "cell"))
    assert cell in clean(dry_run=True)
    replacement = supervisor(TWO)
    found = await replacement.reap(pid, ticks)
    assert child in processes(found)
    assert gone(child)
    assert cell not in clean(dry_run=True), "its files are in use again"
    await replacement.close()


def test_the_folder_of_a_run_goes_too_once_it_has_no_cell(base: Path) -> None:
    (base / "empty").mkdir(parents=True)
    (base / "used" / "cell").mkdir(parents=True)
    held = hold(base / "used" / "cell")
    empty = Leftover("folder", str(base / "empty"))
    assert [each for each in clean(dry_run=True) if each.kind == "folder"] == [empty]
    assert [each for each in clean() if each.kind == "folder"] == [empty]
    assert [path.name for path in base.iterdir()] == ["used"]
    os.close(held)


async def test_only_this_host_is_cleaned_where_no_cluster_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (base / "run" / "cell").mkdir(parents=True)
    [found] = [each async for each in clean_hosts(None, False)]
    assert isinstance(found, Cleaned)
    assert (found.host, found.error) == ("this host", None)
    assert Leftover("folder", str(base / "run" / "cell")) in found.leftovers
