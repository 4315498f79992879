"""The kinds of clusters that a sweep can run: how each is launched, and what it supports.

To add a kind, add a folder beside ray_cluster/ with a backend that satisfies face.Backend, and an entry in TARGETS.
A backend also supplies the client of its clusters: `load_options` names the engine of the load generators.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # keeps the start of the command line fast: it needs only the names of the kinds
    from orchestration.face import Backend
    from orchestration.sim_cluster.observer import Observer
    from orchestration.sim_cluster.settings import SimSettings


@dataclass(frozen=True)
class Capabilities:
    """What clusters of a kind support, and what can be measured on them."""

    real_processes: bool = False
    """Nodes and load generators are processes. Their CPU, event loop and disk figures describe a real machine, and
    `cluster.command` may name another program."""
    hosts: bool = False
    """Nodes and load generators can be placed on several hosts, whose clocks differ."""
    virtual_time: bool = False
    """Time is simulated. Each cell has its own world with a bounded number of operations. Its times describe no real
    machine."""
    crashes: bool = False
    """Nodes can be killed and restarted."""
    pauses: bool = False
    """Nodes can be stopped and resumed."""
    link_faults: bool = False
    """Links can be cut, can drop, delay and duplicate messages, and can be limited in bandwidth."""
    node_faults: bool = False
    """Faults inside a node, such as disk faults, can be injected."""


@dataclass(frozen=True)
class Place:
    """Where and how to open a backend; each kind reads only the fields that concern it."""

    address: str | None = None
    """Address of a Ray cluster; default as for RayBackend.connect."""
    sim: SimSettings | None = None
    """The simulated world; default: a world without faults."""
    seed: int = 0
    """Seed of the simulated world."""
    observer: Callable[[], Observer] | None = None
    """Creates the observer of each simulated cluster."""


@dataclass(frozen=True)
class ClusterKind:
    """A kind of cluster, named by `target` in a spec."""

    name: str
    about: str
    """A short description for help texts."""
    can: Capabilities
    open: Callable[[Place], AbstractAsyncContextManager[Backend]]
    """Open the backend; leaving the context closes it. Raises InfrastructureError."""


def _ray(place: Place) -> AbstractAsyncContextManager[Backend]:
    # Imported here because ray takes a second to import.
    from orchestration.ray_cluster.backend import RayBackend  # noqa: PLC0415

    return RayBackend.connect(place.address)


@asynccontextmanager
async def _simulation(place: Place) -> AsyncIterator[Backend]:
    """Open the simulation; the running loop must be a SimLoop."""
    # Imported here because it imports gRPC.
    from orchestration.sim_cluster.backend import SimBackend  # noqa: PLC0415

    yield SimBackend(place.sim, place.seed, observer=place.observer)


_RAFT = dict.fromkeys(("crashes", "pauses", "link_faults", "node_faults"), True)
"""What this project's own node supports, as a real process and in simulation."""

TARGETS: Mapping[str, ClusterKind] = {
    kind.name: kind
    for kind in (
        ClusterKind("raft", "real processes", Capabilities(real_processes=True, hosts=True, **_RAFT), _ray),
        ClusterKind(
            "sim",
            "the same code in virtual time, from the seed",
            Capabilities(virtual_time=True, **_RAFT),
            _simulation,
        ),
    )
}
"""Cluster kinds by name; the first kind is the default."""
