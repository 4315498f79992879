"""The supervisor and the object host, without Ray. The programs are a few lines of standard library."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration.errors import InfrastructureError, NodeFailed, OtherCode, describe_exit
from orchestration.ray_cluster import actor
from orchestration.ray_cluster.actor import NodeSpec, NodeSupervisor, ObjectHost
from raft_actor_node.config import NodeConfig
from raft_actor_node.origin import Origin, origin
from tests.orchestration.waiting import gone

PROGRAM = """
import json, os, sys
config = json.load(open(sys.argv[-1]))
print(json.dumps({"config": config, "ray": [name for name in os.environ if name.startswith("RAY_")]}), flush=True)
os.makedirs(os.path.join(config["storage"]["dir"], config["node_id"]), exist_ok=True)
with open(config["trace_file"], "a") as trace:
    trace.write('{"number": 1}\\n{"numb')
import raft_actor_node
with os.fdopen(int(os.environ["RAFT_REPORT_FD"]), "w") as owner:
    owner.write(json.dumps({"address": "127.0.0.1:4000"}) + "\\n")
for line in sys.stdin:
    print(line, end="", flush=True)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(actor, "temporary_folder", lambda: tmp_path / "scratch")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    return tmp_path


def supervisor(folder: Path, *, storage: str = "auto", program: str = PROGRAM) -> NodeSupervisor:
    config: dict[str, Any] = {"node_id": "n1", "storage": {"dir": storage, "fsync": "always"}}
    command = (sys.executable, "-c", program)
    return NodeSupervisor(
        NodeSpec("n1", "run", "cell", config, command, str(folder), "127.0.0.1", "host.example", 10.0, Origin("", ""))
    )


def default_node(folder: Path, code: Origin) -> NodeSupervisor:
    """Return the spec of the project's own node, started by a driver with this code."""
    config = NodeConfig(cluster_id="c", node_id="n1", members=["n1"], storage={"dir": "auto"}).model_dump(mode="json")  # type: ignore[arg-type]
    return NodeSupervisor(
        NodeSpec("n1", "run", "cell", config, "default", str(folder), "127.0.0.1", "127.0.0.1", 30.0, code)
    )


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def test_lives_of_a_node(temporary: Path) -> None:
    node = supervisor(temporary)
    first = await node.start([], bootstrap=True)
    waiting = asyncio.create_task(node.wait())
    assert first.address == "127.0.0.1:4000"
    assert await node.kill() >= first.ready_ns
    assert (await waiting).exit_code == -signal.SIGKILL
    rule = {"from_id": "n1", "to_id": "n2", "cut": True}
    second = await node.start([rule], bootstrap=False, seed=7)
    assert second.pid != first.pid

    files = await node.collect()
    assert files.trace == ['{"number": 1}', '{"number": 1}']  # without the torn last line of each incarnation
    told = [json.loads(line) for line in files.log.splitlines()]
    cell = temporary / "scratch" / "run" / "cell"
    assert files.storage == str(cell)
    assert [life["config"] for life in told] == [
        {
            "node_id": "n1",
            "storage": {"dir": str(cell), "fsync": "always"},
            "bind_host": "127.0.0.1",
            "advertise_host": "host.example",
            "bootstrap": bootstrap,
            "seed": seed,
            "links": links,
            "node_faults": {},
            "trace_file": str(cell / "n1.trace.jsonl"),
        }
        for bootstrap, seed, links in ((True, None, []), (False, 7, [rule]))
    ]
    assert told[0]["ray"] == []  # a node must not get Ray's token

    await node.close()
    assert gone(second.pid)
    assert "scratch/run/cell/n1" in tree(temporary)
    await node.remove_files()
    assert tree(temporary) == ["scratch"]


async def test_storage_where_the_user_wants_it(temporary: Path) -> None:
    node = supervisor(temporary, storage=str(temporary / "disk"))
    await node.start([], bootstrap=True)
    assert "disk/run/cell/n1" in tree(temporary)
    await node.remove_files()
    assert tree(temporary) == ["disk", "scratch"]


async def test_a_node_runs_the_code_of_its_driver(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds whatever files are in its working folder, or on the path of its host."""
    for name in ("there/raft_actor_node/__init__", "here/raft_actor_node/__init__", "here/grpc", "here/asyncio"):
        file = temporary / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise SystemExit('other code')\n")
    monkeypatch.setenv("PYTHONPATH", str(temporary / "there"))
    node = default_node(temporary / "here", origin("raft_actor_node"))
    started = await node.start([], bootstrap=True)
    assert os.readlink(f"/proc/{started.pid}/cwd") == str(temporary / "here")  # noqa: PTH115 - an async function
    await node.close()


async def test_a_node_that_has_other_code_than_its_driver_is_refused(temporary: Path) -> None:
    node = default_node(temporary, Origin("0123456789ab", "/of/the/driver"))
    with pytest.raises(OtherCode) as refused:
        await node.start([], bootstrap=True)
    here = origin("raft_actor_node")
    assert str(refused.value).startswith(
        f"node n1 has other code than the driver: raft_actor_node {here.digest} in {here.place}, "
        "not 0123456789ab in /of/the/driver; "
    )
    assert "\n" not in str(refused.value)
    assert node._process is not None
    assert gone(node._process.pid)
    await node.close()


async def test_a_host_whose_disk_is_full_is_told_with_the_file(temporary: Path) -> None:
    node = supervisor(temporary)
    node._config_file.parent.mkdir(parents=True)
    node._config_file.symlink_to("/dev/full")
    with pytest.raises(InfrastructureError) as failed:
        await node.start([], bootstrap=True)
    assert str(failed.value) == (
        f"node n1 on {socket.gethostname()} cannot be started: {node._scratch}: No space left on device; make room"
    )
    await node.close()


async def test_start_replaces_what_runs(temporary: Path) -> None:
    node = supervisor(temporary)
    first = await node.start([], bootstrap=True)
    second = await node.start([], bootstrap=False)
    assert gone(first.pid)
    assert not gone(second.pid)
    await node.close()


async def test_start_that_comes_after_the_end_leaves_nothing(temporary: Path) -> None:
    node = supervisor(temporary)
    await node.close()
    with pytest.raises(NodeFailed, match="killed by SIGKILL"):
        await node.start([], bootstrap=True)


async def test_folder_that_cannot_be_made(temporary: Path) -> None:
    (temporary / "file").write_text("")
    node = supervisor(temporary, storage=str(temporary / "file"))
    with pytest.raises(NodeFailed, match=r"node n1: cannot be started: .*Not a directory"):
        await node.start([], bootstrap=True)
    with pytest.raises(NodeFailed, match="never started"):
        await node.kill()


def test_command_words() -> None:
    assert actor.command_words("default") == [sys.executable, "-P", "-m", "raft_actor_node"]
    assert actor.command_words("etcd-node --name 'a b'") == ["etcd-node", "--name", "a b"]
    assert actor.command_words(["python", "a b.py"]) == ["python", "a b.py"]


def test_temporary_folder_avoids_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    private = f"raft-lab-{os.getuid()}"
    monkeypatch.setattr(actor, "memory_file_system", lambda path: None)
    assert actor.temporary_folder() == tmp_path / private
    monkeypatch.setattr(actor, "memory_file_system", lambda path: "tmpfs" if path == tmp_path else None)
    assert actor.temporary_folder() == Path("/var/tmp") / private
    monkeypatch.setattr(actor, "memory_file_system", lambda path: "tmpfs")
    assert actor.temporary_folder() == tmp_path / private  # the node refuses it, and says why


class Counter:
    """Something to host."""

    def __init__(self, start: int, *, step: int = 1) -> None:
        self.loop = asyncio.get_running_loop()
        self.value = start
        self.step = step
        self.closed = False

    def add(self) -> int:
        self.value += self.step
        return self.value

    async def fail(self, message: str) -> None:
        raise ValueError(message)

    async def close(self) -> None:
        self.closed = True


async def test_object_host() -> None:
    made: list[Counter] = []

    def factory(*args: Any, **kwargs: Any) -> Counter:
        made.append(Counter(*args, **kwargs))
        return made[-1]

    host = ObjectHost()
    await host.create(factory, (5,), {"step": 2})
    assert [await host.call("add", (), {}) for _ in range(2)] == [7, 9]
    with pytest.raises(ValueError, match="no way"):
        await host.call("fail", ("no way",), {})
    await host.create(factory, (0,), {})
    assert [counter.closed for counter in made] == [True, False]
    await host.close()
    await host.close()
    assert made[1].closed
    assert (await host.facts()).pid == os.getpid()


def test_errors_travel() -> None:
    error = pickle.loads(pickle.dumps(NodeFailed("n1", "ended", 5, "hello\n  last words\n")))
    assert (error.node_id, error.node_exit_code) == ("n1", 5)
    assert str(error) == "node n1: ended: last words\n    hello\n      last words"


def test_last_words_are_said_once() -> None:
    assert str(NodeFailed("n1", "the host is gone", None, "the host is gone")).splitlines()[0].count("gone") == 1
    assert str(NodeFailed("n1", "never started")) == "node n1: never started"


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [(0, "exit code 0 (ok)"), (7, "exit code 7 (invariant broken)"), (42, "exit code 42"), (-9, "killed by SIGKILL")],
)
def test_exit_in_words(exit_code: int, words: str) -> None:
    assert describe_exit(exit_code) == words


def test_two_machines_have_two_clocks_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """This also holds without time namespaces, as before Linux 5.6."""
    boots = iter(["one\n", "another\n"])

    def no_link(_: Path) -> Path:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", lambda *_, **__: next(boots))
    monkeypatch.setattr(Path, "readlink", no_link)
    assert [actor.clock_id(), actor.clock_id()] == ["one", "another"]
