"""The kinds of fault. Add the line of a new kind here."""

from __future__ import annotations

from chaos.faults.base import Fault
from chaos.faults.disk import Disk
from chaos.faults.messages import Bandwidth, Delay, Drop, Duplicate, Isolate, OneWay
from chaos.faults.partition import Partition
from chaos.faults.process import Crash, Pause
from raft_actor_node.text import did_you_mean

FAULTS: dict[str, type[Fault]] = {
    fault.kind: fault
    for fault in (
        Crash,
        Pause,
        Partition,
        Isolate,
        OneWay,
        Drop,
        Delay,
        Bandwidth,
        Duplicate,
        Disk,
    )
}
"""Every kind of fault by its name."""


def fault_kind(name: object) -> type[Fault]:
    """Return the kind of fault with this name. Raises a ValueError that lists the kinds."""
    if str(name) not in FAULTS:
        raise ValueError(f"{name!r} is no kind of fault{did_you_mean(name, FAULTS)} (allowed: {', '.join(FAULTS)})")
    return FAULTS[str(name)]
