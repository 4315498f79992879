"""Clusters in virtual time: this project's own nodes in one process, deterministic for a given seed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestration.sim_cluster.backend import SimBackend
    from orchestration.sim_cluster.cluster import SimCluster
    from orchestration.sim_cluster.disk import SimDisk
    from orchestration.sim_cluster.loop import SimLoop, run_virtual
    from orchestration.sim_cluster.observer import Observer, Observers, Silent
    from orchestration.sim_cluster.settings import SimSettings
    from orchestration.sim_cluster.sim_node import SimNode
    from orchestration.sim_cluster.world import SimViolation
    from raft_actor_node.runtime.assembly import Parts

_HOME = {
    "Observer": "orchestration.sim_cluster.observer",
    "Observers": "orchestration.sim_cluster.observer",
    "Parts": "raft_actor_node.runtime.assembly",
    "Silent": "orchestration.sim_cluster.observer",
    "SimBackend": "orchestration.sim_cluster.backend",
    "SimCluster": "orchestration.sim_cluster.cluster",
    "SimDisk": "orchestration.sim_cluster.disk",
    "SimLoop": "orchestration.sim_cluster.loop",
    "SimNode": "orchestration.sim_cluster.sim_node",
    "SimSettings": "orchestration.sim_cluster.settings",
    "SimViolation": "orchestration.sim_cluster.world",
    "run_virtual": "orchestration.sim_cluster.loop",
}

__all__ = [
    "Observer",
    "Observers",
    "Parts",
    "Silent",
    "SimBackend",
    "SimCluster",
    "SimDisk",
    "SimLoop",
    "SimNode",
    "SimSettings",
    "SimViolation",
    "run_virtual",
]


def __getattr__(name: str) -> Any:
    # Import lazily: a spec needs only the settings, and must not import gRPC.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
