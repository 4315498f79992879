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
    """Probability that a message takes much longer,"""
    tail_delay: DurationRange = Range(0.020, 0.200)
    """by this much more."""
    loss: Probability = 0.0
    """Probability that a message is lost."""
    duplicate: Probability = 0.0
    """Probability that a message arrives twice."""
    replay: Probability = 0.0
    """Probability that a copy of a message arrives again much later,"""
    replay_after: DurationRange = Range(0.100, 3.0)
    """after this time, perhaps in a later life of the node that it is for."""
    fsync: DurationRange = Range(0.0005, 0.003)
    """How long it takes to make something durable."""
    fsync_tail: Probability = 0.0
    """Probability that it takes much longer,"""
    fsync_tail_latency: DurationRange = Range(0.020, 0.300)
    """by this much more."""
    wire: bool = False
    """Messages between nodes pass through the bytes in which they travel; it costs time."""
    clock_rate: tuple[Rate, Rate] = (1.0, 1.0)
    """Between these each node's clock has its speed; 1.1 is 10 % too fast."""
    stalls_per_s: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    """How often the event loop of a node stands still, on average,"""
    stall: DurationRange = Range(0.010, 0.200)
    """for this long."""
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
