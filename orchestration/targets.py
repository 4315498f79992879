"""The kinds of clusters that a sweep can run: how each is launched, and what it can do.

To add one: a folder beside ray_cluster/ with a backend that satisfies face.Backend, and an entry in TARGETS. A backend
brings the client that drives its clusters: `load_options` name the engine of the load generators.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line needs the names soon, and nothing else
    from orchestration.face import Backend
    from orchestration.sim_cluster.observer import Observer
    from orchestration.sim_cluster.settings import SimSettings


@dataclass(frozen=True)
class Capabilities:
    """What can be done to clusters of a kind, and what can be measured on them."""

    real_processes: bool = False
    """Nodes and load generators are processes. Their CPU, event loops and disks say something about a machine, and
    `cluster.command` may name another program."""
    hosts: bool = False
    """Nodes and load generators can be placed on several hosts, whose clocks differ."""
    virtual_time: bool = False
    """Time is simulated. Each cell has a world of its own, bounded in operations; its times describe no machine."""
    crashes: bool = False
    """Nodes can be killed and started again."""
    pauses: bool = False
    """Nodes can be stopped and resumed."""
    link_faults: bool = False
    """Links can be cut, can drop, delay and double messages, and can be narrowed."""
    node_faults: bool = False
    """Faults inside a node, such as those of its disk, can be put in force."""


@dataclass(frozen=True)
class Place:
    """Where a backend is opened, and with what; each kind reads what concerns it."""

    address: str | None = None
    """Of a Ray cluster; default: as RayBackend.connect."""
    sim: SimSettings | None = None
    """The simulated world; default: a healthy one."""
    seed: int = 0
    """Of the simulated world."""
    observer: Callable[[], Observer] | None = None
    """Makes what watches each simulated cluster."""


@dataclass(frozen=True)
class ClusterKind:
    """A kind of cluster, as `target` in a spec names it."""

    name: str
    about: str
    """In a few words, for help texts."""
    can: Capabilities
    open: Callable[[Place], AbstractAsyncContextManager[Backend]]
    """Open the backend; what it opened is closed with the context. Raises InfrastructureError."""


def _ray(place: Place) -> AbstractAsyncContextManager[Backend]:
    # Here, because ray takes a second to import.
    from orchestration.ray_cluster.backend import RayBackend  # noqa: PLC0415

    return RayBackend.connect(place.address)


@asynccontextmanager
async def _simulation(place: Place) -> AsyncIterator[Backend]:
    """To be opened on a SimLoop."""
    # Here, because it brings gRPC with it.
    from orchestration.sim_cluster.backend import SimBackend  # noqa: PLC0415

    yield SimBackend(place.sim, place.seed, observer=place.observer)


_RAFT = dict.fromkeys(("crashes", "pauses", "link_faults", "node_faults"), True)
"""What this project's own node can, on real processes and in simulation."""

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
"""By name; the first one is the default."""
