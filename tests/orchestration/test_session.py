"""The driver's questions to Ray's head before it places anything, and the use of the answers; without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from orchestration import ClusterPlan, InfrastructureError, PlacementRefused, RayBackend
from orchestration.face import Host
from orchestration.ray_cluster import pool, session
from orchestration.ray_cluster.pool import Pool
from orchestration.ray_cluster.session import RaySession

HEAD = Host("id-head", "10.0.0.1", 0.0, is_driver=True, name="head")
ONE, TWO = (Host(f"id-{i}", f"10.0.0.{i}", 1.0, name=f"host{i}") for i in (2, 3))


class Head:
    """Ray's head; answers with what a test puts here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts = [HEAD, ONE, TWO]
        self.free = {"id-2": 1.0, "id-3": 1.0}
        self.asked = 0
        self.code: dict[str, tuple[str, str]] = {}
        """Package -> its code on the second host, if that differs from the code of this program."""
        monkeypatch.setattr(pool, "imported_on", self._imported_on)
        monkeypatch.setattr(pool, "live_hosts", lambda: list(self.hosts))
        monkeypatch.setattr(pool, "free_cpus", self._free_cpus)

    async def _imported_on(self, hosts: Iterable[Host]) -> list[tuple[Host, list[tuple[str, str, str]]]]:
        def found(host: Host) -> dict[str, tuple[str, str]]:
            return {**Pool.code, **(self.code if host == TWO else {})}

        return [(host, [(package, *code) for package, code in found(host).items()]) for host in hosts if host != HEAD]

    def _free_cpus(self) -> dict[str, float]:
        self.asked += 1
        return dict(self.free)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Head:
    return Head(monkeypatch)


async def test_the_hosts_of_a_plan_are_told_and_looked_up_anew(head: Head) -> None:
    backend = RayBackend(RaySession("a test", [HEAD], private=False))
    assert await backend.check(ClusterPlan(nodes=3)) == (ONE, TWO, ONE)
    assert backend.hosts == (HEAD, ONE, TWO)
    head.hosts = [HEAD, TWO]
    assert await backend.check(ClusterPlan(nodes=3)) == (TWO, TWO, TWO)


@pytest.mark.parametrize(
    ("package", "there", "shown"),
    [
        ("raft_actor_node", ("0123456789ab", "/other/raft_actor_node"), "0123456789ab in /other/raft_actor_node"),
        ("chaos", ("ba9876543210", "/mine/chaos.py"), "ba9876543210 in /mine/chaos.py"),
        ("sweeps", ("", ""), "none"),
    ],
)
async def test_a_host_with_other_code_is_refused_where_it_is_needed(
    head: Head, package: str, there: tuple[str, str], shown: str
) -> None:
    head.code = {package: there}
    backend = RayBackend(RaySession("a test", [HEAD], private=False))
    with pytest.raises(PlacementRefused) as refused:
        await backend.check(ClusterPlan(nodes=2))
    here = Pool.code[package]
    assert str(refused.value) == (
        f"what Ray starts on 10.0.0.3 (host3) has other code than the driver: {package} {shown}, not {here.digest} in"
        f" {here.place}; install the same there, or start this program again if its own code has changed"
    )
    assert await backend.check(ClusterPlan(nodes=1)) == (ONE,)


async def test_too_few_hosts_are_refused_without_a_wait(head: Head) -> None:
    begin = time.monotonic()
    with pytest.raises(PlacementRefused, match="strict_spread of 3 nodes needs 3 hosts, there are 2"):
        await RayBackend(RaySession("a test", [HEAD], private=False)).check(
            ClusterPlan(nodes=3, placement="strict_spread")
        )
    assert time.monotonic() - begin < 20
    assert head.asked == 0


async def test_a_cpu_that_somebody_uses_is_waited_for_but_not_for_ever(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = RayBackend(RaySession("a test", [HEAD], private=False))
    monkeypatch.setattr(pool, "_POLL_S", 0.001)
    monkeypatch.setattr(pool, "_PLACEMENT_TIMEOUT_S", 1.5)
    head.free["id-3"] = 0.0
    with pytest.raises(PlacementRefused, match=r"not possible within 1\.5 s: 10\.0\.0\.3 \(host3\) has 0 of its 1 CP"):
        await backend.check(ClusterPlan(nodes=2))
    assert head.asked > 1

    def given_back() -> dict[str, float]:
        monkeypatch.setattr(pool, "free_cpus", lambda: {"id-2": 1.0, "id-3": 1.0})
        return {"id-2": 1.0}

    monkeypatch.setattr(pool, "_PLACEMENT_TIMEOUT_S", 30.0)
    monkeypatch.setattr(pool, "free_cpus", given_back)
    assert await backend.check(ClusterPlan(nodes=2)) == (ONE, TWO)


async def test_a_host_that_left_is_not_waited_for(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = RayBackend(RaySession("a test", [HEAD], private=False))

    def left() -> dict[str, float]:
        head.hosts = [HEAD, ONE]
        return {"id-2": 1.0}

    monkeypatch.setattr(pool, "free_cpus", left)
    with pytest.raises(InfrastructureError, match=r"10\.0\.0\.3 \(host3\) left the Ray cluster"):
        await backend.check(ClusterPlan(nodes=2))


async def test_a_head_that_does_not_answer_does_not_keep_us(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable = threading.Event()
    monkeypatch.setattr(session, "_HEAD_TIMEOUT_S", 0.05)
    monkeypatch.setattr(pool, "live_hosts", unreachable.wait)
    backend = RayBackend(RaySession("a test", [HEAD], private=False))
    try:
        with pytest.raises(InfrastructureError, match=r"Ray's head did not answer within 0\.05 s"):
            await backend.check(ClusterPlan(nodes=2))
    finally:
        unreachable.set()

    def broken() -> list[Host]:
        raise RuntimeError("Failed to get all node info.\nmore")

    monkeypatch.setattr(session, "_HEAD_TIMEOUT_S", 10.0)
    monkeypatch.setattr(pool, "live_hosts", broken)
    with pytest.raises(InfrastructureError, match=r"Ray's head did not answer: Failed to get all node info\.$"):
        await backend.check(ClusterPlan(nodes=2))


@pytest.mark.parametrize(
    ("wanted", "advice"),
    [
        ("local", "see that this machine has CPU (uptime), memory (free -m) and room in /tmp (df), then try again"),
        ("10.0.0.1:6379", "see that its head runs and has CPU (ray status --address=10.0.0.1:6379), then try again"),
    ],
)
async def test_a_ray_that_does_not_answer_at_its_start_says_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, wanted: str, advice: str
) -> None:
    never = threading.Event()
    monkeypatch.setattr(session, "_CONNECT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(session, "_Connection", lambda _: never.wait())
    monkeypatch.setattr(session.tempfile, "gettempdir", lambda: "/tmp")
    try:
        with pytest.raises(InfrastructureError) as failed:
            async with RayBackend.connect(wanted):
                pass
    finally:
        never.set()
    assert str(failed.value) == f"Ray ({wanted}) did not answer within 0.05 s; {advice}"


def test_a_guard_that_is_slow_is_told_and_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By then the results are stored, and a traceback would hide them."""
    sleeping = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE)
    monkeypatch.setattr(session, "_reread_authentication", lambda: None)
    monkeypatch.setattr(session, "_GUARD_TIMEOUT_S", 0.05)
    connection = session._Connection.__new__(session._Connection)
    connection._guard, connection._held, connection._folder = sleeping, None, "/tmp/ray"
    try:
        connection.end_private()
    finally:
        sleeping.kill()
        sleeping.wait()
    assert caplog.messages == [
        "/tmp/ray: the private Ray was not cleaned up within 0.05 s; if the folder stays, run sweep clean"
    ]


def test_the_processes_of_a_private_ray_keep_their_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of Ray does not start without docstrings, and then Ray does not answer."""
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    # Ray in this process, which other tests use, must not look for another token.
    monkeypatch.setattr(session, "_reread_authentication", lambda: None)
    with session._private_environment():
        assert "PYTHONOPTIMIZE" not in os.environ
    assert os.environ["PYTHONOPTIMIZE"] == "2"


def test_workers_look_where_the_driver_looks_and_not_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    library = sysconfig.get_path("stdlib")
    monkeypatch.setattr(session.sys, "path", ["/of/the/script", "", library, "/of/packages"])
    job = session._job()
    job._py_driver_sys_path.extend(["/of/the/script", "/where/it/stands"])  # Ray does so when it connects
    workers = ["/of/a/worker"]
    for place in job._get_proto_job_config().py_driver_sys_path:  # Ray's workers do so
        workers.insert(0, place)
    assert workers == ["/of/the/script", str(Path.cwd()), "/of/a/worker"], "an empty place is the folder it stands in"
