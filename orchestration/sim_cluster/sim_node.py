"""A simulated node: successive incarnations of a process (life.py) on one disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from orchestration.plan import Cause
from orchestration.sim_cluster.disk import SimDisk
from orchestration.sim_cluster.life import Life
from orchestration.sim_cluster.loop import Call
from orchestration.sim_cluster.world import World
from raft_actor_node.config import NodeConfig
from raft_actor_node.core import RaftNode
from raft_actor_node.errors import DiskError
from raft_actor_node.kv.store import Store
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.runtime.assembly import exit_code

_LOOK_S = 0.001
"""Interval at which a restart looks whether a failed node has exited."""
STOP_GRACE_S = 1.0
"""How long a stopping node waits until its appended entries are committed."""
KILLED = -9
"""Exit code of a process that was killed."""
RECOVERY_CALLS = 12
"""Approximate number of disk calls that change something during a recovery."""


class BootCrash(Exception):
    """A process was killed while it recovered."""


class SimNode:
    """A node across all its incarnations. An incarnation is up or paused; between two incarnations the node is down."""

    def __init__(
        self,
        world: World,
        config: NodeConfig,
        on_end: Callable[[str, Cause, int, str], None],
    ) -> None:
        """Create the node, down.

        `on_end` is called at the end of each incarnation, with the node id, cause, exit code and end of the log.
        """
        node_id = config.node_id
        self.world = world
        self.node_id = node_id
        self.disk = SimDisk(world.stream("disk", node_id), capacity_bytes=world.network.settings.disk_capacity)
        self.disk.whole_sectors = world.network.settings.whole_sectors
        self.rate = world.stream("clock", node_id).uniform(*world.network.settings.clock_rate)
        """Seconds of its clock per second."""
        self.life: Life | None = None
        self.lives = 0
        """The number of incarnations so far."""
        self.state: Literal["up", "paused", "down"] = "down"
        self.trace: list[str] = []
        """Lines of the trace file, of all incarnations."""
        self.log: list[str] = []
        self.config = config
        """The configuration of future incarnations."""
        self._on_end = on_end
        self._disk_broke = False
        self._stalls = world.stream("stalls", node_id)
        self._next_stall: Call | None = None
        self._boots = world.stream("boots", node_id)
        self._dark: Life | None = None
        """The last incarnation, if it ended because its host lost power, and the host is not back yet."""
        self._failures = 0
        """Failures of the disk before this incarnation."""

    @property
    def core(self) -> RaftNode | None:
        """The Raft node of the current incarnation."""
        return self.life.runtime.driver.node if self.life is not None else None

    @property
    def store(self) -> Store | None:
        """The state machine of the current incarnation."""
        return self.life.runtime.driver.store if self.life is not None else None

    @property
    def address(self) -> str:
        """The address of the current or last incarnation."""
        return f"{self.node_id}.sim:{self.lives}"

    def boot(self, *, bootstrap: bool) -> None:
        """Start an incarnation under the faults in force. Raises BootCrash, and what runtime's Node raises."""
        assert self.life is None
        world = self.world
        if self._disk_broke:  # a restart repairs a random disk failure
            self._disk_broke, self.disk.fail_writes, self.disk.fail_syncs = False, None, None
        self._power_returns()
        self.lives += 1
        self._failures = self.disk.failures
        seed = world.stream("node", self.node_id, self.lives).getrandbits(63)
        faults = {"links": list(world.links), "node_faults": self._faults}
        config = self.config.model_copy(update={"bootstrap": bootstrap, "seed": seed, **faults})
        try:
            with self._perhaps_interrupted():
                life = Life(
                    world,
                    config,
                    self.lives,
                    disk=self.disk,
                    clock_rate=self.rate,
                    trace=self.trace,
                    failed=self.fail,
                    disk_broke=self._break_disk,
                )
            world.observer.started(life.runtime.driver.node, world.loop.time())
            life.runtime.start()
        except BootCrash as error:
            self._lose(power=self._boots.random() < world.network.settings.power_loss)
            self._on_end(self.node_id, "crash", KILLED, self.log[-1])
            raise error from None
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}")
            if not self._disk_failed(error):
                world.violated(self.node_id, error)
            self.disk.kill()
            self._on_end(self.node_id, "exit", exit_code(error), self.log[-1])
            raise
        for warning in life.runtime.warnings:
            self._say(warning)
        self.life, self.state = life, "up"
        world.network.ports.open(self.node_id, self.address, life)
        life.runtime.take_part()
        world.story.tell(self.node_id, f"* life {self.lives} begins")
        self.stall_later()

    def crash(self, *, power: bool, silent: bool = False) -> bool:
        """Kill the process, or with `power` cut the power, which may lose unsynced writes.

        Return False if the node is down. `silent`: the host is unreachable too, so clients do not notice the end of the
        process until the host is back.
        """
        life = self.life
        if life is None:
            return False
        if silent:
            self._dark = life
            self.world.network.ports.dark.add(self.address)
        self._end(life)
        self._lose(power=power)
        self._tell_end("crash", KILLED)
        return True

    def pause(self) -> bool:
        """Pause the process; return False if it is not up."""
        if self.life is None or self.state == "paused":
            return False
        self.state = "paused"
        self.life.process.hold()
        self._say("paused")
        return True

    def resume(self) -> bool:
        """Resume the process, under the faults in force; return False if it is not paused."""
        if self.life is None or self.state != "paused":
            return False
        self.state = "up"
        self.take_faults()
        self.life.process.release()
        self._say("resumed")
        return True

    def take_faults(self) -> bool:
        """Apply the link faults and the faults inside this node; return False if the node is not up."""
        if self.life is None or self.state != "up":
            return False
        self.life.runtime.faults.replace(self.world.links)
        self.life.runtime.disk_faults.replace(self._faults.disk)
        return True

    @property
    def _faults(self) -> NodeFaults:
        return self.world.inside.get(self.node_id, NodeFaults())

    async def decided(self) -> None:
        """Wait while an injected error is about to end the node: the error occurred, but the process has not exited."""
        while (  # noqa: ASYNC110 - a pause ends the wait, too
            self.state == "up" and self.life is not None and self.life.runtime.disk_faults.counters.errors
        ):
            await asyncio.sleep(_LOOK_S)

    async def halt(self) -> None:
        """Shut the process down (SIGTERM)."""
        self.resume()
        if self.life is not None:
            await self._stop(self.life, STOP_GRACE_S)

    def fail(self, life: Life, error: BaseException) -> None:
        """End the node after an error, with the error's exit code, without waiting for pending work."""
        if self.life is not life or life.failure is not None:
            return
        life.failure = error
        self._say(f"{type(error).__name__}: {error}")
        if not (self._disk_failed(error) or _injected(life, error)):
            self.world.violated(self.node_id, error)
        if not life.runtime.gate.closed:  # not stopping already
            life.ending = self.world.loop.create_task(self._stop(life, 0.0))

    def stall_later(self) -> None:
        """Draw the time of the next stall again, at the current rate; the exponential distribution has no memory."""
        if self._next_stall is not None:
            self._next_stall.cancel()
            self._next_stall = None
        rate = self.world.network.settings.stalls_per_s
        if self.life is not None and rate > 0:
            self._next_stall = self.world.network.after(self._stalls.expovariate(rate), self._stall, self.life)

    # ------------------------------------------------------------------------------ inside

    def _break_disk(self) -> None:
        self._disk_broke = True

    def _lose(self, *, power: bool) -> None:
        """Apply the end of the process, or with `power` a power failure, to its disk."""
        if power:
            loss = self.disk.lose_power()
            how = f"power lost: {loss.writes_lost} writes gone, {loss.writes_torn} torn, {loss.names_lost} names gone"
        else:
            self.disk.kill()
            how = "killed"
        self._say(how)

    @contextmanager
    def _perhaps_interrupted(self) -> Iterator[None]:
        """With probability `boot_crash`, raise BootCrash from a random call on the disk."""
        disk, chance = self.disk, self.world.network.settings.boot_crash
        if not chance or self._boots.random() >= chance or disk.on_call is not None:
            yield
            return
        left = iter(range(self._boots.randrange(RECOVERY_CALLS)))

        def count(_: str) -> None:
            if next(left, None) is None:
                raise BootCrash("killed while it recovered")

        disk.on_call = count
        try:
            yield
        finally:
            disk.on_call = None

    def _disk_failed(self, error: BaseException) -> bool:
        """Return whether an error reports a disk failure that really happened in this incarnation."""
        return isinstance(error, DiskError | OSError) and self.disk.failures > self._failures

    async def _stop(self, life: Life, grace_s: float) -> None:
        life.runtime.gate.closed = True
        try:
            await life.runtime.driver.stop(grace_s)
        except Exception as error:
            self.fail(life, error)
        if self.life is life:  # not killed meanwhile
            self._end(life)
            self.disk.kill()
            if life.failure is None:
                self._tell_end("stop", 0)
            else:
                cause: Cause = "fault" if _injected(life, life.failure) else "exit"
                self._tell_end(cause, exit_code(life.failure))

    def _end(self, life: Life) -> None:
        life.process.end()
        for call in life.calls:
            call.cancel()
        self.world.network.ports.close(self.node_id, self.address)
        if life is not self._dark:
            for link in life.links:
                link.lost(life)
        self.life, self.state = None, "down"

    def _power_returns(self) -> None:
        """Power the host on again, if it was off. It resets its old connections, so clients notice that they ended."""
        life, self._dark = self._dark, None
        if life is not None:
            self.world.network.ports.dark.discard(self.address)
            for link in life.links:
                link.lost(life)

    def _tell_end(self, cause: Cause, code: int) -> None:
        world = self.world
        world.story.tell(self.node_id, f"* life {self.lives} ended: {cause} {code}")
        self._on_end(self.node_id, cause, code, "\n".join(self.log[-10:]))
        try:
            world.observer.crashed(self.node_id, world.loop.time())
        except Exception as error:
            world.violated(self.node_id, error)

    def _say(self, line: str) -> None:
        self.log.append(f"{self.world.loop.time():.6f} {self.node_id} {line}")
        self.world.story.tell(self.node_id, f"* {line}")

    def _stall(self, life: Life) -> None:
        if life.process.ended:
            return
        lasts_s = self._stalls.uniform(*self.world.network.settings.stall)
        life.process.hold()
        self.world.story.tell(self.node_id, f"* stalls for {lasts_s:.6f} s")
        self.world.network.after(lasts_s, self._stalled, life, lasts_s)
        self.stall_later()

    def _stalled(self, life: Life, lasts_s: float) -> None:
        life.process.release()
        life.runtime.loop_lag.add_ns(round(lasts_s * 1e9))


def _injected(life: Life, error: BaseException) -> bool:
    """Return whether a fault inside the node caused this disk error."""
    return isinstance(error, DiskError | OSError) and life.runtime.disk_faults.counters.errors > 0
