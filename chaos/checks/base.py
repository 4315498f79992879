"""The declaration of a check."""

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
    """The name of the check in result.json."""
    find: Callable[[StoredEvidence], Finding | None]
    """Return what the check finds in the evidence, or None if the check does not apply.

    `find` raises Missing if a part of the evidence does not exist; the message names the part. Any exception makes this
    check unknown and does not affect the others.
    """
    safety: bool
    """True: a violation means that something wrong happened. False: it means that something required did not happen."""
    decisive: bool = False
    """Whether a cell is safe only if this check is ok."""
    switch: Switch | None = None
    """The setting that switches the check off; None: the check always runs."""
