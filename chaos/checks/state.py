"""Did all nodes apply the same entries and reach the same state? The evidence: hashes of log prefixes and of states."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from chaos.checks.base import Check
from chaos.checks.evidence import AppliedState, StoredEvidence, unless_excused
from chaos.checks.finding import Finding


def judge_hashes(states: Sequence[AppliedState], nodes: Collection[str]) -> Finding:
    """Judge whether nodes that applied the same number of entries applied the same entries and reached the same state.

    Unknown unless all of `nodes` applied the same number of entries, and reported the hashes of these entries and of
    their states. If a node is still behind, the finding is unknown: the cell has waited for the node in vain.
    """
    if differs := _difference(states):
        return differs
    reason = _incomparable(states, nodes)
    if reason:
        return Finding("state", "unknown", reason)
    count = states[0].last_applied
    return Finding("state", "ok", f"{len(states)} nodes applied the same {count} entries, and reached the same state")


def _difference(states: Iterable[AppliedState]) -> Finding | None:
    by_prefix: dict[int, dict[bytes, list[str]]] = {}
    by_entries: dict[bytes, dict[bytes, list[str]]] = {}
    for state in states:
        told = ((state.last_applied, state.applied_hash), (state.prefix_index, state.prefix_hash))
        for index, digest in dict.fromkeys(told):
            if index and digest:
                by_prefix.setdefault(index, {}).setdefault(digest, []).append(state.node_id)
        if state.applied_hash and state.state_hash:
            by_entries.setdefault(state.applied_hash, {}).setdefault(state.state_hash, []).append(state.node_id)
    for index, held in sorted(by_prefix.items()):
        if len(held) > 1:
            return Finding(
                "state", "violated", f"{_sides(held)} applied different entries up to {index}", _hashes(held)
            )
    for same in by_entries.values():
        if len(same) > 1:
            return Finding(
                "state", "violated", f"{_sides(same)} have different states after the same entries", _hashes(same)
            )
    return None


def _incomparable(states: Sequence[AppliedState], nodes: Collection[str]) -> str:
    """Return why states without a known difference may still differ; empty when they are equal."""
    silent = sorted(set(nodes) - {state.node_id for state in states})
    if silent or not states:
        return f"{', '.join(silent) or 'no node'} did not report what it applied"
    applied = {state.last_applied for state in states}
    if 0 in applied:
        return "a node has applied nothing"
    if len(applied) > 1:
        behind = ", ".join(state.node_id for state in states if state.last_applied < max(applied))
        return f"{behind} applied at least {min(applied)} entries, others {max(applied)}"
    mute = [state.node_id for state in states if not (state.applied_hash and state.state_hash)]
    return f"{', '.join(mute)} did not report the hashes of entries and state" if mute else ""


def _sides(held: Mapping[bytes, Sequence[str]]) -> str:
    return " and ".join(", ".join(node_ids) for node_ids in held.values())


def _hashes(held: Mapping[bytes, Sequence[str]]) -> str:
    return "\n".join(f"{', '.join(node_ids)}: {digest.hex()}" for digest, node_ids in held.items())


def _find(stored: StoredEvidence) -> Finding | None:
    states = stored.settled.states if stored.settled is not None else ()
    if stored.foreign and not states:
        return None
    return unless_excused(judge_hashes(states, stored.nodes), stored)


CHECK = Check("state", _find, safety=True, switch="invariants")
