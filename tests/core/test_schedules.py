"""Random schedules: the rules of Figure 3 hold always, and there is progress once the faults end.

After every step the world checks election safety, votes, log matching, leader completeness, state machine safety,
leader append-only, durable copies, promises and reads. The tests only inject faults. `play(seed)` replays a seed that
failed.
"""

from __future__ import annotations

from random import Random

import pytest

from raft_actor_node.core import Role
from tests.core.harness import ET_MAX, World

BLOCKS = 10


def chaotic(seed: int) -> tuple[World, Random]:
    """A cluster of random size, options and network quality."""
    rng = Random(f"options {seed}")
    world = World(
        rng.choice([1, 2, 3, 3, 4, 5, 5]),
        seed,
        delay=rng.choice([(0.001, 0.004), (0.0, 0.030), (0.001, 0.100)]),
        disk=rng.choice([(0.0, 0.002), (0.0, 0.020)]),
        loss=rng.choice([0.0, 0.05, 0.3]),
        duplicate=rng.choice([0.0, 0.1, 0.5]),
        pre_vote=rng.random() < 0.7,
        check_quorum=rng.random() < 0.7,
        max_batch_entries=rng.choice([2, 1024]),
        max_inflight=rng.choice([2, 64]),
    )
    return world, rng


def disturb(world: World, rng: Random, k: int) -> None:
    """Inject one random event at a client, a process or a link."""
    i, act, leader = rng.choice(world.ids), rng.random(), world.leader()
    if act < 0.50:
        target = leader.node_id if leader and rng.random() < 0.8 else i
        world.propose(target, *[b"%d.%d" % (k, j) for j in range(rng.randint(1, 4))])
    elif act < 0.70:
        world.read(leader.node_id if leader and rng.random() < 0.7 else i)
    elif act < 0.77:
        if i in world.nodes:
            world.crash(i)
    elif act < 0.87:
        if i not in world.nodes:
            world.restart(i)
    elif act < 0.90:
        if i in world.nodes and i not in world.mail:
            world.pause(i)
    elif act < 0.94:
        if i in world.mail:
            world.resume(i)
    elif act < 0.97:
        world.cut(i, rng.choice(world.ids), both=rng.random() < 0.5)
    else:
        world.cuts.clear()


def play(seed: int) -> World:
    world, rng = chaotic(seed)
    for k in range(rng.randint(50, 150)):
        world.run(rng.expovariate(50))
        disturb(world, rng, k)
    world.heal()
    leader = world.elect()
    committed = len(world.committed)
    world.propose(leader.node_id, b"last")
    assert world.run_until(lambda: world.converged() and len(world.committed) > committed, 10 * ET_MAX), f"{seed=}"
    return world


@pytest.mark.parametrize("block", range(BLOCKS))
def test_safety_always_and_liveness_after_healing(block: int) -> None:
    """A connected majority has a leader within 10 longest election timeouts; logs converge; proposals commit."""
    for seed in range(block, 30 * BLOCKS, BLOCKS):
        play(seed)


def test_schedules_reach_what_they_are_for() -> None:
    """Together the seeds have elections, conflicts, commits, crashed leaders and answered reads.

    A world in which nothing happens would prove nothing.
    """
    worlds = [play(seed) for seed in range(40)]
    assert sum(len(w.leaders) for w in worlds) > 60
    assert sum(n.counters.entries_erased for w in worlds for n in w.nodes.values()) > 10
    assert sum(len(w.committed) for w in worlds) > 1000
    assert sum(index is not None for w in worlds for index in w.read_results.values()) > 100
    assert sum(len(set(w.leaders.values())) > 1 for w in worlds) > 12


@pytest.mark.parametrize("n", [2, 3, 5])
def test_doubled_and_reordered_messages(n: int) -> None:
    """Every message may arrive twice and in any order (5.5)."""
    committed = 0
    for seed in range(40):
        world = World(n, seed, duplicate=0.5, delay=(0.0, 0.030))
        for k in range(40):
            if leader := world.leader():
                world.propose(leader.node_id, b"%d" % k)
                world.read(leader.node_id)
            world.run(0.015)
        world.heal()
        assert world.run_until(world.converged, 10 * ET_MAX), f"{seed=}"
        committed += len(world.committed)
    assert committed > 40 * 10


@pytest.mark.parametrize("n", [3, 4, 5])
def test_leaders_killed_faster_than_they_settle(n: int) -> None:
    """Each new leader is killed as soon as it leads (5.4)."""
    for seed in range(20):
        world = World(n, seed)
        for _ in range(8):
            assert world.led()
            leader = world.leader()
            assert leader
            world.propose(leader.node_id, b"%d" % leader.current_term)
            world.run(world.rng.uniform(0, 0.010))
            world.crash(leader.node_id)
            if len(world.nodes) <= n // 2:
                for i in set(world.ids) - set(world.nodes):
                    world.restart(i)
        world.heal()
        assert world.run_until(world.converged, 10 * ET_MAX), f"{seed=}"


def test_the_same_seed_gives_the_same_history() -> None:
    """The core is deterministic: no set, no clock and no global randomness decides anything."""
    first, again = play(7), play(7)
    assert first.sent == again.sent
    assert (first.now, first.committed, first.leaders) == (again.now, again.committed, again.leaders)


@pytest.mark.parametrize(("low", "high"), [(0.150, 0.150), (0.150, 0.155), (0.020, 0.030), (0.001, 0.002), (5.0, 10.0)])
def test_safety_holds_with_bad_parameters(low: float, high: float) -> None:
    """Safety must not depend on timing (5.6)."""
    for seed in range(3):
        world = World(5, seed, election_timeout_min=low, election_timeout_max=high, heartbeat_interval=0.025)
        for k in range(30):
            for i in world.ids:
                world.propose(i, b"%d" % k)
                world.read(i)
            world.run(0.020)
        assert all(n.role in Role for n in world.nodes.values())
