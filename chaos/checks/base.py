"""What every check declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from chaos.checks.evidence import StoredEvidence
from chaos.checks.finding import Finding

Switch = Literal["linearizable", "invariants"]
"""A setting below `checks:` that switches checks off."""


@dataclass(frozen=True)
class Check:
    """One check of a finished cell."""

    name: str
    """As it stands in result.json."""
    find: Callable[[StoredEvidence], Finding | None]
    """Return what the check finds; None where it does not apply. What it needs, it takes from the evidence.

    It may raise anything: the check is unknown then, and costs no other check. It raises Missing where a part of the
    evidence does not exist, and says which.
    """
    safety: bool
    """Whether a violation means that something wrong happened. Otherwise something right did not happen."""
    decisive: bool = False
    """Whether it must be ok for a cell to be called safe."""
    switch: Switch | None = None
    """The setting that switches it off; None: it is always made."""
