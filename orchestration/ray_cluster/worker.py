"""The driver's end of an actor: calls with a deadline, and Ray's errors translated into ours."""

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
    """An actor on some host, and the object that it holds at present.

    Made by the Pool; goes back to it on `close`, to hold another object later.
    """

    def __init__(self, actor: Any, host: Host, give_back: Callable[[Worker, bool], None]) -> None:
        self.host = host
        self.facts: HostFacts
        self.lost: str | None = None
        """Why the actor is gone, or given up: no call reaches it any more."""
        self._tracked: TrackedClock | None = None
        """None: the host's clock is the driver's."""
        self._actor = actor
        self._give_back = give_back
        self._limits: set[Patience] = set()
        """Of the calls under way."""

    async def connect(self, timeout_s: float) -> None:
        """Wait until the actor runs."""
        self.facts = HostFacts(*await self._remote("facts", timeout_s=timeout_s))

    @property
    def clock(self) -> HostClock:
        """The host's clock against the driver's, as measured when the object was created, and whenever `compare_clocks`
        was called since."""
        return HostClock() if self._tracked is None else self._tracked.clock

    async def create(self, factory: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Have the actor hold `factory(*args, **kwargs)`; the factory must be importable on its host."""
        same = self.facts.clock_id == clock_id()
        self._tracked = None if same else TrackedClock(await self._sample(CALL_TIMEOUT_S))
        await self._remote("create", factory, args, kwargs)

    async def compare_clocks(self, *, timeout_s: float = CALL_TIMEOUT_S) -> HostClock:
        """Measure the clock again; what is known of the time since the object was created. Raises
        InfrastructureError."""
        if self._tracked is not None:
            self._tracked.add(await self._sample(timeout_s))
        return self.clock

    def keep_clock(self, earlier: Worker) -> None:
        """Go on with what another actor of this host has measured."""
        self._tracked = earlier._tracked

    async def call(self, method: str, *args: Any, timeout_s: float | None = CALL_TIMEOUT_S, **kwargs: Any) -> Any:
        """Call a method, sync or async, of the object.

        Raises what the method raises, and InfrastructureError when the actor is gone or does not answer
        within `timeout_s` seconds (None: wait for ever; the death of the actor still ends the call).
        """
        return await self._remote("call", method, args, kwargs, timeout_s=timeout_s)

    async def knock(self) -> None:
        """Raise InfrastructureError, soon, when the actor does not answer. For a moment Ray may know only that an actor
        cannot be reached, and then that it is gone: `lost` tells it afterwards."""
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
        """Have the object closed and give the actor back. An actor that does not answer is killed."""
        healthy = False
        try:
            await self._remote("close", timeout_s=_CLOSE_TIMEOUT_S)
            healthy = True
        except InfrastructureError:
            pass
        finally:
            self._give_back(self, healthy)

    def kill(self) -> None:
        """End the actor and with it whatever it runs, where that is still possible; does not wait for it."""
        self.give_up(f"the actor on {self.host.address} was killed")
        in_background("kill an actor", self.end)

    def end(self) -> None:
        """Have Ray end the actor; blocks."""
        ray.kill(self._actor, no_restart=True)

    def give_up(self, reason: str) -> None:
        """Take the actor for lost: the calls under way end with this reason, and so does every later one."""
        self.lost = self.lost or reason
        for limit in self._limits:
            limit.end()

    async def _remote(self, method: str, *args: Any, timeout_s: float | None = CALL_TIMEOUT_S) -> Any:
        what = f"{args[0]}()" if method == "call" else method
        if self.lost is not None:
            raise InfrastructureError(self.lost)
        # Not asyncio.wait_for: until Python 3.12 it swallows a cancellation that comes together with the answer.
        limit = Patience(timeout_s)
        try:
            async with limit:
                self._limits.add(limit)
                try:
                    return await getattr(self._actor, method).remote(*args)
                finally:
                    self._limits.discard(limit)
        except TimeoutError as error:
            # A TimeoutError of the method itself arrives as a RayTaskError that is one, too.
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
            # Ray's messages are long; the first line says what happened, the last one why, where that is known.
            lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
            reason = " ... ".join(dict.fromkeys((lines[0], lines[-1])))
            dead = isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError)
            state = "is gone" if dead else "does not answer"
            words = f"the actor on {self.host.address} {state} ({what}): {reason}"
            if dead:
                self.give_up(words)
            raise InfrastructureError(words) from None

    async def _sample(self, timeout_s: float) -> Sample:
        """The shortest of a few."""
        samples = []
        for _ in range(_CLOCK_SAMPLES):
            asked_ns = time.monotonic_ns()
            there_ns = await self._remote("now_ns", timeout_s=timeout_s)
            samples.append(Sample(asked_ns, there_ns, time.monotonic_ns()))
        return min(samples, key=lambda sample: sample.length_ns)
