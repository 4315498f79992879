"""Inspection of the nodes of a cell; every answer is kept for the judge."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from chaos.faults import FAULTS
from orchestration.face import Cluster, NodeStatus
from orchestration.plan import NodeExit
from raft_actor_node.patience import Patience
from sweeps.run.progress import Progress

LEADER = 3
"""Role.LEADER of inspection.proto."""
_LEADER_POLL_S = 1.0
_SETTLE_POLL_S = 0.05
_NOTE_S = 0.2
"""Longest wait for the counters of nodes before a fault is injected."""
_HASHES = ("applied_hash", "prefix_hash", "state_hash")
_TOUCHED = {proof.counter: proof.status_field for kind in FAULTS.values() for proof in kind.proof}
"""Counters that grow when a fault strikes, and their fields of inspection.proto."""
_INDEXES = ("durable_index", "commit_index", "last_applied")


class Inspector:
    """Inspects the nodes of one cluster."""

    def __init__(self, cluster: Cluster, now_ns: Callable[[], int]) -> None:
        self._cluster, self._now_ns = cluster, now_ns
        self.statuses: list[dict[str, Any]] = []
        """Every answer, as inspection.json holds it."""
        self.settled: dict[str, Any] | None = None
        """The states of all nodes at the end; None until `settle`."""

    async def status(self, node_id: str, *, hash_index: int = 0, with_state_hash: bool = False) -> NodeStatus | None:
        """Return the status of a node, or None if it does not answer; the answer is kept."""
        status = await self._cluster.status(node_id, hash_index=hash_index, with_state_hash=with_state_hash)
        if status is not None:
            self.statuses.append(_as_json(node_id, status))
        return status

    async def all(self) -> dict[str, NodeStatus | None]:
        """Return the status of every node."""
        answers = await asyncio.gather(*map(self.status, self._cluster.node_ids))
        return dict(zip(self._cluster.node_ids, answers, strict=True))

    async def note(self, node_ids: Sequence[str]) -> None:
        """Inspect these nodes before they are disturbed. Bounded to 200 ms: a fault is waiting to be injected."""
        with contextlib.suppress(Exception):
            async with Patience(_NOTE_S):
                await asyncio.gather(*map(self.status, node_ids))

    async def settle(self, bound_s: float, check: Callable[[], None]) -> None:
        """Wait until the cluster has settled, at most `bound_s` seconds; then fetch the states of all nodes.

        A cluster has settled when it has a leader and all nodes have applied the same entries. The states are those at
        the highest index that all nodes have applied. `check` raises if the cell cannot continue.
        """
        cluster = self._cluster
        begin_ns = self._now_ns()
        leader_ns = None
        async with Patience(bound_s, interrupt=False) as patience:
            while True:
                leader = await cluster.leader()
                if leader is not None and leader_ns is None:
                    leader_ns = self._now_ns()
                    # A pause of this program does not count: it could not look for a leader meanwhile.
                    begin_ns = min(begin_ns + int(patience.paused_s * 1e9), leader_ns)
                statuses = await asyncio.gather(*map(cluster.status, cluster.node_ids))
                applied = {int(status.last_applied) for status in statuses if status is not None}
                gone = {end.node_id for end in losses(cluster)}
                silent = [
                    n for n, status in zip(cluster.node_ids, statuses, strict=True) if status is None and n not in gone
                ]
                told = not silent or not applied  # do not wait if no node supports inspection
                if (leader_ns is not None and told and len(applied) <= 1) or patience.over:
                    break
                await asyncio.sleep(_SETTLE_POLL_S)
                check()
        index = min(applied, default=0)
        states = await asyncio.gather(*map(partial(self._state, index), cluster.node_ids))
        self.settled = {
            "begin_ns": begin_ns,
            "end_ns": self._now_ns(),
            "leader_ns": leader_ns,
            "hash_index": index,
            "nodes": {
                node_id: {
                    "role": int(status.role),
                    "term": int(status.current_term),
                    "last_applied": int(status.last_applied),
                    **{name: bytes(getattr(status, name)).hex() for name in _HASHES},
                }
                for node_id, status in zip(cluster.node_ids, states, strict=True)
                if status is not None
            },
        }

    async def _state(self, index: int, node_id: str) -> NodeStatus | None:
        status = await self.status(node_id, hash_index=index, with_state_hash=True)
        # With very many keys the hash of the state takes longer than the timeout of a request.
        return status if status is not None else await self.status(node_id, hash_index=index)

    async def watch_leader(self, progress: Progress) -> None:
        """Keep the leader and its term in the progress up to date, until cancelled."""
        leader: str | None = None
        while True:
            # Ask only the last known leader; ask all nodes when it no longer leads.
            status = await self.status(leader) if leader is not None else None
            if status is None or status.role != LEADER:
                leader = await self._cluster.leader()
                status = await self.status(leader) if leader is not None else None
            progress.leads(leader, None if status is None else int(status.current_term))
            await asyncio.sleep(_LEADER_POLL_S)


def losses(cluster: Cluster) -> list[NodeExit]:
    """Return the node exits caused by the infrastructure."""
    return [end for end in cluster.unexpected_exits if end.infrastructure]


def _as_json(node_id: str, status: NodeStatus) -> dict[str, Any]:
    return {
        "node": node_id,
        "life": int(status.pid),
        "time_ns": int(status.now_ns),
        "term": int(status.current_term),
        "leads": status.role == LEADER,
        "last_index": int(status.last_log_index),
        **{name: int(getattr(status, name)) for name in _INDEXES},
        "peers": {peer.node_id: [int(peer.match_index), int(peer.next_index)] for peer in status.peers},
        "touched": {name: int(getattr(status.counters, field)) for name, field in _TOUCHED.items()},
    }
