"""Checks of the parameters of a cell as a whole: errors, and warnings about legal but unwise values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from chaos import BadChaos, plan
from chaos.faults import FAULTS, Fault, Monkey, moment_s
from orchestration.sim_cluster.settings import SimSettings
from raft_actor_node.config import NodeConfig, static_faults, unwise
from raft_actor_node.core.quorum import quorum_size
from raft_actor_node.names import node_names
from sweeps.spec.parameters import Parameters


def cell_faults(parameters: Parameters, node_ids: Sequence[str]) -> Iterator[str]:
    """Yield the errors in the parameters of a cell as a whole. Each message begins with the field."""
    load, limits = parameters.load, parameters.limits
    can = parameters.kind.can
    if not can.real_processes and parameters.cluster.command != "default":
        yield "cluster.command: only this project's own node can be simulated"
    if not can.hosts and load.on != "driver":
        yield "load.on: must be driver in a simulation, which has no hosts"
    if load.mode == "open" and load.rate is None:
        yield "load.rate: is required in open mode"
    if load.value_bytes > limits.value_bytes:
        yield f"load.value_bytes: must be at most limits.value_bytes ({limits.value_bytes}), not {load.value_bytes}"
    if load.key_bytes > limits.key_bytes:
        yield f"load.key_bytes: must be at most limits.key_bytes ({limits.key_bytes}), not {load.key_bytes}"
    if len(str(load.keys - 1)) > load.key_bytes:
        yield f"load.key_bytes: {load.keys} keys need at least {len(str(load.keys - 1))} bytes"
    try:
        schedule = plan(parameters.chaos, duration_s=parameters.phases.measure, nodes=node_ids, seed=0)
    except BadChaos as error:
        yield f"chaos: {error}"
    else:
        drawn = [kind for item in parameters.chaos.root if isinstance(item, Monkey) for kind in item.monkey]
        for kind in dict.fromkeys([*(fault.kind for fault in schedule.faults), *drawn]):
            if not getattr(can, needed := FAULTS[kind].needs):
                yield f"chaos: {kind} needs {needed}, which target {parameters.target} lacks; remove the fault"
    if not parameters.allow_bad_parameters:
        for fault in static_faults(parameters.raft, limits, parameters.transport):
            yield f"{fault} (allow_bad_parameters: true runs it anyway)"


def longest_outage_s(parameters: Parameters) -> float:
    """Estimate the longest time, in seconds, for which the faults of a cell may keep clients waiting; 0 without faults.

    An outage lasts until clients find a new leader. If a fault removes the quorum, the outage also includes the time
    until the fault is healed. The estimate is at most the time after which clients give up.
    """
    lasts_s = [_takes_service_s(item, parameters) for item in parameters.chaos.root if isinstance(item, Fault)]
    election_s = 2 * parameters.raft.election_timeout.max_s + parameters.client.rpc_timeout
    give_up_s = parameters.client.rpc_timeout + parameters.client.retry_budget
    return min(max(lasts_s, default=0.0) + election_s, give_up_s) if parameters.chaos else 0.0


def _takes_service_s(fault: Fault, parameters: Parameters) -> float:
    """Return for how many seconds a fault makes every operation impossible, whichever node leads."""
    many = fault.where in ("majority", "all", "followers") or len(fault.ids) >= quorum_size(parameters.cluster.nodes)
    if parameters.expect != "unavailable" and not (fault.disables and many):
        return 0.0
    measure_s = parameters.phases.measure
    return measure_s if fault.lasts is None else moment_s(fault.lasts, measure_s)


def cell_warnings(parameters: Parameters) -> list[str]:
    """Return warnings about parameters that are legal but rarely intended."""
    members = list(node_names(parameters.cluster.nodes))
    config = NodeConfig(
        cluster_id="cell",
        node_id="n1",
        members=members,
        raft=parameters.raft,
        storage=parameters.storage,
        limits=parameters.limits,
        transport=parameters.transport,
        allow_bad_parameters=True,
    )
    warnings = [re.sub(r"^members:", "cluster.nodes:", line) for line in unwise(config)]
    if parameters.allow_bad_parameters:
        warnings += static_faults(parameters.raft, parameters.limits, parameters.transport)
    if parameters.client.dedupe == "off":
        warnings.append("client.dedupe: off lets a retry take effect a second time")
    if parameters.load.mode == "closed" and parameters.load.rate is not None:
        warnings.append("load.rate: has no effect in closed mode")
    waiting = round((parameters.load.rate or 0.0) * longest_outage_s(parameters))
    if parameters.load.mode == "open" and parameters.load.clients < waiting:
        warnings.append(
            f"load.clients: {parameters.load.clients} clients are too few for the longest outage that the faults may "
            f"cause, in which about {waiting} operations come due; without a free client, an operation is dropped; "
            f"raise it to {waiting}"
        )
    if parameters.load.mode == "open" and parameters.load.think:
        warnings.append("load.think: has no effect in open mode")
    if not parameters.kind.can.virtual_time and parameters.sim != SimSettings():
        warnings.append("sim: has no effect on real processes")
    if not parameters.kind.can.hosts and parameters.cluster.placement != "spread":
        warnings.append("cluster.placement: has no effect in simulation")
    if parameters.load.value_bytes < 8:
        warnings.append("load.value_bytes: values below 8 bytes are not unique")
    return warnings
