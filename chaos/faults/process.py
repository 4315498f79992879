"""Faults of processes: crash and pause."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from random import Random
from typing import ClassVar, Self

from chaos.faults.base import Effect, Fault, Moment, Nodes, Proof, drawn_nodes


class ProcessFault(Fault):
    """Base of the faults that stop processes."""

    takes = "NODES"
    proof: ClassVar[tuple[Proof, ...]] = ()
    silences = True
    disables: ClassVar[bool] = True
    exit_code: ClassVar[None] = None

    @abstractmethod
    def effect(self, nodes: Sequence[str], *, preparing: bool = False) -> Effect:
        """Return the call on the processes, and the call that undoes it."""

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        """Draw the leader, a node, or a minority."""
        return cls.model_validate({cls.kind: drawn_nodes(nodes, rng)})

    def describe(self) -> str:
        """Return the nodes."""
        return self.where_in_words()


class Crash(ProcessFault):
    """Kill processes, so that everything in their memory is lost."""

    kind = nodes_key = "crash"
    end_key = "restart_after"
    happens = "SIGKILL"
    ends_leadership = "always"
    needs = "crashes"
    begins_life = "always"

    crash: Nodes
    restart_after: Moment | None = None

    def effect(self, nodes: Sequence[str], *, preparing: bool = False) -> Effect:
        """Crash, then restart."""
        return Effect(strike="crash", undo="restart")


class Pause(ProcessFault):
    """Suspend processes. When they resume, they have not noticed that time has passed."""

    kind = nodes_key = "pause"
    end_key = "resume_after"
    happens = "SIGSTOP"
    ends_leadership = "sometimes"
    needs = "pauses"
    begins_life = "never"

    pause: Nodes
    resume_after: Moment | None = None

    def effect(self, nodes: Sequence[str], *, preparing: bool = False) -> Effect:
        """Pause, then resume."""
        return Effect(strike="pause", undo="resume")
