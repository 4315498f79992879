"""The simulated world around the nodes: network, disks, clocks, stalls. Values carry their units."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from raft_actor_node.config import Section
from raft_actor_node.links import Probability
from raft_actor_node.units import DurationRange, Range, Size

Rate = Annotated[float, Field(ge=0.1, le=10.0)]


class SimSettings(Section):
    """A simulated world. The defaults describe a local network and disks without faults."""

    delay: DurationRange = Range(0.0002, 0.002)
    """Travel time of a message; a range reorders messages."""
    tail: Probability = 0.0
    """Probability that a message gets the extra delay `tail_delay`."""
    tail_delay: DurationRange = Range(0.020, 0.200)
    """Extra delay of a message, with probability `tail`."""
    loss: Probability = 0.0
    """Probability that a message is lost."""
    duplicate: Probability = 0.0
    """Probability that a message arrives twice."""
    replay: Probability = 0.0
    """Probability that a copy of a message arrives a second time, after `replay_after`."""
    replay_after: DurationRange = Range(0.100, 3.0)
    """Delay of a replayed copy; it may reach a later incarnation of the receiver."""
    fsync: DurationRange = Range(0.0005, 0.003)
    """Duration of an fsync."""
    fsync_tail: Probability = 0.0
    """Probability that an fsync takes longer by `fsync_tail_latency`."""
    fsync_tail_latency: DurationRange = Range(0.020, 0.300)
    """Extra duration of an fsync, with probability `fsync_tail`."""
    wire: bool = False
    """Encode and decode every message between nodes, as on a real network; slows the simulation down."""
    clock_rate: tuple[Rate, Rate] = (1.0, 1.0)
    """Range of the speed of each node's clock; 1.1 is 10 % too fast."""
    stalls_per_s: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    """Mean number of stalls of a node's event loop per second."""
    stall: DurationRange = Range(0.010, 0.200)
    """Duration of a stall."""
    reading: DurationRange = Range(0.0002, 0.002)
    """Time after a stall or a pause until the node has read the messages that arrived meanwhile; overdue timers fire
    at once."""
    boot: DurationRange = Range(0.020, 0.080)
    """Time from the start of a process until it serves."""
    boot_crash: Probability = 0.0
    """Probability that a start is interrupted: the process is killed while it recovers, or the power fails."""
    power_loss: Probability = 0.0
    """Probability that a crash is a power loss, which may lose unsynced writes. Any other crash kills only the process,
    and keeps its writes."""
    disk_failure: Probability = 0.0
    """Probability that a write of log, term or vote fails (ENOSPC or EIO); then the node exits."""
    whole_sectors: bool = True
    """Whether a power failure leaves each disk sector either old or new, as drives promise; if not, it may tear
    sectors."""
    disk_capacity: Size | None = None
    """Capacity of each disk in bytes; default: unlimited."""

    @model_validator(mode="after")
    def _ordered(self) -> SimSettings:
        if self.clock_rate[0] > self.clock_rate[1]:
            raise ValueError(f"clock_rate: {self.clock_rate} is reversed; the first rate must not exceed the second")
        return self
