"""The finding of one check, and the worst verdict of several findings.

ok         everything that was checked holds, and enough happened to conclude so
violated   a rule of the protocol, or a promise to clients, is violated
unknown    a check could not be made, or the events of the cell prove nothing; unknown is not a pass
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "violated", "unknown"]
_WORST_FIRST: tuple[Verdict, ...] = ("violated", "unknown", "ok")


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    """The name of the check."""
    verdict: Verdict
    reason: str
    """One line."""
    detail: str = ""
    """More lines, with the details."""


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict: violated before unknown before ok; unknown when nothing was checked."""
    found = {finding.verdict for finding in findings}
    return next((verdict for verdict in _WORST_FIRST if verdict in found), "unknown")


def with_more(reasons: Sequence[object]) -> str:
    """Return the first reason and the number of further reasons, in one line."""
    return f"{reasons[0]} (and {len(reasons) - 1} more)" if len(reasons) > 1 else str(reasons[0])
