"""Fault actions for scripts on a simulated cluster: aimed with full knowledge of the cluster, and always reverted.

A script can read every core at no cost. It acts through the same target interface as chaos on real clusters. Only this
module has further faults: power losses, and slow or failing disks.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf
from typing import Literal, TypeVar

from chaos.shapes import Link, compose, cut, separated
from orchestration.errors import NodeFailed
from orchestration.sim_cluster import SimCluster, SimDisk, SimViolation
from raft_actor_node.core import RaftNode, Role
from raft_actor_node.errors import DataCorrupt
from raft_actor_node.links import CLIENTS, LinkRule
from raft_actor_node.node_faults import DiskFault, NodeFaults
from raft_actor_node.runtime.wal_format import decode_segment_header
from raft_actor_node.units import Range
from sweeps.campaign.watch import Moments, Point

T = TypeVar("T")

POWER_SHARE = 0.4
"""Share of the crashes that are power losses, if the script does not choose."""
SHORT_LOG_BYTES = 600
"""Minimum length of a log to damage: a shorter one has too few units for certain detection."""
STARTS = 20
"""Most attempts to start a node from a damaged disk."""
ROTTEN_COPIES = 0.25
"""Probability that a copy of term and vote is damaged instead of the log."""
Ailment = Literal["write", "full", "sync", "sync once"]
"""How a disk fails: each write with EIO, each write with ENOSPC, each sync with EIO, or only the next sync."""


class Nemesis:
    """Faults on one cluster. Durations are in units of the longest election timeout (`et`)."""

    def __init__(self, cluster: SimCluster, moments: Moments, rng: random.Random, election_timeout: Range) -> None:
        self.cluster, self.rng = cluster, rng
        self.members: tuple[str, ...] = cluster.node_ids
        self.et = election_timeout.max_s
        self._moments = moments
        self._tables: dict[str, Sequence[LinkRule]] = {}
        self.unnoticed: list[str] = []
        """Damage to files at rest that a node did not detect."""
        self._rotten: list[tuple[str, float, float]] = []
        """Attempts to start a node from a damaged log: (node, begin, end), in seconds of virtual time."""

    # ------------------------------------------------------------------------------ observing

    def core(self, node_id: str) -> RaftNode | None:
        """Return the core of a node; None while it is down."""
        return self.cluster.nodes[node_id].core

    def fastest(self) -> str:
        """Return the node with the fastest clock."""
        return max(self.members, key=lambda node: self.cluster.nodes[node].rate)

    def up(self, among: Iterable[str] | None = None) -> list[str]:
        """Return the nodes that run, including paused ones."""
        return [node for node in (self.members if among is None else among) if self.core(node) is not None]

    def leading(self, among: Collection[str] | None = None) -> str | None:
        """Return the leader of the highest term; None if there is no leader."""
        leaders = [
            core
            for node in (self.members if among is None else among)
            if (core := self.core(node)) is not None and core.role == Role.LEADER
        ]
        return max(leaders, key=lambda core: core.current_term).node_id if leaders else None

    def settled(self, among: Collection[str] | None = None) -> str | None:
        """Return the leader, if it has committed an entry of its own term; otherwise None."""
        leader = self.leading(among)
        core = self.core(leader) if leader is not None else None
        return leader if core is not None and core.log.term_at(core.commit_index) == core.current_term else None

    def pick(self, things: Sequence[T]) -> T:
        """Return a random element."""
        return self.rng.choice(things)

    def any_of(self, things: Sequence[T], count: int = 1) -> list[T]:
        """Return random elements, at most `count`."""
        return self.rng.sample(list(things), min(count, len(things)))

    def others(self, *nodes: str) -> list[str]:
        """Return all other members, in random order."""
        return self.any_of([node for node in self.members if node not in nodes], len(self.members))

    # ------------------------------------------------------------------------------ waiting

    async def sleep(self, shortest: float, longest: float) -> None:
        """Wait for a random time, in election timeouts."""
        await asyncio.sleep(self.rng.uniform(shortest, longest) * self.et)

    async def until(self, condition: Callable[[], bool], within: float) -> bool:
        """Wait until a condition holds, and continue at the same virtual instant.

        Return False if the condition does not hold in time.
        """
        return await self._moments.until(condition, within * self.et)

    async def reach(
        self, *points: Point, within: float, of: Callable[[str], bool] = lambda node_id: True
    ) -> str | None:
        """Wait until a node reaches one of these points, and continue at that virtual instant.

        Return the node; None if no node does in time.
        """
        return await self._moments.reach(points, within * self.et, of)

    async def settle(self, among: Collection[str] | None = None, within: float = 8.0) -> str | None:
        """Wait for a leader that has committed an entry of its term; return None if there is none in time."""
        await self.until(lambda: self.settled(among) is not None, within)
        return self.settled(among)

    # ------------------------------------------------------------------------------ processes

    async def crash(self, *nodes: str, power: bool | None = None) -> None:
        """End processes; with `power` also cut the power of their machines (None: at random)."""
        running = self.up(nodes)
        if not running:
            return
        if self.rng.random() < POWER_SHARE if power is None else power:
            await self.cluster.power_loss(*running)
        else:
            await self.cluster.crash(*running)

    async def restart(self, *nodes: str) -> None:
        """Start processes that are down."""
        for node in nodes:
            if self.core(node) is None:
                with contextlib.suppress(NodeFailed):  # its disk is full or failing; a later restart may succeed
                    await self.cluster.restart(node)

    async def pause(self, *nodes: str) -> None:
        """Pause processes."""
        running = self.up(nodes)
        if running:
            await self.cluster.pause(*running)

    async def resume(self, *nodes: str) -> None:
        """Resume paused processes."""
        running = self.up(nodes)
        if running:
            await self.cluster.resume(*running)

    async def keep_up(self) -> None:
        """Restart every node that goes down, forever: a fault may end a node even after it was healed."""
        while True:
            await self._moments.until(lambda: len(self.up()) < len(self.members), None)
            await self.restart(*self.members)
            await self.sleep(0.1, 0.1)  # another task may be starting the same node

    # ------------------------------------------------------------------------------ links

    async def links(self, name: str, rules: Sequence[LinkRule]) -> None:
        """Replace the link faults of this name; empty rules remove them."""
        if rules or self._tables.get(name):
            self._tables[name] = rules
            await self.cluster.set_links(compose(self._tables.values()))

    async def cut(self, name: str, links: Iterable[Link]) -> None:
        """Cut directed links."""
        await self.links(name, cut(links))

    async def split(self, name: str, *groups: Sequence[str], clients: int | None = None) -> None:
        """Separate groups of nodes. Clients reach only the group with index `clients` (None: all groups)."""
        full = [tuple(group) + ((CLIENTS,) if i == clients else ()) for i, group in enumerate(groups)]
        await self.cut(name, separated(tuple(full), self.members))

    async def lift(self, name: str) -> None:
        """Remove the link faults of this name."""
        await self.links(name, ())

    # ------------------------------------------------------------------------------ disks

    def sicken(self, node_id: str, how: Ailment) -> None:
        """Make a disk fail from now on, or once."""
        disk = self.cluster.nodes[node_id].disk
        match how:
            case "write":
                disk.fail_writes = errno.EIO
            case "full":
                disk.fail_writes = errno.ENOSPC
            case "sync":
                disk.fail_syncs = errno.EIO
            case "sync once":
                disk.fail_syncs = errno.EIO
                disk.on_call = _Once(disk)

    def cure(self, *nodes: str) -> None:
        """Make disks work again."""
        for node_id in nodes:
            disk = self.cluster.nodes[node_id].disk
            disk.fail_writes = disk.fail_syncs = disk.on_call = None
            disk.slowness = 1.0

    def slow_down(self, node_id: str, lasts: float) -> None:
        """Make each write of a disk take about this many election timeouts from now on."""
        fastest, slowest = self.cluster.settings.fsync
        self.cluster.nodes[node_id].disk.slowness = lasts * self.et / ((fastest + slowest) / 2)

    async def hang(self, *nodes: str) -> None:
        """Stall the disks of these nodes, and of no others: each fsync waits until they are healed."""
        await self.cluster.set_node_faults(dict.fromkeys(nodes, NodeFaults(disk=DiskFault(stall=True))))

    async def rot(self, node_id: str) -> None:
        """Flip a bit on the disk of a node that is down, and check that the node detects it; then repair and start it.

        With a flipped bit in its log, below the durable mark, the node must refuse to start. With a flipped bit in one
        of the two copies of term and vote, it must start from the other copy.
        """
        disk = self.cluster.nodes[node_id].disk
        files = disk.contents()
        logs = [path for path in files if path.suffix == ".wal"]
        copies = [path for path in files if path.name.startswith("hard-state-")]
        whole = len({files[path] for path in copies}) == 1
        path = self.rng.choice(copies if whole and self.rng.random() < ROTTEN_COPIES else logs)
        used = len(files[path].rstrip(b"\0"))
        if path in logs and used < SHORT_LOG_BYTES:
            return
        damaged = bytearray(files[path])
        if path in logs:
            # The last unit may be torn, and after a power loss the durable mark may not cover the unit before it. A
            # bit before these two units is followed by an intact unit, so the node can detect it.
            nonce = decode_segment_header(files[path], str(path)).nonce
            used = damaged.rfind(nonce, 0, damaged.rfind(nonce))
        at = self.rng.randrange(used)
        damaged[at] ^= 1 << self.rng.randrange(8)
        disk.put(path, bytes(damaged))
        loop = asyncio.get_running_loop()
        if path in logs:
            self._rotten.append((node_id, loop.time(), inf))
        try:
            refused = await self._refuses(node_id)
            if path in logs and refused is False:
                self.unnoticed.append(f"{node_id} started, although a bit was flipped at offset {at} of {path}")
            if path in copies and refused is True:
                self.unnoticed.append(f"{node_id} did not start from the intact copy of {path}")
        finally:
            if self.core(node_id) is None:
                disk.put(path, files[path])
            if path in logs:
                self._rotten[-1] = (*self._rotten[-1][:2], loop.time())
        await self.restart(node_id)

    async def _refuses(self, node_id: str) -> bool | None:
        """Start a node; return whether it refused because of damage. None: every start ended before that, for another
        reason (the simulation interrupts some starts and fails some calls on the disk)."""
        for _ in range(STARTS):
            try:
                await self.cluster.restart(node_id)
                return False
            except NodeFailed as error:
                if error.node_exit_code == DataCorrupt.exit_code:
                    return True
        return None

    def broken(self) -> list[SimViolation]:
        """Return the violations that observers and nodes found, except refusals to start from a damaged log."""
        return [
            violation
            for violation in self.cluster.violations
            if not isinstance(violation.error, DataCorrupt)
            or not any(node == violation.node_id and a <= violation.time_s <= b for node, a, b in self._rotten)
        ]

    # ------------------------------------------------------------------------------ the end

    async def heal(self) -> None:
        """Revert all faults of links, disks and processes."""
        self._tables.clear()
        await self.cluster.heal()
        self.cure(*self.members)
        await self.resume(*self.members)
        await self.restart(*self.members)


class _Once:
    """A disk hook that makes the second sync succeed, as after a transient fault of the device."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self._syncs = 0

    def __call__(self, call: str) -> None:
        self._syncs += "sync" in call
        if self._syncs > 1:
            self._disk.fail_syncs = None
