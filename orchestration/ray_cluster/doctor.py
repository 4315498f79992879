"""Examine the hosts of a Ray cluster and the network between them, before results measured there are trusted.

An `Examiner` runs on each host, in an ObjectHost (actor.py), and does not use Ray. `examine` asks every Examiner. A
missing answer is a finding too. Every question has a timeout, and an examination fails only if Ray itself fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import platform
import resource
import secrets
import shutil
import socket
import socketserver
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from orchestration.host import (
    MOST_SAMPLES,
    code_digest,
    code_folder,
    cpu_model,
    cpus_available,
    ephemeral_ports,
    fsync_times,
    lacking_calls,
    versions,
)
from orchestration.ray_cluster.actor import clock_id, temporary_folder
from raft_actor_node.addresses import every_interface
from raft_actor_node.patience import Patience
from raft_actor_node.runtime.disk import MEMORY_FILE_SYSTEMS, file_system, nearest_present

if TYPE_CHECKING:
    from orchestration.face import Host
    from orchestration.ray_cluster.worker import Worker

CONNECT_TIMEOUT_S = 3.0
"""A lost SYN is resent after 1 s; this allows for two lost SYNs."""
_START_TIMEOUT_S = 20.0
"""Ray starts an actor within a few seconds, even on a busy host."""
_ANSWER_TIMEOUT_S = 10.0
"""Extra time for an answer, beyond the time of its measurement."""
_PING = bytes(64)
_TOKEN_BYTES = 16
_LEAST_ABOVE = 10
"""A percentile with fewer samples above it is not reported."""


class Depth(NamedTuple):
    """Upper bounds on the time of each measurement, in seconds."""

    fsync_s: float
    round_trip_s: float
    """For each pair of hosts, in each direction."""


QUICK = Depth(fsync_s=1.0, round_trip_s=0.2)
"""Used at the start of every run."""
THOROUGH = Depth(fsync_s=15.0, round_trip_s=2.0)
"""Enough for the 99th percentile of 15 ms fsyncs; faster disks need less time."""


# ---------------------------------------------------------------------------------- findings


@dataclass(frozen=True)
class Durations:
    """Durations, in nanoseconds."""

    ns: Sequence[int] = ()

    def ms(self, q: float) -> float | None:
        """Return a nearest-rank percentile in milliseconds; `q` = 1 is the maximum.

        Returns None without samples, or if fewer than 10 samples are above the percentile (except for the maximum).
        """
        count = len(self.ns)
        if not count or (q < 1 and count * (1 - q) < _LEAST_ABOVE):
            return None
        return sorted(self.ns)[math.ceil(q * count) - 1] / 1e6

    def as_json(self) -> dict[str, Any]:
        """Return the number of samples, and their median, 99th percentile and maximum in microseconds."""
        named = {"p50_us": self.ms(0.5), "p99_us": self.ms(0.99), "max_us": self.ms(1.0)}
        return {"count": len(self.ns)} | {
            name: None if value is None else round(value * 1e3, 1) for name, value in named.items()
        }


@dataclass(frozen=True)
class Code:
    """The code that a process runs."""

    versions: Mapping[str, str | None]
    digest: str
    folder: str

    @classmethod
    def here(cls) -> Code:
        """Return the code of this process."""
        return cls(versions(), code_digest(), str(code_folder()))


@dataclass(frozen=True)
class MachineFacts:
    """A host as seen by a process that Ray started there."""

    cpu: str
    cores: int
    cpus_available: float
    """CPUs that a process may use; less than `cores` under an affinity or a quota."""
    load: float
    """Mean number of processes that ran or waited for a CPU, over the last minute."""
    niceness: int
    open_files: int
    """Limit of open files for a process."""
    memory_bytes: int
    kernel: str
    ports: tuple[int, int] | None
    """First and last ephemeral port."""


@dataclass(frozen=True)
class Storage:
    """The folder that contains the nodes' logs."""

    folder: str
    file_system: str | None
    device: str | None
    free_bytes: int | None
    fsync: Durations = Durations()
    error: str | None = None
    """Why the folder cannot be written."""
    lacks: Sequence[str] = ()
    """The calls that a log needs and this file system does not support."""

    @property
    def in_memory(self) -> bool:
        """Whether the file system is in memory, where an fsync proves nothing."""
        return self.file_system in MEMORY_FILE_SYSTEMS


@dataclass(frozen=True)
class HostReport:
    """The findings on one host. A field that the host did not report is None, and `error` says why."""

    address: str
    hostname: str
    is_driver: bool
    cpus: float
    """CPUs that Ray offers there."""
    code: Code | None = None
    machine: MachineFacts | None = None
    storage: Storage | None = None
    same_clock: bool = False
    """Whether the host reads the same monotonic clock as the driver."""
    clock_offset_ns: int | None = None
    """The host's monotonic clock minus the driver's."""
    clock_error_ns: int | None = None
    """Bound on the error of the offset."""
    error: str | None = None


@dataclass(frozen=True)
class Connection:
    """A connection from one host to an ephemeral port of another."""

    source: str
    target: str
    round_trips: Durations = Durations()
    error: str | None = None


@dataclass(frozen=True)
class DeadHost:
    """A host that left the Ray cluster."""

    address: str
    hostname: str
    reason: str


@dataclass(frozen=True)
class RayFacts:
    """A description of the Ray cluster."""

    description: str
    address: str
    version: str
    private: bool
    """Whether it was started for this program; then no other user can use it."""
    authentication: str
    """`token` or `none`."""
    dead: Sequence[DeadHost] = ()


@dataclass(frozen=True)
class Examination:
    """All findings of an examination."""

    ray: RayFacts
    driver: Code
    hosts: Sequence[HostReport]
    links: Sequence[Connection] = field(default=())
    """Links from every host that answered to every other such host."""

    def as_json(self) -> dict[str, Any]:
        """Return the findings for a run's manifest; times in microseconds, clock offsets in nanoseconds."""
        return {
            "ray": asdict(self.ray),
            "driver": asdict(self.driver),
            "hosts": [_host_json(host) for host in self.hosts],
            "round_trips": [
                {"from": link.source, "to": link.target, **link.round_trips.as_json(), "error": link.error}
                for link in self.links
            ],
        }


def _host_json(host: HostReport) -> dict[str, Any]:
    told = asdict(host)
    if host.storage is not None:
        told["storage"]["fsync"] = host.storage.fsync.as_json()
    return told


# ---------------------------------------------------------------------------------- on each host


class Examiner:
    """Measures its host. It returns plain data, because the driver may run different code."""

    def __init__(self) -> None:
        self._echo: _EchoServer | None = None

    async def about(self) -> dict[str, Any]:
        """Return the fields of Code and MachineFacts."""
        return await asyncio.to_thread(_about)

    async def storage(self, storage_dir: str, seconds: float) -> dict[str, Any]:
        """Return the fields of Storage; measure fsyncs for at most `seconds`."""
        return await asyncio.to_thread(_storage, storage_dir, seconds)

    async def listen(self, interface: str) -> tuple[int, bytes]:
        """Open an ephemeral port that sends each connection a token and then echoes; return port and token."""
        if self._echo is None:
            self._echo = _EchoServer(interface)
        return self._echo.port, self._echo.token

    async def round_trips(self, address: str, port: int, token: bytes, seconds: float) -> tuple[list[int], str | None]:
        """Measure round trips to an echo port, in nanoseconds, for at most `seconds`.

        Returns the samples, and the error that ended them early, if any.
        """
        return await asyncio.to_thread(_round_trips, address, port, token, seconds)

    async def close(self) -> None:
        """Close the port."""
        echo, self._echo = self._echo, None
        if echo is not None:
            await asyncio.to_thread(echo.close)


class _EchoServer:
    """An echo server with threads and blocking sockets: an event loop would add its own latency."""

    def __init__(self, interface: str) -> None:
        self.token = token = secrets.token_bytes(_TOKEN_BYTES)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                connection: socket.socket = self.request
                connection.settimeout(_ANSWER_TIMEOUT_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(OSError):
                    connection.sendall(token)
                    while data := connection.recv(len(_PING)):
                        connection.sendall(data)

        class Server(socketserver.ThreadingTCPServer):
            address_family = socket.AF_INET6 if ":" in interface else socket.AF_INET
            daemon_threads = True

        self._server = Server((interface, 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="echo").start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _about() -> dict[str, Any]:
    machine = MachineFacts(
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        cpus_available=cpus_available(),
        load=round(os.getloadavg()[0], 2),
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        ports=ephemeral_ports(),
    )
    return {"code": asdict(Code.here()), "machine": asdict(machine)}


def _storage(storage_dir: str, seconds: float) -> dict[str, Any]:
    folder = temporary_folder() if storage_dir == "auto" else Path(storage_dir).absolute()
    times: list[int] = []
    lacks: list[str] = []
    free = error = None
    try:
        lacks = lacking_calls(folder)
        times = fsync_times(folder, seconds)
    except OSError as failure:
        error = failure.strerror or str(failure)
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(nearest_present(folder)).free
    name, device = file_system(folder) or (None, None)
    return {
        "folder": str(folder),
        "file_system": name,
        "device": device,
        "free_bytes": free,
        "fsync": times,
        "error": error,
        "lacks": lacks,
    }


def _round_trips(address: str, port: int, token: bytes, seconds: float) -> tuple[list[int], str | None]:
    samples: list[int] = []
    try:
        with socket.create_connection((address, port), CONNECT_TIMEOUT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if _receive(connection, len(token)) != token:
                return [], "another host answers under this address"
            end = time.monotonic() + seconds
            while len(samples) < MOST_SAMPLES and time.monotonic() < end:
                begin = time.monotonic_ns()
                connection.sendall(_PING)
                _receive(connection, len(_PING))
                samples.append(time.monotonic_ns() - begin)
    except OSError as error:
        return samples, error.strerror or str(error)
    return samples, None


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := connection.recv(count - len(data))):
            raise ConnectionError("the connection was closed")
        data += more
    return data


# ---------------------------------------------------------------------------------- on the driver


class Examinable(Protocol):
    """The part of a Pool that an examination needs: hosts, and objects on them."""

    @property
    def hosts(self) -> Sequence[Host]: ...
    async def host(
        self, factory: Callable[..., object], *, on: Host | None = None, any_code: bool = False
    ) -> Worker: ...


async def examine(pool: Examinable, ray: RayFacts, storage_dir: str = "auto", *, quick: bool = False) -> Examination:
    """Examine every host of the Ray cluster, and the links from every host to every other.

    `ray` becomes part of the result; `storage_dir` is as `storage.dir` of a spec; `quick` measures for less time.
    Raises InfrastructureError when Ray itself does not answer.
    """
    depth = QUICK if quick else THOROUGH
    visits = [_Visit(host, storage_dir, depth) for host in pool.hosts]
    try:
        # All hosts finish one step before the next one, so that no host starts processes while another measures.
        await asyncio.gather(*(visit.begin(pool) for visit in visits))
        await asyncio.gather(*(visit.ask() for visit in visits))
        reached = [visit for visit in visits if visit.error is None]
        links: list[Connection] = []
        for distance in range(1, len(reached)):
            # Each host measures one link and answers on one link at a time.
            pairs = [(visit, reached[(i + distance) % len(reached)]) for i, visit in enumerate(reached)]
            links += await asyncio.gather(*(source.connect_to(target) for source, target in pairs))
    finally:
        await asyncio.gather(*(visit.end() for visit in visits))
    order = {visit.host.address: i for i, visit in enumerate(visits)}
    links.sort(key=lambda link: (order[link.source], order[link.target]))
    here = await asyncio.to_thread(Code.here)
    return Examination(ray, here, [visit.report() for visit in visits], links)


class _Visit:
    """The examination of one host. Any failure there becomes part of its report."""

    def __init__(self, host: Host, storage_dir: str, depth: Depth) -> None:
        self.host = host
        self.error: str | None = None
        self._storage_dir, self._depth = storage_dir, depth
        self._worker: Worker | None = None
        self._told: dict[str, Any] = {}
        self._door: tuple[int, bytes] = (0, b"")

    async def begin(self, pool: Examinable) -> None:
        """Start an Examiner on the host."""
        start = pool.host(Examiner, on=self.host, any_code=True)
        self._worker, self.error = await _outcome(start, _START_TIMEOUT_S, "start an actor")

    async def ask(self) -> None:
        """Collect everything that concerns the host alone, and open its echo port."""
        if self._worker is None:
            return
        try:
            about = await self._answer("about", "describe itself")
            self._told = {"code": Code(**about["code"]), "machine": MachineFacts(**about["machine"])}
            self._told["storage"] = await self._ask_storage()
            # On the interface on which nodes listen for other hosts.
            self._door = await self._answer("listen", "open a port", every_interface(self.host.address))
        except _NoAnswer as reason:
            self.error = str(reason)
        except (KeyError, TypeError):
            self.error = "its answer cannot be understood: it runs different code; install the driver's version there"

    async def _ask_storage(self) -> Storage:
        try:
            told = await self._answer("storage", "test its disk", self._storage_dir, self._depth.fsync_s)
        except _NoAnswer as reason:
            return Storage(self._storage_dir, None, None, None, error=str(reason))
        return Storage(**(told | {"fsync": Durations(told["fsync"])}))

    async def connect_to(self, other: _Visit) -> Connection:
        """Measure the link from this host to another."""
        where = (other.host.address, *other._door)
        try:
            samples, error = await self._answer("round_trips", "connect", *where, self._depth.round_trip_s)
        except _NoAnswer as reason:
            samples, error = (), str(reason)
        return Connection(self.host.address, other.host.address, Durations(samples), error)

    async def end(self) -> None:
        """Close the Examiner and return its actor."""
        if self._worker is not None:
            await _outcome(self._worker.close(), _ANSWER_TIMEOUT_S, "end")

    def report(self) -> HostReport:
        """Return the findings so far."""
        worker = self._worker
        clock = None if worker is None else worker.clock
        return HostReport(
            address=self.host.address,
            hostname=self.host.name,
            is_driver=self.host.is_driver,
            cpus=self.host.cpus,
            same_clock=worker is not None and worker.facts.clock_id == clock_id(),
            clock_offset_ns=None if clock is None else clock.offset_ns,
            clock_error_ns=None if clock is None else clock.error_ns,
            error=self.error,
            **self._told,
        )

    async def _answer(self, method: str, what: str, *args: Any) -> Any:
        """Return the Examiner's answer. Raises _NoAnswer."""
        assert self._worker is not None
        # The timeout includes the longest measurements, because the answer arrives after them.
        seconds = _ANSWER_TIMEOUT_S + sum(self._depth)
        answer, error = await _outcome(self._worker.call(method, *args, timeout_s=None), seconds, what)
        if error is not None:
            raise _NoAnswer(error)
        return answer


class _NoAnswer(Exception):
    """The host did not answer; the message gives the reason in one line."""


async def _outcome(question: Awaitable[Any], seconds: float, what: str) -> tuple[Any, str | None]:
    """Return the answer, or the reason why there is none, in one line."""
    try:
        async with Patience(seconds):
            return await question, None
    except TimeoutError:
        return None, f"did not {what} within {seconds:g} s"
    except Exception as error:
        # Any exception: a host with different code may fail in unforeseen ways.
        return None, (str(error).strip() or type(error).__name__).splitlines()[0]
