"""A program with a Ray cluster of three Ray nodes on this machine, so they share an address; the head offers no CPU.

python several_hosts.py FOLDER      prints one JSON line with the results

It is a separate program, because a program can be connected to only one Ray. FOLDER is for Ray's files; the test that
starts the program cleans up there (guard.py), however the program ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import ray
import ray.cluster_utils
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestration import ClusterPlan, InfrastructureError, PlacementRefused, RayBackend
from orchestration.plan import Placement
from orchestration.ray_cluster import pool
from tests.orchestration.waiting import eventually

_MEMORY = 100 * 2**20


class Where:
    """Reports the Ray node that it runs on."""

    def ray_node(self) -> str:
        """Return Ray's id of the host."""
        return str(ray.get_runtime_context().get_node_id())


class Hog:
    """Holds a CPU."""

    def ready(self) -> None:
        """Return as soon as the actor runs, and thus holds its CPU."""


async def error_of(attempt: Awaitable[Any]) -> dict[str, Any]:
    """Return the error that an attempt raises, and the seconds until then."""
    begin = time.monotonic()
    try:
        await attempt
    except (PlacementRefused, InfrastructureError) as error:
        return {"kind": type(error).__name__, "text": str(error), "seconds": time.monotonic() - begin}
    return {"kind": "", "text": "", "seconds": time.monotonic() - begin}


async def places(backend: RayBackend, count: int, placement: Placement) -> list[list[str]]:
    """Return for each node the host that was chosen, and the host that it runs on."""
    workers = await backend.pool.place(count, placement)
    for worker in workers:
        await worker.create(Where)
    found = [[worker.host.host_id, await worker.call("ray_node")] for worker in workers]
    for worker in workers:
        await worker.close()
    return found


async def hosted(backend: RayBackend) -> dict[str, Any]:
    """Return where hosted objects are, and whether their actors are reused."""
    told: dict[str, Any] = {}
    other = next(host for host in backend.hosts if not host.is_driver)
    for name, on in (("default", None), ("other", other)):
        worker = await backend.host(Where, on=on)
        told[name] = [(on or next(host for host in backend.hosts if host.is_driver)).host_id]
        told[name] += [await worker.call("ray_node")]
        pids = [worker.facts.pid]
        await worker.close()
        again = await backend.host(Where, on=on)
        told[f"{name} again"] = [*pids, again.facts.pid]
        await again.close()
    return told


async def taken(backend: RayBackend) -> dict[str, Any]:
    """Refuse a plan whose CPUs are in use for good, and wait for CPUs that are in use for a while."""
    told: dict[str, Any] = {}
    victim = next(host for host in backend.hosts if not host.is_driver)
    hog = (
        ray.remote(Hog)
        .options(num_cpus=1 - 0.005, scheduling_strategy=NodeAffinitySchedulingStrategy(victim.host_id, soft=False))
        .remote()
    )
    await hog.ready.remote()
    await asyncio.to_thread(_head_knows, victim.host_id)
    plan, pool._PLACEMENT_TIMEOUT_S = ClusterPlan(nodes=2), 1.0
    told["for good"] = await error_of(backend.check(plan))
    told["for good, at work"] = await error_of(backend.pool.place(2, "spread"))
    pool._PLACEMENT_TIMEOUT_S = 30.0
    free_cpus, asked = pool.free_cpus, []

    def noting() -> dict[str, float]:
        asked.append(time.monotonic())
        return free_cpus()

    pool.free_cpus = noting
    waiting = asyncio.create_task(error_of(backend.check(plan)))
    await eventually(lambda: len(asked) == 3 or waiting.done(), "it asks again and again")
    pool.free_cpus = free_cpus
    told["it waits"] = not waiting.done()
    ray.kill(hog)
    told["for a while"] = await waiting
    return told


def _head_knows(host_id: str) -> None:
    while pool.free_cpus()[host_id] > 0.01:
        time.sleep(0.01)


async def sweep(address: str, folder: Path, *options: str) -> dict[str, Any]:
    """Return the exit code, the output and the duration of `sweep run`."""
    words = [word for option in options for word in ("-o", option)]
    begin = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sweeps.cli", "run", "quick", *words, "--plain"),
        *("--address", address, "--out", str(folder / "results")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return {
        "code": process.returncode,
        "output": output.decode(),
        "errors": errors.decode(),
        "seconds": time.monotonic() - begin,
    }


async def main(folder: Path) -> None:
    """Run all experiments, one after the other."""
    ray._private.utils.write_ray_address = lambda *_: None  # otherwise a file of this user would name this cluster
    common = {"object_store_memory": _MEMORY, "include_dashboard": False}
    head = {"num_cpus": 0, "temp_dir": str(folder / "ray"), **common}
    cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    members = [cluster.add_node(num_cpus=1, **common) for _ in range(2)]
    told: dict[str, Any] = {}
    async with RayBackend.connect(cluster.address) as backend:
        told["hosts"] = [[host.address, host.name, host.cpus, host.is_driver] for host in backend.hosts]
        told["too small"] = await error_of(backend.check(ClusterPlan(nodes=3, placement="strict_spread")))
        told["unknown host"] = await error_of(
            backend.check(ClusterPlan.model_validate({"placement": {"hosts": ["x"]}}))
        )
        told["taken"] = await taken(backend)
        told["checked"] = [host.host_id for host in await backend.check(ClusterPlan(nodes=3))]
        told["spread"] = await places(backend, 3, "spread")
        told["pack"] = await places(backend, 2, "pack")
        told["hosted"] = await hosted(backend)
        told["sweep"] = await sweep(cluster.address, folder, "cluster.placement=pack,strict_spread", "cluster.nodes=3")
        chosen = await backend.pool.choose(4, "spread")
        cluster.remove_node(next(node for node in members if node.node_id == chosen[1].host_id), allow_graceful=False)
        told["died"] = await error_of(backend.pool.acquire([host for host in chosen for _ in range(3)]))
        told["came back"] = cluster.add_node(num_cpus=1, **common).node_id
        told["with it"] = await places(backend, 4, "spread")
    cluster.shutdown()
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
