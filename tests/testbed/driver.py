"""A program on the head with a cluster on the hosts. Prints a JSON line about the cluster when it serves, then ends.

python driver.py NODES      with RAY_ADDRESS in the environment
"""

from __future__ import annotations

import asyncio
import json
import sys

from orchestration import RayCluster


async def main() -> None:
    """Print the hosts of the nodes, and the offsets of their clocks from the driver's."""
    async with RayCluster.start(nodes=int(sys.argv[1])) as cluster:
        kv = cluster.client()
        await kv.put(b"k", b"v")
        workers = {node_id: cluster.worker(node_id) for node_id in cluster.node_ids}
        facts = {
            node_id: {
                "host": worker.host.address,
                "hostname": worker.facts.hostname,
                "serves": cluster.addresses[node_id].address,
                "offset_ns": worker.clock.offset_ns,
                "error_ns": worker.clock.error_ns,
            }
            for node_id, worker in workers.items()
        }
        print(json.dumps(facts))


if __name__ == "__main__":
    asyncio.run(main())
