"""Examine hosts: the answers, and that a host without an answer delays nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration import RayBackend
from orchestration.errors import InfrastructureError
from orchestration.face import Host
from orchestration.host import code_digest
from orchestration.ray_cluster import doctor
from orchestration.ray_cluster.actor import HostFacts, clock_id, temporary_folder
from orchestration.ray_cluster.doctor import Depth, Examination, Examiner, RayFacts, Storage, examine
from tests.orchestration.poor_disk import without_locks_and_directory_fsync

RAY = RayFacts("a fake", "127.0.0.1:41230", "2.60.0", private=True, authentication="token")


class FakeWorker:
    """Holds an examiner in this process; records where it was closed."""

    clock = SimpleNamespace(offset_ns=7, error_ns=3)

    def __init__(self, held: Any, host: Host) -> None:
        self.held, self.host = held, host
        self.facts = HostFacts(host.name, 1, 1, clock_id() if host.is_driver else "another")
        self.closed = False

    async def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        return await getattr(self.held, method)(*args)

    async def close(self) -> None:
        self.closed = True
        await self.held.close()


class FakeBackend:
    """Hosts that are all this machine, each with an address; `factories` replaces the examiner of some hosts."""

    def __init__(self, count: int, factories: dict[str, Any] | None = None) -> None:
        self.hosts = [Host(f"id{i}", f"127.0.0.{i}", 1.0, i == 1, f"vm{i}") for i in range(1, count + 1)]
        self.factories = factories or {}
        self.workers: list[FakeWorker] = []

    async def ray_facts(self) -> RayFacts:
        return RAY

    async def host(self, factory: Any, *, on: Host, any_code: bool) -> FakeWorker:
        assert any_code, "which code it has is one of the questions"
        worker = FakeWorker(await _settled(self.factories.get(on.name, factory)()), on)
        self.workers.append(worker)
        return worker


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def _settled(value: Any) -> Any:
    return await value if asyncio.iscoroutine(value) else value


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "QUICK", Depth(fsync_s=0.05, round_trip_s=0.1))
    monkeypatch.setattr(doctor, "_START_TIMEOUT_S", 3.0)
    monkeypatch.setattr(doctor, "_ANSWER_TIMEOUT_S", 3.0)


async def asked(backend: FakeBackend, storage_dir: str = "auto") -> Examination:
    async with asyncio.timeout(20):
        found = await examine(backend, await backend.ray_facts(), storage_dir, quick=True)  # type: ignore[arg-type]
    assert all(worker.closed for worker in backend.workers), "all workers are closed"
    return found


async def test_every_host_is_asked_and_every_way_between_them(tmp_path: Path) -> None:
    found = await asked(FakeBackend(3), str(tmp_path / "logs"))
    assert [(each.address, each.hostname, each.is_driver) for each in found.hosts] == [
        ("127.0.0.1", "vm1", True),
        ("127.0.0.2", "vm2", False),
        ("127.0.0.3", "vm3", False),
    ]
    for report in found.hosts:
        assert report.error is None
        assert report.code == found.driver
        assert report.same_clock is report.is_driver
        assert (report.clock_offset_ns, report.clock_error_ns) == (7, 3)
        assert report.machine is not None
        assert report.machine.cpus_available <= report.machine.cores
        assert report.storage is not None
        assert report.storage.folder == str(tmp_path / "logs")
        assert report.storage.fsync.ns
        assert report.storage.free_bytes
    assert found.driver.digest == code_digest()
    ways = [(link.source[-1] + link.target[-1], len(link.round_trips.ns) > 0, link.error) for link in found.links]
    assert ways == [(way, True, None) for way in ("12", "13", "21", "23", "31", "32")]
    assert names(tmp_path) == []


async def test_auto_is_where_nodes_have_their_logs() -> None:
    [report] = (await asked(FakeBackend(1))).hosts
    assert report.storage is not None
    assert report.storage.folder == str(temporary_folder())
    assert report.storage.in_memory == (report.storage.file_system in ("tmpfs", "ramfs"))


async def test_a_memory_file_system_is_recognised() -> None:
    shared = Path("/dev/shm")
    if doctor.file_system(shared) != ("tmpfs", "tmpfs"):
        pytest.skip("needs /dev/shm in memory")
    [report] = (await asked(FakeBackend(1), str(shared / "logs"))).hosts
    assert report.storage is not None
    assert report.storage.in_memory
    assert "logs" not in names(shared)


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    [report] = (await asked(FakeBackend(1), str(tmp_path / "file" / "logs"))).hosts
    assert report.error is None
    assert report.storage is not None
    assert report.storage.error == "Not a directory"


async def test_what_the_file_system_of_the_logs_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks_and_directory_fsync(monkeypatch)
    for report in (await asked(FakeBackend(2), str(tmp_path / "logs"))).hosts:
        assert report.storage is not None
        assert [lack.partition(":")[0] for lack in report.storage.lacks] == [
            "locks on directories (flock)",
            "fsync of directories",
        ]
        assert report.storage.error is None
        assert report.storage.fsync.ns


async def never() -> Any:
    await asyncio.Event().wait()


async def refuses() -> Any:
    raise InfrastructureError("the actor on 127.0.0.2 is gone (create): it died\nand more")


class Silent(Examiner):
    async def about(self) -> dict[str, Any]:
        return await never()


class OfAnotherVersion(Examiner):
    async def about(self) -> dict[str, Any]:
        return {"code": {"digest": "x"}}


class WithoutThat(Examiner):
    async def listen(self, interface: str) -> tuple[int, bytes]:
        raise AttributeError("'Examiner' object has no attribute 'listen'")


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (never, "did not start an actor within 3 s"),
        (refuses, "the actor on 127.0.0.2 is gone (create): it died"),
        (Silent, "did not describe itself within 3.15 s"),
        (
            OfAnotherVersion,
            "its answer cannot be understood: it runs different code; install the driver's version there",
        ),
        (WithoutThat, "'Examiner' object has no attribute 'listen'"),
    ],
)
async def test_a_host_that_does_not_answer_is_told_and_the_others_go_on(factory: Any, reason: str) -> None:
    found = await asked(FakeBackend(3, {"vm2": factory}))
    assert [report.error for report in found.hosts] == [None, reason, None]
    assert found.hosts[1].hostname == "vm2"
    assert [(link.source, link.target, link.error) for link in found.links] == [
        ("127.0.0.1", "127.0.0.3", None),
        ("127.0.0.3", "127.0.0.1", None),
    ]


class StuckDisk(Examiner):
    async def storage(self, storage_dir: str, seconds: float) -> dict[str, Any]:
        return await never()


async def test_a_disk_that_hangs_is_told_beside_everything_else() -> None:
    found = await asked(FakeBackend(2, {"vm2": StuckDisk}), "/data")
    report = found.hosts[1]
    assert report.error is None
    assert report.machine is not None
    assert report.storage == Storage("/data", None, None, None, error="did not test its disk within 3.15 s")
    assert len(found.links) == 2


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that accepts connections and never sends anything."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def stranger() -> Iterator[int]:
    """A port on which another server sends its greeting."""
    with socket.create_server(("0.0.0.0", 0)) as server:

        def greet() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(bytes(100))

        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def closed() -> Iterator[int]:
    """A port without a listener; it is bound, so that no other process listens there."""
    with socket.socket() as bound:
        bound.bind(("0.0.0.0", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        ("closed", "Connection refused"),
        ("mute", "timed out"),
        ("stranger", "another host answers under this address"),
    ],
)
async def test_a_way_that_is_blocked_names_both_hosts(
    port: str, reason: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_ANSWER_TIMEOUT_S", 10.0)  # much longer than a connection may take
    number = request.getfixturevalue(port)

    class Elsewhere(Examiner):
        async def listen(self, interface: str) -> tuple[int, bytes]:
            return number, b"0123456789abcdef"

    found = await asked(FakeBackend(2, {"vm2": Elsewhere}))
    assert [(link.source, link.target, link.error) for link in found.links] == [
        ("127.0.0.1", "127.0.0.2", reason),
        ("127.0.0.2", "127.0.0.1", None),
    ]


@pytest.mark.parametrize(("interface", "address"), [("0.0.0.0", "127.0.0.1"), ("::", "::1")])
async def test_an_examiner_closes_its_port(interface: str, address: str) -> None:
    examiner = Examiner()
    try:
        port, token = await examiner.listen(interface)
    except OSError as failure:
        if ":" not in interface:
            raise
        pytest.skip(f"needs IPv6: {failure}")
    assert await examiner.listen(interface) == (port, token)
    samples, error = await examiner.round_trips(address, port, token, 0.01)
    assert samples
    assert error is None
    await examiner.close()
    assert await examiner.round_trips(address, port, token, 0.01) == ([], "Connection refused")
    await examiner.close()


@pytest.mark.asyncio(loop_scope="session")
async def test_a_private_ray(backend: RayBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing, in the quick form: actors, their answers, and Ray's own facts."""
    monkeypatch.undo()
    found = await backend.examine(quick=True)
    assert replace(found.ray, description="", address="", version="") == RayFacts(
        "", "", "", private=True, authentication="token", dead=[]
    )
    assert found.ray.address in found.ray.description
    [report] = found.hosts
    assert report.error is None
    assert (report.is_driver, report.same_clock, report.clock_offset_ns, report.clock_error_ns) == (True, True, 0, 0)
    assert report.code == found.driver
    assert report.machine is not None
    assert report.machine.niceness == os.getpriority(os.PRIO_PROCESS, 0)
    assert report.storage is not None
    assert report.storage.folder == str(temporary_folder())
    assert found.links == []
    again = await backend.examine(quick=True)
    assert again.hosts[0].error is None, "its actor was given back"
