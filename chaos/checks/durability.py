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
    node reported at the end. `durable`: durable_index by node. The prefix has at least one entry more than there are
    acknowledged writes; if fewer were traced, the traces are incomplete, and the finding is not ok. Unknown if the
    nodes known to have the prefix are no quorum, but would be one together with the nodes that reported too little.
    """
    if not acknowledged:
        return Finding("durability", "ok", "no write was acknowledged")
    entries = max([prefix, *(state.last_applied for state in states)])
    if acknowledged >= entries:
        return _too_short(acknowledged, entries, durable, nodes)
    traced, prefix = prefix, max(prefix, acknowledged + 1)
    reaching = {node for node in nodes if durable.get(node, -1) >= prefix}
    hashes = _hashes(states, prefix, reaching)
    alike = _alike(hashes)
    holders = max(alike, key=len, default=set())
    silent = set(nodes) - durable.keys()
    possible = [group | silent | _unclear(reaching - group, group, hashes) for group in alike or [set()]]
    most = max(possible, key=len)
    what = f"{acknowledged} writes were acknowledged, and entries 1 to {prefix}"
    if len(most) < quorum_size(len(nodes)):
        where = ", ".join(sorted(holders)) or "no node"
        return Finding("durability", "violated", f"{what} are durable on {where} only")
    if len(holders) < quorum_size(len(nodes)):
        unclear = ", ".join(sorted(most - holders))
        return Finding("durability", "unknown", f"{what}: {unclear} did not report whether they have them")
    if traced < prefix:
        reason = f"{acknowledged} writes were acknowledged, but nodes traced only the commit of entries 1 to {traced}"
        return Finding("durability", "unknown", reason)
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


Hashes = Mapping[str, Mapping[int, bytes]]
"""For each node, its hashes of the applied entries up to an index."""


def _hashes(states: Iterable[AppliedState], prefix: int, among: Collection[str]) -> Hashes:
    """Return the hashes that these nodes reported at or after the end of the prefix."""
    return {
        state.node_id: {
            index: digest
            for index, digest in (
                (state.last_applied, state.applied_hash),
                (state.prefix_index, state.prefix_hash),
            )
            if digest and index >= prefix
        }
        for state in states
        if state.node_id in among
    }


def _alike(hashes: Hashes) -> list[set[str]]:
    """Return the groups of nodes that have the same hash at the same index."""
    groups: dict[tuple[int, bytes], set[str]] = {}
    for node, reported in hashes.items():
        for each in reported.items():
            groups.setdefault(each, set()).add(node)
    return list(groups.values())


def _unclear(others: Iterable[str], group: Iterable[str], hashes: Hashes) -> set[str]:
    """Return the nodes that may have the same entries as the group: no hash at a common index differs."""
    known = [pair for node in group for pair in hashes[node].items()]
    return {
        node for node in others if all(hashes.get(node, {}).get(index, digest) == digest for index, digest in known)
    }


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
