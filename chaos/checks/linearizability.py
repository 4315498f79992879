"""Is the history of all clients linearizable, key by key, in bounded time and memory?"""

from __future__ import annotations

from chaos.checks.base import Check
from chaos.checks.evidence import StoredEvidence, unless_excused
from chaos.checks.finding import Finding
from chaos.linearizability import check


def _find(stored: StoredEvidence) -> Finding | None:
    stored.keep_violation(None)
    if (history := stored.history) is None:
        asked = stored.refused_sessions
        reason = f"there is no history: all clients requested sessions {asked} times and got none"
        return Finding("linearizability", "ok", reason) if asked else None
    found = check(history, time_limit_s=stored.time_limit_s, memory_limit_bytes=stored.memory_limit_bytes)
    detail = ""
    if found.violation is not None:
        detail = found.violation.as_text()
        if not_kept := stored.keep_violation(found.violation):  # the verdict stays violated
            detail += f"\n{not_kept}"
    return unless_excused(Finding("linearizability", found.verdict, found.reason, detail), stored)


CHECK = Check("linearizability", _find, safety=True, decisive=True, switch="linearizable")
