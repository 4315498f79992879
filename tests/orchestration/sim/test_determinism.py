"""The same seed gives the same story: on any machine, in any process, with any string hashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from orchestration.sim_cluster import Silent
from tests.orchestration.sim.runs import ROUGH, simulate

SEED = 42


def test_a_seed_has_one_digest_for_any_hash_seed() -> None:
    """Everything at once: crashes, power losses, cuts, loss, replay, stalls, clients that retry."""
    program = f"from tests.orchestration.sim.runs import simulate; print(simulate({SEED}).digest)"
    digests = []
    for hash_seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[3])}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        digests.append(done.stdout.strip())
    assert len(digests[0]) == 64
    assert set(digests) == {simulate(SEED).digest}


def test_watching_and_telling_change_nothing() -> None:
    """Neither an observer nor a kept story changes the run, so a failure can be examined with them."""
    plain = simulate(SEED)
    watched = simulate(SEED, observer=Silent, story=True)
    assert watched.digest == plain.digest
    assert len(watched.story.splitlines()) > 1000


def test_seeds_and_settings_make_a_difference() -> None:
    digests = {
        simulate(SEED).digest,
        simulate(SEED + 1).digest,
        simulate(SEED, ROUGH.model_copy(update={"loss": 0.1})).digest,
    }
    assert len(digests) == 3
