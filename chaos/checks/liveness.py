"""Was there a leader soon after the last fault, and one at the end?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from chaos.checks.base import Check
from chaos.checks.evidence import StoredEvidence
from chaos.checks.finding import Finding
from raft_actor_node.core.invariants.liveness import LIVENESS_BOUND
from raft_actor_node.core.trace import TraceRecord


def leader_signs_ns(events: Iterable[TraceRecord]) -> list[int]:
    """Return when trace events showed a leader: it was elected, or an entry was committed."""
    return sorted(event.time_ns for event in events if event.time_ns and event.kind in ("became_leader", "commit"))


def judge_liveness(
    signs_ns: Sequence[int],
    *,
    calm_ns: int,
    end_ns: int,
    election_timeout_max_s: float,
    clock_error_s: float = 0.0,
    asked_ns: int | None = None,
    found_ns: int | None = None,
) -> Finding:
    """Judge whether a leader was found in time after the faults, and at the end.

    The bound is 10 times the longest election timeout, plus twice the clock error. Once faults are over, a connected
    majority must have a leader within it. A later search must find a leader within the same time.

    `signs_ns`: when there was evidence of a leader (leader_signs_ns, a leader that answered). `calm_ns`: when the last
    fault was healed, or the measurement began. `asked_ns`: when the search for a leader at the end began; None: there
    was no search. `found_ns`: when this search found a leader; None: it found none. `end_ns`: when the search ended.
    Unknown if the search was too short.
    """
    limit_s = LIVENESS_BOUND * election_timeout_max_s + 2 * clock_error_s
    first_ns = min((sign for sign in signs_ns if calm_ns <= sign <= end_ns), default=None)
    looks = [(calm_ns, first_ns, "after the faults")]
    if asked_ns is not None:
        looks.append((max(calm_ns, asked_ns), found_ns, "at the end"))
    took_s = []
    for since_ns, seen_ns, when in looks:
        took_s.append(((end_ns if seen_ns is None else seen_ns) - since_ns) / 1e9)
        if seen_ns is None and took_s[-1] < limit_s:
            return Finding("liveness", "unknown", f"no leader in {took_s[-1]:.3f} s {when}; the limit is {limit_s:g} s")
        if took_s[-1] > limit_s or seen_ns is None:
            return Finding("liveness", "violated", f"no leader within {limit_s:g} s {when}")
    at_end = "" if asked_ns is None else ", and one at the end"
    return Finding("liveness", "ok", f"a leader {took_s[0]:.3f} s after the faults{at_end}")


def _find(stored: StoredEvidence) -> Finding | None:
    """Judge the cell, or return None where no leader is expected."""
    if not stored.leader_due:
        return None
    if (settled := stored.settled) is None:
        return Finding("liveness", "unknown", "the cell ended before the nodes could be inspected")
    signs = leader_signs_ns(stored.traced())
    signs += [settled.leader_ns] if settled.leader_ns is not None else []
    signs += stored.answered_ns  # only a leader answers operations
    found = judge_liveness(
        signs,
        calm_ns=_calm_ns(stored),
        end_ns=settled.end_ns,
        election_timeout_max_s=stored.longest_timeout_s,
        asked_ns=settled.begin_ns,
        found_ns=settled.leader_ns,
        clock_error_s=stored.clock_error_ns / 1e9,
    )
    if found.verdict == "violated" and 2 * (len(stored.nodes) - len(stored.lost)) <= len(stored.nodes):
        reason = f"{found.reason}; {', '.join(stored.lost)} lost host, actor or disk, and the others are no quorum"
        return replace(found, verdict="unknown", reason=reason)
    return found


def _calm_ns(stored: StoredEvidence) -> int:
    """Return when the last fault was healed and the last node had started again, or when the measurement began."""
    healed = [event.done_ns for event in stored.faults if event.action == "heal"]
    # Healing a fault starts the process; on a busy machine the node runs only some time later.
    started = [event.time_ns for event in stored.roles if event.kind == "started"]
    return max([stored.measure_begin_ns, *healed, *started])


CHECK = Check("liveness", _find, safety=False, switch="invariants")
