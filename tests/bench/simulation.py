"""Speed of the simulation: elections after a crash, in CPU time of one core.

Each election kills the leader of five nodes, waits for the next leader, and restarts the old one from its disk. This
includes failure detection, pre-vote, vote, recovery, and every message and fsync in between. The invariants of the
cluster are checked after every step of every node.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from orchestration import ClusterPlan
from orchestration.sim_cluster import SimCluster, run_virtual
from raft_actor_node.core.invariants.cluster import ClusterInvariants

ELECTIONS = 500
ROUNDS = 3
NODES = 5
BAR_ELECTIONS_PER_10_S = 1000


def elections_per_10_s() -> float:
    """Return the elections of five nodes per 10 s of CPU time on one core, as the median of several rounds."""
    return statistics.median(_round(seed) for seed in range(ROUNDS))


def _round(seed: int) -> float:
    begin = time.process_time()
    run_virtual(lambda: _elect(seed))
    return 10 * ELECTIONS / (time.process_time() - begin)


async def _elect(seed: int) -> None:
    cluster = SimCluster(ClusterPlan(nodes=NODES), seed=seed, observer=ClusterInvariants())
    await cluster.start()
    for _ in range(ELECTIONS):
        leader = await cluster.leader()
        assert leader is not None
        await cluster.crash(leader)
        while await cluster.leader() is None:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.005)
        await cluster.restart(leader)
    assert cluster.violations == []
    await cluster.stop()


if __name__ == "__main__":
    print(f"{elections_per_10_s():,.0f} elections per 10 s")
