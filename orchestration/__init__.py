"""Start, supervise, disturb and stop clusters."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestration.address_book import AddressBook, Entry
    from orchestration.errors import InfrastructureError, NodeFailed, PlacementRefused
    from orchestration.plan import Applied, BringUp, ClusterPlan, NodeExit
    from orchestration.ray_cluster.backend import RayBackend
    from orchestration.ray_cluster.cluster import RayCluster
    from orchestration.ray_cluster.worker import Worker

_HOME = {
    "AddressBook": "orchestration.address_book",
    "Entry": "orchestration.address_book",
    "InfrastructureError": "orchestration.errors",
    "NodeFailed": "orchestration.errors",
    "PlacementRefused": "orchestration.errors",
    "Applied": "orchestration.plan",
    "BringUp": "orchestration.plan",
    "ClusterPlan": "orchestration.plan",
    "NodeExit": "orchestration.plan",
    "RayBackend": "orchestration.ray_cluster.backend",
    "RayCluster": "orchestration.ray_cluster.cluster",
    "Worker": "orchestration.ray_cluster.worker",
}

__all__ = [
    "AddressBook",
    "Applied",
    "BringUp",
    "ClusterPlan",
    "Entry",
    "InfrastructureError",
    "NodeExit",
    "NodeFailed",
    "PlacementRefused",
    "RayBackend",
    "RayCluster",
    "Worker",
]


def __getattr__(name: str) -> Any:
    # Lazily: ray takes a second to import, and a user of the address book does not need it.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
