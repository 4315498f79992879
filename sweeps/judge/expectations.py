"""Compare verdicts with the expectations of cells, and derive the exit code of a run. Pure functions.

The status of a cell says whether it ran and measured properly: ok, failed, interrupted, or infrastructure (what the
nodes ran on failed). Its verdict says whether the system was correct meanwhile: ok, violated or unknown, and pending
until it is judged. `Parameters.expect` in spec/parameters.py says what each expectation accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chaos.checks.finding import Finding
from chaos.checks.registry import DECISIVE, SAFETY
from chaos.checks.verdict import as_json
from sweeps.analysis.availability import refutes
from sweeps.analysis.cell_data import CellData
from sweeps.judge.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_UNKNOWN, EXIT_VIOLATED
from sweeps.load.operations import OK
from sweeps.spec.metrics import LOWER_BOUNDS
from sweeps.spec.thresholds import parse_threshold


def unmet_expectation(evidence: CellData, result: Mapping[str, Any], thresholds: Mapping[str, str]) -> str | None:
    """Return in one line why the cell does not meet its expectation; None if it does.

    The verdict, not this function, says whether the cell proves anything and whether its faults struck.
    """
    expected = evidence.parameters.expect
    if expected == "safe":
        return None
    if expected == "unavailable":
        return _available_after_all(evidence, result)
    if evidence.operations is None:
        return "no load could begin"
    if expected != "unknown" and not evidence.operations.count(OK):
        return "no operation succeeded"
    refuted = evidence.parameters.chaos and expected == "available" and refutes(result["availability"], "available")
    return refuted or _missed(result, thresholds)


def _missed(result: Mapping[str, Any], thresholds: Mapping[str, str]) -> str | None:
    misses = [
        miss
        for metric, condition in thresholds.items()
        if (miss := parse_threshold(metric, condition).miss(result["metrics"], result[LOWER_BOUNDS])) is not None
    ]
    return "threshold " + "; ".join(misses) if misses else None


def _available_after_all(evidence: CellData, result: Mapping[str, Any]) -> str | None:
    """Return why a cell was more available than expected; None if it was not.

    With faults, only operations during the faults count; without faults, all of the measurement.
    """
    if evidence.operations is None:
        return None
    if evidence.parameters.chaos:
        return refutes(result["availability"], "unavailable")
    return "expected to be unavailable, and operations succeeded" if evidence.operations.count(OK) else None


PENDING = "pending"
UNFINISHED = ("interrupted", "infrastructure")
"""Statuses of cells that did not end normally. Their measurements are not results."""
JUDGE = "judge"
"""Check name of the finding that the judge failed. An unknown verdict with this finding meets no expectation."""
_SPECIAL = ("safe", "unknown", "violated")
"""Expectations that a verdict other than ok can meet."""


def pending(reason: str) -> dict[str, Any]:
    """Return the verdict of a cell that is not judged yet."""
    return {"verdict": PENDING, "reason": reason, "findings": []}


def unjudged(reason: str, found: Sequence[Finding] = ()) -> dict[str, Any]:
    """Return the verdict of a cell whose judge failed.

    `found` are the findings before the failure. A violation among them makes the verdict violated.
    """
    return as_json([*found, Finding(JUDGE, "unknown", reason)])


def meets(verdict: Mapping[str, Any], expect: str) -> bool:
    """Return whether a verdict meets the expectation; see `Parameters.expect`."""
    word, found = verdict["verdict"], {each["check"]: each["verdict"] for each in verdict["findings"]}
    match expect:
        case "safe" if word == "unknown":
            return JUDGE not in found and all(found.get(check) == "ok" for check in DECISIVE)
        case "unknown":
            return bool(word == "unknown" and [check for check in found if found[check] != "ok"] == ["coverage"])
        case "violated":
            return found.get("coverage") == "ok" and any(found.get(check) == "violated" for check in SAFETY)
    return bool(word == "ok")


def with_verdict(result: Mapping[str, Any], verdict: Mapping[str, Any], expect: str) -> dict[str, Any]:
    """Return a cell's result with this verdict instead of its previous one.

    The status becomes failed if an expected verdict was not reached. The measurements stay the same.
    """
    found, fine, reason = str(verdict["verdict"]), meets(verdict, expect), verdict.get("reason") or ""
    # If `unknown` was expected but for another reason, the cell does not fail; its verdict remains unexpected.
    missed = not fine and (expect, found) in (("violated", "ok"), ("violated", "unknown"), ("unknown", "ok"))
    if missed:
        reason = f"expected the verdict {expect}, and it is {found}" + (f" ({reason})" if reason else "")
    elif expect == found and not fine:
        wanted = "violation of safety under load and faults" if found == "violated" else "lack of coverage alone"
        reason = f"expected a {wanted}, and found {reason}"
    status = result["status"]
    if status not in UNFINISHED:
        broken = fine and found == "violated"  # the violation was planted, so the status of the cell does not matter
        status = "failed" if (result.get("reason") and not broken) or missed else "ok"
    judged = {**verdict, "reason": reason, "expected": fine and expect in _SPECIAL, "unexpected": not fine}
    return {**result, "status": status, "verdict": judged}


def exit_code(results: Iterable[Mapping[str, Any]]) -> int:
    """Return the exit code for these results: 3, 1, 4 and 0 in this order. Only unexpected verdicts count."""
    codes = {_code(result) for result in results}
    return next((code for code in (EXIT_VIOLATED, EXIT_FAILED, EXIT_UNKNOWN) if code in codes), EXIT_OK)


def _code(result: Mapping[str, Any]) -> int:
    verdict = result.get("verdict", {})
    unexpected = verdict.get("verdict") if verdict.get("unexpected") else None
    if unexpected == "violated":
        return EXIT_VIOLATED
    if result["status"] == "interrupted":
        return EXIT_UNKNOWN
    if result["status"] != "ok":
        return EXIT_FAILED
    return EXIT_OK if unexpected is None else EXIT_UNKNOWN


def not_checked(result: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of checks that were switched off, or for which the program under test reports too little."""
    return list(result.get("verdict", {}).get("not_checked", ()))


def verdict_notes(result: Mapping[str, Any]) -> Sequence[str]:
    """Return what a reader must know about a cell's verdict: its reason, if it has one."""
    verdict = result.get("verdict", {})
    return [f"{verdict['verdict']}: {verdict['reason']}"] if verdict.get("reason") else []
