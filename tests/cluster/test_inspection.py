"""The status and the trace of nodes suffice to compare nodes and to judge all their incarnations."""

from __future__ import annotations

from pathlib import Path

from chaos.checks.evidence import AppliedState
from chaos.checks.state import judge_hashes
from tests.cluster.local import LocalCluster, eventually


async def test_nodes_that_applied_different_numbers_of_entries_are_compared_at_the_smallest(tmp_path: Path) -> None:
    """The nodes agree on the rolling hash of a prefix; one of them was behind, and one restarted."""
    async with LocalCluster(tmp_path, 3) as cluster:
        leader = await cluster.leader()
        behind, again = cluster.others(leader)
        client = await cluster.client()
        for k in range(20):
            await client.put(b"k%d" % k, b"v")
        await cluster.converged()
        await cluster.kill(again)
        await cluster.restart(again)
        await cluster.converged()
        await cluster.pause(behind)
        await client.put(b"late", b"v")
        applied = {node: (await cluster.status(node)).last_applied for node in (leader, again)}
        await cluster.resume(behind)
        index = (await cluster.converged()).last_applied
        assert max(applied.values()) <= index
        states = []
        for node in cluster.node_ids:
            status = await cluster.status(node, hash_index=index - 1, with_state_hash=True)
            hashes = bytes(status.applied_hash), index - 1, bytes(status.prefix_hash), bytes(status.state_hash)
            states.append(AppliedState(node, int(status.last_applied), *hashes))
        assert all(state.prefix_hash not in (b"", state.applied_hash) for state in states)
        assert judge_hashes(states, cluster.node_ids).verdict == "ok"
        assert (await cluster.status(leader, hash_index=index + 1000)).prefix_hash == b""
        assert (await cluster.status(leader)).prefix_hash == b""


async def test_the_trace_tells_ends_of_logs_and_terms_of_entries(one: LocalCluster) -> None:
    """`log_term` is in the file and in the stream; a restarted node reports the vote that it found."""
    client = await one.client()
    await client.put(b"k", b"v")
    await one.kill("n1")
    await one.restart("n1")

    async def told() -> bool:
        events = (await one.traces())["n1"]
        return [event.kind for event in events].count("started") == 2

    await eventually(told, "the second life in the trace")
    events = (await one.traces())["n1"]
    commits = [event for event in events if event.kind == "commit"]
    assert commits
    assert {event.log_term for event in commits} <= {event.term for event in events}
    second = [event for event in events if event.kind == "started"][-1]
    led = next(event for event in events if event.kind == "became_leader")
    assert (led.index, led.log_term) == (0, 0)
    assert second.peer == "n1"
    assert (second.index > 0, second.log_term) == (True, led.term)
    streamed = await one.probe("n1").trace()
    assert streamed
    assert streamed[0].log_term == second.log_term
