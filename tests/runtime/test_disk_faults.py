"""Disk faults that are switched while a log is in use: which calls fail or wait, and what is counted."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest

from raft_actor_node.core import Persist, Persisted
from raft_actor_node.errors import DiskError
from raft_actor_node.node_faults import DiskFault
from raft_actor_node.runtime.disk import Disk
from raft_actor_node.runtime.disk_faults import DiskFaults, HeldFsync
from raft_actor_node.runtime.faulty_disk import FaultyDisk
from raft_actor_node.runtime.samples import Samples
from raft_actor_node.runtime.volatile_disk import VolatileDisk
from raft_actor_node.runtime.wal import Wal
from raft_actor_node.runtime.writer import ThreadWriter
from tests.runtime.test_wal import open_wal, opened

STALL = DiskFault(stall=True)
PATIENCE_S = 20.0

# ------------------------------------------------------------------------------ what a fault decides


def test_a_whole_disk_holds_nothing() -> None:
    faults = DiskFaults()
    faults.write()
    assert HeldFsync(faults).left_s(0.0) == 0.0
    assert faults.counters == DiskFaults().counters


def test_a_latency_is_waited_for_once_and_counted_once() -> None:
    faults = DiskFaults()
    faults.replace(DiskFault(fsync_latency_ms=200))
    held = HeldFsync(faults)
    assert [held.left_s(at) for at in (0.0, 0.05, 0.2, 0.3)] == pytest.approx([0.2, 0.15, 0.0, 0.0])
    assert HeldFsync(faults).left_s(0.0) == pytest.approx(0.2)
    assert (faults.counters.fsyncs_delayed, faults.counters.fsyncs_stalled) == (2, 0)


def test_a_stall_lasts_until_it_is_healed() -> None:
    faults = DiskFaults()
    faults.replace(STALL)
    held = HeldFsync(faults)
    assert held.left_s(0.0) == held.left_s(1e6) == inf
    faults.replace(DiskFault(fsync_latency_ms=100))
    assert held.left_s(0.04) == pytest.approx(0.06)
    faults.replace(None)
    assert held.left_s(0.05) == 0.0
    assert (faults.counters.fsyncs_stalled, faults.counters.fsyncs_delayed) == (1, 1)


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("on", ["write", "fsync"])
def test_an_error_is_raised_where_it_was_asked_for(error: str, on: str) -> None:
    faults = DiskFaults()
    faults.replace(DiskFault.model_validate({"error": error, "on": on}))
    calls: dict[str, Callable[[], object]] = {"write": faults.write, "fsync": lambda: HeldFsync(faults).left_s(0.0)}
    with pytest.raises(OSError, match=f"injected on {on}") as caught:
        calls.pop(on)()
    assert caught.value.errno == getattr(errno, error)
    for call in calls.values():
        call()
    assert faults.counters.errors == 1


def test_the_end_of_a_node_lets_a_delay_go_and_fails_a_stall() -> None:
    faults = DiskFaults()
    faults.replace(DiskFault(fsync_latency_ms=1000))
    faults.end()
    assert HeldFsync(faults).left_s(0.0) == 0.0
    faults.replace(STALL)
    with pytest.raises(OSError, match="still hung when the node stopped"):
        HeldFsync(faults).left_s(0.0)


# ------------------------------------------------------------------------------ a log on a disk under faults


@pytest.fixture(params=[Disk, VolatileDisk])
def faulty(request: pytest.FixtureRequest) -> tuple[FaultyDisk, DiskFaults]:
    faults = DiskFaults()
    return FaultyDisk(request.param(), faults), faults


@pytest.fixture
def held(faulty: tuple[FaultyDisk, DiskFaults], tmp_path: Path) -> Iterator[tuple[Wal, DiskFaults]]:
    disk, faults = faulty
    with opened(tmp_path / "n1", bootstrap=True, disk=disk) as (wal, _):
        wal.save_hard_state(1, None)
        yield wal, faults
        faults.replace(None)


def test_a_log_under_faults_is_a_log(faulty: tuple[FaultyDisk, DiskFaults], tmp_path: Path) -> None:
    disk, faults = faulty
    with opened(tmp_path / "n1", bootstrap=True, disk=disk) as (wal, _):
        faults.replace(DiskFault(fsync_latency_ms=1))
        wal.save_hard_state(1, "n2")
        wal.append(1, [1], [b"x"], 0)
    assert faults.counters.fsyncs_delayed >= 3, "two copies of the hard state, and the log"
    with opened(tmp_path / "n1") as (_, recovered):
        assert (recovered.current_term, recovered.voted_for, recovered.payloads) == (1, "n2", [b"x"])


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("on", ["write", "fsync"])
def test_an_injected_error_is_an_error_of_the_disk(held: tuple[Wal, DiskFaults], error: str, on: str) -> None:
    """Exit code 6. The log stays unusable, even after the heal."""
    wal, faults = held
    faults.replace(DiskFault.model_validate({"error": error, "on": on}))
    with pytest.raises(DiskError, match="the disk failed") as caught:
        wal.append(1, [1], [b"x"], 0)
    assert caught.value.exit_code == 6
    faults.replace(None)
    with pytest.raises(DiskError):
        wal.append(1, [1], [b"x"], 0)


def test_a_delay_takes_as_long_as_it_says_and_ends_when_it_is_healed(held: tuple[Wal, DiskFaults]) -> None:
    wal, faults = held
    faults.replace(DiskFault(fsync_latency_ms=80))
    began = time.monotonic()
    wal.append(1, [1], [b"x"], 0)
    assert time.monotonic() - began >= 0.08
    faults.replace(DiskFault(fsync_latency_ms=3_600_000))
    # In a thread, an fsync that is never woken fails the test at once instead of hanging it.
    append = threading.Thread(target=wal.append, args=(2, [1], [b"y"], 0), daemon=True)
    append.start()
    while faults.counters.fsyncs_delayed < 2:
        assert append.is_alive()
        time.sleep(0.001)
    faults.replace(None)
    append.join(PATIENCE_S)
    assert not append.is_alive(), "healing wakes it"


# ------------------------------------------------------------------------------ the writer thread


class Bench:
    """A writer thread on a disk under faults, and its reports."""

    def __init__(self, directory: Path, *, close_s: float = PATIENCE_S, lets_go: bool = True) -> None:
        self.faults = DiskFaults()
        self.wal, _ = open_wal(directory / "n1", bootstrap=True, disk=FaultyDisk(Disk(), self.faults))
        self.wal.save_hard_state(1, None)
        self.done: list[int] = []
        self.failed: list[BaseException] = []
        self.writer = ThreadWriter(
            self.wal,
            Samples(time.monotonic_ns),
            self._note,
            self.failed.append,
            closing=self.faults.end if lets_go else lambda: None,
            close_s=close_s,
        )
        self.writer.start()

    def submit(self, number: int) -> None:
        self.writer.submit(Persist(number, None, number, [1], [b"x"], 0))

    async def close(self) -> None:
        """Stop in bounded time; the thread ends whatever the outcome."""
        try:
            await asyncio.wait_for(self.writer.close(), PATIENCE_S / 2)
        finally:
            self.faults.replace(None)

    def _note(self, persisted: Persisted) -> None:
        self.done.append(persisted.number)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_stalled_fsync_is_not_acknowledged_and_the_loop_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.faults.replace(STALL)
    bench.submit(1)
    await until(lambda: bench.faults.counters.fsyncs_stalled)
    for _ in range(100):  # a loop that waited for the disk would not get through this
        await asyncio.sleep(0)
    assert (bench.done, bench.failed) == ([], [])
    bench.faults.replace(None)
    await until(lambda: bench.done == [1])
    await bench.writer.close()
    assert bench.failed == []


async def test_a_node_that_stops_while_its_disk_is_stalled_acknowledges_nothing_and_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.faults.replace(STALL)
    bench.submit(1)
    await until(lambda: bench.faults.counters.fsyncs_stalled)
    await bench.close()
    await until(lambda: bench.failed)
    assert bench.done == []
    assert isinstance(bench.failed[0], DiskError)


async def test_a_node_that_stops_waits_no_longer_for_a_disk_than_it_says(tmp_path: Path) -> None:
    """A real disk that hangs releases no call."""
    bench = Bench(tmp_path, close_s=0.1, lets_go=False)
    bench.faults.replace(STALL)
    bench.submit(1)
    await until(lambda: bench.faults.counters.fsyncs_stalled)
    await bench.close()
    assert [str(error) for error in bench.failed] == [
        "the disk did not answer within 0.1 s while the node was stopping"
    ]
    assert bench.done == []
    await until(lambda: not bench.writer._thread.is_alive())
