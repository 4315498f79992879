"""A program on the head that chooses hosts, but creates its actors only when a file appears. Prints the result.

python placed_late.py NODES FILE      with RAY_ADDRESS in the environment
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from orchestration import InfrastructureError, RayBackend


async def main(count: int, file: Path) -> None:
    """Print a line when the hosts are chosen, and a line when the actors are created or refused."""
    async with RayBackend.connect() as backend:
        chosen = await backend.pool.choose(count, "spread")
        print(" ".join(host.address for host in chosen), flush=True)
        await asyncio.to_thread(_wait_for, file)
        begin = time.monotonic()
        try:
            await backend.pool.acquire(chosen)
            print("all are there")
        except InfrastructureError as error:
            print(f"{time.monotonic() - begin:.1f} {error}")


def _wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
