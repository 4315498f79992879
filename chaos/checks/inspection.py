"""Do the statuses that nodes reported obey the rules about indexes, durable copies and check quorum?"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.checks.base import Check
from chaos.checks.evidence import StoredEvidence, tells_of_itself
from chaos.checks.finding import Finding, with_more
from chaos.events import FaultEvent
from chaos.statuses import Status, broken_rules, without_quorum
from raft_actor_node.core.quorum import quorum_size


def judge_statuses(
    statuses: Sequence[Status],
    nodes: Sequence[str],
    faults: Sequence[FaultEvent] = (),
    *,
    committed: int = 0,
    asked_ns: int = 0,
    check_quorum_s: float | None = None,
) -> Finding:
    """Judge the statuses of nodes by the rules of Raft.

    The rules concern the indexes within a node, what a leader knows about its followers, committed entries on the disks
    of a quorum, and check quorum. `committed`: the highest index that any node traced as committed before `asked_ns`;
    the later statuses of a quorum must report it as durable. `check_quorum_s`: the longest election timeout, in
    seconds; None without check quorum. Unknown when no node reported, or when the silent nodes could complete a quorum.
    """
    broken = [*broken_rules(statuses)]
    if check_quorum_s is not None:
        broken += without_quorum(statuses, faults, nodes, check_quorum_s)
    last = {each.node_id: each for each in sorted(statuses, key=lambda each: each.time_ns) if each.time_ns >= asked_ns}
    holders = [node for node, each in last.items() if each.durable_index >= committed]
    silent = [node for node in nodes if node not in last]
    if len(holders) + len(silent) < quorum_size(len(nodes)):
        broken.append(
            f"entry {committed} was committed, but is durable on {', '.join(sorted(holders)) or 'no node'} only"
        )
    if broken:
        return Finding("inspection", "violated", with_more(broken), "\n".join(broken))
    if len(holders) < quorum_size(len(nodes)):
        return Finding("inspection", "unknown", f"{', '.join(silent)} did not report what is durable")
    return Finding(
        "inspection", "ok", f"{len(statuses)} statuses; entry {committed} is durable on {len(holders)} nodes"
    )


def _find(stored: StoredEvidence) -> Finding | None:
    if stored.foreign and not tells_of_itself(stored):
        return None
    if (settled := stored.settled) is None:
        return Finding("inspection", "unknown", "the cell ended before the nodes could be inspected")
    return judge_statuses(
        stored.statuses,
        stored.nodes,
        stored.faults,
        committed=stored.committed_before_end,
        asked_ns=settled.begin_ns,
        check_quorum_s=stored.longest_timeout_s if stored.check_quorum else None,
    )


CHECK = Check("inspection", _find, safety=True, switch="invariants")
