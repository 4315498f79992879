"""`make bench`: measure speed and memory, and compare them with bars; exits 1 if a bar is missed.

The parts that need only one core come first: recovery, checker, simulation, campaign. Real clusters follow.

The machine may be shared and noisy, so the throughput of a cluster is compared with that of an echo server (echo.py) in
the same run. Both are measured in several short, alternating rounds, and the bar applies to the median of the ratios.

The load generator runs in this process; each node and the echo server run in their own processes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from raft_actor_node.config import ClientSettings, RaftSettings, TransportSettings
from raft_actor_node.kv.commands import Kind, encode
from raft_actor_node.kv.store import Store
from raft_actor_node.runtime.wal import Wal
from raft_actor_node.units import Range
from sweeps.load.generator import LoadGenerator
from sweeps.load.operations import OK
from sweeps.spec.parameters import LoadSettings, Mix
from tests.bench.campaign import BAR_SEEDS_PER_MINUTE, seeds_per_minute
from tests.bench.checker import BAR_MANY_KEYS_S, BAR_UNKNOWN_S, checker_speed
from tests.bench.simulation import BAR_ELECTIONS_PER_10_S, elections_per_10_s
from tests.bench.turns import BAR_TURN_S, turns
from tests.cluster.local import LocalCluster, eventually

SESSIONS = (1, 16, 64, 256)
ROUNDS = 3
WARMUP_S = 0.5
MEASURE_S = 2.0
RECOVERED_ENTRIES = 400_000

BAR_SHARE_OF_ECHO = 0.25  # put, 64 sessions
BAR_RECOVERY_PER_S = 200_000
BAR_IDLE_BYTES = 60_000_000


async def load(addresses: Mapping[str, str], sessions: int, kind: str) -> tuple[float, float, float]:
    """Run a closed loop; return its operations per second, p50 and p99, both in ms."""
    settings = LoadSettings(clients=sessions, mix=Mix(**{kind: 1.0}))
    generator = LoadGenerator(settings, ClientSettings(), TransportSettings(), seed=1, longest_value=1 << 20)
    try:
        await generator.connect(addresses)
        begin = await generator.start() + int(WARMUP_S * 1e9)
        end = begin + int(MEASURE_S * 1e9)
        await asyncio.sleep(WARMUP_S + MEASURE_S)
        await generator.stop()
        await generator.drain(10.0)
        columns = (await generator.result()).columns
    finally:
        await generator.close()
    done = columns["end_ns"]
    chosen = (columns["outcome"] == OK) & (done >= begin) & (done < end)
    latencies = (done - columns["start_ns"])[chosen] / 1e6
    return chosen.sum() / MEASURE_S, float(np.percentile(latencies, 50)), float(np.percentile(latencies, 99))


def start_echo() -> subprocess.Popen[str]:
    """Start the echo server; the first line of its output is its address."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", "tests.bench.echo"], stdin=pipe, stdout=pipe, text=True)


async def throughput(directory: Path) -> tuple[Table, float]:
    """Return the table of operations per second, and the throughput of puts at 64 sessions as a share of the echo's."""
    raft = RaftSettings(election_timeout=Range(1.0, 2.0), heartbeat_interval=0.1, rpc_timeout=0.5)
    columns = ("sessions", "echo/s", "put/s", "share", "p50 ms", "p99 ms", "get/s", "share", "p50 ms", "p99 ms")
    setting = "closed loop, 3 nodes, fsync on, 64-byte values"
    table = Table(*columns, title=f"{setting}, median of {ROUNDS} rounds of {MEASURE_S:g} s")
    share_at_64 = 0.0
    with start_echo() as echo:
        assert echo.stdout is not None
        echo_address = {"echo": echo.stdout.readline().strip()}
        try:
            for sessions in SESSIONS:
                # A fresh cluster for each row: otherwise later rows would have longer logs.
                async with LocalCluster(directory, 3, raft) as cluster:
                    await cluster.leader()
                    nodes = cluster.book.addresses()
                    rounds = [
                        (
                            await load(echo_address, sessions, "put"),
                            await load(nodes, sessions, "put"),
                            await load(echo_address, sessions, "get"),
                            await load(nodes, sessions, "get"),
                        )
                        for _ in range(ROUNDS)
                    ]
                cells = [str(sessions), f"{statistics.median(r[0][0] for r in rounds):,.0f}"]
                for reference, measured in ((0, 1), (2, 3)):
                    share = statistics.median(r[measured][0] / r[reference][0] for r in rounds)
                    rate, p50, p99 = (statistics.median(r[measured][i] for r in rounds) for i in range(3))
                    cells += [f"{rate:,.0f}", f"{share:.2f}", f"{p50:.2f}", f"{p99:.2f}"]
                    if sessions == 64 and measured == 1:
                        share_at_64 = share
                table.add_row(*cells)
        finally:
            echo.terminate()
    return table, share_at_64


async def idle_bytes(directory: Path) -> int:
    """Return the resident memory of the largest of three idle nodes, after some heartbeats."""
    async with LocalCluster(directory, 3) as cluster:
        await cluster.leader()

        async def settled() -> bool:
            return all([(await cluster.status(i)).counters.messages_received > 100 for i in cluster.node_ids])

        await eventually(settled, "some heartbeats")
        return max([(await cluster.status(i)).resident_bytes for i in cluster.node_ids])


def recovery(directory: Path) -> tuple[float, float]:
    """Return the entries recovered and applied per second, and the bytes of memory per entry, for puts of 64 bytes."""
    open_wal = partial(Wal.open, directory, cluster_id="bench", node_id="n1", members=["n1"])
    wal, _ = open_wal(bootstrap=True)
    wal.save_hard_state(1, "n1")
    for first in range(1, RECOVERED_ENTRIES + 1, 1000):
        indexes = range(first, first + 1000)
        payloads = [encode(Kind.PUT, b"key-%011d" % (i % 1000), bytes(64), sequence=i) for i in indexes]
        wal.append(first, [1] * 1000, payloads, first - 1)
    wal.close()
    before = _resident_bytes()
    begin = time.perf_counter()
    wal, recovered = open_wal(bootstrap=False)
    Store(value_bytes=1 << 20).apply(1, recovered.terms, recovered.payloads)
    elapsed = time.perf_counter() - begin
    wal.close()
    return RECOVERED_ENTRIES / elapsed, (_resident_bytes() - before) / RECOVERED_ENTRIES


def in_one_process() -> list[tuple[str, bool]]:
    """Measure simulation, campaign and checker; return for each its result with its bar, and whether it met the bar.

    This blocks for about a minute.
    """
    # In a separate process: a simulation needs its own event loop, and memory is measured for a whole process.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one:
        checker = one.submit(checker_speed).result()
        elections = one.submit(elections_per_10_s).result()
        seeds = one.submit(seeds_per_minute).result()
    judged = (
        f"100,000 operations over 1000 keys in {checker.many_keys_s:.1f} s, at most {BAR_MANY_KEYS_S:g} s; "
        f"20,000 over 5 keys, 5 % unknown, in {checker.unknown_s:.1f} s, at most {BAR_UNKNOWN_S:g} s; "
        f"{checker.resident_bytes / 1e6:.0f} MB"
    )
    return [
        (f"checker: {judged}", checker.good),
        (
            f"simulation: {elections:,.0f} elections in 10 s, at least {BAR_ELECTIONS_PER_10_S:,}",
            elections >= BAR_ELECTIONS_PER_10_S,
        ),
        (
            f"campaign: {seeds:,.0f} seeds a minute with all checks, at least {BAR_SEEDS_PER_MINUTE:,}",
            seeds >= BAR_SEEDS_PER_MINUTE,
        ),
    ]


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


async def main() -> int:
    """Measure, compare with the bars, and print; return the exit code."""
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="raft-lab-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        entries_per_s, bytes_per_entry = recovery(directory / "recovery")
        alone = in_one_process()
        resident = await idle_bytes(directory / "idle")
        table, share = await throughput(directory / "throughput")
        turn_table, longest_turn_s = await turns(directory / "turns")
    console.print(table)
    console.print(turn_table)
    recovered = f"{entries_per_s:,.0f} entries/s, {bytes_per_entry:.0f} B of memory each"
    turn = f"{longest_turn_s * 1e3:.1f} ms of CPU, at most {BAR_TURN_S * 1e3:g} ms"
    bars = [
        (f"put at 64 sessions: {share:.2f} of the echo, at least {BAR_SHARE_OF_ECHO}", share >= BAR_SHARE_OF_ECHO),
        (f"recovery: {recovered}, at least {BAR_RECOVERY_PER_S:,}/s", entries_per_s >= BAR_RECOVERY_PER_S),
        (f"an idle node: {resident / 1e6:.1f} MB, at most {BAR_IDLE_BYTES / 1e6:g} MB", resident <= BAR_IDLE_BYTES),
        (f"longest turn of a node under a greedy client: {turn}", longest_turn_s <= BAR_TURN_S),
        *alone,
    ]
    for text, good in bars:
        console.print(f"{'ok    ' if good else 'MISSED'} {text}", highlight=False)
    return 0 if all(good for _, good in bars) else 1


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
