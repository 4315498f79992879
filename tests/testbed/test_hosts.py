"""Hosts made of namespaces are isolated from each other, and leave no trace."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from orchestration.ray_cluster.owner import start_ticks
from orchestration.testbed import hosts
from orchestration.testbed.hosts import ROOT, NamespaceHost, Testbed, TestbedError, missing, prefix, reap, remains
from tests.testbed.waiting import eventually

SERVER = """
import socket
server = socket.create_server(("", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, (client, _) = server.accept()
    connection.sendall(client.encode())
    connection.close()
"""
CLIENT = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
print(connection.recv(100).decode())
"""
MUTE = """
import socket
server = socket.create_server(("", 0))
print(server.getsockname()[1], flush=True)
connection, _ = server.accept()
connection.recv(1)
"""
LISTEN = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
print("connected", flush=True)
connection.settimeout(1)
try:
    print("ended:", connection.recv(1))
except OSError as error:
    print(error, flush=True)
"""
DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.write(1, b"ready\\n")  # at once: two processes write
time.sleep(1000)
"""
OWNER = """
import json, signal, subprocess, sys
from orchestration.testbed.hosts import Testbed
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what is started in the background
with Testbed(2) as testbed:
    first = testbed.hosts[0]
    daemon = first.start(sys.executable, "-c", sys.argv[1], stdout=subprocess.PIPE)
    daemon.stdout.readline(), daemon.stdout.readline()
    pids = [pid for host in (testbed.head, *testbed.hosts) for pid in host.pids().items()]
    print(json.dumps({"folder": str(testbed.folder), "pids": pids}), flush=True)
    signal.pause()
"""
IDLE = 2
"""Number of processes of an idle host: process 1, and the unshare above it."""


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed(3) as testbed:
        yield testbed


def python(host: NamespaceHost, program: str, *words: str, timeout_s: float = 30.0) -> str:
    return host.run(sys.executable, "-I", "-S", "-c", program, *words, timeout_s=timeout_s).strip()


def connect(client: NamespaceHost, server: NamespaceHost, port: int, timeout_s: float = 10.0) -> str:
    """Return the client's address as the server sees it."""
    return python(client, CLIENT, server.address, str(port), str(timeout_s))


@pytest.fixture
def port(bed: Testbed) -> Iterator[int]:
    """The port of a server on the first host."""
    process = bed.hosts[0].start(sys.executable, "-I", "-S", "-c", SERVER, stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.kill()
    process.communicate()


def remaining(pids: Iterable[tuple[int, int]]) -> list[int]:
    return [pid for pid, since in pids if start_ticks(pid) == since]


def interfaces() -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


def namespaces(pids: Iterable[int] | None = None) -> set[str]:
    """Return the namespaces of these processes, or of all processes of this machine."""
    found = set()
    for pid in pids if pids is not None else (entry.name for entry in Path("/proc").glob("[0-9]*")):
        for link in Path(f"/proc/{pid}/ns").glob("*"):
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
    return found


def test_hosts_have_addresses_and_names_and_reach_one_another(bed: Testbed, port: int) -> None:
    everybody = (bed.head, *bed.hosts)
    assert len({host.address for host in everybody}) == 4
    assert [python(host, "import socket; print(socket.gethostname())") for host in everybody] == [
        "head",
        "host1",
        "host2",
        "host3",
    ]
    for host in everybody:
        assert connect(host, bed.hosts[0], port) == host.address
    assert python(bed.head, "import socket; print(socket.gethostbyname('host2'))") == bed.hosts[1].address
    assert bed.host(bed.hosts[1].address) is bed.hosts[1]


def test_nobody_else_sees_their_network(bed: Testbed) -> None:
    machine = subprocess.run(["ip", "-4", "address"], capture_output=True, text=True, check=True).stdout
    assert not any(host.address in machine or host.name in interfaces() for host in bed.hosts)
    with Testbed(1) as other:
        assert other.hosts[0].address not in [host.address for host in bed.hosts]
        with pytest.raises(TestbedError, match="unreachable"):
            connect(other.hosts[0], bed.hosts[0], 9)


def own(bed: Testbed, host: NamespaceHost, place: str) -> set[str]:
    """Return a host folder's content without the paths to shared folders, as this project may be below it."""
    shared = {path.relative_to(place).parts[0] for path in bed.shared if Path(place) in path.parents}
    return set(host.run("ls", "-A", place).splitlines()) - shared


def test_folders_and_process_ids_are_a_hosts_own(bed: Testbed) -> None:
    first, second, _ = bed.hosts
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        with tempfile.TemporaryDirectory(dir=place):  # a folder of the machine, which no host sees
            first.run("touch", f"{place}/here")
            assert own(bed, first, place) == {"here"}
            assert own(bed, second, place) == set()
    assert int(first.run("sh", "-c", "echo $$")) < 1000
    assert len(first.run("sh", "-c", "echo /proc/[0-9]*").split()) <= 4


def test_shared_folders_are_the_same_everywhere(tmp_path: Path) -> None:
    """This holds even if a shared folder is below a folder that is a host's own."""
    with Testbed(2, shared=[tmp_path]) as testbed:
        testbed.hosts[0].run("touch", str(tmp_path / "seen"))
        assert testbed.hosts[1].run("ls", str(tmp_path)) == "seen\n"
    assert [file.name for file in tmp_path.iterdir()] == ["seen"]


def test_clocks_differ_by_the_offsets_asked_for(bed: Testbed) -> None:
    offsets = [host.clock_offset_ns for host in (bed.head, *bed.hosts)]
    assert offsets == [i * 1000 * 10**9 for i in range(4)]
    for host in (bed.head, *bed.hosts):
        before = time.monotonic_ns()
        there = int(python(host, "import time; print(time.monotonic_ns())"))
        assert before <= there - host.clock_offset_ns <= time.monotonic_ns()


def test_a_link_that_is_down_cuts_and_one_that_is_up_again_heals(bed: Testbed, port: int) -> None:
    first, second, third = bed.hosts
    bed.link_down(first)
    with pytest.raises(TestbedError, match=r"timed out|No route to host"):
        connect(second, first, port, timeout_s=1)
    assert connect(first, first, port) == first.address
    assert python(third, "print('others go on')")
    bed.link_up(first)
    assert connect(second, first, port) == second.address


def test_delay(bed: Testbed, port: int) -> None:
    first, second, _ = bed.hosts
    try:
        second.delay(0.05)
    except TestbedError as error:
        reason = str(error)
        pytest.skip(reason[: reason.index("netem") + 5])
    begin = time.monotonic()
    connect(second, first, port)
    assert time.monotonic() - begin >= 0.05
    second.delay(0)


def test_commands_end_as_they_do_and_take_signals(bed: Testbed) -> None:
    first = bed.hosts[0]
    assert first.start("sh", "-c", "exit 7").wait(10) == 7
    assert first.start("no-such-command").wait(10) == 127
    with pytest.raises(TestbedError, match=r"exit 3 on host1: exit code 3: why"):
        first.run("sh", "-c", "echo why >&2; exit 3")
    with pytest.raises(TestbedError, match=r"sleep 1000 on host1: did not end within 0\.2 s"):
        first.run("sleep", "1000", timeout_s=0.2)
    for number, exit_code in ((signal.SIGINT, 5), (signal.SIGTERM, 128 + signal.SIGTERM)):
        process = first.start(
            "sh", "-c", "trap 'exit 5' INT; echo ready; while :; do sleep 0.01; done", stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(10) == exit_code
        process.communicate()
    eventually(lambda: len(first.pids()) == IDLE, "nothing is left of them")


def test_a_killed_command_takes_its_process_along(bed: Testbed) -> None:
    first = bed.hosts[0]
    process = first.start("sleep", "1000")
    eventually(lambda: len(first.pids()) == IDLE + 2, "it runs, below the process that stepped in")
    process.kill()
    process.wait()
    eventually(lambda: len(first.pids()) == IDLE, "nothing is left of it")


def test_a_host_that_is_killed_loses_every_process_and_no_other() -> None:
    with Testbed(2) as testbed:
        first, second = testbed.hosts
        daemons = [host.start(sys.executable, "-c", DAEMON, stdout=subprocess.PIPE) for host in (first, second)]
        for daemon in daemons:
            assert daemon.stdout is not None
            assert [daemon.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        lost, kept = first.pids(), second.pids()
        assert len(lost) == len(kept) == IDLE + 3  # the process that entered the host, and two daemons
        first.kill()
        assert first.pids() == {}
        assert daemons[0].wait(10) == 128 + signal.SIGKILL
        assert remaining(lost.items()) == []
        assert second.pids() == kept
        with pytest.raises(TestbedError, match=r"timed out|No route to host"):
            connect(second, first, 9, timeout_s=1)
        first.kill()  # once more does nothing
    for daemon in daemons:
        daemon.communicate(timeout=10)


def test_a_lost_host_says_nothing_and_a_new_one_takes_its_place() -> None:
    """As after a power failure, its peers get no notice that connections end, and its disk is lost too."""
    with Testbed(2) as testbed:
        first, second = testbed.hosts
        first.run("touch", "/var/tmp/here")
        server = first.start(sys.executable, "-I", "-S", "-c", MUTE, stdout=subprocess.PIPE)
        assert server.stdout is not None
        client = second.start(
            *(sys.executable, "-I", "-S", "-c", LISTEN, first.address, server.stdout.readline().strip()),
            stdout=subprocess.PIPE,
        )
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        testbed.lose(first)
        assert first.pids() == {}
        assert client.stdout.readline() == "timed out\n"
        new = testbed.renew(first)
        assert testbed.hosts == (new, second)
        assert (new.name, new.address, new.clock_offset_ns) == (first.name, first.address, first.clock_offset_ns)
        assert own(testbed, new, "/var/tmp") == set()
        assert python(second, "import socket; print(socket.gethostbyname('host1'))") == new.address
        again = new.start(sys.executable, "-I", "-S", "-c", SERVER, stdout=subprocess.PIPE)
        assert again.stdout is not None
        assert connect(second, new, int(again.stdout.readline())) == second.address
        testbed.lose(new)
    for process in (server, client, again):
        process.communicate(timeout=10)


def test_nothing_is_left(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    before = interfaces()
    pids: dict[int, int] = {}
    made: set[str] = set()

    def use() -> Path:
        with Testbed(2, shared=[tmp_path]) as testbed:
            testbed.hosts[0].start("sleep", "1000")
            for host in (testbed.head, *testbed.hosts):
                pids.update(host.pids())
            made.update(namespaces(pids) - namespaces([os.getpid()]))
            for link in (link for pid in pids for link in Path(f"/proc/{pid}/ns").iterdir()):
                # Kept until the test ends, so that no other namespace gets its number.
                request.addfinalizer(functools.partial(os.close, os.open(link, os.O_RDONLY)))
            assert len(remains(testbed.folder.name)) > len(pids)
            raise ZeroDivisionError(str(testbed.folder))

    with pytest.raises(ZeroDivisionError) as raised:
        use()
    folder = Path(str(raised.value))
    assert not folder.exists()
    assert len(pids) >= 4
    assert len(made) >= 3 * 6
    assert remaining(pids.items()) == []
    assert remains(folder.name) == []
    assert interfaces() == before
    assert not namespaces() & made


def test_nothing_is_left_of_one_that_does_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Testbed, host: NamespaceHost) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Testbed, "_plug", fail)
    testbed = Testbed(2)
    with pytest.raises(KeyboardInterrupt):
        testbed.__enter__()
    assert testbed.folder.name.startswith(prefix(os.getpid()))
    assert remains(testbed.folder.name) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_nothing_is_left_when_the_owner_ends(bed: Testbed, number: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, DAEMON],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        assert owner.stdout is not None
        told = json.loads(owner.stdout.readline())
        assert len(told["pids"]) == 3 * IDLE + 3
        assert told["folder"] not in remains()
        os.killpg(owner.pid, number)
        owner.wait(10)
        eventually(lambda: remaining(told["pids"]) == [], "every process is gone")
        assert Path(told["folder"]).exists() is (number is not signal.SIGINT)
        assert (told["folder"] in remains()) is (number is not signal.SIGINT)
        reap()
        assert not Path(told["folder"]).exists()
        assert bed.folder.exists()  # the owner runs
        assert python(bed.hosts[0], "print('here')") == "here"
    finally:
        owner.kill()
        owner.communicate()


def test_reap_kills_what_is_recorded_and_only_that() -> None:
    """A pid that now belongs to another process is left alone."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    recorded, reused = (subprocess.Popen(["sleep", "1000"]) for _ in range(2))
    folder = hosts._FOLDERS / f"raft-testbed-{dead.pid}-12345-{uuid.uuid4().hex[:8]}"
    unseen = folder.with_name(f".{folder.name}")  # other sessions ignore a folder with this name until it is complete
    unseen.mkdir()
    try:
        since = start_ticks(recorded.pid)
        (unseen / "pids").write_text(json.dumps({recorded.pid: since, reused.pid: 12345}))
        unseen.rename(folder)
        reap()
        assert recorded.wait(10) == -signal.SIGKILL
        assert reused.poll() is None
        assert not folder.exists()
    finally:
        for process in (recorded, reused):
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("os.geteuid", lambda: 1000), "needs root"),
        (("shutil.which", lambda command: None if command == "unshare" else command), "needs the command unshare"),
        (("_UNSHARE", ("unshare", "--no-such-option")), "needs namespaces, a bridge and veth: .*no-such-option.*"),
    ],
    ids=["root", "command", "namespaces"],
)
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, change: tuple[str, object], reason: str) -> None:
    monkeypatch.setattr(f"orchestration.testbed.hosts.{change[0]}", change[1])
    assert re.fullmatch(f"a testbed {reason}", missing.__wrapped__() or "")
