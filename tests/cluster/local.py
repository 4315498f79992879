"""A cluster of real node processes on loopback, without Ray, for the tests of the protocol.

These tests need nothing of Ray, which would add seconds to each. NodeSupervisor of orchestration supervises the
processes, as it does in Ray's actors. tests/orchestration and tests/sweeps use a real Ray.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from chaos.checks.invariants import judge_traces
from chaos.shapes import cut, separated
from orchestration.address_book import AddressBook
from orchestration.ray_cluster.actor import NodeSpec, NodeSupervisor, command_words
from raft_actor_node.client import KVClient
from raft_actor_node.client_engine import ClientEngine
from raft_actor_node.client_probe import NodeProbe
from raft_actor_node.config import (
    CallForm,
    ClientSettings,
    NodeConfig,
    RaftSettings,
    StorageSettings,
    TransportSettings,
)
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.links import LinkRule
from raft_actor_node.names import node_names
from raft_actor_node.node_faults import NodeFaults
from raft_actor_node.origin import origin
from raft_actor_node.pb import inspection_pb2
from raft_actor_node.trace_lines import parse_trace
from raft_actor_node.units import Range

FAST = RaftSettings(election_timeout=Range(0.3, 0.6), heartbeat_interval=0.05, rpc_timeout=0.1)
"""Quick enough for a test, and slow enough for two busy cores; but a leader that stalls for a moment is replaced."""
STEADY = FAST.model_copy(update={"election_timeout": Range(2.0, 2.5)})
"""For tests in which the leader must stay, even if a busy machine stalls it for a second."""
PATIENCE_S = 20.0
"""Seconds until a test fails because a condition did not hold; far more than a condition should need."""
PATIENT = TransportSettings(connect_timeout=PATIENCE_S, probe_timeout=PATIENCE_S)
"""The transport settings of the tests' own clients and probes."""
RETRY_BUDGET_S = 3 * PATIENCE_S
"""The default retry budget of clients in tests: operations succeed even on a busy machine."""

COMMAND = "default"
"""The command of a node process; tests.mutants.plugin replaces it by that of a planted bug."""

LEADER = inspection_pb2.Role.LEADER


async def eventually(condition: Callable[[], Awaitable[Any]], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """Wait until the condition returns a true value, and return it. A failure names `what`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.02)


WHOLE = NodeFaults()
"""No faults inside a node."""


class LocalCluster:
    """Node processes n1 ... nN, as an async context manager; its exit checks the traces of all incarnations.

    `storage` is a mapping of StorageSettings without the directory. `under` returns the words before a node's command.
    """

    def __init__(
        self,
        directory: Path,
        nodes: int,
        raft: RaftSettings = FAST,
        storage: Any = None,
        *,
        under: Callable[[str], Sequence[str]] = lambda node_id: (),
        **settings: Any,
    ) -> None:
        self._under = under
        self.node_ids = node_names(nodes)
        self.book = AddressBook()
        self.live: set[str] = set()
        self._rules: list[LinkRule] = []
        self._clients: list[KVClient] = []
        self._probes: dict[str, tuple[str, NodeProbe]] = {}
        config = NodeConfig(
            cluster_id=f"test-{uuid.uuid4().hex[:8]}",
            node_id="n1",
            members=list(self.node_ids),
            raft=raft,
            storage=StorageSettings(**{"dir": str(directory), **(storage or {})}),
            chaos_enabled=True,
            **settings,
        )
        self.config = config
        self.supervisors = {node_id: NodeSupervisor(self._spec(node_id)) for node_id in self.node_ids}

    def _spec(self, node_id: str) -> NodeSpec:
        config = self.config.model_copy(update={"node_id": node_id}).model_dump(mode="json")
        command = (*self._under(node_id), *command_words(COMMAND))
        places = str(Path.cwd()), "127.0.0.1", "127.0.0.1"
        code = origin("raft_actor_node")
        return NodeSpec(node_id, self.config.cluster_id, "cell", config, command, *places, 30.0, code)

    async def __aenter__(self) -> LocalCluster:
        try:
            await self.restart(*self.node_ids, bootstrap=True)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                check_traces(await self.traces())
        finally:
            await self._end()

    async def _end(self) -> None:
        for client in self._clients:
            await client.close()
        for _, probe in self._probes.values():
            await probe.close()
        await asyncio.gather(*(supervisor.remove_files() for supervisor in self.supervisors.values()))

    # ------------------------------------------------------------------------------ processes

    async def restart(self, *node_ids: str, bootstrap: bool = False, node_faults: NodeFaults = WHOLE) -> None:
        """Start these nodes at once, with the link faults in force and these faults inside them."""
        rules, inside = [rule.model_dump() for rule in self._rules], node_faults.model_dump()
        starts = (self.supervisors[i].start(rules, inside, bootstrap=bootstrap) for i in node_ids)
        started = await asyncio.gather(*starts)
        for node_id, start in zip(node_ids, started, strict=True):
            self.book.set(node_id, start.address)
            self.live.add(node_id)
        for supervisor in self.supervisors.values():
            await supervisor.send_addresses(self.book.to_json())
        for client in self._clients:
            client.update_addresses(self.book.addresses())

    async def kill(self, *node_ids: str) -> None:
        self.live.difference_update(node_ids)
        await asyncio.gather(*(self.supervisors[i].kill() for i in node_ids))

    async def terminate(self, node_id: str) -> int:
        """Send SIGTERM and return the exit code.

        A supervisor would kill the node before a busy disk has written everything.
        """
        os.kill((await self.status(node_id)).pid, signal.SIGTERM)
        self.live.discard(node_id)
        end = await self.supervisors[node_id].wait(PATIENCE_S)
        assert end is not None, f"{node_id} goes on after SIGTERM"
        return end.exit_code

    async def pause(self, node_id: str) -> None:
        await self.supervisors[node_id].pause()

    async def resume(self, node_id: str) -> None:
        await self.supervisors[node_id].resume()

    # ------------------------------------------------------------------------------ links

    async def set_links(self, rules: Sequence[LinkRule]) -> None:
        """Put this table in force on every live node."""
        self._rules = list(rules)
        for node_id in sorted(self.live):
            assert await self.probe(node_id).set_links(rules) is not None

    async def partition(self, *groups: Sequence[str]) -> None:
        """Cut all links between the groups, in both directions."""
        await self.set_links(cut(separated(tuple(tuple(group) for group in groups), self.node_ids)))

    async def heal(self) -> None:
        await self.set_links([])

    # ------------------------------------------------------------------------------ observing

    def probe(self, node_id: str) -> NodeProbe:
        address = self.book[node_id].address
        known = self._probes.get(node_id)
        if known is None or known[0] != address:
            known = self._probes[node_id] = (address, NodeProbe(address, transport=PATIENT))
        return known[1]

    async def status(self, node_id: str, **options: Any) -> inspection_pb2.StatusReply:
        reply = await self.probe(node_id).status(**options)
        assert reply is not None
        return reply

    async def statuses(self, node_ids: Sequence[str] = ()) -> dict[str, inspection_pb2.StatusReply]:
        chosen = node_ids or sorted(self.live)
        return dict(zip(chosen, await asyncio.gather(*map(self.status, chosen)), strict=True))

    async def leader(self, among: Sequence[str] = ()) -> str:
        """Wait until one of these nodes leads, and a quorum of the cluster, all among these nodes, follows it."""
        return (await self.leading(among)).node_id

    async def leading(self, among: Sequence[str] = ()) -> inspection_pb2.StatusReply:
        """As `leader`, but return its status at that moment."""

        async def find() -> inspection_pb2.StatusReply | None:
            statuses = (await self.statuses(among)).values()
            for status in statuses:
                followers = [
                    s for s in statuses if s.leader_id == status.node_id and s.current_term == status.current_term
                ]
                if status.role == LEADER and len(followers) > len(self.node_ids) // 2:
                    return status
            return None

        status: inspection_pb2.StatusReply = await eventually(find, f"a leader among {among or self.live}")
        return status

    async def converged(self) -> inspection_pb2.StatusReply:
        """Wait until all live nodes have applied their whole log and have the same state; return the status of one."""

        async def same() -> inspection_pb2.StatusReply | None:
            statuses = list((await self.statuses()).values())
            first = statuses[0]
            equal = all(
                (s.last_applied, s.last_log_index, s.applied_hash)
                == (first.last_log_index, first.last_log_index, first.applied_hash)
                for s in statuses
            )
            return first if equal else None

        status: inspection_pb2.StatusReply = await eventually(same, "all nodes at the same state")
        return status

    async def client(self, only: Sequence[str] = (), call: CallForm = "stream", **settings: Any) -> KVClient:
        """A client; with `only` it knows just these nodes. It retries for RETRY_BUDGET_S, unless `settings` differ."""
        settings = {"retry_budget": RETRY_BUDGET_S, **settings}
        addresses = {i: a for i, a in self.book.addresses().items() if not only or i in only}
        engine = partial(ClientEngine, call=call)
        client = KVClient(addresses, settings=ClientSettings(**settings), transport=PATIENT, engine=engine)
        await client.__aenter__()
        if not only:
            self._clients.append(client)
        return client

    async def traces(self) -> dict[str, list[TraceRecord]]:
        """The trace records of each node, over all its incarnations."""
        files = await asyncio.gather(*(self.supervisors[i].collect() for i in self.node_ids))
        return {i: [*parse_trace(f.trace, i)] for i, f in zip(self.node_ids, files, strict=True)}

    def address(self, node_id: str) -> str:
        return self.book[node_id].address

    def others(self, *node_ids: str) -> tuple[str, ...]:
        return tuple(i for i in self.node_ids if i not in node_ids)


def check_traces(traces: dict[str, list[TraceRecord]]) -> None:
    """Check the rules of Raft over all incarnations of all nodes."""
    finding = judge_traces((event for events in traces.values() for event in events), list(traces))
    assert finding.verdict == "ok", f"{finding.reason}\n{finding.detail}"
