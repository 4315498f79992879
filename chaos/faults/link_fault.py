"""Base class of the link faults."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from chaos.faults.base import Effect, Fault, Moment, Proof
from raft_actor_node.links import LinkRule

CUT = (Proof("cut", "message", "cut"),)
"""Proof that links were cut."""


class LinkFault(Fault):
    """Base of the link faults."""

    end_key = "heal_after"
    silences = False
    needs = "link_faults"
    begins_life = "never"
    exit_code: ClassVar[None] = None

    heal_after: Moment | None = None

    @abstractmethod
    def rules(self, nodes: Sequence[str]) -> list[LinkRule]:
        """Return the link rules of this fault in a cluster of these nodes. Its selectors must be resolved."""

    @property
    def among_nodes(self) -> bool:
        """Whether this fault affects only links between nodes."""
        return True

    def effect(self, nodes: Sequence[str], *, preparing: bool = False) -> Effect:
        """Return the effect: the rules of this fault, for the table of link faults."""
        return Effect(links=self.rules(nodes))

    def refusal(self, nodes: Sequence[str]) -> str:
        """Return why this fault cannot be injected in a cluster of these nodes; empty if it can."""
        alone = len(nodes) < 2 and self.among_nodes
        return self.misplaced(nodes) or (f"{self.kind}: a single node has no links to other nodes" if alone else "")

    def misplaced(self, nodes: Sequence[str]) -> str:
        """Return what is wrong with the nodes that this fault names; empty if nothing is."""
        return super().refusal(nodes)
