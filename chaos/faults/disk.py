"""Faults of the disks of nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from chaos.faults.base import Effect, Fault, Moment, Nodes, Proof, drawn_nodes, format_moment
from raft_actor_node.errors import DiskError
from raft_actor_node.node_faults import DiskFault, NodeFaults
from raft_actor_node.units import Duration

DELAYED = Proof("fsyncs_delayed", "fsync", "delayed")
STALLED = Proof("fsyncs_stalled", "fsync", "stalled")
FAILED = Proof("disk_errors", "disk call", "refused")


class Disk(Fault):
    """Make the disk under a node's log slow, or make it hang or fail."""

    kind = nodes_key = "disk"
    end_key = "heal_after"
    takes = "NODES"
    happens = "the disk of each node is slow, hangs or fails"
    terms: ClassVar = {
        "fsync_latency": "a duration that each fsync takes longer",
        "stall": "true: each fsync hangs until the fault is healed",
        "error": "ENOSPC | EIO: the next write, or with on: fsync the next fsync, fails; the node exits (code 6), and "
        "healing restarts it. A disk fault has exactly one of fsync_latency, stall and error",
    }
    proof = (DELAYED, STALLED, FAILED)
    ends_leadership = "sometimes"
    silences = False
    needs = "node_faults"
    begins_life = "sometimes"

    disk: Nodes
    fsync_latency: Annotated[Duration, Field(gt=0, le=3600)] | None = None
    """How much longer each fsync takes."""
    stall: bool = False
    """Whether each fsync hangs until the fault is healed."""
    error: Literal["ENOSPC", "EIO"] | None = None
    """How the next write or fsync fails; the node then exits."""
    on: Literal["write", "fsync"] = "write"
    """The call that fails with `error`."""
    heal_after: Moment | None = None

    @model_validator(mode="after")
    def _one_way_to_fail(self) -> Disk:
        if [self.fsync_latency is not None, self.stall, self.error is not None].count(True) != 1:
            raise ValueError("exactly one of fsync_latency, stall: true and error must be given")
        if "on" in self.model_fields_set and self.error is None:
            raise ValueError("on: only with error")
        return self

    def effect(self, nodes: Sequence[str], *, preparing: bool = False) -> Effect:
        """Put the fault into the table of faults inside nodes. Healing restarts a node that exited on an error."""
        fault = DiskFault(
            fsync_latency_ms=round((self.fsync_latency or 0.0) * 1e3, 6),
            stall=self.stall,
            error=self.error or "",
            on=self.on,
        )
        return Effect(inside=dict.fromkeys(self.ids, NodeFaults(disk=fault)), undo="restart" if self.error else None)

    @property
    def disables(self) -> bool:
        """Whether the disk makes nothing durable: neither entries nor votes."""
        return self.fsync_latency is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of a node whose disk fails."""
        return DiskError.exit_code if self.error else None

    @property
    def counters(self) -> tuple[Proof, ...]:
        """The counters of late fsyncs, of hanging fsyncs, or of failed calls."""
        return (DELAYED,) if self.fsync_latency is not None else (STALLED,) if self.stall else (FAILED,)

    @classmethod
    def drawn(cls, nodes: Sequence[str], rng: Random) -> Self:
        """Draw a disk that is slow by 20 to 500 ms (70 %), hangs (15 %) or fails (15 %)."""
        where, ways = drawn_nodes(nodes, rng), ("fsync_latency", "stall", "error")
        way = rng.choices(ways, (0.7, 0.15, 0.15))[0]
        details: dict[str, dict[str, object]] = {
            "fsync_latency": {"fsync_latency": f"{rng.randint(20, 500)}ms"},
            "stall": {"stall": True},
            "error": {"error": rng.choice(["ENOSPC", "EIO"]), "on": rng.choice(["write", "fsync"])},
        }
        return cls.model_validate({"disk": where, **details[way]})

    def describe(self) -> str:
        """Return the nodes, and how their disks fail."""
        if self.fsync_latency is not None:
            how = f"fsync_latency {format_moment(self.fsync_latency)}"
        elif self.stall:
            how = "stall"
        else:
            how = f"{self.error}" + (f" on {self.on}" if self.on != "write" else "")
        return f"{self.where_in_words()} {how}"


def together(faults: Iterable[DiskFault]) -> DiskFault:
    """Return one disk fault that combines these: latencies add up to 1 h at most, and the first error counts."""
    faults = list(faults)
    failing = next((fault for fault in faults if fault.error), DiskFault())
    return DiskFault(
        fsync_latency_ms=min(sum(fault.fsync_latency_ms for fault in faults), 3_600_000.0),
        stall=any(fault.stall for fault in faults),
        error=failing.error,
        on=failing.on,
    )
