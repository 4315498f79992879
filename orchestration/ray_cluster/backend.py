"""The backend that starts clusters on Ray: a connection, its pool of actors, and the clusters on them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType

import ray
from ray._raylet import AuthenticationMode, get_authentication_mode  # type: ignore[attr-defined]

from orchestration.face import Host, LoadOptions
from orchestration.plan import ClusterPlan
from orchestration.ray_cluster.cluster import RayCluster
from orchestration.ray_cluster.doctor import DeadHost, Examination, RayFacts, examine
from orchestration.ray_cluster.pool import Pool
from orchestration.ray_cluster.session import RaySession, ask_head, connect
from orchestration.ray_cluster.worker import Worker


class DriverClock:
    """The monotonic clock of the driver's host; all times of a cluster refer to it."""

    now_ns = staticmethod(time.monotonic_ns)


class RayBackend:
    """Starts clusters of real processes, one after the other. Created by `connect`; satisfies face.Backend."""

    clock = DriverClock()
    facts: Mapping[str, object] = MappingProxyType({})
    load_options = LoadOptions()
    """Empty: load generators use the real engine and clock."""

    def __init__(self, session: RaySession) -> None:
        self.pool = Pool(session)
        """The hosts, and the actors on them."""
        self._session = session
        self._clusters: set[RayCluster] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, address: str | None = None) -> AsyncIterator[RayBackend]:
        """Connect to Ray as `session.connect` does; at exit, stop the clusters and actors and disconnect.

        Raises InfrastructureError.
        """
        async with connect(address) as session:
            backend = cls(session)
            try:
                yield backend
            finally:
                await backend._close()

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts that were alive when a cluster was last started."""
        return self.pool.hosts

    @property
    def private(self) -> bool:
        """Whether this Ray was started for this program; then everything is on this machine."""
        return self._session.private

    @property
    def description(self) -> str:
        """The origin of this Ray, its hosts and their addresses, in one line."""
        count = len(self.hosts)
        addresses = ", ".join(host.address for host in self.hosts)
        return f"Ray: {self._session.origin}; {count} host{'s' if count != 1 else ''}: {addresses}"

    @property
    def lost(self) -> str | None:
        """Why this backend can no longer be used; None as long as Ray's head answers."""
        return self._session.lost

    async def check(self, plan: ClusterPlan) -> tuple[Host, ...]:
        """Return the hosts that the planned cluster would get now; see Pool.check."""
        return await self.pool.check(plan.nodes, plan.placement)

    async def start_cluster(self, plan: ClusterPlan) -> RayCluster:
        """Start a cluster; see RayCluster.bring_up."""
        cluster = await RayCluster.bring_up(self.pool, plan)
        self._clusters = {each for each in self._clusters if not each.stopped} | {cluster}
        return cluster

    async def host(
        self, factory: Callable[..., object], *args: object, on: Host | None = None, **kwargs: object
    ) -> Worker:
        """Create an actor that holds `factory(*args, **kwargs)`; see Pool.host."""
        return await self.pool.host(factory, *args, on=on, any_code=False, **kwargs)

    async def examine(self, storage_dir: str = "auto", *, quick: bool = False) -> Examination:
        """Examine all hosts and the links between them; see doctor.examine."""
        return await examine(self.pool, await self.ray_facts(), storage_dir, quick=quick)

    async def ray_facts(self) -> RayFacts:
        """Describe this Ray and the hosts it has lost. Raises InfrastructureError when it does not answer."""
        return RayFacts(
            description=self.description,
            address=ray.get_runtime_context().gcs_address,
            version=ray.__version__,
            private=self.private,
            authentication="token" if get_authentication_mode() == AuthenticationMode.TOKEN else "none",
            dead=await ask_head(_dead_hosts),
        )

    async def _close(self) -> None:
        for cluster in self._clusters:
            await cluster.stop()
        await self.pool.close()


def _dead_hosts() -> list[DeadHost]:
    """Return the hosts that left the Ray cluster and have not come back under a new id."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    alive = {node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    dead = [node for node in nodes if node["NodeManagerAddress"] not in alive]
    return [
        DeadHost(node["NodeManagerAddress"], node["NodeManagerHostname"], node.get("DeathReasonMessage") or "")
        for node in dead
    ]
