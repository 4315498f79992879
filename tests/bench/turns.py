"""The longest turn of a node's event loop, in CPU time, under the requests of greedy clients (tests/cluster/greedy.py).

`python -m tests.bench.turns --config FILE` runs a node on asyncio's own loop, whose turns can be measured. At each
SIGUSR1 the node writes its longest turn since the previous SIGUSR1, in seconds, to a file that its parent reads.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop
from rich.table import Table

from raft_actor_node.__main__ import main as node_main
from raft_actor_node.config import RaftSettings
from raft_actor_node.pb import kv_pb2_grpc
from raft_actor_node.units import Range
from tests.cluster import local
from tests.cluster.greedy import CASES, UNLIMITED, Attack

BAR_TURN_S = 0.030
RAFT = RaftSettings(election_timeout=Range(1.0, 2.0), heartbeat_interval=0.1, rpc_timeout=0.5)


class _Turns(asyncio.SelectorEventLoop):
    """An event loop that records its longest turn."""

    longest_s = 0.0

    def _run_once(self) -> None:
        begin = time.thread_time()
        super()._run_once()  # type: ignore[misc]
        self.longest_s = max(self.longest_s, time.thread_time() - begin)

    def report(self) -> None:
        """Write the longest turn to the file, and start over."""
        target = _file(os.getpid())
        temporary = target.with_suffix(".new")
        temporary.write_text(str(self.longest_s))
        temporary.replace(target)
        self.longest_s = 0.0


def _file(pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"raft-tests-turn-{pid}"


def _run(main: Coroutine[Any, Any, int]) -> int:
    with asyncio.Runner(loop_factory=_Turns) as runner:
        loop: Any = runner.get_loop()
        loop.add_signal_handler(signal.SIGUSR1, loop.report)
        return runner.run(main)


async def _longest_turn_s(pids: list[int]) -> float:
    """Return the longest turn of these nodes since the previous call."""
    for pid in pids:
        os.kill(pid, signal.SIGUSR1)

    async def told() -> bool:
        return all(_file(pid).exists() for pid in pids)

    await local.eventually(told, "every node reports its longest turn")
    turns = [float(_file(pid).read_text()) for pid in pids]
    for pid in pids:
        _file(pid).unlink()
    return max(turns)


async def turns(directory: Path) -> tuple[Table, float]:
    """Return the table of the longest turns in each case, and the longest turn of all in seconds."""
    table = Table("request of a greedy client", "leader ms", "followers ms", title="longest turn of the loop, CPU time")
    worst = 0.0
    command, local.COMMAND = local.COMMAND, f"{sys.executable} -m tests.bench.turns"
    try:
        for name, (held, _, attack) in CASES.items():
            async with local.LocalCluster(directory, 3, RAFT) as cluster:
                kv = await cluster.client(rpc_timeout=10.0, retry_budget=30.0)
                await kv.put(b"k", b"v" * held)
                leader = await cluster.leader()
                pids = {node_id: status.pid for node_id, status in (await cluster.statuses()).items()}
                followers = [pid for node_id, pid in pids.items() if node_id != leader]
                await _longest_turn_s(list(pids.values()))  # discard the turns of the start
                async with grpc.aio.insecure_channel(cluster.address(leader), options=UNLIMITED) as channel:
                    await attack(Attack(kv_pb2_grpc.KVStub(channel)))
                longest = await _longest_turn_s([pids[leader]]), await _longest_turn_s(followers)
            table.add_row(name, *(f"{turn_s * 1e3:.1f}" for turn_s in longest))
            worst = max(worst, *longest)
    finally:
        local.COMMAND = command
    return table, worst


if __name__ == "__main__":
    uvloop.run = _run  # type: ignore[assignment]
    sys.exit(node_main())
