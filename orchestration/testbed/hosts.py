"""Hosts on one machine; each has its own address, clock, disk folder and processes.

A host is a set of Linux namespaces (network, time, process ids, mounts, name, IPC) around a process 1 (init.py).
A bridge connects the hosts' interfaces. It has its own network namespace, so the rest of the machine sees neither
interfaces nor addresses of the testbed, and several testbeds are isolated from each other.

The hosts end with their owner, however the owner ends: process 1 then reads end-of-file and exits, and the kernel ends
the rest of its host. If the owner was killed, a folder remains until the next testbed calls `reap`.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from orchestration.ray_cluster.owner import end_process, start_ticks

ROOT = Path(__file__).parents[2]
"""The root folder of this project."""

_FOLDERS = Path("/var/tmp")  # noqa: S108 - each testbed makes a private folder in it
_PREFIX = "raft-testbed-"
_NAMESPACES = ("--net", "--time", "--pid", "--mount", "--uts", "--ipc")
_UNSHARE = ("unshare", *_NAMESPACES, "--mount-proc", "--fork", "--kill-child")
_CLOCK_STEP_S = 1000
_TIMEOUT_S = 30.0


class TestbedError(Exception):
    """The testbed failed; the message says why in one line."""

    __test__ = False  # otherwise pytest would collect it as a test


class NamespaceHost:
    """A host of the testbed. Created by Testbed."""

    def __init__(self, name: str, address: str, clock_offset_s: int, folder: Path, shared: Sequence[Path]) -> None:
        self.name, self.address, self.folder = name, address, folder
        self.clock_offset_ns = clock_offset_s * 10**9
        """How far its monotonic clock is ahead of the machine's; a clock measurement must find this offset."""
        folder.mkdir()
        init = (*_python("init.py"), str(folder), name, *map(str, shared))
        self._unshare = subprocess.Popen(
            [*_UNSHARE, f"--monotonic={clock_offset_s}", *init],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C must reach only the owner, which then stops the hosts
        )
        self.pid = 0
        """The pid of its process 1, as the machine sees it."""

    def wait_ready(self) -> None:
        """Wait until the host is set up. Raises TestbedError."""
        assert self._unshare.stdout is not None
        assert self._unshare.stderr is not None
        if self._unshare.stdout.readline() != b"ready\n":
            self._unshare.kill()
            errors = self._unshare.stderr.read()
            self.kill()
            raise TestbedError(f"{self.name} did not come up: {_last_line(errors)}")
        unshare = self._unshare.pid
        self.pid = int(Path(f"/proc/{unshare}/task/{unshare}/children").read_text())

    def start(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        stdout: int | IO[Any] | None = subprocess.DEVNULL,
        stderr: int | IO[Any] | None = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """Start a command on this host.

        The returned process forwards SIGINT and SIGTERM to the command, and has its exit code (128 + n after signal n).
        If it is killed, the command is killed too. `env` is added to this program's environment.
        """
        outer = {name: value for name, value in os.environ.items() if name != "TMPDIR"}  # may not exist on the host
        return subprocess.Popen(
            [*_python("enter.py"), str(self.pid), *command],
            env={**outer, **(env or {})},
            cwd=cwd,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    def run(self, *command: str, env: Mapping[str, str] | None = None, timeout_s: float = _TIMEOUT_S) -> str:
        """Run a command on this host and return its standard output. Raises TestbedError if it fails or times out."""
        what = f"{' '.join(command)} on {self.name}"
        with self.start(*command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                output, errors = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise TestbedError(f"{what}: did not end within {timeout_s:g} s") from None
            finally:
                process.kill()
        if process.returncode != 0:
            raise TestbedError(f"{what}: exit code {process.returncode}: {_last_line(errors) or _last_line(output)}")
        return output

    def delay(self, seconds: float) -> None:
        """Delay all packets that the host sends; 0 removes the delay.

        Raises TestbedError if the command tc or the kernel's netem is missing.
        """
        words = ["replace", "netem", "delay", f"{seconds * 1e6:.0f}us"] if seconds else ["del"]
        try:
            self.run("tc", "qdisc", words[0], "dev", "eth0", "root", *words[1:])
        except TestbedError as error:
            raise TestbedError(f"a delay needs tc and the kernel's netem: {error}") from None

    def bandwidth(self, bytes_per_s: int) -> None:
        """Limit the host's total sending rate; 0 removes the limit. The kernel's token bucket has a queue of 100 ms."""
        tbf = ["replace", "tbf", "rate", f"{8 * bytes_per_s}bit", "burst", "16kb", "latency", "100ms"]
        words = tbf if bytes_per_s else ["del"]
        self.run("tc", "qdisc", words[0], "dev", "eth0", "root", *words[1:])

    def pids(self) -> dict[int, int]:
        """Return its processes: pids as the machine sees them, and start times in ticks since boot."""
        try:
            network = Path(f"/proc/{self.pid}/ns/net").readlink()
        except OSError:
            return {}
        found = {pid: start_ticks(pid) for pid in _all_pids() if _network(pid) == network}
        return {pid: started for pid, started in found.items() if started}

    def kill(self) -> None:
        """End every process of the host at once (SIGKILL); return when all have ended. Idempotent.

        The network still works meanwhile, so peers learn that their connections were closed. `Testbed.lose` simulates
        the loss of a machine.
        """
        # Process 1, not unshare: unshare ends after process 1 is reaped, when no process of the namespace is left.
        with self._unshare, contextlib.suppress(ProcessLookupError):
            if self._unshare.poll() is None and self.pid:
                os.kill(self.pid, signal.SIGKILL)
            else:
                self._unshare.kill()


class Testbed:
    """A context manager for `hosts` hosts and an additional one, the head, for the driver and Ray's head.

    The head has the machine's clock; the other clocks are ahead by multiples of 1000 s. Each host has its own /tmp and
    /var/tmp on the machine's disk. `shared` folders are visible on all hosts, as are this project and its Python.
    Raises TestbedError, for example if `missing` returns a reason.
    """

    __test__ = False

    def __init__(self, hosts: int = 4, *, shared: Sequence[Path] = ()) -> None:
        self._count = hosts
        self.shared = [path.resolve() for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix), Path.cwd(), *shared)]
        self._members: list[NamespaceHost] = []
        self.folder = Path()

    @property
    def head(self) -> NamespaceHost:
        """The driver's host."""
        return self._members[1]

    @property
    def hosts(self) -> tuple[NamespaceHost, ...]:
        """All hosts but the head."""
        return tuple(self._members[2:])

    def host(self, address: str) -> NamespaceHost:
        """Return the host with this address."""
        return next(host for host in (self.head, *self.hosts) if host.address == address)

    def __enter__(self) -> Self:
        if reason := missing():
            raise TestbedError(reason)
        reap()
        self.folder = Path(tempfile.mkdtemp(prefix=prefix(os.getpid()), dir=_FOLDERS))
        try:
            self._bring_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all hosts and delete their folder."""
        for host in self._members:
            host.kill()
        shutil.rmtree(self.folder)

    def lose(self, host: NamespaceHost) -> None:
        """Power a host off: unplug it first, so that its peers see no connection close, then kill it."""
        self._switch.run("ip", "link", "delete", host.name)
        host.kill()

    def renew(self, host: NamespaceHost) -> NamespaceHost:
        """Replace a lost host by a new one with the same name, address and clock, and with an empty disk."""
        folder = host.folder.with_name(f"{host.name}-{uuid.uuid4().hex[:8]}")
        new = NamespaceHost(host.name, host.address, host.clock_offset_ns // 10**9, folder, self.shared)
        self._members[self._members.index(host)] = new
        new.wait_ready()
        self._record()
        self._plug(new)
        return new

    def link_down(self, host: NamespaceHost) -> None:
        """Unplug the host: its interface loses its carrier. Its processes still reach the host's own address."""
        self._switch.run("ip", "link", "set", host.name, "down")

    def link_up(self, host: NamespaceHost) -> None:
        """Plug the host in again."""
        self._switch.run("ip", "link", "set", host.name, "up")

    @property
    def _switch(self) -> NamespaceHost:
        return self._members[0]

    def _bring_up(self) -> None:
        self._network = network = _free_network()
        names = ["switch", "head", *(f"host{i}" for i in range(1, self._count + 1))]
        addresses = [str(network[i]) for i in range(len(names))]
        table = "".join(f"{address} {name}\n" for address, name in zip(addresses[1:], names[1:], strict=True))
        (self.folder / "names").write_text(f"127.0.0.1 localhost\n{table}")
        for i, (name, address) in enumerate(zip(names, addresses, strict=True)):
            offset_s = _CLOCK_STEP_S * max(0, i - 1)
            self._members.append(NamespaceHost(name, address, offset_s, self.folder / name, self.shared))
        for host in self._members:
            host.wait_ready()
        self._record()
        self._switch.run("ip", "link", "add", "name", "bridge", "type", "bridge")
        self._switch.run("ip", "link", "set", "bridge", "up")
        for host in self._members[1:]:
            self._plug(host)

    def _plug(self, host: NamespaceHost) -> None:
        # Run on the machine, where the pids are valid; the interfaces are created inside their namespaces.
        switch, there = (("netns", str(each.pid)) for each in (self._switch, host))
        # Derived from the host's address; otherwise peers would still send to the hardware address of a lost host.
        hardware = "02:00:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(host.address).packed)
        inside = ("peer", "name", "eth0", "address", hardware, *there)
        _run("ip", "link", "add", "name", host.name, *switch, "type", "veth", *inside)
        self._switch.run("ip", "link", "set", host.name, "master", "bridge", "up")
        host.run("ip", "address", "add", f"{host.address}/{self._network.prefixlen}", "dev", "eth0")
        host.run("ip", "link", "set", "lo", "up")
        host.run("ip", "link", "set", "eth0", "up")

    def _record(self) -> None:
        """Write the pids of the hosts for `reap`, in case the hosts outlive their owner."""
        pids = {host.pid: start_ticks(host.pid) for host in self._members}
        partial = self.folder / "pids.partial"
        partial.write_text(json.dumps(pids))
        partial.rename(self.folder / "pids")


def reap() -> None:
    """Remove the remains of testbeds whose owners are gone."""
    for folder in _FOLDERS.glob(f"{_PREFIX}*"):
        if _owner_lives(folder.name):
            continue
        recorded = {}
        with contextlib.suppress(FileNotFoundError):  # its bring-up was interrupted, or another process removes it too
            recorded = json.loads((folder / "pids").read_text())
        for pid, since in recorded.items():
            end_process(int(pid), since)
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def missing() -> str | None:
    """Return why no testbed can be created here, in one line; None if it can."""
    if sys.platform != "linux":
        return "a testbed needs Linux"
    if os.geteuid() != 0:
        return "a testbed needs root"
    if absent := [command for command in ("ip", "unshare", "mount") if shutil.which(command) is None]:
        return f"a testbed needs the command {absent[0]}"
    try:
        # Runs in a network namespace that ends with the command.
        trial = (
            "mount -t tmpfs tmpfs /mnt && ip link add name a type bridge && ip link add name b type veth peer name c"
        )
        _run(*_UNSHARE, "--monotonic=1", "sh", "-c", trial)
    except TestbedError as error:
        return f"a testbed needs namespaces, a bridge and veth: {error}"
    return None


def prefix(owner: int) -> str:
    """Return the prefix of the folder names of a process's testbeds."""
    return f"{_PREFIX}{owner}-{start_ticks(owner)}-"


def remains(name: str = _PREFIX) -> list[str]:
    """List the remains of testbeds whose folder names begin with `name`, unless another live process owns them.

    These are the folders, and every process that has such a folder mounted. The namespaces of a host and its interface
    exist only as long as its processes, so they need no check.
    """

    def counts(found: str) -> bool:
        return found.startswith(prefix(os.getpid())) or not _owner_lives(found)

    left = [str(folder) for folder in _FOLDERS.glob(f"{name}*") if counts(folder.name)]
    for pid in _all_pids():
        with contextlib.suppress(OSError):
            mounted = set(re.findall(rf"{re.escape(name)}[\w-]*", Path(f"/proc/{pid}/mountinfo").read_text()))
            if any(map(counts, mounted)):
                left.append(f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_text().replace(chr(0), ' ')}")
    return left


def _owner_lives(name: str) -> bool:
    """Return whether the owner of the testbed with this folder name still runs."""
    owner, started, _ = name.removeprefix(_PREFIX).split("-", 2)
    return start_ticks(int(owner)) == int(started)


def _free_network() -> ipaddress.IPv4Network:
    """Choose a private range to which this machine has no route, so that addresses in results are unambiguous."""
    routes = json.loads(_run("ip", "-4", "-json", "route", "show", "table", "all"))
    used = [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
    while True:
        network = ipaddress.IPv4Network((10 << 24 | random.randrange(1 << 16) << 8, 24))
        if not any(network.overlaps(other) for other in used):
            return network


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _network(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/net").readlink()
    except OSError:
        return None


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise TestbedError(f"{' '.join(command)}: {_last_line(done.stderr) or f'exit code {done.returncode}'}")
    return done.stdout


def _last_line(text: str | bytes) -> str:
    lines = (text if isinstance(text, str) else text.decode(errors="replace")).strip().splitlines()
    return lines[-1] if lines else ""


def _python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(Path(__file__).with_name(script)))
