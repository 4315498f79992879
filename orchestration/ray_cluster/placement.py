"""Which host carries which node. Pure functions; pool.py makes actors where they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from orchestration.errors import PlacementRefused
from orchestration.face import Host
from orchestration.plan import OnHosts, PerHost, Placement
from raft_actor_node.core.quorum import quorum_size

CPU_PER_ACTOR = 0.01
"""An actor only supervises. It asks for next to nothing, so that a small machine carries 99 of them, and for
something, so that none comes to a host whose CPUs somebody else has."""

_PRECISION = 1e-6
"""Of sums of floats; Ray counts ten-thousandths of a CPU."""


def hosts_needed(count: int, placement: Placement) -> tuple[int, int]:
    """How many hosts a placement of `count` nodes needs at least, and how many it can use."""
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
    """A host for each of `count` nodes, the same for the same input. Raises PlacementRefused.

    Hosts come by their addresses. The driver's comes last: it has the load generator, and Ray's head as a rule, and
    when it is busy everything is. One without CPUs carries no node.
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
    """The host with this address, host name or id of Ray's. Raises PlacementRefused, which begins with `field`."""
    found = [host for host in _ordered(hosts) if name in (host.address, host.name, host.host_id)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise PlacementRefused(f"{field}: the Ray cluster has no host {name!r}; its hosts: {_these(hosts)}")
    ids = ", ".join(host.host_id for host in found)
    raise PlacementRefused(f"{field}: {len(found)} Ray nodes are called {name!r}; name one of them by its id: {ids}")


def shortage(chosen: Iterable[Host], free: Mapping[str, float]) -> str:
    """Which of the chosen hosts, one for each actor that is to be made, lack a CPU, in a few words; empty: none does.

    `free`: host id to the CPUs that are free there.
    """
    lacking = [
        f"{host} has {max(0.0, free.get(host.host_id, 0.0)):g} of its {host.cpus:g} CPUs free, needed: {wanted:g}"
        for host, wanted in ((host, count * cpus_of_actor(host)) for host, count in Counter(chosen).items())
        if free.get(host.host_id, 0.0) < wanted - _PRECISION
    ]
    return "; ".join(lacking)


def cpus_of_actor(host: Host) -> float:
    """What an actor on this host asks for."""
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
