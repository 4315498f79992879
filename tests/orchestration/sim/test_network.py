"""The simulated network: deliveries follow its settings, and link faults apply on top of them."""

from __future__ import annotations

import asyncio
import random
import statistics
from typing import Any

import pytest

from orchestration.sim_cluster import SimLoop, SimSettings, run_virtual
from orchestration.sim_cluster.network import Network
from raft_actor_node.units import Range

MESSAGES = 4000


def arrivals(**settings: Any) -> list[list[float]]:
    """Send many messages at the same time; return for each the seconds after which its copies arrived."""

    async def main() -> list[list[float]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        network = Network(loop, SimSettings(**settings), random.Random(1))
        begin, arrived = loop.time(), [list[float]() for _ in range(MESSAGES)]
        for copies in arrived:
            network.post(lambda to: to.append(loop.time() - begin), copies)
        await asyncio.sleep(60.0)
        lost = sum(not copies for copies in arrived)
        assert (network.counters.sent, network.counters.lost) == (MESSAGES, lost)
        assert network.counters.duplicated + network.counters.replayed == sum(map(len, arrived)) - (MESSAGES - lost)
        return arrived

    return run_virtual(main)


def test_a_healthy_network_delivers_once_within_its_delay() -> None:
    arrived = arrivals(delay=Range(0.001, 0.003))
    assert all(len(copies) == 1 and 0.001 <= copies[0] <= 0.003 for copies in arrived)
    assert arrived != sorted(arrived), "a range of delays reorders"
    assert statistics.mean(copies[0] for copies in arrived) == pytest.approx(0.002, rel=0.05)


def test_loss() -> None:
    assert sum(not copies for copies in arrivals(loss=0.2)) == pytest.approx(MESSAGES * 0.2, rel=0.1)


def test_duplicates_arrive_soon_and_replays_late() -> None:
    doubled = [copies for copies in arrivals(duplicate=0.1) if len(copies) == 2]
    assert len(doubled) == pytest.approx(MESSAGES * 0.1, rel=0.2)
    assert max(map(max, doubled)) <= 0.002
    replayed = [copies for copies in arrivals(replay=0.1, replay_after=Range(1.0, 5.0)) if len(copies) == 2]
    assert len(replayed) == pytest.approx(MESSAGES * 0.1, rel=0.2)
    assert all(first <= 0.002 and 1.0 <= last <= 5.0 for first, last in map(sorted, replayed))


def test_a_heavy_tail() -> None:
    late = [copies[0] for copies in arrivals(tail=0.05, tail_delay=Range(0.1, 0.5)) if copies[0] > 0.1]
    assert len(late) == pytest.approx(MESSAGES * 0.05, rel=0.2)
    assert max(late) <= 0.502


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"loss": 1.5}, {"clock_rate": (1.1, 0.9)}, {"clock_rate": (0.0, 1.0)}, {"stalls_per_s": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SimSettings.model_validate(wrong)
