"""A node's promises are on its disk before they leave, as the operating system saw it.

All other tests trust `runtime/disk.py`: they would pass with an fdatasync that does nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from raft_actor_node.addresses import split_address
from raft_actor_node.pb import kv_pb2, raft_pb2
from raft_actor_node.runtime.hard_state import StoredHardState
from raft_actor_node.runtime.wal import HARD_STATE_NAMES, LOG_NAME, MARK_NAME
from tests.cluster.local import STEADY, LocalCluster, eventually
from tests.cluster.system_calls import Call, Disk, Sent, calls, lives, messages, strace, untraceable

NODES = 3
MARK = b"write-%04d;"
"""What each write appends. All marks have one length, so the value's length tells which append is answered."""
BEFORE, AFTER = 10, 5
PATIENCE_S = 60.0
"""Under strace everything takes several times as long."""


class Life(NamedTuple):
    """The system calls of a node, over all its incarnations."""

    calls: list[Call]
    folder: str
    ports: set[str]
    """The ports at which the node served."""

    def disk(self) -> Disk:
        """The node's disk before the first call."""
        return Disk(self.calls, self.folder)

    def said(self) -> Iterator[tuple[Sent, Any]]:
        """The messages to its peers: replies on connections that it accepted, requests on others."""
        for sent in messages(self.calls):
            kind = raft_pb2.PeerReplies if self._serves(sent) else raft_pb2.PeerRequests
            if (peer := _parsed(kind, sent.message)) is not None and peer.from_id == Path(self.folder).name:
                yield sent, peer

    def answered(self) -> Iterator[tuple[Sent, int]]:
        """The appends that it answered, as the length of the value after each, in marks."""
        for sent in messages(self.calls):
            batch = _parsed(kv_pb2.ResultBatch, sent.message) if self._serves(sent) else None
            for result in batch.results if batch is not None else ():
                if not result.error and result.number and result.number % len(MARK % 0) == 0:
                    yield sent, result.number // len(MARK % 0)

    def _serves(self, sent: Sent) -> bool:
        """Whether the node accepted the connection, from the socket's name TCP:[own->other]."""
        return sent.socket.split("->")[0].rsplit(":", 1)[1].rstrip("]") in self.ports


def _parsed(kind: Any, message: bytes) -> Any:
    """The message, if its bytes can be of this kind; otherwise None."""
    try:
        parsed = kind.FromString(message)
    except DecodeError:
        return None
    return parsed if parsed.ListFields() and not len(UnknownFieldSet(parsed)) else None


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Life]:
    """The system calls of `traced_nodes`; the tests are skipped where strace does not work."""
    if reason := untraceable():
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    return asyncio.run(traced_nodes(tmp_path_factory.mktemp("strace")))


async def traced_nodes(folder: Path) -> dict[str, Life]:
    """Three nodes that took writes, lost their leader, took more writes, and got it back."""
    settings = {"under": lambda node_id: strace(folder / node_id)}
    async with LocalCluster(folder / "disks", NODES, STEADY, **settings) as cluster:
        kv = await cluster.client(rpc_timeout=5.0, retry_budget=PATIENCE_S)
        written = 0
        ports = {node_id: {str(split_address(cluster.address(node_id))[1])} for node_id in cluster.node_ids}

        async def write(count: int) -> None:
            nonlocal written
            for _ in range(count):
                written += 1
                assert await kv.append(b"k", MARK % written) == written * len(MARK % 0)

        await write(BEFORE)
        leader = kv.leader
        assert leader is not None
        await cluster.kill(leader)
        await write(AFTER)
        await cluster.restart(leader)
        ports[leader].add(str(split_address(cluster.address(leader))[1]))
        await write(AFTER)
        await cluster.converged()
        assert await cluster.terminate(leader) == 0
        await cluster.kill(*cluster.live)

        async def files() -> dict[str, list[Path]] | None:
            found = {node_id: lives(folder / node_id) for node_id in cluster.node_ids}
            return found if all(found.values()) else None

        traced = await eventually(files, "the ends of all traces")
        roots = {node_id: next((folder / "disks").glob(f"*/*/{node_id}")) for node_id in cluster.node_ids}
    return {node_id: Life(calls(traced[node_id]), str(roots[node_id]), ports[node_id]) for node_id in cluster.node_ids}


def test_an_answer_leaves_when_its_entry_is_on_the_disks_of_a_majority(nodes: dict[str, Life]) -> None:
    durable_s = {node_id: _durable_s(life) for node_id, life in nodes.items()}
    answered = set()
    for node_id, life in nodes.items():
        for sent, number in life.answered():
            answered.add(number)
            times = [times[number] for times in durable_s.values() if number in times]
            holders = sum(time_s <= sent.begin_s for time_s in times)
            assert holders > NODES // 2, f"{node_id} answers write {number} when {holders} disks have it"
    assert answered == set(range(1, BEFORE + 2 * AFTER + 1))


def _durable_s(life: Life) -> dict[int, float]:
    """For each write, the time at which it was first on the node's disk."""
    disk, found = life.disk(), dict[int, float]()
    for call in life.calls:
        if call.name in ("fsync", "fdatasync") and call.path.endswith(f"/{LOG_NAME}"):
            disk.until(call.end + 1)
            log = b"".join(disk.durable(LOG_NAME))
            for number in range(len(found) + 1, BEFORE + 2 * AFTER + 1):
                if MARK % number not in log:
                    break
                found[number] = call.end_s
    return found


def test_a_follower_says_that_it_has_entries_when_they_are_on_its_disk(nodes: dict[str, Life]) -> None:
    promised = dict.fromkeys(nodes, 0)
    for node_id, life in nodes.items():
        disk = life.disk()
        for sent, said in life.said():
            for reply in getattr(said, "replies", ()):
                if reply.append_entries.success:
                    disk.until(sent.begin)
                    match_index = reply.append_entries.match_index
                    assert match_index <= disk.last_index(), f"{node_id} promises {match_index}"
                    promised[node_id] = max(promised[node_id], match_index)
    assert min(promised.values()) > AFTER, promised


def test_terms_and_votes_are_on_disk_before_they_are_told(nodes: dict[str, Life]) -> None:
    candidacies, votes = 0, 0
    for node_id, life in nodes.items():
        disk = life.disk()
        for sent, said in life.said():
            disk.until(sent.begin)
            state = disk.hard_state()
            for told in chain(getattr(said, "requests", ()), getattr(said, "replies", ())):
                body = getattr(told, told.WhichOneof("body"))
                if getattr(body, "pre_vote", False):
                    continue
                assert body.term <= state.term, f"{node_id} tells of term {body.term}, and {state} is on its disk"
                if isinstance(body, raft_pb2.RequestVoteRequest):
                    candidacies += 1
                    assert (state.term, state.voted_for) == (body.term, node_id)
                elif isinstance(body, raft_pb2.RequestVoteReply) and body.vote_granted:
                    votes += 1
                    assert (state.term, state.voted_for) == (body.request_term, said.to_id)
    assert candidacies >= 2, "one at the beginning, and one when the leader was gone"
    assert votes >= 2


def test_new_files_are_on_disk_with_their_names_before_the_node_says_that_it_is_there(
    nodes: dict[str, Life],
) -> None:
    for node_id, life in nodes.items():
        disk = life.disk()
        reports = [call for call in life.calls if call.name == "write" and b'"node_id": "' in call.data]
        assert len(reports) == len(life.ports)
        disk.until(reports[0].begin)
        assert {*HARD_STATE_NAMES, LOG_NAME, MARK_NAME} <= set(disk.renamed)
        assert disk.hard_state() == StoredHardState(0, 0, None)
        assert disk.durable(LOG_NAME)
        for report in reports:
            disk.until(report.begin)
            assert disk.unnamed == [], f"{node_id} reports, and these directories are not on its disk"
        assert disk.faults == []
