"""Examinations without any finding, which tests then spoil."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestration.ray_cluster.doctor import (
    Code,
    Connection,
    Durations,
    Examination,
    HostReport,
    MachineFacts,
    RayFacts,
    Storage,
)

MS = 1_000_000
FIRST, SECOND, THIRD = "10.0.0.1", "10.0.0.2", "10.0.0.3"
CODE = Code({"python": "3.11.7", "raft-lab": "0.2.0", "ray": "2.60.0", "numpy": "2.4.6"}, "0123456789ab", "/code")
MACHINE = MachineFacts(
    cpu="a CPU",
    cores=4,
    cpus_available=4.0,
    load=0.5,
    niceness=0,
    open_files=65536,
    memory_bytes=2**33,
    kernel="6.1",
    ports=(32768, 60999),
)
STORAGE = Storage("/var/tmp/raft-lab-0", "ext4", "/dev/vda", 2**36, Durations([MS] * 1000))
RAY = RayFacts("Ray: the cluster at 10.0.0.1:41230", "10.0.0.1:41230", "2.60.0", private=False, authentication="token")


def host(address: str = FIRST, **changes: Any) -> HostReport:
    """A host; `changes` are fields of the host, of its machine, or of its storage, whose error is `storage_error`."""
    first = address == FIRST
    well: dict[str, Any] = {"cpus": 4.0, "code": CODE, "machine": MACHINE, "storage": STORAGE, "same_clock": first}
    well |= {"clock_offset_ns": 0, "clock_error_ns": 0} if first else {"clock_offset_ns": -5 * MS, "clock_error_ns": MS}
    for name, value in changes.items():
        if name in HostReport.__dataclass_fields__:
            well[name] = value
        elif name in MachineFacts.__dataclass_fields__:
            well["machine"] = replace(well["machine"], **{name: value})
        else:
            well["storage"] = replace(well["storage"], **{name.removeprefix("storage_"): value})
    return HostReport(address, f"vm{address.rpartition('.')[2]}", first, **well)


def examination(*hosts: HostReport, links: Sequence[Connection] | None = None, ray: RayFacts = RAY) -> Examination:
    """An examination of these hosts. They all reach one another, unless `links` says otherwise."""
    if links is None:
        addresses = [each.address for each in hosts]
        links = [Connection(a, b, Durations([MS // 5] * 1000)) for a in addresses for b in addresses if a != b]
    return Examination(ray, CODE, hosts, links)
