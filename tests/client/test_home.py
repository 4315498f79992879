"""Clients refuse another event loop, a forked process, and addresses that are not valid."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from orchestration import ClusterPlan
from orchestration.ray_cluster.cluster import RayCluster
from raft_actor_node.client import KVClient
from raft_actor_node.client_engine import ClientEngine, Operation
from raft_actor_node.client_probe import NodeProbe
from raft_actor_node.errors import ConfigError
from raft_actor_node.kv.commands import Kind
from raft_actor_node.node_faults import NodeFaults

NOWHERE = "127.0.0.1:1"
"""A port without a listener."""


async def client() -> KVClient:
    kv = KVClient([NOWHERE])
    kv.start()
    return kv


async def engine() -> ClientEngine:
    made = ClientEngine([NOWHERE], client_id="c", on_done=lambda operations: None)
    made.start()
    return made


async def probe() -> NodeProbe:
    return NodeProbe(NOWHERE)


async def cluster() -> RayCluster:
    return RayCluster(None, ClusterPlan(nodes=3), [])  # type: ignore[arg-type]


USES: list[tuple[Callable[[], Awaitable[Any]], Callable[[Any], Any]]] = [
    (client, lambda kv: kv.start()),
    (client, lambda kv: kv.__aenter__()),
    (client, lambda kv: kv.get(b"k")),
    (client, lambda kv: kv.put(b"k", b"v")),
    (client, lambda kv: kv.update_addresses(["127.0.0.1:2"])),
    (client, lambda kv: kv.close()),
    (engine, lambda made: made.start()),
    (engine, lambda made: made.submit([Operation(Kind.GET, b"k")])),
    (engine, lambda made: made.open_sessions(1)),
    (engine, lambda made: made.close()),
    (probe, lambda made: made.health()),
    (probe, lambda made: made.status()),
    (probe, lambda made: made.trace()),
    (probe, lambda made: made.follow_trace().__anext__()),
    (probe, lambda made: made.set_links([])),
    (probe, lambda made: made.set_node_faults(NodeFaults())),
    (probe, lambda made: made.close()),
    (cluster, lambda made: made.leader()),
    (cluster, lambda made: made.client()),
    (cluster, lambda made: made.crash("n1")),
    (cluster, lambda made: made.collect("n1")),
    (cluster, lambda made: made.stop()),
]


@pytest.mark.parametrize(("make", "use"), USES)
def test_on_another_event_loop_it_is_a_runtime_error_at_once(
    make: Callable[[], Awaitable[Any]], use: Callable[[Any], Any]
) -> None:
    """As in a notebook, or in tests that each call asyncio.run: the first loop still exists, but does not run."""

    async def elsewhere(made: Any) -> None:
        async with asyncio.timeout(10):
            answer = use(made)
            if asyncio.iscoroutine(answer):
                await answer

    with asyncio.Runner() as first:
        made = first.run(_made(make))
        with asyncio.Runner() as second, pytest.raises(RuntimeError, match="belongs to another event loop"):
            _without_loop(first)
            second.run(elsewhere(made))
        if hasattr(made, "close"):
            first.run(made.close())


async def _made(make: Callable[[], Awaitable[Any]]) -> Any:
    return await make()


def _without_loop(runner: asyncio.Runner) -> None:
    assert not runner.get_loop().is_running()


def test_a_client_that_was_made_outside_of_a_loop_belongs_to_the_first_that_starts_it() -> None:
    kv = KVClient([NOWHERE])

    async def start_and_close() -> None:
        kv.start()
        kv.start()
        await kv.close()

    asyncio.run(start_and_close())


FORKED = """
import asyncio, os, sys
from functools import partial
from raft_actor_node.client import KVClient
from raft_actor_node.client_probe import NodeProbe
from raft_actor_node.client_engine import ClientEngine

async def parent(inside):
    kv = KVClient(["127.0.0.1:1"])
    kv.start()
    probe = NodeProbe("127.0.0.1:1")
    await probe.health()
    if inside:
        fork(kv, probe)
    await probe.close()
    await kv.close()
    return kv, probe

def fork(kv, probe):
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0, "the child crashed"
        return
    asyncio.events._set_running_loop(None)
    asyncio.run(child(kv, probe))
    sys.stdout.flush()
    os._exit(0)

async def child(kv, probe):
    unary = KVClient(["127.0.0.1:1"], engine=partial(ClientEngine, call="unary"))
    uses = (lambda: kv.get(b"k"), probe.health, KVClient(["127.0.0.1:1"]).__aenter__, unary.__aenter__, fresh_probe)
    for use in uses:
        try:
            async with asyncio.timeout(10):
                await use()
        except RuntimeError as error:
            print(error)

async def fresh_probe():
    NodeProbe("127.0.0.1:1")

made = asyncio.run(parent(sys.argv[1] == "inside"))
if sys.argv[1] == "after":
    fork(*made)
"""


@pytest.mark.parametrize("when", ["inside", "after"])
def test_after_a_fork_it_is_a_runtime_error_and_no_crash(when: str) -> None:
    """In the forked copy of the parent's loop, or after that loop ended; the same for a client that the child makes."""
    done = subprocess.run([sys.executable, "-c", FORKED, when], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # A client that was closed before says so instead.
    first = "does not survive a fork" if when == "inside" else "the engine is closed"
    for line, words in zip(lines, (first, "does not survive a fork", *["forked from"] * 3), strict=True):
        assert words in line


@pytest.mark.parametrize(
    ("addresses", "error", "words"),
    [
        ("127.0.0.1:41233", TypeError, "a list of host:port, not '127.0.0.1:41233' alone; put it into a list"),
        (b"127.0.0.1:41233", TypeError, "put it into a list"),
        (["127.0.0.1"], ConfigError, "addresses: must be host:port, such as 127.0.0.1:41233"),
        ({"n1": "vm1"}, ConfigError, "'vm1': the port is missing"),
        (("127.0.0.1", 41233), ConfigError, "'127.0.0.1': the port is missing"),
        (["::1:41233"], ConfigError, "an IPv6 address needs brackets"),
        ({"n1": ("127.0.0.1:41233", 1)}, ConfigError, r"not \('127.0.0.1:41233', 1\)"),
    ],
)
def test_addresses_that_are_none_are_refused_in_one_line(addresses: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as refused:
        KVClient(addresses)
    assert "\n" not in str(refused.value)
    kv = KVClient([NOWHERE])
    with pytest.raises(error):
        kv.update_addresses(addresses)


async def test_an_address_of_one_node_is_refused_too() -> None:
    with pytest.raises(ValueError, match="the port is missing"):
        NodeProbe("127.0.0.1")
