"""Unplug a host and plug it in again: TCP's backoff must not keep nodes and clients away afterwards."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestration.testbed.hosts import NamespaceHost, Testbed
from raft_actor_node.config import RaftSettings
from raft_actor_node.units import Range
from tests.testbed.nodes import ENV, start_nodes, trace_files
from tests.testbed.traces import committed, leader
from tests.testbed.waiting import eventually

RAFT = RaftSettings(election_timeout=Range(0.5, 1.0), heartbeat_interval=0.05, rpc_timeout=0.15)
CUT_S = 8.0
"""TCP retransmits 0.2, 0.6, 1.4, 3, 6.2 and 12.6 s after the cut, so it would resume 4.6 s late by itself."""
REJOIN_S = 3.0


@dataclass(frozen=True)
class Cluster:
    """A node on each host, and a writer on the head."""

    traces: dict[str, Path]
    acknowledged: Path

    def times_ns(self) -> list[int]:
        """Return when each write of the writer was acknowledged."""
        return [int(line) for line in self.acknowledged.read_text().splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def running(bed: Testbed, folder: Path) -> Iterator[Cluster]:
    """Run nodes and a writer, without Ray."""
    acknowledged = folder / "acknowledged"
    words = start_nodes(bed, folder, RAFT)
    writer = str(Path(__file__).with_name("writer.py"))
    with acknowledged.open("w") as file_of_writer:
        bed.head.start(sys.executable, writer, *words, env=ENV, stdout=file_of_writer)
    cluster = Cluster(trace_files(bed, folder), acknowledged)
    eventually(lambda: len(cluster.times_ns()) > 100, "the writer writes", 20)
    yield cluster


@pytest.mark.parametrize("whose", ["leader", "follower"])
def test_a_cable_that_is_put_back_brings_the_node_back(tmp_path: Path, whose: str) -> None:
    with Testbed(3, shared=[tmp_path]) as bed, running(bed, tmp_path) as cluster:
        leads = leader(cluster.traces.values())
        assert leads is not None
        cut = next(host for host in bed.hosts if (cluster.traces[host.name] == leads) == (whose == "leader"))
        others = [trace for name, trace in cluster.traces.items() if name != cut.name]
        pulled_ns = time.monotonic_ns()
        bed.link_down(cut)
        time.sleep(CUT_S)
        stood_at = committed(cluster.traces[cut.name])
        index = max(map(committed, others))
        bed.link_up(cut)
        back_s = eventually(lambda: committed(cluster.traces[cut.name]) >= index, "it catches up", REJOIN_S)
        eventually(lambda: cluster.times_ns()[-1] > pulled_ns + CUT_S * 1e9, "the writer goes on")
        times = cluster.times_ns()
        gap_s = max(b - a for a, b in itertools.pairwise(times)) / 1e9
        print(f"{whose} cut off for {CUT_S:g} s: back after {back_s:.2f} s, longest gap of the writer {gap_s:.2f} s")
        assert stood_at < index, "what was written meanwhile must not have come through"
        assert gap_s < 3 * RAFT.election_timeout.max_s


def test_a_lost_host_is_given_up(tmp_path: Path) -> None:
    """Peers get no notice of its end. They continue, and drop their connections to it in time."""
    with Testbed(3, shared=[tmp_path]) as bed, running(bed, tmp_path) as cluster:
        leads = leader(cluster.traces.values())
        lost = next(host for host in bed.hosts if cluster.traces[host.name] == leads)
        bed.lose(lost)
        lost_ns = time.monotonic_ns()
        left = [host for host in (bed.head, *bed.hosts) if host is not lost]
        eventually(lambda: not any(established(host, lost) for host in left), "no connection to it", 10)
        eventually(lambda: cluster.times_ns()[-1] > lost_ns + 3 * 10**9, "the writer goes on", 10)
        times = cluster.times_ns()
        gap_s = max(b - a for a, b in itertools.pairwise(times)) / 1e9
        print(f"leader's host lost: longest gap of the writer {gap_s:.2f} s")
        assert gap_s < 3 * RAFT.election_timeout.max_s


def established(host: NamespaceHost, other: NamespaceHost) -> list[str]:
    """Return the connections of a host to another that it considers open, and on which it has sent data."""
    lines = host.run("ss", "-Htn", "state", "established", "dst", other.address).splitlines()
    return [line for line in lines if int(line.split()[1]) > 0]
