"""A program with its own cluster, started in a folder full of foreign modules.

python -P elsewhere.py private      on a Ray of its own; prints where a worker imports what, and a node's answer
python -P elsewhere.py borrowed     with a connection that it made itself, by Ray's rules; prints why it is refused
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import ray

from orchestration import ClusterPlan
from orchestration.errors import OtherCode
from orchestration.ray_cluster.tasks import run_tasks
from tests.ray_head import private_ray


def where(names: tuple[str, ...]) -> dict[str, str]:
    """Return the files of modules as a task's process imports them."""
    return {name: str(__import__(name).__file__) for name in names}


async def main() -> None:
    """Print one JSON line."""
    told: dict[str, Any] = {}
    async with private_ray() as backend:
        try:
            await backend.check(ClusterPlan(nodes=1))
            cluster = await backend.start_cluster(ClusterPlan(nodes=1))
            kv = cluster.client()
            await kv.put(b"k", b"v")
            told["read"] = (await kv.get(b"k") or b"").decode()
            names = ("raft_actor_node", "chaos", "colorsys", "click")
            [outcome] = [each async for each in run_tasks(where, [names], at_a_time=1, timeout_s=60.0)]
            told |= {"there": outcome.result, "error": outcome.error, "here": where(names)}
        except OtherCode as error:
            told["refused"] = str(error)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "borrowed":
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    asyncio.run(main())
