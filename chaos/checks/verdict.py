"""The verdict on a cell: the worst of its findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from chaos.checks.finding import Finding, worst
from chaos.checks.registry import DECISIVE


def as_json(findings: Sequence[Finding], not_checked: Sequence[str] = ()) -> dict[str, Any]:
    """Return the verdict for result.json, of JSON types only.

    The verdict has its reason in one line (empty when ok), all findings, and the names of the checks that did not run.
    If no decisive check ran, nothing shows that the system was correct: the verdict is unknown at best.
    """
    if set(DECISIVE) <= set(not_checked):
        reason = f"neither {' nor '.join(DECISIVE)} was checked"
        findings = [*findings, Finding("checks", "unknown", reason)]
    verdict = worst(findings)
    causes = [f"{finding.check}: {finding.reason}" for finding in findings if finding.verdict == verdict]
    reason = "; ".join(causes) if causes else "nothing was checked"
    return {
        "verdict": verdict,
        "reason": "" if verdict == "ok" else reason,
        "findings": [asdict(finding) for finding in findings],
        "not_checked": list(not_checked),
    }
