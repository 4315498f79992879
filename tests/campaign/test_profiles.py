"""Each profile reaches its situation with the unmodified product, and finds no violation there."""

from __future__ import annotations

from collections import Counter

import pytest

from sweeps.campaign import PROFILES, run_seed

SITUATIONS = {
    "storm": ("leader changes", "reads refused"),
    "figure-8": ("old-term majorities", "suffixes erased"),
    "long-stale-log": ("longer logs refused", "suffixes erased"),
    "lagging-follower": ("shorter logs refused",),
    "deposed-leader": ("reads at deposed leaders", "suffixes erased"),
    "unheard-commit": ("reads before an own commit",),
    "paused": ("leader changes", "suffixes erased"),
    "crash-points": ("votes asked again", "lives"),
    "forgotten-votes": ("votes asked again", "contested terms"),
    "rapid-restarts": ("lives", "leader changes"),
    "power-cuts": ("lives", "leader changes"),
    "sick-disks": ("disks failed", "torn tails cut"),
    "slow-disks": ("commits before an own fsync",),
    "hanging-disks": ("commits before an own fsync", "leaders yielded"),
    "replaced-while-written": ("suffixes erased while written",),
    "rotten-disks": ("starts refused",),
    "contested": ("contested terms", "suffixes erased"),
    "old-messages": ("answers of earlier terms",),
    "shapes": ("leader changes", "suffixes erased"),
    "halves": ("leader changes", "reads refused"),
    "lost-answers": ("retries answered", "reads refused"),
    "flaky": ("retries answered",),
    "stale-candidate": ("shorter logs refused",),
}
SEEDS = 40
"""The most seeds that are tried; a situation that needs more has become rare."""


def test_every_profile_has_a_situation() -> None:
    assert set(SITUATIONS) == set(PROFILES)


@pytest.mark.parametrize("profile", SITUATIONS)
def test_a_profile_reaches_its_situation(profile: str) -> None:
    reached: Counter[str] = Counter()
    for seed in range(SEEDS):
        result = run_seed(seed, profile=profile)
        assert result.verdict == "ok", result.findings
        reached.update(result.coverage)
        if all(reached[situation] for situation in SITUATIONS[profile]):
            return
    pytest.fail(f"after {SEEDS} seeds: {reached}")
