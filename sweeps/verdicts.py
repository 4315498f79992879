"""What a verdict means: against what the cell was expected to show, and for the exit code of a run. Pure.

A cell has a status, which says whether it ran and measured as it should (ok, failed, interrupted), and a verdict,
which says whether the system was correct meanwhile: ok, violated or unknown, and pending until it is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeps.results import EXIT_FAILED, EXIT_OK, EXIT_UNKNOWN, EXIT_VIOLATED

PENDING = "pending"
_FINE = {
    "unknown": ("unknown",),
    "violated": ("violated",),
    "safe": ("ok", "unknown"),
}
"""The verdicts that each expectation allows; all others allow ok alone."""


def pending(reason: str) -> dict[str, Any]:
    """The verdict of a cell that is not judged yet."""
    return {"verdict": PENDING, "reason": reason, "findings": []}


def unknown(check: str, reason: str) -> dict[str, Any]:
    """The verdict of a cell that could not be judged."""
    finding = {"check": check, "verdict": "unknown", "reason": reason, "detail": ""}
    return {"verdict": "unknown", "reason": f"{check}: {reason}", "findings": [finding]}


def with_verdict(result: Mapping[str, Any], verdict: Mapping[str, Any], expect: str) -> dict[str, Any]:
    """A cell's result with a verdict in place of the one it had. The status fails with a verdict that was expected
    and not found; what was measured stays as it is."""
    found = str(verdict["verdict"])
    fine = found in _FINE.get(expect, ("ok",))
    missed = expect in ("violated", "unknown") and found in ("ok", "unknown") and not fine
    reason = verdict.get("reason") or ""
    if missed:
        reason = f"expected the verdict {expect}, and it is {found}" + (f" ({reason})" if reason else "")
    status = result["status"]
    if status != "interrupted":
        broken = fine and found == "violated"  # on purpose: then it may end however it ends
        status = "failed" if (result.get("reason") and not broken) or missed else "ok"
    judged = {**verdict, "reason": reason, "expected": fine and expect in _FINE, "unexpected": not fine}
    return {**result, "status": status, "verdict": judged}


def exit_code(results: Iterable[Mapping[str, Any]]) -> int:
    """The exit code that these results deserve: 3, 1, 4 and 0 in this order. Only what is unexpected counts."""
    codes = {_code(result) for result in results}
    return next((code for code in (EXIT_VIOLATED, EXIT_FAILED, EXIT_UNKNOWN) if code in codes), EXIT_OK)


def _code(result: Mapping[str, Any]) -> int:
    verdict = result.get("verdict", {})
    unexpected = verdict.get("verdict") if verdict.get("unexpected") else None
    if unexpected == "violated":
        return EXIT_VIOLATED
    if result["status"] != "ok":
        return EXIT_FAILED
    return EXIT_OK if unexpected is None else EXIT_UNKNOWN


def not_checked(result: Mapping[str, Any]) -> Sequence[str]:
    """The checks that were switched off, or for which the program under test tells too little, by name."""
    return list(result.get("verdict", {}).get("not_checked", ()))


def verdict_notes(result: Mapping[str, Any]) -> Sequence[str]:
    """What a reader must know of a cell's verdict: its reason, unless it is what was hoped for."""
    verdict = result.get("verdict", {})
    return [f"{verdict['verdict']}: {verdict['reason']}"] if verdict.get("reason") else []
