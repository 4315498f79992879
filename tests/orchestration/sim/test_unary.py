"""Clients that make unary calls, in both worlds: which answers and errors they get."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from raft_actor_node.errors import OperationFailed, OperationUnknown
from raft_actor_node.links import ANY_NODE, CLIENTS, LinkRule
from tests.orchestration.sim.worlds import World, WorldName, live

DEADLINE_S = 2.0
WORLDS = ["real", "simulated"]
both = pytest.mark.parametrize("world", WORLDS)


@both
def test_operations_of_all_kinds_wherever_one_asks_first(world: WorldName, tmp_path: Path) -> None:
    async def story(it: World) -> None:
        await it.leader()
        kv = await it.client(call="unary")
        await kv.put(b"k", b"")
        assert await kv.get(b"k") == b""
        assert await kv.compare_and_swap(b"k", b"x", b"y") == (False, b"")
        assert await kv.compare_and_swap(b"new", None, b"y") == (True, None)
        assert await asyncio.gather(*(kv.append(b"%d" % i, b"abc") for i in range(20))) == [3] * 20
        assert (await kv.delete(b"k"), await kv.delete(b"k"), await kv.get(b"k")) == (True, False, None)
        with pytest.raises(OperationFailed, match="BAD_ARGUMENT"):
            await kv.put(b"", b"v")
        await kv.close()

    live(world, tmp_path, story)


@both
@pytest.mark.parametrize("lost", ["requests", "replies"])
def test_a_drop_is_a_timeout(world: WorldName, lost: Literal["requests", "replies"], tmp_path: Path) -> None:
    """The call gets no early error. The operation takes effect if only the answer was lost."""

    async def story(it: World) -> None:
        leader = await it.leader()
        once = await it.client(only=[leader], call="unary", rpc_timeout=DEADLINE_S, retry_budget=0.0)
        again = await it.client(call="unary", rpc_timeout=10.0)
        await once.put(b"before", b"v")
        ends = (CLIENTS, ANY_NODE) if lost == "requests" else (ANY_NODE, CLIENTS)
        await it.set_links([LinkRule(from_id=ends[0], to_id=ends[1], messages=lost, drop=1.0)])
        with pytest.raises(OperationUnknown) as caught:
            await once.append(b"k", b"abc")
        [attempt] = caught.value.attempts
        assert attempt.outcome == "DEADLINE_EXCEEDED"
        assert attempt.end_ns - attempt.start_ns >= DEADLINE_S * 1e9
        await it.set_links([])
        assert await again.get(b"k") == (None if lost == "requests" else b"abc")
        await once.close()
        await again.close()

    live(world, tmp_path, story)


@both
def test_a_call_goes_on_with_the_next_leader_and_takes_effect_once(world: WorldName, tmp_path: Path) -> None:
    async def story(it: World) -> None:
        leader = await it.leader()
        kv = await it.client(call="unary", rpc_timeout=1.0, retry_budget=20.0)
        assert await kv.append(b"k", b"abc") == 3
        calls = [asyncio.ensure_future(kv.append(b"k", b"abc")) for _ in range(10)]
        await asyncio.sleep(0)
        await it.kill(leader)
        lengths = sorted(await asyncio.gather(*calls))
        assert lengths == [3 * count for count in range(2, 12)]
        assert await kv.get(b"k") == b"abc" * 11
        await kv.close()

    live(world, tmp_path, story)


@both
def test_a_node_that_stands_still_answers_when_it_goes_on(world: WorldName, tmp_path: Path) -> None:
    async def story(it: World) -> None:
        leader = await it.leader()
        kv = await it.client(only=[leader], call="unary", rpc_timeout=10.0)
        await kv.put(b"k", b"v")
        await it.pause(leader)
        read = asyncio.ensure_future(kv.get(b"k"))
        await asyncio.sleep(0.3)
        assert not read.done()
        await it.resume(leader)
        assert await read == b"v"
        await kv.close()

    live(world, tmp_path, story)
