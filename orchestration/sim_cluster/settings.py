"""What is simulated around the nodes: network, disks, clocks, stalls. Units are in the values, as everywhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from raft_actor_node.config import Section
from raft_actor_node.links import Probability
from raft_actor_node.units import DurationRange, Range, Size

Rate = Annotated[float, Field(ge=0.1, le=10.0)]


class SimSettings(Section):
    """A simulated world. The defaults are a healthy local network and healthy disks."""

    delay: DurationRange = Range(0.0002, 0.002)
    """How long a message travels; a range reorders messages."""
    tail: Probability = 0.0
    """Probability that a message takes longer by `tail_delay`."""
    tail_delay: DurationRange = Range(0.020, 0.200)
    """Additional delay of a message in the tail."""
    loss: Probability = 0.0
    """Probability that a message is lost."""
    duplicate: Probability = 0.0
    """Probability that a message arrives twice."""
    replay: Probability = 0.0
    """Probability that a copy of a message arrives again after `replay_after`."""
    replay_after: DurationRange = Range(0.100, 3.0)
    """When the copy arrives, perhaps in a later incarnation of its receiver."""
    fsync: DurationRange = Range(0.0005, 0.003)
    """How long it takes to make something durable."""
    fsync_tail: Probability = 0.0
    """Probability that an fsync takes longer by `fsync_tail_latency`."""
    fsync_tail_latency: DurationRange = Range(0.020, 0.300)
    """Additional time of an fsync in the tail."""
    wire: bool = False
    """Messages between nodes pass through the bytes in which they travel; it costs time."""
    clock_rate: tuple[Rate, Rate] = (1.0, 1.0)
    """Range of the speeds of the nodes' clocks; 1.1 is 10 % too fast."""
    stalls_per_s: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    """How often the event loop of a node stalls, on average."""
    stall: DurationRange = Range(0.010, 0.200)
    """How long a stall lasts."""
    reading: DurationRange = Range(0.0002, 0.002)
    """From the end of a stall or a pause, when timers are due at once, until the messages that came meanwhile have come
    out of the kernel."""
    boot: DurationRange = Range(0.020, 0.080)
    """From the start of a process to its serving."""
    boot_crash: Probability = 0.0
    """Probability that a start is interrupted: the process is killed while it recovers, or the power fails."""
    power_loss: Probability = 0.0
    """Probability that a crash is a power loss, after which only what was synced is on the disk; else the
    process alone is killed, and what it wrote stays."""
    disk_failure: Probability = 0.0
    """Probability that a write of log, term or vote fails, for want of space or by an error; the node ends then."""
    whole_sectors: bool = True
    """A power failure leaves each sector of a disk old or new, as drives promise; else it may tear them too."""
    disk_capacity: Size | None = None
    """Bytes that fit on a disk."""

    @model_validator(mode="after")
    def _ordered(self) -> SimSettings:
        if self.clock_rate[0] > self.clock_rate[1]:
            raise ValueError(f"clock_rate: {self.clock_rate} is reversed")
        return self
