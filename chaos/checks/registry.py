"""All checks, in the order in which they run and are reported."""

from __future__ import annotations

from chaos.checks import coverage, durability, exits, inspection, invariants, linearizability, liveness, state
from chaos.checks.base import Check

CHECKS: tuple[Check, ...] = (
    linearizability.CHECK,
    invariants.CHECK,
    inspection.CHECK,
    exits.CHECK,
    state.CHECK,
    durability.CHECK,
    liveness.CHECK,
    coverage.CHECK,
)
SAFETY = tuple(check.name for check in CHECKS if check.safety)
"""The checks whose violation means that something wrong happened."""
DECISIVE = tuple(check.name for check in CHECKS if check.decisive)
"""The checks that must be ok in a safe cell."""
