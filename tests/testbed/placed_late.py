"""A program on the head that chooses hosts, and has its actors made only when a file says so. Prints what comes of it.

python placed_late.py NODES FILE      with RAY_ADDRESS in the environment
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from orchestration import InfrastructureError, RayBackend


async def main(count: int, file: Path) -> None:
    """One line when the hosts are chosen, one when the actors are there or are not."""
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
