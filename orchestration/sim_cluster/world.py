"""The state that all nodes of a simulation share: time, random numbers, network, story, observer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestration.sim_cluster.loop import SimLoop
from orchestration.sim_cluster.network import Network
from orchestration.sim_cluster.observer import Observer
from orchestration.sim_cluster.story import Story
from raft_actor_node.links import LinkRule
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.runtime.assembly import Parts


def stream(seed: int, *purpose: object) -> random.Random:
    """Create a random number generator for one purpose, derived from the seed."""
    return random.Random("/".join(map(str, (seed, *purpose))))


@dataclass(frozen=True)
class SimViolation:
    """A broken rule, or a bug that raised an exception."""

    time_s: float
    node_id: str
    error: BaseException

    def __str__(self) -> str:
        return f"{self.time_s:.6f} s: {self.node_id}: {type(self.error).__name__}: {self.error}"


@dataclass
class World:
    """The state that all nodes of a simulation share."""

    loop: SimLoop
    seed: int
    network: Network
    story: Story
    observer: Observer
    parts: Parts
    links: tuple[LinkRule, ...] = ()
    """The link faults in force."""
    inside: Mapping[str, NodeFaults] = field(default_factory=dict)
    """The faults inside nodes in force, by node."""
    violations: list[SimViolation] = field(default_factory=list)

    def stream(self, *purpose: object) -> random.Random:
        """Create a random number generator for one purpose, derived from the seed."""
        return stream(self.seed, *purpose)

    def violated(self, node_id: str, error: BaseException) -> None:
        """Record a violation; the simulation continues."""
        violation = SimViolation(self.loop.time(), node_id, error)
        self.violations.append(violation)
        self.story.tell(node_id, f"! {type(error).__name__}: {error}")
