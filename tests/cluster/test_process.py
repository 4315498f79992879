"""The node as a process: its gRPC interface, its exit codes, its ties to its owner, the peers' messages it accepts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from raft_actor_node.pb import chaos_pb2, chaos_pb2_grpc, inspection_pb2, raft_pb2, raft_pb2_grpc
from tests.cluster.local import LEADER, PATIENCE_S, LocalCluster, eventually


def config(directory: Path, **changes: Any) -> str:
    """Write a node's configuration file; return its path."""
    data = {"cluster_id": "c", "node_id": "n1", "members": ["n1"], "bootstrap": True} | changes
    data.setdefault("storage", {"dir": str(directory / "wal")})
    path = directory / "node.json"
    path.write_text(json.dumps(data))
    return str(path)


def node(path: str, *options: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "raft_actor_node", "--config", path, *options]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def ends(path: str) -> tuple[int, str]:
    """Exit code and standard error of a node that cannot start."""
    with node(path) as process:
        _, error = process.communicate(timeout=30)
        return process.returncode, error


BAD_CONFIGURATIONS = [
    ({"raft": {"heartbeat_interval": "1s"}}, "raft.election_timeout"),
    ({"raft": {"heartbeat_interval": 50}}, "raft.heartbeat_interval"),
    ({"raft": {"election_timeout": "300ms-150ms"}}, "raft.election_timeout"),
    ({"raft": {"max_batch_bytes": "8MiB"}}, "raft.max_batch_bytes"),
    ({"limits": {"value_bytes": "5MiB"}}, "limits.value_bytes"),
    ({"node_id": "n9"}, "node_id"),
    ({"node_id": "../n1", "members": ["../n1"]}, "node_id"),
    ({"members": ["n1", "n1"]}, "members"),
    ({"election_timeout": "1s"}, "election_timeout"),
    ({"links": [{"from_id": "n1", "to_id": "n2", "drop": 1.5}]}, "links.0.drop"),
    ({"node_faults": {"disk": {"error": "EPERM"}}, "chaos_enabled": True}, "node_faults.disk.error"),
    ({"node_faults": {"disk": {"stall": True}}}, "node_faults: need chaos_enabled"),
    ({"raft": {"yield_after": "0s"}}, "raft.yield_after"),
    ({"raft": {"yield_after": "149ms"}}, "raft.yield_after: off, or at least the shortest election_timeout"),
    ({"limits": {"unsynced_bytes": "8MiB"}}, "limits.unsynced_bytes: at least raft.max_inflight_bytes"),
]


@pytest.mark.parametrize(("changes", "field"), BAD_CONFIGURATIONS)
def test_a_bad_configuration_is_one_line_and_exit_2(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    code, error = ends(config(tmp_path, **changes))
    assert code == 2
    assert len(error.strip().splitlines()) == 1, error
    assert field in error


def test_a_missing_or_foreign_file_is_exit_2(tmp_path: Path) -> None:
    assert ends(str(tmp_path / "none.json"))[0] == 2
    (tmp_path / "off.yaml").write_text("{cluster_id: c, node_id: n1, members: [n1], storage: {fsync: off, dir: 3}}")
    assert "storage.dir" in ends(str(tmp_path / "off.yaml"))[1], "a plain off is no boolean"
    (tmp_path / "list.yaml").write_text("[1, 2]")
    assert ends(str(tmp_path / "list.yaml"))[0] == 2


def test_an_interface_that_does_not_exist_is_exit_3(tmp_path: Path) -> None:
    code, error = ends(config(tmp_path, bind_host="192.0.2.1"))
    assert code == 3
    assert "bind_host" in error


def test_a_locked_directory_is_exit_4_and_a_foreign_one_exit_5(tmp_path: Path) -> None:
    path = config(tmp_path)
    with node(path) as first:
        assert first.stdout is not None
        assert json.loads(first.stdout.readline())["node_id"] == "n1"
        assert ends(path)[0] == 4
        first.terminate()
        first.communicate(timeout=10)
        assert first.returncode == 0
    assert ends(config(tmp_path, cluster_id="other"))[0] == 5


def test_a_member_whose_directory_vanished_does_not_come_back_empty(tmp_path: Path) -> None:
    code, error = ends(config(tmp_path, bootstrap=False))
    assert code == 5
    assert "wal" in error


def test_a_node_that_is_refused_leaves_no_trace_file(tmp_path: Path) -> None:
    """The node claims that nothing was changed; a trace file would show an incarnation that never existed."""
    trace = tmp_path / "trace.jsonl"
    assert ends(config(tmp_path, bootstrap=False, trace_file=str(trace)))[0] == 5
    assert not trace.exists()


def test_the_trace_may_stand_in_the_directory_of_the_node(tmp_path: Path) -> None:
    """A new node creates that directory itself."""
    trace = tmp_path / "wal" / "n1" / "trace.jsonl"
    with node(config(tmp_path, trace_file=str(trace))) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "it serves"
        process.terminate()
        process.communicate(timeout=10)
    assert json.loads(trace.read_text().splitlines()[0])["kind"] == "started"


def test_a_trace_file_that_cannot_be_opened_is_exit_2(tmp_path: Path) -> None:
    code, error = ends(config(tmp_path, trace_file=str(tmp_path / "none" / "trace.jsonl")))
    assert code == 2
    assert "trace_file" in error


def test_the_node_ends_with_its_owner(tmp_path: Path) -> None:
    with node(config(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_nodes_without_an_owner_find_each_other(tmp_path: Path) -> None:
    """These are the steps of docs/how-to/run-nodes-by-hand.md."""
    members, processes = ["n1", "n2", "n3"], []
    try:
        for member in members:
            directory = tmp_path / member
            directory.mkdir()
            path = config(directory, node_id=member, members=members, storage={"dir": str(tmp_path / "wal")})
            processes.append(node(path, "--address-book", str(tmp_path / "book")))
        addresses = {}
        for process in processes:
            assert process.stdout is not None
            report = json.loads(process.stdout.readline())
            addresses[report["node_id"]] = report["address"]

        async def write_and_read() -> bytes | None:
            from raft_actor_node.client import KVClient  # noqa: PLC0415

            async with KVClient(addresses) as kv:
                await kv.put(b"k", b"v")
                return await kv.get(b"k")

        assert asyncio.run(write_and_read()) == b"v"
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait(timeout=10) for process in processes]
        for process in processes:
            process.communicate()
    assert codes == [0, 0, 0]


def test_a_node_that_cannot_start_under_a_stalled_disk_ends_with_its_error(tmp_path: Path) -> None:
    """It closes its log before it ends; the stall must not hold that."""
    stall = {"disk": {"stall": True}}
    code, error = ends(
        config(tmp_path, chaos_enabled=True, node_faults=stall, trace_file=str(tmp_path / "none" / "trace"))
    )
    assert code == 2
    assert "trace_file" in error


@pytest.mark.parametrize("field", ["trace_file", "log_file"])
def test_a_file_that_cannot_be_opened_is_one_line_and_exit_2(tmp_path: Path, field: str) -> None:
    code, error = ends(config(tmp_path, **{field: str(tmp_path / "missing" / "file")}))
    assert code == 2
    assert error.startswith(f"raft_actor_node: {field}")
    assert len(error.strip().splitlines()) == 1


def test_a_trace_that_cannot_be_written_stops_the_node(tmp_path: Path) -> None:
    """The node must not act without a record: it ends, instead of leading without a trace."""
    with node(config(tmp_path, trace_file="/dev/full")) as process:
        assert process.wait(timeout=20) == 6
        process.communicate()


def test_a_failed_last_write_is_not_exit_0(tmp_path: Path) -> None:
    """After SIGTERM, the disk fails while the log is closed: exit 6."""
    script = (
        "import sys, runpy; from raft_actor_node.runtime.wal import Wal; from raft_actor_node.errors import DiskError\n"
        "def close(self): raise DiskError('the disk failed')\n"
        "Wal.close = close; sys.argv[0] = 'node'; runpy.run_module('raft_actor_node', run_name='__main__')"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script, "--config", config(tmp_path)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(timeout=20) == 6
        process.communicate()


def test_a_node_with_the_log_of_other_members_is_exit_5_and_names_both_lists(tmp_path: Path) -> None:
    with node(config(tmp_path)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        process.communicate(timeout=10)
    code, error = ends(config(tmp_path, members=["n1", "n2", "n3"]))
    assert code == 5
    assert "members: ['n1'] in the log, ['n1', 'n2', 'n3'] in the configuration" in error
    assert len(error.strip().splitlines()) == 1, error


async def test_health_and_reflection(three: LocalCluster) -> None:
    address = three.address("n1")
    async with grpc.aio.insecure_channel(address) as channel:
        reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING

    def listed() -> set[str]:
        with grpc.insecure_channel(address) as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    expected = {f"raft_lab.v1.{name}" for name in ("Raft", "KV", "Inspection", "Chaos")} | {"grpc.health.v1.Health"}
    assert expected <= await asyncio.to_thread(listed)


async def test_chaos_answers_only_where_it_was_enabled(tmp_path: Path) -> None:
    with node(config(tmp_path)) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await chaos_pb2_grpc.ChaosStub(channel).SetLinks(chaos_pb2.SetLinksRequest(), timeout=PATIENCE_S)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        process.terminate()
        process.communicate(timeout=10)


def append_entries(term: int) -> raft_pb2.PeerRequest:
    return raft_pb2.PeerRequest(append_entries=raft_pb2.AppendEntriesRequest(term=term))


@pytest.mark.parametrize(
    "batch",
    [
        {"cluster_id": "another"},
        {"to_id": "n2"},
        {"from_id": "stranger"},
        {"from_id": "n1"},
        {"members": ["n1", "n2"]},
        {"members": []},
    ],
    ids=["wrong cluster", "wrong addressee", "unknown sender", "itself", "other members", "no members"],
)
async def test_a_message_without_valid_ids_changes_nothing(three: LocalCluster, batch: dict[str, Any]) -> None:
    """Even its term does not count."""
    before = await three.status("n1")
    valid = {"cluster_id": three.config.cluster_id, "from_id": "n2", "to_id": "n1", "members": three.node_ids}
    request = raft_pb2.PeerRequests(**{**valid, **batch}, requests=[append_entries(1000)])
    async with grpc.aio.insecure_channel(three.address("n1")) as channel:
        call = raft_pb2_grpc.RaftStub(channel).Exchange()
        await call.write(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    after = await three.status("n1")
    assert after.current_term < 1000
    assert after.counters.messages_refused == before.counters.messages_refused + 1


@pytest.mark.parametrize(
    "bad",
    [
        {"entry_terms": [1]},
        {"entry_terms": [3, 1], "entry_payloads": [b"", b""]},
        {"entry_terms": [0], "entry_payloads": [b""]},
        {"prev_log_term": 5},
        {"entry_terms": [1], "entry_payloads": [b"no command"]},
    ],
    ids=["a term without payload", "decreasing terms", "term 0", "a term before the log", "no command"],
)
async def test_a_malformed_batch_changes_nothing(three: LocalCluster, bad: dict[str, Any]) -> None:
    async with grpc.aio.insecure_channel(three.address("n1")) as channel:
        call = raft_pb2_grpc.RaftStub(channel).Exchange()
        malformed = raft_pb2.PeerRequest(append_entries=raft_pb2.AppendEntriesRequest(term=1000, **bad))
        await call.write(
            raft_pb2.PeerRequests(
                cluster_id=three.config.cluster_id,
                from_id="n2",
                to_id="n1",
                requests=[append_entries(1000), malformed],
                members=three.node_ids,
            )
        )

        async def refused() -> bool:
            return (await three.status("n1")).counters.messages_refused >= 2

        await eventually(refused, "the batch is refused")
        call.cancel()
    assert (await three.status("n1")).current_term < 1000


async def test_a_second_leader_in_the_term_stops_the_node(three: LocalCluster) -> None:
    """Exit 7: a broken invariant is a bug, and going on could make the damage worse."""
    leader = await three.leader()
    follower, other = three.others(leader)
    term = (await three.status(follower)).current_term
    async with grpc.aio.insecure_channel(three.address(follower)) as channel:
        call = raft_pb2_grpc.RaftStub(channel).Exchange()
        await call.write(
            raft_pb2.PeerRequests(
                cluster_id=three.config.cluster_id,
                from_id=other,
                to_id=follower,
                requests=[append_entries(term)],
                members=three.node_ids,
            )
        )
        end = await asyncio.wait_for(three.supervisors[follower].wait(), PATIENCE_S)
    three.live.discard(follower)
    assert end.exit_code == 7
    assert "election safety" in end.log_tail


async def test_inspection_shows_the_state(three: LocalCluster) -> None:
    kv = await three.client()
    await asyncio.gather(*(kv.put(b"k%d" % i, b"v") for i in range(10)))
    await three.converged()

    async def on_every_disk() -> inspection_pb2.StatusReply | None:
        """The leader's status, once all followers match. A follower may apply an entry before its own disk has it."""
        status = await three.status(await three.leader(), with_state_hash=True)
        matched = all(peer.match_index == status.last_log_index < peer.next_index for peer in status.peers)
        durable = status.durable_index == status.commit_index == status.last_applied == status.last_log_index
        return status if status.role == LEADER and matched and durable else None

    status = await eventually(on_every_disk, "all of the log on every disk")
    leader = status.node_id
    follower = await three.status(three.others(leader)[0], with_state_hash=True)
    assert status.voted_for == leader
    assert {peer.node_id for peer in status.peers} == set(three.others(leader))
    assert status.key_count == 10
    assert status.session_count >= 1
    assert status.state_hash == follower.state_hash != b""
    assert status.counters.elections_won >= 1
    assert status.counters.fsyncs > 0
    assert status.fsync_p50_us > 0
    assert status.pid != os.getpid()
    samples = await three.probe(leader).samples(0)
    assert samples is not None
    assert len(samples.fsync_us) > 0
    assert len(samples.round_trip_us) > 0
    kinds = {event.kind for event in (await three.traces())[leader]}
    assert {"started", "became_leader", "commit"} <= kinds


SLOW_RECOVERY = """
import sys, time
from raft_actor_node.runtime import driver, process

start, announce = driver.Driver.start, process.AddressDirectory.announce

def slow_start(self):
    start(self)
    time.sleep(1.0)

def slow_announce(self, *args):
    time.sleep(1.0)
    announce(self, *args)
    print(time.monotonic_ns(), flush=True)

driver.Driver.start, process.AddressDirectory.announce = slow_start, slow_announce
from raft_actor_node.__main__ import main
sys.argv[0] = "raft_actor_node"
main()
"""


def test_no_election_falls_due_while_a_node_recovers_and_has_no_address(tmp_path: Path) -> None:
    """The election timer starts when the node announces its address, however long its recovery takes."""
    trace = tmp_path / "trace.jsonl"
    raft = {"pre_vote": False, "election_timeout": "150ms-300ms"}
    path = config(tmp_path, members=["n1", "n2", "n3"], raft=raft, trace_file=str(trace))
    command = [sys.executable, "-c", SLOW_RECOVERY, "--config", path, "--address-book", str(tmp_path / "book")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the report
        announced_ns = int(process.stdout.readline())
        try:
            stood: list[int] = []
            while not stood:
                assert process.poll() is None
                events = [json.loads(line) for line in trace.read_text().splitlines(keepends=True) if line[-1] == "\n"]
                stood = [event["time_ns"] for event in events if event["kind"] == "became_candidate"]
        finally:
            process.terminate()
    assert stood[0] >= announced_ns + 0.15e9 - 1e6
