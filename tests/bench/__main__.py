"""`make bench`: how fast, against what this machine allows; exits 1 when a bar is missed.

First what runs in this process alone, in time of one core: recovery, simulation, checker. Then real clusters.

The machine may be shared and noisy, so only ratios taken in one run count: each figure is measured in
several short rounds that alternate with those of the echo (echo.py), and the medians are compared.

The load generator runs in this process; nodes and echo in processes of their own.
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
    """(operations per second, p50, p99 in ms) of a closed loop."""
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
    """The echo server; its first line of output is its address."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", "tests.bench.echo"], stdin=pipe, stdout=pipe, text=True)


async def throughput(directory: Path) -> tuple[Table, float]:
    """The table of operations per second, and the share of the echo at 64 sessions of puts."""
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
                # A fresh cluster for each row: a longer log must not be what is compared.
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
    """Resident memory of the largest of three idle nodes, a while after the election."""
    async with LocalCluster(directory, 3) as cluster:
        await cluster.leader()

        async def settled() -> bool:
            return all([(await cluster.status(i)).counters.messages_received > 100 for i in cluster.node_ids])

        await eventually(settled, "some heartbeats")
        return max([(await cluster.status(i)).resident_bytes for i in cluster.node_ids])


def recovery(directory: Path) -> tuple[float, float]:
    """(entries recovered and applied per second, bytes of memory per entry) for puts of 64 bytes."""
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
    """Simulation and checker: what was measured beside its bar, and whether it is met. It blocks, for a minute."""
    # In a process of its own: a simulation has a loop of its own, and memory is told of a whole process.
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
    """Measure, print, compare with the bars."""
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
