"""The Target protocol: what chaos needs from a cluster. Clusters satisfy it structurally, without inheriting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import NodeFaults


class Applied(Protocol):
    """When a change took effect, in nanoseconds of the monotonic clock; 0 if it took effect on no node."""

    @property
    def first_ns(self) -> int:
        """When it took effect on the first node."""

    @property
    def last_ns(self) -> int:
        """When it took effect on the last node."""

    @property
    def failed(self) -> tuple[str, ...]:
        """The nodes on which it should have taken effect and did not."""


class Target(Protocol):
    """A cluster whose processes, links and disks can be disturbed.

    A call acts on all nodes it names, then raises if any of them failed. It returns an Applied if the target knows when
    the change took effect. If a call returns None, the caller uses the times at which the call began and ended.
    Restarting a running node has no effect; neither has resuming a node that is not paused.
    """

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Every node of the cluster, up or down, in a fixed order."""

    async def leader(self) -> str | None:
        """Return the leader, or None while there is none."""

    async def crash(self, *node_ids: str) -> Applied | None:
        """Kill the processes (SIGKILL), all at once."""

    async def restart(self, *node_ids: str) -> Applied | None:
        """Start crashed nodes again on what their disks hold; return when they serve."""

    async def pause(self, *node_ids: str) -> Applied | None:
        """Stop the processes (SIGSTOP) without ending them."""

    async def resume(self, *node_ids: str) -> Applied | None:
        """Let paused processes continue (SIGCONT)."""

    async def set_links(self, rules: Sequence[LinkRule]) -> Applied | None:
        """Replace the table of link faults on every running node; a node that is down starts with it."""

    async def set_node_faults(self, faults: Mapping[str, NodeFaults]) -> Applied | None:
        """Replace the table of faults inside nodes on every running node; a node that is down starts with it.

        A node that the table does not name has no faults.
        """

    async def heal(self) -> Applied | None:
        """Remove every link fault and every fault inside a node."""
