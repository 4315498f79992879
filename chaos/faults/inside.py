"""The table of faults inside nodes: merge the parts of several faults into one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chaos.faults.disk import together
from raft_actor_node.node_faults import NodeFaults


def compose_inside(tables: Iterable[Mapping[str, NodeFaults]]) -> dict[str, NodeFaults]:
    """Return one table in which the faults of all tables are in force."""
    parts: dict[str, list[NodeFaults]] = {}
    for table in tables:
        for node, faults in table.items():
            parts.setdefault(node, []).append(faults)
    return {node: _joined(faults) for node, faults in parts.items()}


def _joined(parts: list[NodeFaults]) -> NodeFaults:
    disks = [part.disk for part in parts if part.disk is not None]
    return NodeFaults(disk=together(disks) if disks else None)
