"""What all tests share: a Ray to attach to, and that nothing of them is left when they end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.ray_cluster import guard
from orchestration.ray_cluster.owner import owner
from tests.remains import MARK, at_last, left, leftovers, short_folder


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The first fixture of a session, so the last one to end: no process, no folder, no Ray; see remains.py."""
    before = leftovers()
    os.environ[MARK] = owner()
    yield
    found = at_last(lambda: left(before))
    assert not found, "the tests have left:\n" + "\n".join(found)


@pytest.fixture
def ray_head() -> Iterator[tuple[str, str]]:
    """A Ray cluster started by hand; its address and its folder."""
    folder = str(short_folder())
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    words = ["start", "--head", "--port=0", "--num-cpus=2", "--include-dashboard=false", f"--temp-dir={folder}"]
    try:
        subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *words],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        yield Path(folder, "ray_current_cluster").read_text().strip(), folder
    finally:
        # Not `ray stop`: it would end the Ray of everybody on this machine.
        guard.clean_up(folder)
