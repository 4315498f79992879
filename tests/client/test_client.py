"""KVClient, the engine's interface for users; tests of deadlines are in test_deadlines.py."""

from __future__ import annotations

import asyncio

import pytest

from raft_actor_node.client import KVClient, Swap
from raft_actor_node.config import ClientSettings
from raft_actor_node.errors import OperationFailed, OperationUnknown
from raft_actor_node.pb import kv_pb2
from tests.client.fakes import CALM, STEADY, StartNodes, book, silent, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_operations(nodes: StartNodes) -> None:
    async with KVClient(book(await nodes(3)), settings=CALM, transport=STEADY) as kv:
        assert await kv.get(b"k") is None
        await kv.put(b"k", b"")
        assert await kv.get(b"k") == b""
        assert await kv.compare_and_swap(b"k", None, b"x") == Swap(swapped=False, current=b"")
        assert await kv.compare_and_swap(b"k", b"", b"x") == Swap(swapped=True, current=None)
        assert await kv.append(b"k", b"yz") == 3
        assert await kv.delete(b"k") is True
        assert await kv.delete(b"k") is False
        assert await kv.compare_and_swap(b"k", b"x", b"y") == Swap(swapped=False, current=None)
        assert kv.leader in ("n1", "n2", "n3")


async def test_concurrent_writes_have_sessions_of_their_own_which_are_used_again(nodes: StartNodes) -> None:
    (n1,) = await nodes(1)
    async with KVClient([n1.address], settings=CALM, transport=STEADY) as kv:
        for _ in range(3):
            lengths = await asyncio.gather(*(kv.append(b"k", b"x") for _ in range(20)))
            assert len(set(lengths)) == 20
        assert n1.store.session_count == 20
        assert await kv.get(b"k") == b"x" * 60
    batches = [batch for batch in n1.batches if batch.operations[0].kind != kv_pb2.GET]
    assert [len(batch.operations) for batch in batches] == [20] * 4, "the sessions, then three rounds"


async def test_what_is_no_bytes_is_refused_here(nodes: StartNodes) -> None:
    (n1,) = await nodes(1)
    async with KVClient([n1.address]) as kv:
        with pytest.raises(TypeError, match="value: must be bytes, not str"):
            await kv.put(b"k", "v")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="key: must be bytes, not NoneType"):
            await kv.get(None)  # type: ignore[arg-type]
    assert n1.operations == []


async def test_a_session_that_the_cluster_does_not_know_is_not_used_again(nodes: StartNodes) -> None:
    old, new = await nodes(2)
    new.store = type(old.store)(value_bytes=100)
    async with KVClient({"n1": old.address}, settings=CALM, transport=STEADY) as kv:
        await kv.put(b"k", b"v")
        kv.update_addresses({"n1": new.address})
        with pytest.raises(OperationFailed) as failed:
            await kv.put(b"k", b"v")
        assert failed.value.code == "SESSION_UNKNOWN"
        await kv.put(b"k", b"v")
        assert new.store.get(b"k") == b"v"


async def test_close_ends_what_is_under_way(nodes: StartNodes) -> None:
    (n1,) = await nodes(1)
    async with KVClient([n1.address], settings=ClientSettings(rpc_timeout=60.0), transport=STEADY) as kv:
        await kv.put(b"k", b"v")
        n1.default = silent
        write, read = asyncio.create_task(kv.put(b"k", b"w")), asyncio.create_task(kv.get(b"k"))
        await until(lambda: len(n1.operations) == 3, "all sent")
    with pytest.raises(OperationUnknown, match="CANCELLED"):
        await write
    with pytest.raises(OperationFailed, match="CANCELLED"):
        await read
    with pytest.raises(RuntimeError, match="closed"):
        await kv.get(b"k")
