"""Every kind of cluster satisfies face.py: mypy checks the types (`make lint`), these tests check the members."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestration import RayBackend, RayCluster
from orchestration.face import Backend, Cluster, NodeSamples, NodeStatus, Worker
from orchestration.ray_cluster.worker import Worker as RayWorker
from orchestration.sim_cluster import SimBackend, SimCluster
from orchestration.sim_cluster.cluster import SimWorker
from orchestration.targets import TARGETS
from raft_actor_node.pb import inspection_pb2

if TYPE_CHECKING:
    from chaos import Target

BACKENDS = (RayBackend, SimBackend)
CLUSTERS = (RayCluster, SimCluster)
WORKERS = (RayWorker, SimWorker)


def members(face: type) -> set[str]:
    """Return the members that a protocol requires."""
    return {name for name in vars(face) if not name.startswith("_")}


def of_types(  # never called: mypy checks it
    ray_backend: RayBackend,
    sim_backend: SimBackend,
    ray_cluster: RayCluster,
    sim_cluster: SimCluster,
    ray_worker: RayWorker,
    sim_worker: SimWorker,
    status: inspection_pb2.StatusReply,
    samples: inspection_pb2.SamplesReply,
) -> object:
    backends: list[Backend] = [ray_backend, sim_backend]
    clusters: list[Cluster] = [ray_cluster, sim_cluster]
    workers: list[Worker] = [ray_worker, sim_worker]
    statuses: list[NodeStatus] = [status]
    measured: list[NodeSamples] = [samples]
    targets: list[Target] = [*clusters, ray_cluster, sim_cluster]
    return backends, clusters, workers, statuses, measured, targets


@pytest.mark.parametrize(
    ("face", "kinds"),
    [(Backend, BACKENDS), (Cluster, CLUSTERS), (Worker, WORKERS)],
    ids=["backend", "cluster", "worker"],
)
def test_every_kind_of_cluster_has_the_face(face: type, kinds: tuple[type, ...]) -> None:
    asked = members(face)
    assert len(asked) >= 5
    for kind in kinds:
        made = set(dir(kind)) | set(kind.__init__.__code__.co_names)  # type: ignore[misc]
        assert asked - made == set(), f"{kind.__name__} lacks them"


def test_a_status_of_the_wire_has_what_callers_read() -> None:
    assert members(NodeStatus) - set(dir(inspection_pb2.StatusReply())) == set()
    assert members(NodeSamples) - set(dir(inspection_pb2.SamplesReply())) == set()


def test_each_target_is_registered_under_its_name() -> None:
    assert list(TARGETS) == ["raft", "sim"]
    assert {name: kind.name for name, kind in TARGETS.items()} == {"raft": "raft", "sim": "sim"}
    assert (TARGETS["raft"].can.hosts, TARGETS["sim"].can.hosts) == (True, False)
