"""Entries commit even if they take longer than an election timeout to cross a network that the kernel slows down."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestration.testbed.hosts import Testbed
from raft_actor_node.config import RaftSettings
from raft_actor_node.units import Range
from tests.testbed.nodes import ENV, start_nodes, trace_files
from tests.testbed.traces import events

RAFT = RaftSettings(election_timeout=Range(0.5, 1.0), heartbeat_interval=0.05, rpc_timeout=0.1)
PUTTER = str(Path(__file__).with_name("putter.py"))
MB = 10**6


@pytest.mark.parametrize(
    ("rate", "count", "size"),
    [(MB, 1, MB), (MB // 4, 1, MB), (MB, 1000, 1000)],
    ids=["1 MB at 1 MB/s", "1 MB at 0.25 MB/s", "1000 kB at 1 MB/s"],
)
def test_entries_cross_a_slow_network_without_an_election(tmp_path: Path, rate: int, count: int, size: int) -> None:
    """The leader's host sends everything twice, to two followers, and one of the copies is needed."""
    with Testbed(3, shared=[tmp_path]) as bed:
        words = start_nodes(bed, tmp_path, RAFT)
        traces = trace_files(bed, tmp_path).values()
        bed.head.run(sys.executable, PUTTER, "1", "1", *words, env=ENV)

        def elections() -> list[int]:
            return [len([*events(trace, "became_pre_candidate")]) for trace in traces]

        before = elections()
        for host in bed.hosts:
            host.bandwidth(rate)
        took_s = float(bed.head.run(sys.executable, PUTTER, str(count), str(size), *words, env=ENV, timeout_s=60))
        print(f"{took_s:.2f} s, at {rate / MB:g} MB/s")
        assert elections() == before
        assert 0.8 * count * size / rate < took_s < 3 * count * size / rate + 2
