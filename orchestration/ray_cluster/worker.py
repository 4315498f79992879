"""The driver's end of an actor: calls with a deadline, and Ray's errors translated into ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from orchestration.errors import InfrastructureError
from orchestration.ray_cluster.actor import HostFacts, clock_id
from orchestration.ray_cluster.calls import in_background
from orchestration.ray_cluster.placement import Host

CALL_TIMEOUT_S = 30.0
_CLOSE_TIMEOUT_S = 10.0
_KNOCK_TIMEOUT_S = 3.0
_CLOCK_SAMPLES = 5


@dataclass(frozen=True)
class Clock:
    """How the monotonic clock of a host relates to the driver's: an interval in which their difference certainly is.

    One sample (Cristian, Probabilistic clock synchronization, 1989): the driver reads t0, asks, the host reads h,
    the driver gets the answer and reads t1. When the host read its clock the driver's showed something between t0 and
    t1, so that

        h - t1  <=  offset  <=  h - t0

    however unequally the way there and the way back share the time. `offset_ns` is the middle of the interval,
    h - (t0 + t1) / 2, and `error_ns` half its length, (t1 - t0) / 2. Of a few samples the shortest is kept.

    Clocks drift, by some 10 us per second. What happens between two measurements, [a, b] before it and [c, d] after it,
    has an offset in the smallest interval around both, [min(a, c), max(b, d)]: as long as one clock gains on the
    other, or loses, all the time, the offset in between lies between those at both ends. Where drift may turn round
    they are measured now and then meanwhile, and those are in the interval too; but for one that excludes nothing of
    what is known, because somebody was too busy to answer at once: it says nothing. Nothing is extrapolated, and one
    offset holds for the whole time, so that differences of a host's own times stay what they were.
    """

    offset_ns: int = 0
    """Host less driver."""
    error_ns: int = 0
    """The offset is right within this much, either way; 0 when both read the same clock."""

    @classmethod
    def within(cls, low_ns: int, high_ns: int) -> Clock:
        """The offset is in the interval [low, high]."""
        return cls((low_ns + high_ns) // 2, (high_ns - low_ns + 1) // 2)

    def to_driver(self, host_ns: int) -> int:
        """The driver's time of a host's time stamp."""
        return host_ns - self.offset_ns

    def excludes(self, other: Clock) -> bool:
        """Whether some offset that the other one allows is none of this one's."""
        return abs(self.offset_ns - other.offset_ns) + other.error_ns > self.error_ns

    def until(self, later: Clock) -> Clock:
        """What is known of the time from this measurement to a later one."""
        both = (self, later)
        return Clock.within(
            min(clock.offset_ns - clock.error_ns for clock in both),
            max(clock.offset_ns + clock.error_ns for clock in both),
        )


class Worker:
    """An actor on some host, and the object that it holds at present.

    Made by the Backend; goes back to its pool on `close`, to hold another object later.
    """

    def __init__(self, actor: Any, host: Host, give_back: Callable[[Worker, bool], None]) -> None:
        self.host = host
        self.facts: HostFacts
        self.clock = Clock()
        """As measured when the object was created, and whenever `compare_clocks` was called since."""
        self.lost: str | None = None
        """Why the actor is gone, or given up: no call reaches it any more."""
        self._actor = actor
        self._give_back = give_back
        self._limits: set[asyncio.Timeout] = set()
        """Of the calls under way."""

    async def connect(self, timeout_s: float) -> None:
        """Wait until the actor runs."""
        self.facts = HostFacts(*await self._remote("facts", timeout_s=timeout_s))

    async def create(self, factory: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Have the actor hold `factory(*args, **kwargs)`; the factory must be importable on its host."""
        self.clock = await self._measured()
        await self._remote("create", factory, args, kwargs)

    async def compare_clocks(self, *, meanwhile: bool = False) -> Clock:
        """Measure the clock again, at the end of what it is needed for, or meanwhile; what is known of the time since
        the object was created. Raises InfrastructureError."""
        measured = await self._measured()
        if not meanwhile or measured.excludes(self.clock):
            self.clock = self.clock.until(measured)
        return self.clock

    async def call(self, method: str, *args: Any, timeout_s: float | None = CALL_TIMEOUT_S, **kwargs: Any) -> Any:
        """Call a method, sync or async, of the object.

        Raises what the method raises, and InfrastructureError when the actor is gone or does not answer
        within `timeout_s` seconds (None: wait for ever; the death of the actor still ends the call).
        """
        return await self._remote("call", method, args, kwargs, timeout_s=timeout_s)

    async def knock(self) -> None:
        """Raise InfrastructureError, soon, when the actor does not answer."""
        await self._remote("now_ns", timeout_s=_KNOCK_TIMEOUT_S)

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
            if not limit.expired():
                limit.reschedule(0)

    async def _remote(self, method: str, *args: Any, timeout_s: float | None = CALL_TIMEOUT_S) -> Any:
        what = f"{args[0]}()" if method == "call" else method
        if self.lost is not None:
            raise InfrastructureError(self.lost)
        # Not asyncio.wait_for: until Python 3.12 it swallows a cancellation that comes together with the answer.
        limit = asyncio.timeout(timeout_s)
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
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = " ... ".join(dict.fromkeys((lines[0], lines[-1])))
            dead = isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError)
            state = "is gone" if dead else "does not answer"
            words = f"the actor on {self.host.address} {state} ({what}): {reason}"
            if dead:
                self.give_up(words)
            raise InfrastructureError(words) from None

    async def _measured(self) -> Clock:
        if self.facts.clock_id == clock_id():
            return Clock()
        samples = [await self._sample() for _ in range(_CLOCK_SAMPLES)]
        return min(samples, key=lambda clock: clock.error_ns)

    async def _sample(self) -> Clock:
        before = time.monotonic_ns()
        there = await self._remote("now_ns", timeout_s=_KNOCK_TIMEOUT_S)
        after = time.monotonic_ns()
        return Clock.within(there - after, there - before)
