"""The backend that sweeps use: clusters in virtual time, and load generators beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from orchestration import ClusterPlan
from orchestration.sim_cluster import Silent, SimBackend, SimCluster, SimSettings, run_virtual
from raft_actor_node.config import ClientSettings, TransportSettings
from raft_actor_node.errors import ConfigError
from sweeps.load.generator import LoadGenerator
from sweeps.load.operations import OK
from sweeps.spec.parameters import LoadSettings, Mix


def on_backend(work: Callable[[SimBackend], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    async def main() -> Any:
        return await work(SimBackend(**options))

    return run_virtual(main)


def test_a_load_generator_lives_in_virtual_time() -> None:
    async def work(backend: SimBackend) -> Any:
        load = await backend.host(
            LoadGenerator,
            LoadSettings(mode="open", rate=100, clients=8, mix=Mix(put=0.5, get=0.5), keys=5),
            ClientSettings(),
            TransportSettings(),
            seed=1,
            longest_value=1 << 20,
            **backend.load_options,
        )
        cluster = await backend.start_cluster(ClusterPlan(nodes=3, leader_timeout_s=5))
        assert cluster.bring_up_times.leader_s is not None
        await load.call("connect", cluster.addresses.addresses())
        begin_ns = backend.clock.now_ns()
        await load.call("start")
        await backend.clock.sleep(5.0)
        await load.call("stop")
        await load.call("drain", 5.0)
        columns = (await load.call("result")).columns
        await load.close()
        await cluster.stop()
        assert (columns["outcome"] == OK).all()
        assert columns["start_ns"].min() >= begin_ns
        assert columns["end_ns"].max() <= begin_ns + 5.1e9
        assert 400 < len(columns["start_ns"]) < 600
        return (columns["end_ns"] - columns["start_ns"]).sum(), cluster.digest()

    first = on_backend(work)
    assert first == on_backend(work), "a function of the seeds"
    assert first != on_backend(work, seed=2)


def test_the_seed_of_a_plan_goes_before_that_of_the_backend() -> None:
    async def work(backend: SimBackend) -> str:
        cluster = await backend.start_cluster(ClusterPlan(nodes=3, seed=7))
        return cluster.digest()

    assert on_backend(work, seed=1) == on_backend(work, seed=2)


def test_each_cluster_has_an_observer_of_its_own() -> None:
    made: list[Silent] = []

    def observer() -> Silent:
        made.append(Silent())
        return made[-1]

    async def work(backend: SimBackend) -> None:
        for _ in range(2):
            await (await backend.start_cluster(ClusterPlan(nodes=1))).stop()

    on_backend(work, observer=observer, settings=SimSettings())
    assert len(made) == 2


def test_a_foreign_program_cannot_be_simulated() -> None:
    async def work(backend: SimBackend) -> None:
        with pytest.raises(ConfigError, match=r"cluster\.command"):
            await backend.start_cluster(ClusterPlan(command="true"))

    on_backend(work)


def test_it_needs_virtual_time() -> None:
    async def main() -> None:
        for make in (SimBackend, lambda: SimCluster(ClusterPlan())):
            with pytest.raises(TypeError, match="run_virtual"):
                make()

    asyncio.run(main())
