"""Is every acknowledged write in the logs of a quorum, on disk, at the end?

A node acknowledges a write after it has applied the entry of that write. It traces a commit before any answer that
relies on the commit. So every acknowledged write is in the *acknowledged prefix*: entries 1 to the highest index that
any incarnation of any node traced as committed before the nodes were inspected at the end. Two conditions must hold:

    room          the log has an entry for each acknowledged write, plus the no-op of the first leader; a log with fewer
                  entries lacks an acknowledged write
    durability    a quorum of nodes have the same whole prefix on disk: the durable_index of each is at or after the end
                  of the prefix, and their hashes of the entries up to that end, or to one later index, are equal

Limits: this check reads no disk. Nodes report durable_index and the hashes, and a hash covers only applied entries.
Answers carry no index, so the check cannot find out which entry belongs to which write. If another write took the index
of a lost write, only the reads at the end reveal the loss (linearizability).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from chaos.checks.base import Check
from chaos.checks.evidence import AppliedState, StoredEvidence, tells_of_itself, unless_excused
from chaos.checks.finding import Finding
from raft_actor_node.core.quorum import quorum_size


def judge_durability(
    acknowledged: int,
    prefix: int,
    states: Sequence[AppliedState],
    durable: Mapping[str, int],
    nodes: Collection[str],
) -> Finding:
    """Compare the logs of the nodes with the acknowledged writes.

    `acknowledged`: number of acknowledged writes. `prefix`: last index of the acknowledged prefix. `states`: what each
    node reported at the end. `durable`: durable_index by node. Unknown if the nodes known to have the prefix are no
    quorum, but would be one together with the nodes that reported too little.
    """
    if not acknowledged:
        return Finding("durability", "ok", "no write was acknowledged")
    entries = max([prefix, *(state.last_applied for state in states)])
    if acknowledged >= entries:
        return _too_short(acknowledged, entries, durable, nodes)
    reaching = {node for node in nodes if durable.get(node, -1) >= prefix}
    alike = _alike(states, prefix, reaching)
    holders = max(alike, key=len, default=set())
    unclear = reaching.difference(*alike) | (set(nodes) - durable.keys())
    what = f"{acknowledged} writes were acknowledged, and entries 1 to {prefix}"
    if len(holders) + len(unclear) < quorum_size(len(nodes)):
        where = ", ".join(sorted(holders)) or "no node"
        return Finding("durability", "violated", f"{what} are durable on {where} only")
    if len(holders) < quorum_size(len(nodes)):
        silent = ", ".join(sorted(unclear))
        return Finding("durability", "unknown", f"{what}: {silent} did not report whether they have them")
    return Finding("durability", "ok", f"{what} are durable on {len(holders)} nodes")


def _too_short(acknowledged: int, entries: int, durable: Mapping[str, int], nodes: Collection[str]) -> Finding:
    """Judge a log of which the nodes reported fewer entries than writes were acknowledged.

    Traces may lack the last commits, and nodes may not have applied all that they have on disk. The missing entries
    cannot exist if more nodes reported than a quorum can lack, and none has so many entries on disk: every quorum
    contains one of these nodes.
    """
    reported = durable.keys() & set(nodes)
    if len(reported) > len(nodes) - quorum_size(len(nodes)) and acknowledged >= max(durable.values()):
        reason = f"{acknowledged} writes were acknowledged, but the log has only {entries} entries, including a no-op"
        return Finding("durability", "violated", reason)
    reason = f"{acknowledged} writes were acknowledged, but nodes reported only {entries} committed entries"
    return Finding("durability", "unknown", reason)


def _alike(states: Iterable[AppliedState], prefix: int, among: Collection[str]) -> list[set[str]]:
    """Return the groups of nodes that have the same hash at the same index, at or after the end of the prefix."""
    groups: dict[tuple[int, bytes], set[str]] = {}
    for state in states:
        if state.node_id in among:
            told = ((state.last_applied, state.applied_hash), (state.prefix_index, state.prefix_hash))
            for index, digest in told:
                if digest and index >= prefix:
                    groups.setdefault((index, digest), set()).add(state.node_id)
    return list(groups.values())


def _find(stored: StoredEvidence) -> Finding | None:
    if stored.foreign and not tells_of_itself(stored):
        return None
    if (settled := stored.settled) is None:
        return Finding("durability", "unknown", "the cell ended before the nodes could be inspected")
    last = sorted((each for each in stored.statuses if each.time_ns >= settled.begin_ns), key=lambda each: each.time_ns)
    finding = judge_durability(
        stored.acknowledged_writes,
        stored.committed_before_end,
        settled.states,
        {each.node_id: each.durable_index for each in last},
        stored.nodes,
    )
    return unless_excused(finding, stored)


CHECK = Check("durability", _find, safety=True, switch="invariants")
