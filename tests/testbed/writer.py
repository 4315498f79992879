"""A program that writes to a cluster until it is killed.

python writer.py NODE=HOST:PORT ...    prints, for each value that was acknowledged, when, in ns of the monotonic clock
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time

from raft_actor_node.client import KVClient
from raft_actor_node.config import ClientSettings
from raft_actor_node.errors import OperationError


async def main() -> None:
    """Write one value after the other."""
    addresses = dict(word.split("=", 1) for word in sys.argv[1:])
    async with KVClient(addresses, settings=ClientSettings(rpc_timeout=0.5)) as kv:
        for number in itertools.count():
            try:
                await kv.put(b"k%d" % (number % 100), b"%d" % number)
            except OperationError:
                continue
            print(time.monotonic_ns(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
