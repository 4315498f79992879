"""A program with its own cluster, for tests to kill. Prints a JSON line when everything runs, then waits.

python driver.py ADDRESS RUN_ID COMMAND...     ADDRESS as for RayBackend.connect
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import ray

from orchestration import ClusterPlan, RayBackend


async def main() -> None:
    """Three nodes, one of them paused, and an actor beside them."""
    address, run_id, *command = sys.argv[1:]
    async with RayBackend.connect(address) as backend:
        cluster = await backend.start_cluster(ClusterPlan(nodes=3, command=tuple(command), run_id=run_id))
        beside = await backend.host(asyncio.Queue)
        await cluster.pause("n2")
        this_ray: Any = ray._private.worker._global_node
        facts = {
            "description": backend.description,
            "nodes": [cluster.pid(node_id) for node_id in cluster.node_ids],
            "actors": [worker.facts.pid for worker in (beside, *map(cluster.worker, cluster.node_ids))],
            "folder": str(Path(this_ray.get_session_dir_path()).parent),
        }
        print(json.dumps(facts), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    # A shell that runs the tests in the background may ignore SIGINT, and a child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(main())
