"""The backend that starts clusters in virtual time; satisfies face.Backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from orchestration.face import Host, LoadOptions
from orchestration.plan import ClusterPlan
from orchestration.sim_cluster.cluster import SIMULATION, SimCluster, SimWorker
from orchestration.sim_cluster.loop import SimLoop
from orchestration.sim_cluster.observer import Observer
from orchestration.sim_cluster.settings import SimSettings
from raft_actor_node.client_engine import ClientEngine
from raft_actor_node.errors import ConfigError
from raft_actor_node.runtime.assembly import Parts


class SimTime:
    """The clock of a SimLoop; satisfies the monkey's Clock."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def now_ns(self) -> int:
        """Return the virtual time in nanoseconds."""
        return self._loop.now_ns()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of virtual time."""
        await asyncio.sleep(seconds)


class SimBackend:
    """Simulated clusters, one after the other. Must be created and used on a SimLoop."""

    def __init__(
        self,
        settings: SimSettings | None = None,
        seed: int = 0,
        *,
        observer: Callable[[], Observer] | None = None,
        parts: Parts | None = None,
    ) -> None:
        """Create the backend.

        `observer` creates the observer of each cluster. A seed in a plan takes precedence over `seed`.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, SimLoop):
            raise TypeError("a SimBackend needs a SimLoop: use run_virtual")
        self.clock = SimTime(loop)
        self.hosts = (SIMULATION,)
        self.description = "simulation, in virtual time"
        self.private = True
        self.lost: str | None = None
        """Always None: a simulation has no infrastructure that could fail."""
        self.load_options = LoadOptions(engine=self._engine, clock=self.clock.now_ns)
        """Arguments that bind a load generator to this simulated world."""
        self._settings, self._seed, self._observer, self._parts = settings, seed, observer, parts
        self._cluster: SimCluster | None = None

    @property
    def facts(self) -> Mapping[str, object]:
        """The digest of the cluster that was started last; None if no cluster was started."""
        return {"digest": self._cluster and self._cluster.digest()}

    async def start_cluster(self, plan: ClusterPlan) -> SimCluster:
        """Start a cluster.

        Raises ConfigError if the plan has another node program, NodeFailed if a node does not start.
        """
        if plan.command != "default":
            raise ConfigError("cluster.command: only this project's own node can be simulated")
        seed = self._seed if plan.seed is None else plan.seed
        observer = self._observer() if self._observer is not None else None
        cluster = SimCluster(plan, self._settings, seed, observer, parts=self._parts)
        await cluster.start()
        self._cluster = cluster
        return cluster

    async def check(self, plan: ClusterPlan) -> tuple[Host, ...]:
        """Return the host of each node; all are in this process."""
        return self.hosts * plan.nodes

    async def host(
        self, factory: Callable[..., object], *args: Any, on: Host | None = None, **kwargs: Any
    ) -> SimWorker:
        """Create an object with `factory`, as if in its own process.

        `on` is ignored, because there is only one host.
        """
        return SimWorker(factory(*args, **kwargs))

    def _engine(self, *args: Any, **kwargs: Any) -> ClientEngine:
        if self._cluster is None:
            raise RuntimeError("no cluster was started: call start_cluster first")
        return self._cluster.engine_factory(*args, **kwargs)
