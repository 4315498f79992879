"""The hosts of a Ray cluster, and a pool of actors on them that is reused from cell to cell."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import ray
import ray.cloudpickle
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestration.errors import InfrastructureError, OtherCode, PlacementRefused
from orchestration.face import Host
from orchestration.host import PACKAGES
from orchestration.placement import choose_hosts, cpus_of_actor, shortage
from orchestration.plan import Placement
from orchestration.ray_cluster.actor import ObjectHost
from orchestration.ray_cluster.session import RaySession, ask_head, live_hosts
from orchestration.ray_cluster.tasks import on_each_host
from orchestration.ray_cluster.worker import Worker
from raft_actor_node import origin as origin_module
from raft_actor_node.origin import Origin, origin, origins
from raft_actor_node.patience import Patience

# Pickled by value, so that a worker with different code, or without this package, can answer too.
ray.cloudpickle.register_pickle_by_value(origin_module)  # type: ignore[no-untyped-call]

_ACTOR_TIMEOUT_S = 60.0
_PLACEMENT_TIMEOUT_S = 30.0
"""How long to wait for other programs to free their CPUs."""
_POLL_S = 0.2
_CODE_TIMEOUT_S = 20.0
_MAX_CONCURRENCY = 1000


class Pool:
    """Hands out actors, and takes them back."""

    code: Mapping[str, Origin] = MappingProxyType({package: origin(package) for package in PACKAGES})
    """By package: the digest and the folder of this program's source when the program started."""

    def __init__(self, session: RaySession) -> None:
        self.hosts = session.hosts
        """The hosts that were alive when nodes were last placed."""
        self.private = session.private
        """Whether the session started its own Ray; see RaySession.private."""
        self.workers: set[Worker] = set()
        """All actors, in use or idle."""
        self._idle: defaultdict[str, list[Worker]] = defaultdict(list)

    async def host(
        self, factory: Callable[..., Any], *args: Any, on: Host | None = None, any_code: bool = False, **kwargs: Any
    ) -> Worker:
        """Create `factory(*args, **kwargs)` in an actor on host `on`, one of `hosts`; default: the driver's host.

        The factory, usually a class, must be importable there. The host need not offer a CPU. Raises
        InfrastructureError, PlacementRefused, OtherCode (not with `any_code`), and what the factory raises.
        """
        [worker] = await self.acquire([on or self._drivers_host()], any_code=any_code)
        try:
            await worker.create(factory, *args, **kwargs)
        except BaseException:
            await worker.close()
            raise
        return worker

    async def check(self, count: int, placement: Placement) -> tuple[Host, ...]:
        """Return the host that each of `count` nodes would get now; start nothing.

        Raises OtherCode, InfrastructureError, and PlacementRefused: immediately when hosts are missing, within 30 s
        when their CPUs are in use.
        """
        chosen = await self.choose(count, placement)
        needed = [*chosen, self._drivers_host()]  # the load generator runs on the driver's host
        await self.check_code(needed)
        await self._until_free(self._without_idle(needed))
        return chosen

    async def check_code(self, hosts: Iterable[Host] | None = None) -> None:
        """Raise OtherCode when a Ray worker on one of these hosts (default: all) imports different code.

        A host that does not answer is skipped, because other calls report it.
        """
        for host, found in await imported_on(dict.fromkeys(self.hosts if hosts is None else hosts)):
            for package, *there in found:
                if there[0] != self.code[package].digest:
                    raise OtherCode.of(f"what Ray starts on {host}", package, Origin(*there), self.code[package])

    async def place(self, count: int, placement: Placement) -> list[Worker]:
        """Acquire an actor for each of `count` nodes. Raises PlacementRefused and InfrastructureError."""
        chosen = await self.choose(count, placement)
        hosts = self.hosts
        try:
            return await self.acquire(chosen)
        except (InfrastructureError, PlacementRefused):
            chosen = await self.choose(count, placement)
            if set(self.hosts) == set(hosts):
                raise
            return await self.acquire(chosen)  # hosts were lost or added meanwhile

    async def another(self, host: Host) -> Worker:
        """Acquire a replacement actor on a host. Raises InfrastructureError, immediately if the host is gone."""
        if host.host_id not in [each.host_id for each in await ask_head(live_hosts)]:
            raise InfrastructureError(f"{host} left the Ray cluster")
        [worker] = await self.acquire([host])
        return worker

    async def choose(self, count: int, placement: Placement) -> tuple[Host, ...]:
        """Choose a host for each of `count` nodes among the live hosts.

        Raises PlacementRefused and InfrastructureError.
        """
        self.hosts = tuple(await ask_head(live_hosts))
        return choose_hosts(count, self.hosts, placement)

    async def acquire(self, chosen: Sequence[Host], *, any_code: bool = False) -> list[Worker]:
        """Acquire an actor on each chosen host, idle actors first. Raises OtherCode unless `any_code`."""
        await self._drop_lost({host.host_id for host in chosen})
        idle = [self._idle[host.host_id].pop() if self._idle[host.host_id] else None for host in chosen]
        try:
            missing = [host for host, worker in zip(chosen, idle, strict=True) if worker is None]
            new = iter(await self._create(missing, any_code))
        except BaseException:
            for worker in filter(None, idle):
                self._take_back(worker, healthy=True)
            raise
        return [worker or next(new) for worker in idle]

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all actors; the actors of a private Ray end with that Ray."""
        if not self.private:
            # If the head does not answer, the actors end together with this program, their owner.
            with contextlib.suppress(InfrastructureError):
                await ask_head(self._end_actors)

    # ------------------------------------------------------------------------------ inside

    async def _drop_lost(self, host_ids: Iterable[str]) -> None:
        """Discard the idle actors on these hosts that do not answer."""

        async def answers(worker: Worker) -> bool:
            try:
                await worker.knock()
            except InfrastructureError:
                return False
            return True

        idle = [worker for host_id in host_ids for worker in self._idle.pop(host_id, ())]
        healthy = await asyncio.gather(*map(answers, idle))
        for worker, well in zip(idle, healthy, strict=True):
            self._take_back(worker, healthy=well)

    async def _create(self, chosen: Sequence[Host], any_code: bool) -> list[Worker]:
        if not chosen:
            return []
        await self._until_free(chosen)
        actor_class = ray.remote(ObjectHost)

        def make() -> list[Any]:
            return [
                actor_class.options(
                    num_cpus=cpus_of_actor(host),
                    max_restarts=0,  # a restart by Ray would be a fault missing from the schedule
                    max_concurrency=_MAX_CONCURRENCY,
                    # By Ray's id, not by address: a host that has just come back may be listed twice.
                    scheduling_strategy=NodeAffinitySchedulingStrategy(host.host_id, soft=False),
                ).remote()
                for host in chosen
            ]

        actors = await ask_head(make)
        workers = [Worker(actor, host, self._take_back) for actor, host in zip(actors, chosen, strict=True)]
        self.workers.update(workers)
        same_code = asyncio.create_task(self.check_code(() if any_code else chosen))
        try:
            await asyncio.gather(*(worker.connect(_ACTOR_TIMEOUT_S) for worker in workers))
            await same_code
        except BaseException as error:
            for worker in workers:
                self._take_back(worker, healthy=False)
            if isinstance(error, InfrastructureError):
                # A lost host or different code explains the failure better than `error` does.
                await self._check_alive(chosen)
                await same_code
            raise
        finally:
            same_code.cancel()
        return workers

    def _drivers_host(self) -> Host:
        found = next((host for host in self.hosts if host.is_driver), None)
        if found is None:
            raise InfrastructureError("this program's host left the Ray cluster; start Ray on it again")
        return found

    def _without_idle(self, chosen: Sequence[Host]) -> list[Host]:
        """Return the hosts that need a new actor because no idle actor is left."""
        idle = {host_id: len(workers) for host_id, workers in self._idle.items()}
        new = []
        for host in chosen:
            idle[host.host_id] = idle.get(host.host_id, 0) - 1
            if idle[host.host_id] < 0:
                new.append(host)
        return new

    async def _until_free(self, chosen: Sequence[Host]) -> None:
        """Wait until each of these hosts has the CPUs for its new actors."""
        async with Patience(_PLACEMENT_TIMEOUT_S, interrupt=False) as patience:
            while missing := shortage(chosen, await ask_head(free_cpus)):
                await self._check_alive(chosen)
                if patience.over:
                    raise PlacementRefused(f"placement: not possible within {_PLACEMENT_TIMEOUT_S:g} s: {missing}")
                await asyncio.sleep(_POLL_S)

    async def _check_alive(self, chosen: Sequence[Host]) -> None:
        alive = {host.host_id for host in await ask_head(live_hosts)}
        if lost := [str(host) for host in chosen if host.host_id not in alive]:
            raise InfrastructureError(f"{', '.join(dict.fromkeys(lost))} left the Ray cluster")

    def _take_back(self, worker: Worker, healthy: bool) -> None:
        if healthy:
            self._idle[worker.host.host_id].append(worker)
        elif worker in self.workers:
            self.workers.remove(worker)
            worker.kill()

    def _end_actors(self) -> None:
        for worker in self.workers:
            worker.end()


async def imported_on(hosts: Iterable[Host]) -> list[tuple[Host, list[tuple[str, str, str]]]]:
    """Return the origin of each package that a Ray worker imports, for each of the hosts that answer."""
    outcomes = await on_each_host(origins, PACKAGES, hosts, timeout_s=_CODE_TIMEOUT_S)
    return [(outcome.item, outcome.result) for outcome in outcomes if outcome.result is not None]


def free_cpus() -> dict[str, float]:
    """Return a map from host id to free CPUs, as last reported by Ray's head."""
    available = available_resources_per_node()  # type: ignore[no-untyped-call]
    return {host_id: resources.get("CPU", 0.0) for host_id, resources in available.items()}
