"""The disk for which SIGKILL is a power failure: synced data is on the real disk, and unsynced data is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raft_actor_node.runtime.disk import REAL_DISK, Disk, sync_directory, write_all
from raft_actor_node.runtime.volatile_disk import VolatileDisk
from raft_actor_node.runtime.wal import Recovered, Wal

ROOT = Path(__file__).parents[2]
CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def open_wal(directory: Path, disk: Disk = REAL_DISK, fsync: bool = True) -> tuple[Wal, Recovered]:
    return Wal.open(
        directory,
        cluster_id="c",
        node_id="n1",
        members=["n1"],
        bootstrap=True,
        fsync=fsync,
        allow_memory_fs=True,
        disk=disk,
    )


def write(disk: Disk, path: Path, data: bytes) -> int:
    fd = disk.open(path, CREATE)
    write_all(disk, fd, (data,), 0)
    return fd


def test_bytes_are_written_by_a_sync_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    disk = VolatileDisk()
    fd = disk.open(tmp_path / "file", os.O_RDWR)
    write_all(disk, fd, (b"BE", b"!"), 0)
    write_all(disk, fd, (b"after",), 8)
    assert disk.read(tmp_path / "file") == b"BE!ore\0\0after"
    assert (tmp_path / "file").read_bytes() == b"before"
    disk.fdatasync(fd)
    assert (tmp_path / "file").read_bytes() == b"BE!ore\0\0after"
    disk.ftruncate(fd, 2)
    assert (disk.read(tmp_path / "file"), (tmp_path / "file").stat().st_size) == (b"BE", 13)
    disk.fsync(fd)
    assert (tmp_path / "file").read_bytes() == b"BE"


@pytest.mark.parametrize("kind", [Disk, VolatileDisk])
def test_a_slow_sync_takes_its_time_before_it_does_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Disk]
) -> None:
    """A kill during that time leaves what a power failure would: no unsynced change, where unsynced bytes are lost."""
    (tmp_path / "file").write_bytes(b"before")
    waits: list[tuple[float, bytes]] = []
    monkeypatch.setattr(
        "raft_actor_node.runtime.disk.time.sleep",
        lambda seconds: waits.append((seconds, (tmp_path / "file").read_bytes())),
    )
    disk = kind(fsync_latency_s=0.5)
    fd = disk.open(tmp_path / "file", os.O_RDWR)
    write_all(disk, fd, (b"after",), 0)
    disk.fdatasync(fd)
    disk.close(fd)
    assert waits == [(0.5, b"before" if kind is VolatileDisk else b"aftere")]
    assert (tmp_path / "file").read_bytes() == b"aftere"


def test_names_are_made_by_a_sync_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    disk = VolatileDisk()
    fd = write(disk, tmp_path / "new", b"synced")
    disk.fsync(fd)
    write_all(disk, fd, (b"unsynced",), 0)
    disk.replace(tmp_path / "new", tmp_path / "target")
    assert (disk.exists(tmp_path / "new"), disk.read(tmp_path / "new")) == (False, None)
    assert disk.read(tmp_path / "target") == b"unsynced"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"target": b"old"}
    sync_directory(disk, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"target": b"synced"}
    assert disk.links(fd) == 1
    disk.fdatasync(fd)
    assert (tmp_path / "target").read_bytes() == b"unsynced"


def test_a_rename_without_a_sync_of_the_file_leaves_it_empty(tmp_path: Path) -> None:
    disk = VolatileDisk()
    disk.close(write(disk, tmp_path / "new", b"data"))
    disk.replace(tmp_path / "new", tmp_path / "target")
    sync_directory(disk, tmp_path)
    assert (tmp_path / "target").read_bytes() == b""
    assert disk.read(tmp_path / "target") == b"data"


def test_files_that_are_not_there_are_missed_as_on_any_disk(tmp_path: Path) -> None:
    disk = VolatileDisk()
    assert disk.read(tmp_path / "none") is None
    for call in (lambda: disk.open(tmp_path / "none", os.O_RDWR), lambda: disk.replace(tmp_path / "none", tmp_path)):
        with pytest.raises(FileNotFoundError):
            call()


@pytest.mark.parametrize("fsync", [True, False])
def test_every_promise_is_on_the_real_disk_when_it_is_made(tmp_path: Path, fsync: bool) -> None:
    """A copy of the directory, made without the log's knowledge, is what SIGKILL would leave."""
    wal, _ = open_wal(tmp_path / "n1", VolatileDisk(), fsync)
    calls: list[Callable[[], None]] = [
        lambda: wal.save_hard_state(3, "n2"),
        lambda: wal.append(1, [1, 3], [b"one", b"two"], 0),
        lambda: wal.append(2, [3], [b"x" * 10_000], 1),
    ]
    promised = [(3, []), (3, [b"one", b"two"]), (3, [b"one", b"x" * 10_000])]
    for i, call in enumerate(calls):
        call()
        copy = tmp_path / f"copy{i}"
        shutil.copytree(tmp_path / "n1", copy)
        again, recovered = open_wal(copy)
        again.close()
        assert (recovered.current_term, recovered.payloads) == (promised[i] if fsync else (0, []))
    wal.close()
    _, recovered = open_wal(tmp_path / "n1")
    assert (recovered.current_term, recovered.payloads) == promised[-1], "an orderly end leaves everything"
    assert recovered.warnings == []


APPEND_FOR_EVER = """
import itertools, os, sys
from pathlib import Path
from raft_actor_node.runtime.volatile_disk import VolatileDisk
from raft_actor_node.runtime.wal import Wal
wal, found = Wal.open(Path(sys.argv[1]) / "n1", cluster_id="c", node_id="n1", members=["n1"],
                      bootstrap=True, fsync=sys.argv[2] == "always", allow_memory_fs=True, disk=VolatileDisk())
ledger = os.open(Path(sys.argv[1]) / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for index in itertools.count(len(found.terms) + 1):
    wal.save_hard_state(index, None)
    wal.append(index, [index], [b"%d" % index], 0)
    os.write(ledger, b"%d\\n" % index)
    os.fdatasync(ledger)
"""


def kill_while_it_appends(directory: Path, fsync: str, more: int) -> list[int]:
    """Kill a process some appends after the last time, and return the promises in its ledger."""
    ledger = directory / "ledger"

    def size() -> int:
        return ledger.stat().st_size if ledger.exists() else 0

    before = seen = size()
    process = subprocess.Popen([sys.executable, "-c", APPEND_FOR_EVER, str(directory), fsync], cwd=ROOT)
    try:
        deadline = time.monotonic() + 30
        while (now := size()) < before + 2 * more:
            assert process.poll() is None
            if now > seen:  # a slow disk is not a hung one
                seen, deadline = now, time.monotonic() + 30
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait(timeout=30)
    return [int(line) for line in ledger.read_bytes().splitlines()]


def test_a_killed_process_has_kept_what_its_ledger_says(tmp_path: Path) -> None:
    for more in (1, 20, 50, 7):
        promised = kill_while_it_appends(tmp_path, "always", more)
        wal, recovered = open_wal(tmp_path / "n1")
        wal.close()
        found = [int(payload) for payload in recovered.payloads]
        assert found[: len(promised)] == promised
        assert len(found) <= len(promised) + 1
        assert recovered.current_term >= promised[-1]
        (tmp_path / "ledger").write_text("".join(f"{index}\n" for index in found))


def test_without_fsync_a_killed_process_has_lost_what_its_ledger_says(tmp_path: Path) -> None:
    promised = kill_while_it_appends(tmp_path, "off", 20)
    wal, recovered = open_wal(tmp_path / "n1")
    wal.close()
    assert len(promised) > 10
    assert (recovered.current_term, recovered.payloads) == (0, [])
