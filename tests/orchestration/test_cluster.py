"""Clusters of a foreign program on a real private Ray."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestration import (
    AddressBook,
    ClusterPlan,
    InfrastructureError,
    NodeFailed,
    PlacementRefused,
    RayBackend,
    RayCluster,
)
from orchestration.ray_cluster import pool as pool_module
from orchestration.ray_cluster.actor import temporary_folder
from orchestration.ray_cluster.worker import Worker
from raft_actor_node.client_probe import NodeProbe, ProbeFailed
from raft_actor_node.config import ClientSettings
from raft_actor_node.errors import OperationError
from raft_actor_node.links import LinkRule
from tests.orchestration.waiting import eventually, gone, remaining, state

pytestmark = pytest.mark.asyncio(loop_scope="session")

CUT = LinkRule(from_id="n1", to_id="n2", cut=True)


@asynccontextmanager
async def running(backend: RayBackend, foreign: tuple[str, ...], **plan: Any) -> AsyncIterator[RayCluster]:
    cluster = await backend.start_cluster(ClusterPlan(command=foreign, **plan))
    try:
        yield cluster
    finally:
        await cluster.stop()


def pids(cluster: RayCluster) -> list[int]:
    return [cluster.pid(node_id) for node_id in cluster.node_ids]


async def test_life_of_a_cluster(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    assert backend.private
    assert "1 host" in backend.description
    async with running(backend, foreign, nodes=3, run_id="life", cell_id="of-three") as cluster:
        assert cluster.node_ids == cluster.live == ("n1", "n2", "n3")
        assert {entry.epoch for entry in cluster.addresses.values()} == {1}
        assert remaining(pids(cluster)) == pids(cluster)
        assert cluster.bring_up_times.leader_s is not None
        kv = cluster.client()
        await kv.put(b"k", b"v")
        assert await kv.get(b"k") == b"v"
        [folder] = (temporary_folder() / "life").iterdir()
        assert folder.name.startswith("of-three-")
    assert remaining(pids(cluster)) == []
    assert [(end.cause, end.exit_code) for end in cluster.exits] == [("stop", 0)] * 3
    assert cluster.unexpected_exits == ()
    assert not folder.parent.exists()
    await cluster.stop()  # again: nothing


async def test_what_a_foreign_program_does_not_offer(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    async with running(backend, foreign, nodes=2) as cluster:
        assert await cluster.leader() == "n1"  # found by reading
        assert await cluster.status("n1") is None
        assert await cluster.samples("n1") is None
        assert (await cluster.set_links([CUT])).failed == ("n1", "n2")
        assert (await cluster.heal()).failed == ()
        assert (await cluster.collect("n2")).trace == []
        async with asyncio.timeout(10):  # it reads the addresses when it can
            while "addresses" not in (log := (await cluster.collect("n2")).log):  # noqa: ASYNC110 - remote
                await asyncio.sleep(0.02)
        assert log.startswith("foreign node n2, bootstrap True\naddresses ")
        with pytest.raises(ValueError, match="there is no node 'n9'; the nodes are n1, n2"):
            await cluster.crash("n9")
        await cluster.crash("n1")
        assert await cluster.leader() is None


async def test_crash_and_restart(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    async with running(backend, foreign, nodes=3) as cluster:
        books: list[dict[str, int]] = []

        async def listen(book: AddressBook) -> None:
            books.append({node_id: entry.epoch for node_id, entry in book.items()})

        cluster.addresses.subscribe(listen)
        kv = cluster.client()
        await kv.put(b"k", b"v")
        before, [pid, *_] = cluster.addresses["n1"], pids(cluster)

        crashed = await cluster.crash("n1", "n2")
        assert 0 < crashed.first_ns <= crashed.last_ns
        assert gone(pid)
        assert cluster.live == ("n3",)
        assert {(end.node_id, end.cause, end.exit_code) for end in cluster.exits} == {
            ("n1", "crash", -signal.SIGKILL),
            ("n2", "crash", -signal.SIGKILL),
        }
        assert (await cluster.crash("n1")).last_ns == 0  # it is down already
        assert (await cluster.pause("n1")).failed == ("n1",)
        assert books == []

        restarted = await cluster.restart("n1", "n3")  # n3 runs: nothing happens to it
        assert restarted.first_ns > crashed.last_ns
        assert cluster.addresses["n1"].epoch == before.epoch + 1
        assert books == [{"n1": 2, "n2": 1, "n3": 1}]
        assert await kv.get(b"k") is None  # found under its new address, with its memory lost
        log = (await cluster.collect("n1")).log
        assert "bootstrap True" in log.splitlines()[0]
        assert "foreign node n1, bootstrap False" in log

        [log_of_n3] = (temporary_folder() / cluster.plan.run_id).glob("*/n3.log")
        await eventually(lambda: f'"{cluster.addresses["n1"].address}"' in log_of_n3.read_text(), "n3 is told, too")
        assert cluster.unexpected_exits == ()


async def test_pause_and_resume(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    async with running(backend, foreign, nodes=3) as cluster:
        [pid, *_] = pids(cluster)
        paused = await cluster.pause("n1")
        assert (state(pid), paused.failed, cluster.live) == ("T", (), ("n2", "n3"))
        impatient = cluster.client(settings=ClientSettings(rpc_timeout=0.1, retry_budget=0.3))
        with pytest.raises(OperationError):
            await impatient.get(b"k")
        assert (await cluster.resume("n1", "n2")).first_ns > paused.last_ns
        assert await cluster.client().get(b"k") is None
        assert cluster.live == cluster.node_ids
        await cluster.pause("n2", "n3")
        await cluster.crash("n3")
    assert remaining(pids(cluster)) == []
    assert {end.node_id: end.exit_code for end in cluster.exits} == {"n1": 0, "n2": 0, "n3": -signal.SIGKILL}


@pytest.mark.parametrize(
    ("misbehave", "boot_timeout_s", "words"),
    [
        ("die", 30.0, r"ended before it served: exit code 5 \(data corrupt or foreign\): the disk is on fire\n"),
        ("silent", 6.0, r"did not report its address within 6 s: foreign node n\d, bootstrap True\n"),
    ],
)
async def test_program_that_does_not_come_up(
    backend: RayBackend, foreign: tuple[str, ...], misbehave: str, boot_timeout_s: float, words: str
) -> None:
    command = (*foreign, "--misbehave", misbehave)
    plan = ClusterPlan(nodes=2, command=command, run_id="broken", boot_timeout_s=boot_timeout_s)
    with pytest.raises(NodeFailed, match=words):
        await backend.start_cluster(plan)
    assert not (temporary_folder() / "broken").exists()


async def test_end_that_nobody_asked_for(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    async with running(backend, foreign, nodes=2) as cluster:
        os.kill(cluster.pid("n2"), signal.SIGTERM)
        await eventually(lambda: cluster.unexpected_exits, "it is noticed")
        [end] = cluster.unexpected_exits
        assert (end.node_id, end.cause, end.exit_code) == ("n2", "exit", 0)
        assert end.log_tail.endswith("stopped")
        await cluster.restart("n2")
        assert cluster.live == ("n1", "n2")


async def test_an_error_at_the_end_is_unexpected(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    async with running(backend, (*foreign, "--misbehave", "stumble"), nodes=1) as cluster:
        await cluster.halt()
        assert [(end.cause, end.exit_code) for end in cluster.unexpected_exits] == [("exit", 7)]


async def test_every_life_has_a_seed_of_its_own(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    async def seeds() -> list[int]:
        async with running(backend, foreign, nodes=2, seed=7) as cluster:
            found = []
            for life in range(2):
                if life:
                    await cluster.crash("n1", "n2")
                    await cluster.restart("n1", "n2")
                folder = temporary_folder() / cluster.plan.run_id
                found += [json.loads(path.read_text())["seed"] for path in sorted(folder.glob("*/*.json"))]
            return found

    first = await seeds()
    assert len(set(first)) == 4
    assert await seeds() == first


async def test_a_node_that_comes_back_without_the_present_links_has_failed(
    backend: RayBackend, foreign: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(backend, foreign, nodes=3) as cluster:
        await cluster.pause("n1", "n2")
        refusals = 2

        async def set_links(probe: NodeProbe, *_: object, **__: object) -> int:
            nonlocal refusals
            if probe.address in (cluster.addresses["n1"].address, cluster.addresses["n3"].address):
                if not refusals:
                    return 1
                refusals -= 1
            raise ProbeFailed("busy", "UNAVAILABLE")

        monkeypatch.setattr(NodeProbe, "set_links", set_links)
        assert (await cluster.set_links([CUT])).failed == ()
        assert refusals == 0
        refusals = 2
        assert (await cluster.resume("n1", "n2")).failed == ("n2",)
        assert cluster.live == cluster.node_ids

        await cluster.crash("n2")
        started, worker = asyncio.Event(), cluster.worker("n2")

        async def call(method: str, *args: Any, **kwargs: Any) -> Any:
            started.set()
            return await Worker.call(worker, method, *args, **kwargs)

        monkeypatch.setattr(worker, "call", call)
        restarting = asyncio.create_task(cluster.restart("n2"))
        await started.wait()  # the restart has begun, with the table of this moment
        await cluster.set_links([])
        assert (await restarting).failed == ("n2",)


async def test_sigkill_of_an_actor(
    backend: RayBackend, foreign: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "orchestration.ray_cluster.supervised._REPLACE_TIMEOUT_S", 60.0
    )  # meanwhile Ray starts an actor
    async with running(backend, foreign, nodes=3) as cluster:
        await cluster.pause("n2")
        for node_id in ("n1", "n2"):
            os.kill(cluster.worker(node_id).facts.pid, signal.SIGKILL)
        await eventually(lambda: len(cluster.unexpected_exits) == 2, "it is noticed")
        await eventually(lambda: remaining(pids(cluster)) == [cluster.pid("n3")], "their nodes are gone, paused or not")
        assert {(end.node_id, end.cause) for end in cluster.unexpected_exits} == {
            ("n1", "infrastructure"),
            ("n2", "infrastructure"),
        }
        assert cluster.live == ("n3",)
        with pytest.raises(InfrastructureError, match="is gone"):
            await cluster.restart("n1")
        await cluster.crash("n3")  # the loss of the other actors does not affect n3
        await cluster.restart("n3")
        await cluster.halt()
        os.kill(cluster.worker("n3").facts.pid, signal.SIGKILL)  # no task watches this actor, as its node is down
        files = [await cluster.collect(node_id) for node_id in cluster.node_ids]
        assert all("foreign node n" in each.log for each in files), "another actor of the host has them"
    assert not (temporary_folder() / cluster.plan.run_id).exists()
    async with running(backend, foreign, nodes=3) as cluster:
        assert len(cluster.live) == 3


async def test_actors_are_used_again(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    def actors(cluster: RayCluster) -> set[int]:
        return {cluster.worker(node_id).facts.pid for node_id in cluster.node_ids}

    async with running(backend, foreign, nodes=5):
        pool = {worker.facts.pid for worker in backend.pool.workers}
    async with running(backend, foreign, nodes=3) as three, running(backend, foreign, nodes=2) as two:
        assert three.cluster_id != two.cluster_id
        assert not actors(three) & actors(two)
        assert actors(three) | actors(two) <= pool
    assert {worker.facts.pid for worker in backend.pool.workers} == pool


async def test_keep_the_files(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    cluster = await backend.start_cluster(ClusterPlan(nodes=1, command=foreign, run_id="kept"))
    await cluster.halt()
    assert (await cluster.collect("n1")).log.endswith("stopped\n")
    await cluster.stop(keep=True)
    [log] = (temporary_folder() / "kept").glob("*/n1.log")
    assert log.read_text().endswith("stopped\n")
    shutil.rmtree(temporary_folder() / "kept")


async def test_placement_that_does_not_fit(
    backend: RayBackend, foreign: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PlacementRefused, match="strict_spread of 3 nodes needs 3 hosts, there is 1: "):
        await backend.start_cluster(ClusterPlan(nodes=3, command=foreign, placement="strict_spread"))
    monkeypatch.setattr("orchestration.placement.CPU_PER_ACTOR", 50.0)
    monkeypatch.setattr(pool_module, "_PLACEMENT_TIMEOUT_S", 0.1)
    with pytest.raises(PlacementRefused, match=r"not possible within 0.1 s: .* CPUs free, needed: [0-9]+"):
        await backend.start_cluster(ClusterPlan(nodes=99, command=foreign))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "Connection refused; see that Ray's head runs there (ray status --address=127.0.0.1:1)"),
        ("nowhere.invalid:6379", "; see that Ray's head runs there"),
        ("ray://head:10001", "leave out ray://; run this program on a host of the cluster"),
        ("here", "the port is missing; or use auto, or local"),
    ],
)
async def test_no_ray_there(backend: RayBackend, address: str, reason: str) -> None:
    del backend  # this program has a connection; another program has none
    program = (
        "import asyncio, sys\nfrom orchestration import RayBackend, InfrastructureError\n"
        "async def main():\n"
        "    async with RayBackend.connect(sys.argv[1]): pass\n"
        "try: asyncio.run(main())\n"
        "except InfrastructureError as error: sys.exit(str(error))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, address, stderr=asyncio.subprocess.PIPE
    )
    _, output = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert f"Ray ({address}): " in output.decode()
    assert reason in output.decode()


async def test_connection_that_the_program_has(backend: RayBackend, foreign: tuple[str, ...]) -> None:
    async with RayBackend.connect("local") as borrowed:
        assert "the connection that this program had" in borrowed.description
        async with running(borrowed, foreign, nodes=1) as cluster:
            assert cluster.live == ("n1",)
    assert await (await backend.host(queue.Queue)).call("qsize") == 0  # it is still open


async def test_hosted_objects(backend: RayBackend) -> None:
    worker = await backend.host(asyncio.Queue, maxsize=2)
    waiting = asyncio.create_task(worker.call("get"))
    await worker.call("put", {"a": 1})  # does not queue behind the get
    assert await waiting == {"a": 1}
    with pytest.raises(asyncio.QueueEmpty):
        await worker.call("get_nowait")
    with pytest.raises(InfrastructureError, match=r"did not answer get\(\) within 0.1 s"):
        await worker.call("get", timeout_s=0.1)
    pid = worker.facts.pid
    await worker.close()
    other = await backend.host(queue.Queue)
    assert other.facts.pid == pid
    assert await other.call("qsize") == 0
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while not other.lost:  # until Ray knows of the death, it only reports that there is no answer
            with pytest.raises(InfrastructureError):
                await other.call("get")
    with pytest.raises(InfrastructureError, match=r"is gone \(get\(\)\)"):
        await other.call("get")
    await other.close()
    with pytest.raises(TypeError, match="unexpected keyword"):
        await backend.host(asyncio.Queue, nonsense=1)


async def test_our_own_node(backend: RayBackend, tmp_path: Path) -> None:
    """The default command: what a foreign program does not offer works as well."""
    plan = ClusterPlan(nodes=3, seed=7, raft={"election_timeout": "300ms-600ms"}, storage={"dir": str(tmp_path)})  # type: ignore[arg-type]
    cluster = await backend.start_cluster(plan)
    try:
        leader = await cluster.leader()
        assert leader is not None
        kv = cluster.client()
        await kv.put(b"k", b"v")
        [down, paused] = [node_id for node_id in cluster.node_ids if node_id != leader]
        await cluster.crash(down)
        applied = await cluster.set_links([CUT])
        assert applied.failed == ()
        assert 0 < applied.first_ns <= applied.last_ns
        await cluster.pause(paused)
        await cluster.restart(down)  # under the link faults in force
        await cluster.heal()
        await cluster.resume(paused)
        await kv.put(b"k", b"w")
        status = await cluster.status(down)
        assert status is not None
        assert (status.node_id, status.cluster_id) == (down, cluster.cluster_id)
        samples = await cluster.samples(leader)
        assert samples is not None
        assert len(samples.fsync_us) > 0
        assert any('"became_leader"' in line for line in (await cluster.collect(leader)).trace)
    finally:
        await cluster.stop()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - an async function
    assert cluster.unexpected_exits == ()
