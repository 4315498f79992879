"""remains.py finds the processes and folders that tests leave."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.ray_cluster.actor import temporary_folder
from orchestration.ray_cluster.owner import end_process, hold, start_ticks
from tests.remains import left, leftovers, short_folder

SLEEP = (sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)")
DAEMON = """
import subprocess, sys
print(subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=subprocess.DEVNULL).pid)
"""


@pytest.fixture
def before() -> set[str]:
    return leftovers()


def processes(before: set[str]) -> set[int]:
    return {int(each.split(":")[0].split()[1]) for each in left(before) if each.startswith("process ")}


def test_a_process_is_left_until_it_ends(before: set[str]) -> None:
    with subprocess.Popen(SLEEP) as child:
        try:
            assert child.pid in processes(before)
        finally:
            child.kill()
    assert child.pid not in processes(before)


def test_a_daemon_is_left_although_its_parent_is_gone(before: set[str]) -> None:
    pid = int(subprocess.run([sys.executable, "-c", DAEMON, *SLEEP], stdout=subprocess.PIPE, check=True).stdout)
    ticks = start_ticks(pid)
    try:
        # Between exec and its first instruction, the new program has no environment.
        while start_ticks(pid) and not Path(f"/proc/{pid}/environ").read_bytes():
            time.sleep(0.01)
        assert pid in processes(before)
    finally:
        assert end_process(pid, ticks)
    assert pid not in processes(before)


def test_a_process_that_others_started_is_not_left(before: set[str]) -> None:
    assert not processes(before) & {1, os.getpid(), os.getppid()}


@pytest.fixture
def cell() -> Iterator[Path]:
    """Create a folder such as a killed cluster leaves."""
    folder = temporary_folder() / f"test-{uuid.uuid4().hex[:8]}" / "cell"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder.parent)


def test_a_folder_is_left_when_it_is_new_and_nobody_holds_it(before: set[str], cell: Path) -> None:
    told = f"folder {cell}"
    assert told in left(before)
    assert told not in left(leftovers()), "it existed before"
    held = hold(cell)
    assert told not in left(before)
    os.close(held)


def test_a_folder_of_tests_is_left_until_it_is_removed(before: set[str]) -> None:
    folder = short_folder()
    assert str(folder) in left(before)
    folder.rmdir()
    assert str(folder) not in left(before)


def test_folders_that_others_remove_meanwhile_are_no_matter() -> None:
    """Other programs may create and remove folders during the search."""
    base, ended = temporary_folder(), threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            cell = base / f"test-{uuid.uuid4().hex[:8]}" / "cell"
            cell.mkdir(parents=True)
            shutil.rmtree(cell.parent)

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(100):
            leftovers()
    finally:
        ended.set()
        other.join()
