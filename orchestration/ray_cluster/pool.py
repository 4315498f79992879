"""The hosts of a Ray cluster, and the actors on them: made where they are needed, and used again from cell to cell."""

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
from orchestration.plan import Placement
from orchestration.ray_cluster.actor import ObjectHost
from orchestration.ray_cluster.placement import choose_hosts, cpus_of_actor, shortage
from orchestration.ray_cluster.session import Session, ask_head, live_hosts
from orchestration.ray_cluster.tasks import on_each_host
from orchestration.ray_cluster.worker import Worker
from raft_actor_node import origin as origin_module
from raft_actor_node.origin import Origin, origin, origins
from raft_actor_node.patience import Patience

# By value, for a worker that has other code, or none, must answer too.
ray.cloudpickle.register_pickle_by_value(origin_module)  # type: ignore[no-untyped-call]

_ACTOR_TIMEOUT_S = 60.0
_PLACEMENT_TIMEOUT_S = 30.0
"""How long others have to give back the CPUs that they use."""
_POLL_S = 0.2
_CODE_TIMEOUT_S = 20.0
_MAX_CONCURRENCY = 1000


class Pool:
    """Gives out actors, and takes them back."""

    code: Mapping[str, Origin] = MappingProxyType({package: origin(package) for package in PACKAGES})
    """What this program runs, as its source was when it began: by package."""

    def __init__(self, session: Session) -> None:
        self.hosts = session.hosts
        """The hosts that are alive, as of the last time that nodes were placed."""
        self.private = session.private
        """As of the session."""
        self.workers: set[Worker] = set()
        """All actors, in use or idle."""
        self._idle: defaultdict[str, list[Worker]] = defaultdict(list)

    async def host(
        self, factory: Callable[..., Any], *args: Any, on: Host | None = None, any_code: bool = False, **kwargs: Any
    ) -> Worker:
        """An actor on the host `on`, of `hosts`, that holds `factory(*args, **kwargs)`; default: the driver's host.

        The factory, as a rule a class, must be importable there. The host may be one that offers no CPU. Raises
        InfrastructureError, PlacementRefused, OtherCode unless `any_code` will do, and what the factory raises.
        """
        [worker] = await self.acquire([on or self._drivers_host()], any_code=any_code)
        try:
            await worker.create(factory, *args, **kwargs)
        except BaseException:
            await worker.close()
            raise
        return worker

    async def check(self, count: int, placement: Placement) -> tuple[Host, ...]:
        """The hosts that `count` nodes would have now, one for each; nothing is started.

        Raises PlacementRefused, at once when hosts are missing, within 30 s when others use their CPUs, OtherCode, and
        InfrastructureError.
        """
        chosen = await self.choose(count, placement)
        needed = [*chosen, self._drivers_host()]  # there the load generator is
        await self.check_code(needed)
        await self._until_free(self._without_idle(needed))
        return chosen

    async def check_code(self, hosts: Iterable[Host] | None = None) -> None:
        """Raise OtherCode when what Ray starts on one of these hosts (default: all) imports other code than this
        program. A host that does not answer is passed over: that shows elsewhere."""
        for host, found in await imported_on(dict.fromkeys(self.hosts if hosts is None else hosts)):
            for package, *there in found:
                if there[0] != self.code[package].digest:
                    raise OtherCode.of(f"what Ray starts on {host}", package, Origin(*there), self.code[package])

    async def place(self, count: int, placement: Placement) -> list[Worker]:
        """One actor for each of `count` nodes. Raises PlacementRefused and InfrastructureError."""
        chosen = await self.choose(count, placement)
        hosts = self.hosts
        try:
            return await self.acquire(chosen)
        except (InfrastructureError, PlacementRefused):
            chosen = await self.choose(count, placement)
            if set(self.hosts) == set(hosts):
                raise
            return await self.acquire(chosen)  # a host was lost meanwhile, or came

    async def another(self, host: Host) -> Worker:
        """One more actor on a host that has lost one. Raises InfrastructureError, at once when the host is gone."""
        if host.host_id not in [each.host_id for each in await ask_head(live_hosts)]:
            raise InfrastructureError(f"{host} left the Ray cluster")
        [worker] = await self.acquire([host])
        return worker

    async def choose(self, count: int, placement: Placement) -> tuple[Host, ...]:
        """A host for each of `count` nodes, of those that are alive now. Raises PlacementRefused and
        InfrastructureError."""
        self.hosts = tuple(await ask_head(live_hosts))
        return choose_hosts(count, self.hosts, placement)

    async def acquire(self, chosen: Sequence[Host], *, any_code: bool = False) -> list[Worker]:
        """One actor on each chosen host: idle ones first, then new ones. Raises OtherCode unless `any_code` will do."""
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
        """End all actors; those of a private Ray end with it."""
        if not self.private:
            with contextlib.suppress(InfrastructureError):  # the actors end with their owner, which is this program
                await ask_head(self._end_actors)

    # ------------------------------------------------------------------------------ inside

    async def _drop_lost(self, host_ids: Iterable[str]) -> None:
        """Give up the idle actors on these hosts that do not answer."""

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
                    max_restarts=0,  # a restart by Ray would be a fault that nobody logged
                    max_concurrency=_MAX_CONCURRENCY,
                    # By Ray's id and not by the address: a host that has just come back may be listed twice.
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
                await self._check_alive(chosen)  # says it better
                await same_code  # likewise
            raise
        finally:
            same_code.cancel()
        return workers

    def _drivers_host(self) -> Host:
        found = next((host for host in self.hosts if host.is_driver), None)
        if found is None:
            raise InfrastructureError("this program's host is not in the Ray cluster any more")
        return found

    def _without_idle(self, chosen: Sequence[Host]) -> list[Host]:
        """Those of the hosts on which a new actor is needed."""
        idle = {host_id: len(workers) for host_id, workers in self._idle.items()}
        new = []
        for host in chosen:
            idle[host.host_id] = idle.get(host.host_id, 0) - 1
            if idle[host.host_id] < 0:
                new.append(host)
        return new

    async def _until_free(self, chosen: Sequence[Host]) -> None:
        """Wait until there is a CPU for a new actor on each of these hosts."""
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
    """What a process that Ray starts imports for each package of this project, on each of the hosts that answer."""
    outcomes = await on_each_host(origins, PACKAGES, hosts, timeout_s=_CODE_TIMEOUT_S)
    return [(outcome.item, outcome.result) for outcome in outcomes if outcome.result is not None]


def free_cpus() -> dict[str, float]:
    """Host id to the CPUs that nobody uses, as Ray's head knew a moment ago."""
    available = available_resources_per_node()  # type: ignore[no-untyped-call]
    return {host_id: resources.get("CPU", 0.0) for host_id, resources in available.items()}
