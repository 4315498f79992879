"""A program that puts COUNT values of BYTES bytes concurrently, and ends when all are acknowledged.

python putter.py COUNT BYTES NODE=HOST:PORT ...    prints how many seconds it took
"""

from __future__ import annotations

import asyncio
import sys
import time

from raft_actor_node.client import KVClient
from raft_actor_node.config import ClientSettings


async def main() -> None:
    """Put all values concurrently, and print the seconds."""
    count, size = int(sys.argv[1]), int(sys.argv[2])
    addresses = dict(word.split("=", 1) for word in sys.argv[3:])
    async with KVClient(addresses, settings=ClientSettings(rpc_timeout=40.0, retry_budget=60.0)) as kv:
        await kv.put(b"first", b"")
        begin = time.monotonic()
        await asyncio.gather(*(kv.put(b"k%d" % i, bytes(size)) for i in range(count)))
        print(time.monotonic() - begin)


if __name__ == "__main__":
    asyncio.run(main())
