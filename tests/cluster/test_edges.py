"""The surroundings of a node process: closed descriptors, a terminal that hangs up, IPv6, poor file systems."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from raft_actor_node.client import KVClient
from raft_actor_node.runtime.disk import file_system
from tests.cluster import local
from tests.cluster.local import eventually

CLOSED = [(0,), (1,), (2,), (0, 1, 2)]


def command(directory: Path, *options: str, **changes: Any) -> list[str]:
    """The command of a node with a configuration of its own; it runs the planted bug, if a bug is planted."""
    data = {"cluster_id": "c", "node_id": "n1", "members": ["n1"], "bootstrap": True} | changes
    data.setdefault("storage", {"dir": str(directory / "wal")})
    path = directory / f"{data['node_id']}.json"
    path.write_text(json.dumps(data))
    words = [sys.executable, "-m", "raft_actor_node"] if local.COMMAND == "default" else shlex.split(local.COMMAND)
    return [*words, "--config", str(path), *options]


def without(closed: Sequence[int], words: Sequence[str]) -> list[str]:
    """The command, started by a shell that closes these descriptors."""
    closing = " ".join(f"{number}>&-" for number in closed)
    return ["/bin/sh", "-c", f'exec "$@" {closing}', "sh", *words]


@contextlib.contextmanager
def running(words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed when the context ends."""
    with subprocess.Popen(words, **options) as process:
        try:
            yield process
        finally:
            process.kill()


async def announced(file: Path) -> str:
    """The address that a node wrote to its file."""

    def read() -> str | None:
        with contextlib.suppress(OSError, ValueError):
            return str(json.loads(file.read_bytes())["address"])
        return None

    return str(await eventually(lambda: asyncio.to_thread(read), f"{file.name} announces its address"))


def target(pid: int, descriptor: int) -> Path:
    """The file that a descriptor of a process refers to."""
    return Path(f"/proc/{pid}/fd/{descriptor}").readlink()


def ignored(pid: int) -> int:
    """The signals that a process ignores, one bit each, from the lowest."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return int(next(line for line in lines if line.startswith("SigIgn:")).split()[1], 16)


async def serves(addresses: Sequence[str]) -> None:
    async with asyncio.timeout(60), KVClient(addresses) as kv:
        await kv.put(b"k", b"v")
        assert await kv.get(b"k") == b"v"


@pytest.mark.parametrize("closed", CLOSED, ids=str)
async def test_a_node_that_was_started_without_descriptors_serves_and_stops(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    """cron and wrappers of daemons start programs so. No other file may get the descriptors' numbers."""
    book = tmp_path / "book"
    words = without(closed, command(tmp_path, "--address-book", str(book)))
    null = subprocess.DEVNULL
    with running(words, stdin=null, stdout=null, stderr=null) as process:
        await serves([await announced(book / "n1")])
        for number in closed:
            assert target(process.pid, number) == Path(os.devnull)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0


@pytest.mark.parametrize("options", [(), ("--address-book", "{}/book")], ids=["owner", "address book"])
def test_a_standard_output_that_takes_nothing_is_one_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    """The node cannot report its address to its owner, so it ends."""
    words = command(tmp_path, *(option.format(tmp_path) for option in options))
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("raft_actor_node: stdout: the address 127.0.0.1:")
    assert last.endswith("cannot be written: No space left on device")
    assert (done.returncode, b"Traceback" in done.stderr) == (1, False)


def test_an_address_book_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "book").write_text("no directory")
    words = command(tmp_path, "--address-book", str(tmp_path / "book"))
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60, check=False)
    last = done.stderr.decode().splitlines()[-1]
    assert last == f"raft_actor_node: --address-book: {tmp_path}/book/n1 cannot be written: File exists"
    assert (done.returncode, b"Traceback" in done.stderr) == (1, False)


async def test_a_node_that_restarts_after_a_wipe_of_the_address_book_finds_those_that_ran_on(tmp_path: Path) -> None:
    """Otherwise a majority could stay without a leader, as a restarted node would know no peer."""
    members, book = ["n1", "n2", "n3"], tmp_path / "book"
    words = {
        member: command(tmp_path, "--address-book", str(book), node_id=member, members=members) for member in members
    }
    with contextlib.ExitStack() as stack:
        processes = {}
        for member in members:
            processes[member] = stack.enter_context(running(words[member], stdout=subprocess.DEVNULL))
        before = {member: await announced(book / member) for member in members}
        await serves(list(before.values()))
        for member in ("n2", "n3"):
            processes[member].kill()
            await asyncio.to_thread(processes[member].wait)
            shutil.rmtree(book)
            processes[member] = stack.enter_context(running(words[member], stdout=subprocess.DEVNULL))
            await announced(book / member)
            assert await announced(book / "n1") == before["n1"]
        processes["n1"].kill()
        await serves([await announced(book / member) for member in ("n2", "n3")])


async def test_without_a_standard_input_there_is_no_owner(tmp_path: Path) -> None:
    """Without an address book a node needs an owner on standard input; without both it ends."""
    log = tmp_path / "log"
    words = without((0,), command(tmp_path, log_file=str(log)))
    with running(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["node_id"] == "n1"
        assert await asyncio.to_thread(process.wait, 30) == 0
    assert "owner: gone" in log.read_text()


async def test_the_lifeline_works_without_standard_output_and_error(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    words = without((1, 2), command(tmp_path))
    env = os.environ | {"RAFT_REPORT_FD": str(write_fd)}
    with running(words, stdin=subprocess.PIPE, env=env, pass_fds=(write_fd,)) as process, os.fdopen(read_fd) as report:
        os.close(write_fd)
        assert process.stdin is not None
        await serves([json.loads(await asyncio.to_thread(report.readline))["address"]])
        assert process.poll() is None
        process.stdin.close()
        assert await asyncio.to_thread(process.wait, 30) == 0


async def test_a_hangup_stops_a_node_in_order(tmp_path: Path) -> None:
    book = tmp_path / "book"
    with running(command(tmp_path, "--address-book", str(book)), stdout=subprocess.DEVNULL) as process:
        await serves([await announced(book / "n1")])
        process.send_signal(signal.SIGHUP)
        assert await asyncio.to_thread(process.wait, 30) == 0


async def test_a_node_that_was_started_with_nohup_goes_on(tmp_path: Path) -> None:
    book = tmp_path / "book"
    words = ["nohup", *command(tmp_path, "--address-book", str(book))]
    with running(words, stdout=subprocess.DEVNULL) as process:
        address = await announced(book / "n1")
        await serves([address])
        assert ignored(process.pid) & 1 << signal.SIGHUP - 1, "the kernel drops it"
        process.send_signal(signal.SIGHUP)
        await serves([address])
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0


def ipv6_missing() -> str | None:
    """Why there is no IPv6 loopback; None if there is one."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return None
    except OSError as error:
        return f"needs an IPv6 loopback: {error}"


@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_nodes_on_ipv6_announce_brackets_and_find_each_other(tmp_path: Path, host: str) -> None:
    if reason := ipv6_missing():
        pytest.skip(reason)
    members, book = ["n1", "n2", "n3"], tmp_path / "book"
    with contextlib.ExitStack() as stack:
        for member in members:
            words = command(tmp_path, "--address-book", str(book), node_id=member, members=members, bind_host=host)
            stack.enter_context(running(words, stdout=subprocess.DEVNULL))
        addresses = [await announced(book / member) for member in members]
        assert all(address.startswith("[::1]:") for address in addresses)
        await serves(addresses)


async def test_a_node_on_every_interface_announces_what_it_is_told(tmp_path: Path) -> None:
    if reason := ipv6_missing():
        pytest.skip(reason)
    book = tmp_path / "book"
    words = command(tmp_path, "--address-book", str(book), bind_host="::", advertise_host="::1")
    with running(words, stdout=subprocess.DEVNULL):
        address = await announced(book / "n1")
        assert address.startswith("[::1]:")
        await serves([address])


@pytest.mark.parametrize("host", ["127.0.0.1:7000", "[::1]:7000", "[127.0.0.1]", "::g", ""])
@pytest.mark.parametrize("field", ["bind_host", "advertise_host"])
def test_a_host_that_is_none_is_one_line_and_exit_2(tmp_path: Path, field: str, host: str) -> None:
    done = subprocess.run(
        command(tmp_path, **{field: host}), capture_output=True, text=True, timeout=60, check=False, input=""
    )
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert f"{field}: {host!r} is not" in line


NO_LOCK = """
import fcntl
def refuse(fd, operation): raise OSError({errno}, os.strerror({errno}))
fcntl.flock = refuse
"""
NO_FSYNC = """
import stat
fsync = os.fsync
def refuse(fd):
    if stat.S_ISDIR(os.fstat(fd).st_mode): raise OSError({errno}, os.strerror({errno}))
    fsync(fd)
os.fsync = refuse
"""


@pytest.mark.parametrize(
    ("shim", "errno", "words"),
    [
        (NO_LOCK, "errno.EBADF", "without locks on directories (flock): Bad file descriptor"),  # NFS
        (NO_LOCK, "errno.ENOLCK", "without locks on directories (flock): No locks available"),
        (NO_LOCK, "errno.EOPNOTSUPP", "without locks on directories (flock): Operation not supported"),
        (NO_FSYNC, "errno.EINVAL", "without fsync of directories: Invalid argument"),  # CIFS
    ],
)
def test_a_file_system_that_lacks_what_a_log_needs_is_named(tmp_path: Path, shim: str, errno: str, words: str) -> None:
    code, error = _ends_on(tmp_path, shim.format(errno=errno))
    assert code == 6
    [line] = error.strip().splitlines()
    kind, _ = file_system(tmp_path) or ("unknown", "")
    directory = line.removeprefix("raft_actor_node: storage.dir: ").partition(" ")[0]
    assert (tmp_path / "wal" / "n1").is_relative_to(directory)
    assert line.endswith(f" is on a file system ({kind}) {words}; choose a directory on a local disk")


@pytest.mark.parametrize("shim", [NO_LOCK, NO_FSYNC])
def test_a_disk_that_fails_is_not_taken_for_one_that_lacks_something(tmp_path: Path, shim: str) -> None:
    code, error = _ends_on(tmp_path, shim.format(errno="errno.EIO"))
    assert code == 6
    assert "Input/output error" in error
    assert "file system" not in error


def _ends_on(directory: Path, shim: str) -> tuple[int, str]:
    """Exit code and standard error of a node in which the shim replaces system calls."""
    _, _, module, *arguments = command(directory)
    script = f"import errno, os, runpy, sys\n{shim}\nrunpy.run_module('{module}', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, timeout=60, check=False, input="",
    )  # fmt: skip
    return done.returncode, done.stderr
