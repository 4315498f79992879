"""Choose the host of each node. Pure functions; pool.py creates the actors accordingly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from orchestration.errors import PlacementRefused
from orchestration.face import Host
from orchestration.plan import OnHosts, PerHost, Placement
from raft_actor_node.core.quorum import quorum_size

CPU_PER_ACTOR = 0.01
"""CPUs that Ray reserves for an actor, which only supervises.

Small enough for 99 actors on a small machine; not 0, so that no actor is placed on a host whose CPUs are all in use.
"""

_PRECISION = 1e-6
"""Tolerance for sums of floats; Ray's resolution is 0.0001 CPU."""


def hosts_needed(count: int, placement: Placement) -> tuple[int, int]:
    """Return the smallest and the largest number of hosts that a placement of `count` nodes can use."""
    match placement:
        case "spread":
            return 1, count
        case "strict_spread":
            return count, count
        case "pack":
            return 1, 1
        case "majority":
            others = count - quorum_size(count)
            return 1 + min(1, others), 1 + others
        case PerHost():
            least = -(-count // placement.per_host)
            return least, least
        case OnHosts():
            least = len(set(placement.hosts[:count]))
            return least, least


def choose_hosts(count: int, hosts: Sequence[Host], placement: Placement) -> tuple[Host, ...]:
    """Choose a host for each of `count` nodes; deterministic. Raises PlacementRefused.

    Hosts are used in the order of their addresses, the driver's host last. That host runs the load generator and
    usually Ray's head, so extra load there would slow down the whole experiment. Hosts without CPUs get no node.
    """
    if isinstance(placement, OnHosts):
        named = [_carrier(name, hosts) for name in placement.hosts]
        return tuple(named[i % len(named)] for i in range(count))
    usable = _usable(hosts)
    if not usable:
        raise PlacementRefused(f"placement: no host of the Ray cluster offers a CPU: {_these(hosts)}")
    least, _ = hosts_needed(count, placement)
    if least > len(usable):
        there = f"there {'are' if len(usable) > 1 else 'is'} {len(usable)}"
        raise PlacementRefused(
            f"placement: {placement} of {count} nodes needs {least} hosts, {there}: {_these(usable)}{_useless(hosts)}"
        )
    first = quorum_size(count)
    match placement:
        case "pack":
            return (usable[0],) * count
        case "majority":
            others = usable[1:]
            return (usable[0],) * first + tuple(others[i % len(others)] for i in range(count - first))
        case PerHost():
            return tuple(usable[i // placement.per_host] for i in range(count))
        case _:
            return tuple(usable[i % len(usable)] for i in range(count))


def host_named(name: str, hosts: Sequence[Host], field: str = "placement") -> Host:
    """Return the host with this address, host name or Ray id.

    Raises PlacementRefused with a message that begins with `field`.
    """
    found = [host for host in _ordered(hosts) if name in (host.address, host.name, host.host_id)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise PlacementRefused(f"{field}: the Ray cluster has no host {name!r}; its hosts: {_these(hosts)}")
    ids = ", ".join(host.host_id for host in found)
    raise PlacementRefused(f"{field}: {len(found)} Ray nodes are called {name!r}; name one of them by its id: {ids}")


def shortage(chosen: Iterable[Host], free: Mapping[str, float]) -> str:
    """Return a message that lists the chosen hosts without enough free CPUs; empty if every host has enough.

    `chosen` has one host for each new actor; `free` maps host ids to free CPUs.
    """
    lacking = [
        f"{host} has {max(0.0, free.get(host.host_id, 0.0)):g} of its {host.cpus:g} CPUs free, needed: {wanted:g}"
        for host, wanted in ((host, count * cpus_of_actor(host)) for host, count in Counter(chosen).items())
        if free.get(host.host_id, 0.0) < wanted - _PRECISION
    ]
    return "; ".join(lacking)


def cpus_of_actor(host: Host) -> float:
    """Return the CPUs to reserve for an actor on this host."""
    return CPU_PER_ACTOR if host.cpus > 0 else 0.0


def _ordered(hosts: Iterable[Host]) -> list[Host]:
    return sorted(hosts, key=lambda host: (host.is_driver, host.address, host.host_id))


def _usable(hosts: Iterable[Host]) -> list[Host]:
    return [host for host in _ordered(hosts) if host.cpus > 0]


def _carrier(name: str, hosts: Sequence[Host]) -> Host:
    host = host_named(name, hosts)
    if host.cpus <= 0:
        raise PlacementRefused(f"placement: {host} offers no CPU; these do: {_these(_usable(hosts)) or 'none'}")
    return host


def _these(hosts: Iterable[Host]) -> str:
    return ", ".join(map(str, _ordered(hosts)))


def _useless(hosts: Iterable[Host]) -> str:
    without = [host for host in hosts if host.cpus <= 0]
    return f" (and without a CPU: {_these(without)})" if without else ""
