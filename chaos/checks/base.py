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
    """Its name in result.json."""
    find: Callable[[StoredEvidence], Finding | None]
    """Return what the check finds in the evidence; None where it does not apply.

    Any exception makes this check unknown and does not affect the others. It raises Missing, which names the part,
    where a part of the evidence does not exist.
    """
    safety: bool
    """Whether a violation means that something wrong happened. Otherwise something required did not happen."""
    decisive: bool = False
    """Whether it must be ok for a cell to be called safe."""
    switch: Switch | None = None
    """The setting that switches it off; None: it always runs."""
