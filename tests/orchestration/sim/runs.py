"""A whole run in virtual time: a cluster, clients under constant load, a monkey, and finally a healed cluster."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos import parse_chaos, plan, run
from chaos.faults import FAULTS
from orchestration import ClusterPlan
from orchestration.errors import NodeFailed
from orchestration.sim_cluster import Observer, Parts, SimCluster, SimSettings, run_virtual
from orchestration.sim_cluster.backend import SimTime
from raft_actor_node.client_engine import FAIL, OK, UNKNOWN, Operation, Session
from raft_actor_node.config import ClientSettings
from raft_actor_node.errors import OperationError
from raft_actor_node.kv.commands import Kind
from raft_actor_node.units import Range

ROUGH = SimSettings(
    delay=Range(0.0002, 0.010),
    tail=0.02,
    loss=0.02,
    duplicate=0.02,
    replay=0.01,
    fsync_tail=0.02,
    clock_rate=(0.95, 1.05),
    stalls_per_s=0.2,
    power_loss=0.5,
)
"""All faults at once, mild enough for the cluster to make progress."""
MONKEY = {"monkey": list(FAULTS), "every": "1s"}
CLIENT = ClientSettings(rpc_timeout=0.3, retry_budget=3.0)


@dataclass
class Outcome:
    """The results of a run."""

    digest: str = ""
    story: str = ""
    violations: list[str] = field(default_factory=list)
    outcomes: dict[int, int] = field(default_factory=dict)
    faults: int = 0
    seconds: float = 0.0
    exits: list[str] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)
    leader: str | None = None


def simulate(
    seed: int,
    settings: SimSettings = ROUGH,
    *,
    nodes: int = 5,
    operations: int = 200,
    duration_s: float = 6.0,
    observer: Callable[[], Observer] | None = None,
    parts: Parts | None = None,
    story: bool = False,
) -> Outcome:
    """Run a seed; return the results."""
    return run_virtual(lambda: _live(seed, settings, nodes, operations, duration_s, observer, parts, story))


async def _live(
    seed: int,
    settings: SimSettings,
    nodes: int,
    operations: int,
    duration_s: float,
    observer: Callable[[], Observer] | None,
    parts: Parts | None,
    story: bool,
) -> Outcome:
    outcome = Outcome(outcomes=dict.fromkeys((OK, FAIL, UNKNOWN), 0))
    cluster = SimCluster(
        ClusterPlan(nodes=nodes), settings, seed, observer() if observer else None, parts=parts, story=story
    )
    await cluster.start()
    load = _Load(cluster, seed, operations, duration_s)
    with contextlib.suppress(OperationError):
        await load.start()
    schedule = plan(parse_chaos(MONKEY), duration_s=duration_s, nodes=cluster.node_ids, seed=seed)
    loop = asyncio.get_running_loop()
    events = await run(cluster, schedule, clock=SimTime(cluster.loop))
    outcome.faults = sum(event.action == "inject" for event in events)
    cluster.settings = SimSettings()
    await load.finish()
    with contextlib.suppress(NodeFailed):
        await cluster.restart(*(node_id for node_id, node in cluster.nodes.items() if node.state == "down"))
    await asyncio.sleep(3.0)
    outcome.leader = await cluster.leader()
    outcome.outcomes |= load.outcomes
    outcome.states = [node.store.state_hash() for node in cluster.nodes.values() if node.store is not None]
    await cluster.stop()
    outcome.digest, outcome.story = cluster.digest(), "\n".join(cluster.log)
    outcome.violations = [str(violation) for violation in cluster.violations]
    outcome.exits = [str(end) for end in cluster.unexpected_exits]
    outcome.seconds = loop.time()
    return outcome


class _Load:
    """Sessions that each have one operation outstanding, spread over the whole time."""

    def __init__(self, cluster: SimCluster, seed: int, operations: int, duration_s: float) -> None:
        self.outcomes = dict.fromkeys((OK, FAIL, UNKNOWN), 0)
        self._rng = random.Random(f"{seed}/load")
        self._left = self._open = operations
        self._gap_s = duration_s * SESSIONS / operations
        self._cluster = cluster
        self._finished = asyncio.Event()
        self._engine = cluster.engine_factory(
            cluster.addresses.addresses(), client_id="load", on_done=self._done, settings=CLIENT
        )
        cluster.addresses.subscribe(lambda book: self._engine.update_addresses(book.addresses()))

    async def start(self) -> None:
        self._engine.start()
        try:
            sessions = await self._engine.open_sessions(SESSIONS)
        except OperationError:
            self._finished.set()
            raise
        for session in sessions:
            self._next(session)

    async def finish(self) -> None:
        await self._finished.wait()
        await self._engine.close()

    def _next(self, session: Session) -> None:
        if self._left:
            self._left -= 1
            asyncio.get_running_loop().call_later(self._rng.uniform(0, 2 * self._gap_s), self._submit, session)

    def _submit(self, session: Session) -> None:
        kind = self._rng.choice((Kind.PUT, Kind.GET, Kind.DELETE, Kind.COMPARE_AND_SWAP, Kind.APPEND))
        key = b"k%d" % self._rng.randrange(5)
        value = b"" if kind in (Kind.GET, Kind.DELETE) else b"%d." % self._left
        self._engine.submit([Operation(int(kind), key, value, session=session, token=session)])

    def _done(self, operations: list[Operation]) -> None:
        for operation in operations:
            self.outcomes[operation.outcome] += 1
            self._open -= 1
            if operation.error != "CANCELLED":
                self._next(operation.token)
        if not self._open:
            self._finished.set()


SESSIONS = 8
