"""The driver's side of an actor: calls with a deadline, and Ray's errors translated into ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from orchestration.errors import InfrastructureError
from orchestration.face import Host, HostClock
from orchestration.ray_cluster.actor import HostFacts, clock_id
from orchestration.ray_cluster.calls import in_background
from orchestration.ray_cluster.clock import Sample, TrackedClock
from raft_actor_node.patience import Patience

CALL_TIMEOUT_S = 30.0
_CLOSE_TIMEOUT_S = 10.0
_KNOCK_TIMEOUT_S = 3.0
_PAUSE_S = 0.1
_CLOCK_SAMPLES = 5


class Worker:
    """An actor on some host, and the object that it currently holds.

    The Pool creates it; `close` returns it to the pool, which reuses it for another object.
    """

    def __init__(self, actor: Any, host: Host, give_back: Callable[[Worker, bool], None]) -> None:
        self.host = host
        self.facts: HostFacts
        self.lost: str | None = None
        """Why the actor is gone or given up; then every call fails."""
        self._tracked: TrackedClock | None = None
        """None if the host's clock is the driver's."""
        self._actor = actor
        self._give_back = give_back
        self._limits: set[Patience] = set()
        """The time limits of the calls in progress."""

    async def connect(self, timeout_s: float) -> None:
        """Wait until the actor runs, and set `facts`. Raises InfrastructureError."""
        self.facts = HostFacts(*await self._remote("facts", timeout_s=timeout_s))

    @property
    def clock(self) -> HostClock:
        """The host's clock relative to the driver's, measured when the object was created and by `compare_clocks`."""
        return HostClock() if self._tracked is None else self._tracked.clock

    async def create(self, factory: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Create `factory(*args, **kwargs)` in the actor; the factory must be importable on its host."""
        same = self.facts.clock_id == clock_id()
        self._tracked = None if same else TrackedClock(await self._sample(CALL_TIMEOUT_S))
        await self._remote("create", factory, args, kwargs)

    async def compare_clocks(self, *, timeout_s: float = CALL_TIMEOUT_S) -> HostClock:
        """Measure the clock again; return the estimate for all the time since the object was created.

        Raises InfrastructureError.
        """
        if self._tracked is not None:
            self._tracked.add(await self._sample(timeout_s))
        return self.clock

    def keep_clock(self, earlier: Worker) -> None:
        """Take over the clock estimate of an earlier actor on this host."""
        self._tracked = earlier._tracked

    async def call(self, method: str, *args: Any, timeout_s: float | None = CALL_TIMEOUT_S, **kwargs: Any) -> Any:
        """Call a method of the object, sync or async.

        Raises what the method raises, and InfrastructureError when the actor is gone or does not answer
        within `timeout_s` seconds (None: no limit, but the death of the actor still ends the call).
        """
        return await self._remote("call", method, args, kwargs, timeout_s=timeout_s)

    async def knock(self) -> None:
        """Raise InfrastructureError within about 3 s when the actor does not answer.

        Ray may first report that an actor is unreachable, and a moment later that it is gone. `knock` waits for the
        second report, which sets `lost`.
        """
        async with Patience(_KNOCK_TIMEOUT_S, interrupt=False) as patience:
            while True:
                try:
                    await self._remote("now_ns", timeout_s=_KNOCK_TIMEOUT_S)
                    return
                except InfrastructureError:
                    if self.lost is not None or patience.over:
                        raise
                await asyncio.sleep(_PAUSE_S)

    async def close(self) -> None:
        """Close the object and return the actor to the pool. An actor that does not answer is killed."""
        healthy = False
        try:
            await self._remote("close", timeout_s=_CLOSE_TIMEOUT_S)
            healthy = True
        except InfrastructureError:
            pass
        finally:
            self._give_back(self, healthy)

    def kill(self) -> None:
        """Mark the actor as lost; end it and its processes in the background, if that is still possible."""
        self.give_up(f"the actor on {self.host.address} was killed")
        in_background("kill an actor", self.end)

    def end(self) -> None:
        """Make Ray end the actor; blocks."""
        ray.kill(self._actor, no_restart=True)

    def give_up(self, reason: str) -> None:
        """Mark the actor as lost: calls in progress and all later calls fail with this reason."""
        self.lost = self.lost or reason
        for limit in self._limits:
            limit.end()

    async def _remote(self, method: str, *args: Any, timeout_s: float | None = CALL_TIMEOUT_S) -> Any:
        what = f"{args[0]}()" if method == "call" else method
        if self.lost is not None:
            raise InfrastructureError(self.lost)
        # Not asyncio.wait_for: before Python 3.12 it swallows a cancellation that arrives together with the answer.
        limit = Patience(timeout_s)
        try:
            async with limit:
                self._limits.add(limit)
                try:
                    return await getattr(self._actor, method).remote(*args)
                finally:
                    self._limits.discard(limit)
        except TimeoutError as error:
            # A TimeoutError raised by the method itself is both a RayTaskError and a TimeoutError.
            if isinstance(error, RayTaskError):
                raise error.cause from None
            if self.lost is not None:
                raise InfrastructureError(self.lost) from None
            raise InfrastructureError(
                f"the actor on {self.host.address} did not answer {what} within {timeout_s:g} s"
            ) from None
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            # Ray's messages are long; the first line says what happened, the last line why, if Ray knows.
            lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
            reason = " ... ".join(dict.fromkeys((lines[0], lines[-1])))
            dead = isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError)
            state = "is gone" if dead else "does not answer"
            words = f"the actor on {self.host.address} {state} ({what}): {reason}"
            if dead:
                self.give_up(words)
            raise InfrastructureError(words) from None

    async def _sample(self, timeout_s: float) -> Sample:
        """Take a few samples of the host's clock; return the one with the shortest round trip."""
        samples = []
        for _ in range(_CLOCK_SAMPLES):
            asked_ns = time.monotonic_ns()
            there_ns = await self._remote("now_ns", timeout_s=timeout_s)
            samples.append(Sample(asked_ns, there_ns, time.monotonic_ns()))
        return min(samples, key=lambda sample: sample.length_ns)
