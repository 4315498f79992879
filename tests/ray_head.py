"""Ray clusters for tests: one started by hand to attach to, and a private one that starts even on a busy machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from orchestration import InfrastructureError, RayBackend
from orchestration.ray_cluster import guard, session
from tests.remains import short_folder

TRIES = 4
PATIENCE_S = 150.0


@contextmanager
def ray_head() -> Iterator[tuple[str, str]]:
    """Start a Ray cluster by hand; yield its address and its folder. It ends with the context."""
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
        # Not `ray stop`: it would end every Ray on this machine.
        guard.clean_up(folder)


@asynccontextmanager
async def private_ray() -> AsyncIterator[RayBackend]:
    """Start a private Ray, with several tries and a long connection timeout.

    Ray allows its own processes 30 s to start, which no setting changes. A busy machine may need longer.
    """
    session._CONNECT_TIMEOUT_S = PATIENCE_S
    async with AsyncExitStack() as stack:
        for left in reversed(range(TRIES)):
            try:
                backend = await stack.enter_async_context(RayBackend.connect("local"))
                break
            except InfrastructureError as error:
                if not left or "timed out during startup" not in str(error):
                    raise
        yield backend
