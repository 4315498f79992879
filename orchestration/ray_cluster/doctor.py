"""What hosts a Ray cluster has, and what lies between them: asked before one believes what is measured there.

`Examiner` answers on each host; it lives in an ObjectHost (actor.py) and knows no Ray. `examine` asks all of them.
What does not answer is a figure too: every question has a timeout, and only Ray as a whole may fail an examination.
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
"""A lost SYN is sent again after 1 s: two may be lost, and the third still arrives."""
_START_TIMEOUT_S = 20.0
"""Ray starts an actor in a few seconds, also on a host that is busy."""
_ANSWER_TIMEOUT_S = 10.0
"""Beside the time that the answer itself takes."""
_PING = bytes(64)
_TOKEN_BYTES = 16
_LEAST_ABOVE = 10
"""A percentile with fewer samples above it is not told."""


class Depth(NamedTuple):
    """For how long is measured at most, in seconds."""

    fsync_s: float
    round_trip_s: float
    """Of each pair of hosts, in each direction."""


QUICK = Depth(fsync_s=1.0, round_trip_s=0.2)
"""At the beginning of every run."""
THOROUGH = Depth(fsync_s=15.0, round_trip_s=2.0)
"""Enough for the 99th percentile of fsyncs of 15 ms; on faster disks it ends sooner."""


# ---------------------------------------------------------------------------------- what is found


@dataclass(frozen=True)
class Samples:
    """Times, in nanoseconds."""

    ns: Sequence[int] = ()

    def ms(self, q: float) -> float | None:
        """A percentile by the nearest rank, in milliseconds; None when fewer than 10 samples are above it, except
        for the maximum."""
        count = len(self.ns)
        if not count or (q < 1 and count * (1 - q) < _LEAST_ABOVE):
            return None
        return sorted(self.ns)[math.ceil(q * count) - 1] / 1e6

    def as_json(self) -> dict[str, Any]:
        """Their number, median, 99th percentile and maximum, in microseconds."""
        named = {"p50_us": self.ms(0.5), "p99_us": self.ms(0.99), "max_us": self.ms(1.0)}
        return {"count": len(self.ns)} | {
            name: None if value is None else round(value * 1e3, 1) for name, value in named.items()
        }


@dataclass(frozen=True)
class Code:
    """What runs somewhere."""

    versions: Mapping[str, str | None]
    digest: str
    folder: str

    @classmethod
    def here(cls) -> Code:
        """In this process."""
        return cls(versions(), code_digest(), str(code_folder()))


@dataclass(frozen=True)
class Machine:
    """What a host tells of itself, as a process sees it that Ray started there."""

    cpu: str
    cores: int
    cpus_available: float
    """Less than cores under an affinity or a quota."""
    load: float
    """Processes that ran or waited for a CPU, mean of the last minute."""
    niceness: int
    open_files: int
    """Limit of a process."""
    memory_bytes: int
    kernel: str
    ports: tuple[int, int] | None
    """Range of the ephemeral ones."""


@dataclass(frozen=True)
class Storage:
    """The folder below which nodes have their logs."""

    folder: str
    file_system: str | None
    device: str | None
    free_bytes: int | None
    fsync: Samples = Samples()
    error: str | None = None
    """Why it cannot be written."""
    lacks: Sequence[str] = ()
    """What a log needs and this file system does not support."""

    @property
    def in_memory(self) -> bool:
        """An fsync proves nothing there."""
        return self.file_system in MEMORY_FILE_SYSTEMS


@dataclass(frozen=True)
class HostReport:
    """One host; what it did not tell is None, and `error` says why."""

    address: str
    hostname: str
    is_driver: bool
    cpus: float
    """That Ray offers there."""
    code: Code | None = None
    machine: Machine | None = None
    storage: Storage | None = None
    same_clock: bool = False
    """It reads the same monotonic clock as the driver."""
    clock_offset_ns: int | None = None
    """Its monotonic clock less the driver's."""
    clock_error_ns: int | None = None
    """The offset is right within this much."""
    error: str | None = None


@dataclass(frozen=True)
class Link:
    """A connection from one host to an ephemeral port of another."""

    source: str
    target: str
    round_trips: Samples = Samples()
    error: str | None = None


@dataclass(frozen=True)
class DeadHost:
    """A host that was in the Ray cluster."""

    address: str
    hostname: str
    reason: str


@dataclass(frozen=True)
class RayFacts:
    """Which Ray this is."""

    description: str
    address: str
    version: str
    private: bool
    """It was started for this program, and nobody else can use it."""
    authentication: str
    """token or none."""
    dead: Sequence[DeadHost] = ()


@dataclass(frozen=True)
class Examination:
    """All that was found."""

    ray: RayFacts
    driver: Code
    hosts: Sequence[HostReport]
    links: Sequence[Link] = field(default=())
    """Of every host that answered to every other."""

    def as_json(self) -> dict[str, Any]:
        """For the manifest of a run; times in microseconds, offsets of clocks in nanoseconds."""
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
    """Answers for its host. What it returns is plain data, for the driver's code may be another."""

    def __init__(self) -> None:
        self._echo: _EchoServer | None = None

    async def about(self) -> dict[str, Any]:
        """Code and Machine."""
        return await asyncio.to_thread(_about)

    async def storage(self, storage_dir: str, seconds: float) -> dict[str, Any]:
        """Storage, with fsyncs measured for at most that long."""
        return await asyncio.to_thread(_storage, storage_dir, seconds)

    async def listen(self, interface: str) -> tuple[int, bytes]:
        """Open an ephemeral port, where each connection is greeted with a token and then gets an echo."""
        if self._echo is None:
            self._echo = _EchoServer(interface)
        return self._echo.port, self._echo.token

    async def round_trips(self, address: str, port: int, token: bytes, seconds: float) -> tuple[list[int], str | None]:
        """Times of echoes from there, in nanoseconds, for at most that long; and why there are no more of them."""
        return await asyncio.to_thread(_round_trips, address, port, token, seconds)

    async def close(self) -> None:
        """Close the port."""
        echo, self._echo = self._echo, None
        if echo is not None:
            await asyncio.to_thread(echo.close)


class _EchoServer:
    """Threads and blocking sockets: an event loop would add its own latency to what is measured."""

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
    machine = Machine(
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


# ---------------------------------------------------------------------------------- the asking side


class Examinable(Protocol):
    """What has hosts, on which an object can be had: a Pool."""

    @property
    def hosts(self) -> Sequence[Host]: ...
    async def host(
        self, factory: Callable[..., object], *, on: Host | None = None, any_code: bool = False
    ) -> Worker: ...


async def examine(pool: Examinable, ray: RayFacts, storage_dir: str = "auto", *, quick: bool = False) -> Examination:
    """Ask every host of the Ray cluster about itself, and about its way to every other.

    `ray` becomes part of the result; `storage_dir` is as `storage.dir` of a spec; `quick` measures for less time.
    Raises InfrastructureError when Ray itself does not answer.
    """
    depth = QUICK if quick else THOROUGH
    visits = [_Visit(host, storage_dir, depth) for host in pool.hosts]
    try:
        # Step by step, so that no host starts processes while others measure.
        await asyncio.gather(*(visit.begin(pool) for visit in visits))
        await asyncio.gather(*(visit.ask() for visit in visits))
        reached = [visit for visit in visits if visit.error is None]
        links: list[Link] = []
        for distance in range(1, len(reached)):
            # Each host asks one other, and is asked by one other, at a time.
            pairs = [(visit, reached[(i + distance) % len(reached)]) for i, visit in enumerate(reached)]
            links += await asyncio.gather(*(source.connect_to(target) for source, target in pairs))
    finally:
        await asyncio.gather(*(visit.end() for visit in visits))
    order = {visit.host.address: i for i, visit in enumerate(visits)}
    links.sort(key=lambda link: (order[link.source], order[link.target]))
    here = await asyncio.to_thread(Code.here)
    return Examination(ray, here, [visit.report() for visit in visits], links)


class _Visit:
    """One host while it is asked. What fails there is an answer too, whatever it is."""

    def __init__(self, host: Host, storage_dir: str, depth: Depth) -> None:
        self.host = host
        self.error: str | None = None
        self._storage_dir, self._depth = storage_dir, depth
        self._worker: Worker | None = None
        self._told: dict[str, Any] = {}
        self._door: tuple[int, bytes] = (0, b"")

    async def begin(self, pool: Examinable) -> None:
        """Have somebody there who answers."""
        start = pool.host(Examiner, on=self.host, any_code=True)
        self._worker, self.error = await _outcome(start, _START_TIMEOUT_S, "start an actor")

    async def ask(self) -> None:
        """Everything that concerns the host alone."""
        if self._worker is None:
            return
        try:
            about = await self._answer("about", "tell about itself")
            self._told = {"code": Code(**about["code"]), "machine": Machine(**about["machine"])}
            self._told["storage"] = await self._ask_storage()
            # As nodes of other hosts must be reached.
            self._door = await self._answer("listen", "open a port", every_interface(self.host.address))
        except _NoAnswer as reason:
            self.error = str(reason)
        except (KeyError, TypeError):
            self.error = "what it tells cannot be understood: it has other code"

    async def _ask_storage(self) -> Storage:
        try:
            told = await self._answer("storage", "write there", self._storage_dir, self._depth.fsync_s)
        except _NoAnswer as reason:
            return Storage(self._storage_dir, None, None, None, error=str(reason))
        return Storage(**(told | {"fsync": Samples(told["fsync"])}))

    async def connect_to(self, other: _Visit) -> Link:
        """Connect from here to there."""
        where = (other.host.address, *other._door)
        try:
            samples, error = await self._answer("round_trips", "connect", *where, self._depth.round_trip_s)
        except _NoAnswer as reason:
            samples, error = (), str(reason)
        return Link(self.host.address, other.host.address, Samples(samples), error)

    async def end(self) -> None:
        """Leave the host as it was."""
        if self._worker is not None:
            await _outcome(self._worker.close(), _ANSWER_TIMEOUT_S, "end")

    def report(self) -> HostReport:
        """What there is by now."""
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
        """Raises _NoAnswer."""
        assert self._worker is not None
        # What is measured for some time is told at the end of it.
        seconds = _ANSWER_TIMEOUT_S + sum(self._depth)
        answer, error = await _outcome(self._worker.call(method, *args, timeout_s=None), seconds, what)
        if error is not None:
            raise _NoAnswer(error)
        return answer


class _NoAnswer(Exception):
    """With the reason, in one line."""


async def _outcome(question: Awaitable[Any], seconds: float, what: str) -> tuple[Any, str | None]:
    """The answer, or why there is none, in one line."""
    try:
        async with Patience(seconds):
            return await question, None
    except TimeoutError:
        return None, f"did not {what} within {seconds:g} s"
    except Exception as error:
        # Of any kind: a host with other code fails in ways that nobody can list.
        return None, (str(error).strip() or type(error).__name__).splitlines()[0]
