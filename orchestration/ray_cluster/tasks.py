"""Run independent work as Ray tasks: a bounded number at a time, each with a deadline, none left running."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestration.errors import InfrastructureError
from orchestration.face import Host
from orchestration.ray_cluster.calls import bounded, first_line, in_background
from raft_actor_node.patience import Patience

T = TypeVar("T")
R = TypeVar("R")
U = TypeVar("U")


@dataclass(frozen=True)
class TaskOutcome(Generic[T, R]):
    """The outcome of the task for one item."""

    item: T
    result: R | None
    error: str | None = None
    """Why there is no result, in one line; None when there is a result."""


async def run_tasks(
    function: Callable[[T], R], items: Iterable[T], *, at_a_time: int, timeout_s: float
) -> AsyncGenerator[TaskOutcome[T, R], None]:
    """Run `function(item)` for each item in a Ray task; yield the outcomes in the order in which the tasks end.

    Needs a connection to Ray; `function` must be importable on all hosts. At most `at_a_time` tasks run, with one CPU
    each. A task is ended after `timeout_s`, which includes its wait for a CPU. All tasks are ended when the iteration
    is left or cancelled (use `contextlib.aclosing`). An exception in a task becomes an outcome. Raises
    InfrastructureError when Ray accepts no task.
    """
    remote: Any = ray.remote(num_cpus=1, max_retries=0)(_call)
    queue = iter(items)
    under_way: dict[asyncio.Task[TaskOutcome[T, R]], Any] = {}
    left: set[Any] = set()
    """All unfinished tasks, including those that Ray started only after the caller had stopped waiting."""

    def start(item: T) -> Any:
        reference = remote.remote(function, item)
        left.add(reference)
        return reference

    try:
        while True:
            while len(under_way) < at_a_time and (item := next(queue, _NOTHING)) is not _NOTHING:
                reference = await bounded("Ray", timeout_s, functools.partial(start, item))
                under_way[asyncio.create_task(_outcome(item, reference, timeout_s))] = reference
            if not under_way:
                return
            done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                left.discard(under_way.pop(task))
                yield task.result()
    finally:
        for task in under_way:
            task.cancel()
        for reference in list(left):
            _end(reference)
        await asyncio.gather(*under_way, return_exceptions=True)


async def on_each_host(
    function: Callable[[T], R], item: T, hosts: Iterable[Host], *, timeout_s: float
) -> list[TaskOutcome[Host, R]]:
    """Run `function(item)` on each of these hosts concurrently, without reserving CPUs; return the outcomes.

    An outcome without a result after `timeout_s` has an error. Needs a connection to Ray.
    """

    async def on(host: Host) -> TaskOutcome[Host, R]:
        there = NodeAffinitySchedulingStrategy(host.host_id, soft=False)
        remote: Any = ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        try:
            reference = await bounded("Ray", timeout_s, lambda: remote.remote(item))
        except InfrastructureError as error:
            return TaskOutcome(host, None, str(error))
        return await _outcome(host, reference, timeout_s)

    return await asyncio.gather(*map(on, hosts))


def _call(function: Callable[[T], R], item: T) -> R:
    return function(item)


async def _outcome(item: U, reference: Any, timeout_s: float) -> TaskOutcome[U, R]:
    try:
        async with Patience(timeout_s):
            return TaskOutcome(item, await reference)
    except TimeoutError as error:
        if isinstance(error, RayTaskError):
            return TaskOutcome(item, None, first_line(error.cause))
        _end(reference)
        return TaskOutcome(item, None, f"no result within {timeout_s:g} s")
    except RayTaskError as error:
        return TaskOutcome(item, None, first_line(error.cause))
    except RayError as error:
        return TaskOutcome(item, None, f"its worker is gone: {first_line(error)}")


def _end(reference: Any) -> None:
    """End a task by force, in the background, so that a task that cannot be ended does not delay the others."""
    in_background("end a task", lambda: ray.cancel(reference, force=True, recursive=False))


_NOTHING: Any = object()
