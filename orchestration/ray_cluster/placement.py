"""Which host carries which node. Pure functions; connect.py makes a placement group of what they decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestration.errors import PlacementRefused
from orchestration.plan import Placement

CPU_PER_ACTOR = 0.01
"""An actor only supervises. It asks for next to nothing, so that a small machine carries 15 of them; zero
is not allowed in a placement group."""


@dataclass(frozen=True)
class Host:
    """A machine of the Ray cluster."""

    host_id: str
    """Ray's id of it."""
    address: str
    """Under which the other hosts reach it."""
    cpus: float
    """As Ray counts them."""
    is_driver: bool = False
    """The driver runs here."""
    name: str = ""
    """Host name."""


def choose_hosts(count: int, hosts: Sequence[Host], placement: Placement) -> tuple[Host, ...]:
    """A host for each of `count` nodes, the same for the same input. Raises PlacementRefused.

    The driver's host comes last: it has the load generator, and Ray's head as a rule, and when it is busy
    everything is.
    """
    usable = sorted((host for host in hosts if host.cpus > 0), key=lambda host: (host.is_driver, host.address))
    if not usable:
        raise PlacementRefused("placement: no host of the Ray cluster offers a CPU")
    if placement == "strict_spread" and count > len(usable):
        raise PlacementRefused(
            f"placement: strict_spread of {count} nodes needs {count} hosts, there are {len(usable)} "
            f"({', '.join(host.address for host in usable)}); use spread"
        )
    if placement == "pack":
        usable = usable[:1]
    return tuple(usable[i % len(usable)] for i in range(count))


def host_named(name: str, hosts: Sequence[Host], field: str = "placement") -> Host:
    """The host with this address or host name. Raises PlacementRefused, which begins with `field`."""
    found = [host for host in hosts if name in (host.address, host.name)]
    if not found:
        there = ", ".join(host.address for host in hosts)
        raise PlacementRefused(f"{field}: the Ray cluster has no host {name!r}; its hosts: {there}")
    return found[0]


def bundles(chosen: Sequence[Host]) -> tuple[list[dict[str, float]], str]:
    """Bundles and strategy of a placement group with one bundle on each chosen host, in this order."""
    # Ray gives every host a resource of its own name; a little of it pins a bundle there.
    wanted = [{"CPU": CPU_PER_ACTOR, f"node:{host.address}": 0.001} for host in chosen]
    once_each = max(Counter(host.host_id for host in chosen).values()) == 1
    return wanted, "STRICT_SPREAD" if once_each else "SPREAD"


def describe_missing(chosen: Sequence[Host], available: Mapping[str, float]) -> str:
    """One line: what was asked of which host, and what is free in the cluster."""
    asked = ", ".join(
        f"{count * CPU_PER_ACTOR:g} CPU on {address}"
        for address, count in Counter(host.address for host in chosen).items()
    )
    free = available.get("CPU", 0.0)
    lost = [host.address for host in chosen if f"node:{host.address}" not in available]
    return f"asked for {asked}; free in the whole cluster: {free:g} CPU" + (
        f"; gone: {', '.join(dict.fromkeys(lost))}" if lost else ""
    )
