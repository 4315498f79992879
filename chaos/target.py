"""What chaos needs from a cluster: the Target protocol. Every kind of cluster satisfies it by its shape alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import NodeFaults


class Applied(Protocol):
    """When a change took effect, in nanoseconds of the monotonic clock; 0 where no node took it."""

    @property
    def first_ns(self) -> int:
        """When the first node had it."""

    @property
    def last_ns(self) -> int:
        """When the last node had it."""

    @property
    def failed(self) -> tuple[str, ...]:
        """The nodes that should have it and do not."""


class Target(Protocol):
    """A cluster whose processes, links and disks can be disturbed.

    A call acts on all the nodes it names, then raises if any of them failed. It returns an Applied where
    the target knows when the change took effect; with None the begin and the end of the call stand for it.
    To restart a node that runs, or to resume one that is not paused, does nothing.
    """

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Every node of the cluster, up or down, in a fixed order."""

    async def leader(self) -> str | None:
        """The leader, or None while there is none."""

    async def crash(self, *node_ids: str) -> Applied | None:
        """Kill the processes (SIGKILL), all at once."""

    async def restart(self, *node_ids: str) -> Applied | None:
        """Start crashed nodes again, on what their disks hold; returns when they serve."""

    async def pause(self, *node_ids: str) -> Applied | None:
        """Stop the processes (SIGSTOP) without ending them."""

    async def resume(self, *node_ids: str) -> Applied | None:
        """Let paused processes go on (SIGCONT)."""

    async def set_links(self, rules: Sequence[LinkRule]) -> Applied | None:
        """Put this whole table of link faults in force on every live node; a node that is down starts with it."""

    async def set_node_faults(self, faults: Mapping[str, NodeFaults]) -> Applied | None:
        """Put this whole table of faults inside nodes in force on every live node; a node that is down starts with it.

        A node that the table does not name has none.
        """

    async def heal(self) -> Applied | None:
        """Remove every link fault and every fault inside a node."""
