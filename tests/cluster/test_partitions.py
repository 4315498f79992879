"""Network partitions: no leader without a majority, no commit without a quorum, no two leaders in a term."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from raft_actor_node.errors import OperationError
from raft_actor_node.links import LinkRule
from tests.cluster.local import LEADER, STEADY, LocalCluster, eventually


async def test_a_leader_cut_off_with_a_minority(steady_five: LocalCluster) -> None:
    """Nothing completes in the minority; the majority goes on and overwrites the old leader's suffix (5.3, 5.4)."""
    five = steady_five
    kv = await five.client()
    await kv.put(b"before", b"1")
    old = await five.leader()
    minority = (old, five.others(old)[0])
    majority = five.others(*minority)
    stuck = await five.client(only=[old], rpc_timeout=10.0, retry_budget=0.0)
    await five.partition(minority, majority)
    frozen = (await five.status(old)).commit_index

    outcomes = await asyncio.gather(
        stuck.put(b"lost", b"1"), stuck.append(b"lost", b"2"), stuck.get(b"before"), return_exceptions=True
    )
    assert all(isinstance(outcome, OperationError) for outcome in outcomes), outcomes
    assert (await five.status(old)).last_log_index > frozen, "the old leader should have appended what it cannot commit"

    new = await five.leader(majority)
    there = await five.client(only=majority)
    await there.put(b"after", b"2")
    assert await there.get(b"after") == b"2"

    async def stepped_down() -> bool:
        return (await five.status(old)).role != LEADER

    await eventually(stepped_down, "check quorum", 2 * STEADY.election_timeout.max_s + 2.0)
    assert (await five.status(old)).commit_index == frozen
    await five.heal()
    await five.converged()
    erased = [(await five.status(i)).counters.entries_erased for i in minority]
    assert sum(erased) > 0, "an uncommitted suffix should have been overwritten"
    assert await kv.get(b"lost") is None
    assert await kv.get(b"before") == b"1"
    assert (await five.status(new)).current_term >= 2
    await stuck.close()
    await there.close()


async def test_a_leader_in_the_majority_stays(steady_five: LocalCluster) -> None:
    """With pre-vote the minority's terms do not grow, and the leader is unchanged after the heal."""
    five = steady_five
    leader = await five.leader()
    term = (await five.status(leader)).current_term
    minority = five.others(leader)[:2]
    before = {i: s.counters.pre_votes_started for i, s in (await five.statuses(minority)).items()}
    await five.partition(minority, five.others(*minority))

    async def tried() -> bool:
        return all(s.counters.pre_votes_started >= before[i] + 2 for i, s in (await five.statuses(minority)).items())

    await eventually(tried, "pre-votes of the minority")
    assert {(await five.status(i)).current_term for i in minority} == {term}
    await five.heal()
    await five.converged()
    assert await five.leader() == leader
    assert (await five.status(leader)).current_term == term


@pytest.mark.parametrize(
    "parts", [(("n1", "n2"), ("n3", "n4"), ("n5",)), (("n1", "n2"), ("n3", "n4"))], ids=["three-parts", "even-split"]
)
async def test_no_part_with_a_majority(tmp_path: Path, parts: Sequence[Sequence[str]]) -> None:
    """No leader appears in any part and nothing commits until the heal."""
    async with LocalCluster(tmp_path, sum(map(len, parts))) as cluster:
        kv = await cluster.client()
        await kv.put(b"k", b"1")
        await cluster.converged()
        before = {i: s.commit_index for i, s in (await cluster.statuses()).items()}
        await cluster.partition(*parts)

        async def nobody_leads() -> bool:
            return all(s.role != LEADER for s in (await cluster.statuses()).values())

        await eventually(nobody_leads, "the leader steps down")
        won = {i: s.counters.elections_won for i, s in (await cluster.statuses()).items()}
        impatient = await cluster.client(rpc_timeout=0.3, retry_budget=1.5)
        with pytest.raises(OperationError):
            await impatient.put(b"k", b"2")
        assert await nobody_leads()
        after = await cluster.statuses()
        assert {i: s.counters.elections_won for i, s in after.items()} == won
        assert {i: s.commit_index for i, s in after.items()} == before
        await cluster.heal()
        await cluster.leader()
        assert await kv.get(b"k") in (b"1", b"2")


@pytest.mark.parametrize("direction", ["deaf", "mute"])
async def test_a_leader_cut_in_one_direction_is_replaced(three: LocalCluster, direction: str) -> None:
    """A deaf leader hears no node, so check quorum makes it step down. A mute leader is heard by no node."""
    old = await three.leader()
    ends = [(other, old) if direction == "deaf" else (old, other) for other in three.others(old)]
    await three.set_links([LinkRule(from_id=a, to_id=b, cut=True) for a, b in ends])
    new = await three.leader(three.others(old))
    assert new != old
    kv = await three.client(only=three.others(old))
    await kv.put(b"k", b"v")
    await kv.close()
    await three.heal()
    await three.converged()


async def test_a_partition_outlives_a_restart(three: LocalCluster) -> None:
    """A restarted node has the link table before it opens its port, so it does not leak messages."""
    leader = await three.leader()
    lonely = three.others(leader)[0]
    await three.partition((lonely,), three.others(lonely))
    await three.kill(lonely)
    await three.restart(lonely)

    async def tries_alone() -> bool:
        return (await three.status(lonely)).counters.pre_votes_started >= 3

    await eventually(tries_alone, "elections of the lonely node")
    status = await three.status(lonely)
    assert status.leader_id == ""
    assert status.counters.messages_cut > 0
    await three.heal()
    await three.converged()


@pytest.mark.parametrize("loss", [0.05, 0.2, 0.5])
async def test_messages_are_lost(three: LocalCluster, loss: float) -> None:
    """With 5 to 50 % of the messages between nodes lost, acknowledged writes stay, and clients make progress."""
    await three.set_links([LinkRule(from_id="*", to_id="*", drop=loss)])
    kv = await three.client(rpc_timeout=2.0, retry_budget=40.0)
    for i in range(20):
        await kv.append(b"log", b"%d," % i)
    assert await kv.get(b"log") == b"".join(b"%d," % i for i in range(20))
    await three.heal()
    await three.converged()


async def test_messages_wait_for_bandwidth(three: LocalCluster) -> None:
    """At 100 KiB/s, 8 KiB take 80 ms to another node, never less."""
    kv = await three.client(retry_budget=30.0)
    await three.leader()
    await three.set_links([LinkRule(from_id="*", to_id="*", bytes_per_s=100 * 1024)])
    begin = time.monotonic()
    for i in range(5):
        await kv.put(b"k%d" % i, bytes(8 * 1024))
    assert time.monotonic() - begin > 5 * 0.075
    assert sum(status.counters.messages_delayed for status in (await three.statuses()).values()) > 5
    await three.heal()
    await three.converged()


async def test_copies_of_messages_come_late(three: LocalCluster) -> None:
    """When a paused leader resumes, it still sends the late copies of messages of its old term."""
    kv = await three.client(retry_budget=30.0)
    await three.set_links([LinkRule(from_id="*", to_id="*", duplicate=1.0, late_ms=1500)])
    for i in range(3):
        assert await kv.append(b"log", b"x") == i + 1
        leader = await three.leader()
        await three.pause(leader)
        await three.leader(among=three.others(leader))
        await kv.append(b"other", b"y")
        await three.resume(leader)
    assert await kv.get(b"log") == b"xxx"
    assert all(status.counters.messages_duplicated > 0 for status in (await three.statuses()).values())
    await three.heal()
    await three.converged()


async def test_messages_are_doubled_delayed_and_reordered(three: LocalCluster) -> None:
    await three.set_links([LinkRule(from_id="*", to_id="*", duplicate=0.5, delay_ms=1, jitter_ms=20)])
    kv = await three.client(retry_budget=30.0)
    await asyncio.gather(*(kv.append(b"k%d" % (i % 4), b"x") for i in range(80)))
    assert [await kv.get(b"k%d" % i) for i in range(4)] == [b"x" * 20] * 4
    await three.heal()
    await three.converged()
