"""Do the trace files of all incarnations of all nodes obey the rules of Raft?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from chaos.checks.base import Check
from chaos.checks.evidence import StoredEvidence, tells_of_itself
from chaos.checks.finding import Finding, with_more
from chaos.events import FaultEvent
from chaos.faults import FAULTS
from raft_actor_node.core.invariants.history import EventHistory, Summary
from raft_actor_node.core.trace import TraceRecord


def judge_traces(
    events: Iterable[TraceRecord],
    nodes: Collection[str] = (),
    *,
    lives: Mapping[str, tuple[int, int | None]] | None = None,
    committed: Mapping[str, int] | None = None,
) -> Finding:
    """Judge the trace events of all incarnations of all nodes by the rules of Raft.

    `events`: those of each node in their order. `lives`: node -> fewest and most incarnations; None: the most are not
    known. `committed`: node -> highest index that the node reported as committed outside its trace.

    Unknown when any of `nodes` traced nothing, or when there is no trace at all. Also unknown when a trace lacks a
    sequence number, an incarnation, or a commit.
    """
    history = EventHistory()
    history.take(events)
    broken, told = history.broken(), history.summary()
    if broken:
        detail = "\n".join(f"{each} at {each.time_ns} ns" for each in broken)
        return Finding("invariants", "violated", with_more(broken), detail)
    silent = [node for node in nodes if node not in told.lives]
    if silent or not told.events:
        return Finding("invariants", "unknown", f"no trace of {', '.join(silent) or 'any node'}")
    if missing := [*_missing(told, lives or {}, committed or {})]:
        return Finding("invariants", "unknown", f"the trace of {with_more(missing)}", "\n".join(missing))
    counts = f"{told.events} events of {sum(told.lives.values())} incarnations of {len(told.lives)} nodes"
    return Finding("invariants", "ok", f"{counts}: {told.leaders} leaders, {told.commits} commits")


def _missing(told: Summary, lives: Mapping[str, tuple[int, int | None]], committed: Mapping[str, int]) -> Iterator[str]:
    """Yield each lack of the traces: the node, and what is missing in its trace."""
    for node, gaps in told.gaps.items():
        yield f"{node} has {gaps} gap{'s' if gaps > 1 else ''}"
    for node, (fewest, most) in lives.items():
        found = told.lives.get(node, 0)
        if found < fewest or (most is not None and found > most):
            wanted = f"{fewest}" if most == fewest else f"at least {fewest}" if found < fewest else f"at most {most}"
            yield f"{node} has {found} incarnations instead of {wanted}"
    for node, index in committed.items():
        if told.committed.get(node, 0) < index:
            yield f"{node} ends at commit index {told.committed.get(node, 0)}, but {node} reported {index}"


def incarnations(faults: Iterable[FaultEvent], nodes: Iterable[str]) -> dict[str, tuple[int, int | None]]:
    """Return for each node the fewest and the most incarnations that it can have had.

    If killing or starting any process failed, the bounds are (1, None) for every node: the most are unknown.
    """
    begun = {kind: fault.begins_life for kind, fault in FAULTS.items() if fault.begins_life != "never"}
    ended = [event for event in faults if event.kind in begun and event.action != "skip"]
    exact = not any(event.error or event.took_effect is not True for event in ended)
    lives: dict[str, tuple[int, int | None]] = {}
    for node in nodes:
        acts = {
            action: {(event.index, event.kind) for event in ended if event.action == action and node in event.nodes}
            for action in ("inject", "heal")
        }
        healed = [begun[kind] for _, kind in acts["inject"] & acts["heal"]]
        fewest, most = 1 + healed.count("always"), 1 + len(healed)
        lives[node] = (fewest if exact else 1, most if exact else None)
    return lives


def _find(stored: StoredEvidence) -> Finding | None:
    """Report the violations that the simulation found step by step, or else judge the traces of all nodes."""
    if own := stored.broken_steps:
        return Finding("invariants", "violated", own[0], "\n".join(own))
    if stored.foreign and stored.traces_nothing and not tells_of_itself(stored):
        return None
    committed: dict[str, int] = {}
    for status in stored.statuses:
        committed[status.node_id] = max(status.commit_index, committed.get(status.node_id, 0))
    lives = incarnations(stored.faults, stored.nodes)
    return judge_traces(stored.traced(), stored.nodes, lives=lives, committed=committed)


CHECK = Check("invariants", _find, safety=True, decisive=True, switch="invariants")
