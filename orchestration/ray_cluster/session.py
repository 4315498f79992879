"""The connection to Ray: to an existing cluster, or to a private Ray that ends with this program.

A private Ray is isolated from other Rays. Its files are in its own folder. Its access token is only in the environment
of its processes. If the token were in the home directory, a later `ray start` would find it there and demand it from
other hosts. A private Ray ends with the driver: when the thread that started it ends, the kernel kills most of its
processes, and guard.py kills the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.job_config import JobConfig

from orchestration.errors import InfrastructureError
from orchestration.face import Host
from orchestration.ray_cluster.calls import CallThread, Pulse, bounded
from orchestration.ray_cluster.owner import RAY_PREFIX, hold
from raft_actor_node.addresses import split_address
from raft_actor_node.patience import communicate

T = TypeVar("T")

log = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 200 * 2**20
_CONNECT_TIMEOUT_S = 60.0
_DISCONNECT_TIMEOUT_S = 20.0
_HEAD_TIMEOUT_S = 10.0
_PULSE_S = 2.0
_SILENCE_S = 15.0
"""Silence after which Ray's head is considered lost, in seconds of this program's running time.

After another minute of silence, Ray itself ends the program.
"""
_GUARD_TIMEOUT_S = 30.0
_KNOCK_TIMEOUT_S = 5.0
_LONGEST_BASE = 24
# Ray starts as many workers at a time as it has CPUs; with 2 CPUs the first 15 actors would take twice as long.
_LEAST_CPUS = 4
# Ray warns at about four times this number of workers, even without log_to_driver; 99 nodes stay below that.
_WORKERS_AT_A_TIME = 32


class RaySession:
    """A connection to Ray. Created by `connect`."""

    def __init__(self, origin: str, hosts: Sequence[Host], *, private: bool, pulse: Pulse | None = None) -> None:
        self.origin = origin
        """A short description of this Ray."""
        self.hosts = tuple(hosts)
        """The hosts that were alive when the session began."""
        self.private = private
        """Whether this Ray was started for this program; then everything is on this machine."""
        self._pulse = pulse

    @property
    def lost(self) -> str | None:
        """Why this session can no longer be used; None as long as Ray's head answers."""
        silent = self._pulse is not None and self._pulse.silent
        return f"Ray's head has not answered for {_SILENCE_S:g} s" if silent else None


@contextlib.asynccontextmanager
async def connect(address: str | None = None) -> AsyncIterator[RaySession]:
    """Connect to the Ray cluster at `address`, by default $RAY_ADDRESS; without either, start a private Ray.

    `auto` is the cluster on this machine; `local` starts a private Ray even if $RAY_ADDRESS is set. If this program is
    already connected to Ray, the session uses that connection, whatever `address` is, and leaves it open. At exit a
    private Ray is stopped. Raises InfrastructureError.
    """
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    if wanted not in ("auto", "local"):
        try:
            split_address(wanted)
        except ValueError as error:
            todo = "run this program on a host of the cluster" if "://" in wanted else "or use auto, or local"
            raise InfrastructureError(f"Ray ({wanted}): {error}; {todo}") from None
    # Ray's processes die with the thread that started them, so the caller's thread runs until the session ends.
    caller = CallThread()
    try:
        with _advice(wanted):
            connection = await caller.bounded(f"Ray ({wanted})", _CONNECT_TIMEOUT_S, lambda: _Connection(wanted))
        try:
            with _advice(wanted):
                origin, hosts = await caller.bounded(f"Ray ({wanted})", _CONNECT_TIMEOUT_S, connection.open)
            pulse = Pulse(ray.nodes, _PULSE_S, _SILENCE_S)
            try:
                yield RaySession(origin, hosts, private=connection.private, pulse=pulse)
            finally:
                pulse.end()
        finally:
            # If this fails, the connection ends with this program, and the guard ends a private Ray.
            with contextlib.suppress(InfrastructureError):
                await caller.bounded("Ray", _DISCONNECT_TIMEOUT_S, connection.disconnect)
            await asyncio.to_thread(connection.end_private)
    finally:
        caller.end()


async def ask_head(question: Callable[[], T]) -> T:
    """Run `question`, a call to Ray's head, and return the answer.

    Raises InfrastructureError when the call fails or takes more than _HEAD_TIMEOUT_S.
    """
    return await bounded("Ray's head", _HEAD_TIMEOUT_S, question)


def live_hosts() -> list[Host]:
    """Return the hosts that Ray's head considers alive. Blocks; see `ask_head`."""
    driver = ray.get_runtime_context().get_node_id()
    return [
        Host(
            node["NodeID"],
            node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0.0),
            node["NodeID"] == driver,
            node["NodeManagerHostname"],
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


class _Connection:
    """A connection to Ray, from its start to its end. Its methods block and must run in the same thread."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._borrowed = bool(ray.is_initialized())
        self.private = wanted == "local" and not self._borrowed
        self._folder = _ray_folder() if self.private else None
        self._held = hold(Path(self._folder)) if self._folder else None
        self._guard = _start_guard(self._folder) if self._folder else None

    def open(self) -> tuple[str, list[Host]]:
        """Connect; return a description of this Ray, and its hosts."""
        common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "job_config": _job()}
        try:
            if self._borrowed:
                origin = "the connection that this program had, to"
            elif self._folder is not None:
                origin = "private, started for this program at"
                with _private_environment(), _out_of_hangups():
                    ray.init(
                        address="local",
                        num_cpus=max(_LEAST_CPUS, os.cpu_count() or 1),
                        include_dashboard=False,
                        object_store_memory=_OBJECT_STORE_BYTES,
                        _temp_dir=self._folder,
                        _system_config={
                            # Otherwise all other processes would have priority over nodes and load generator.
                            "worker_niceness": 0,
                            "worker_maximum_startup_concurrency": _WORKERS_AT_A_TIME,
                        },
                        **common,
                    )
            else:
                origin = "the cluster at"
                _knock(self._wanted)
                ray.init(address=self._wanted, **common)
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if reason.startswith("Failed to connect to Ray cluster"):  # although the port is open
                reason += " (compare RAY_AUTH_MODE, and the token in ~/.ray/auth_token, with the head's)"
            raise InfrastructureError(f"Ray ({self._wanted}): {reason}") from error
        return f"{origin} {ray.get_runtime_context().gcs_address}", live_hosts()

    def disconnect(self) -> None:
        """Disconnect from Ray, unless the program was connected before this session."""
        if not self._borrowed:
            ray.shutdown()

    def end_private(self) -> None:
        """Stop the private Ray, if any."""
        if self._guard is not None:
            _reread_authentication()
            # The guard stops Ray here as it does after a SIGKILL of this program, so every exit exercises that path.
            # Closing the pipe is not enough: a process that was forked from this program may still have it open.
            try:
                communicate(self._guard, b"\n", seconds=_GUARD_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                # The guard continues by itself, and the results do not depend on it.
                what = "%s: the private Ray was not cleaned up within %g s; if the folder stays, run sweep clean"
                log.warning(what, self._folder, _GUARD_TIMEOUT_S)
        if self._held is not None:
            os.close(self._held)


@contextlib.contextmanager
def _advice(wanted: str) -> Iterator[None]:
    """Add advice to the error when Ray does not answer at its start."""
    try:
        yield
    except InfrastructureError as error:
        if "did not answer" not in str(error):  # other errors say what is wrong
            raise
        look = f"see that its head runs and has CPU (ray status --address={wanted})"
        if wanted == "local":
            look = f"see that this machine has CPU (uptime), memory (free -m) and room in {tempfile.gettempdir()} (df)"
        raise InfrastructureError(f"{str(error).rstrip('.')}; {look}, then try again") from error


def _knock(address: str) -> None:
    """Raise OSError when no server listens at the address; Ray itself would retry for minutes."""
    if address != "auto":
        try:
            socket.create_connection(split_address(address), timeout=_KNOCK_TIMEOUT_S).close()
        except OSError as error:
            why = error.strerror or str(error)
            raise ConnectionError(f"{why}; see that Ray's head runs there (ray status --address={address})") from None


def _ray_folder() -> str:
    """Create a folder for a private Ray; its path is short, because Ray creates Unix sockets in deep subfolders."""
    base = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix=RAY_PREFIX, dir=base if len(base) <= _LONGEST_BASE else "/tmp")  # noqa: S108


def _start_guard(folder: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextlib.contextmanager
def _private_environment() -> Iterator[None]:
    """Set the environment that a private Ray inherits, and restore this program's own afterwards.

    By default Ray would write a token into the home directory. A token in the environment can be used only by this
    user's processes. A RAY_AUTH_MODE that the user has set is kept.
    """
    ours: dict[str, str | None] = {
        "PYTHONPATH": os.pathsep.join(filter(None, (_import_root(), os.environ.get("PYTHONPATH")))),
        "PYTHONOPTIMIZE": None,  # 2 removes docstrings, and a part of Ray does not start without its docstrings
    }
    if "RAY_AUTH_MODE" not in os.environ:
        ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in ours}
    _set_environment(ours)
    try:
        _reread_authentication()
        yield
    finally:
        _set_environment(before)


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _out_of_hangups() -> Iterator[None]:
    """Block SIGHUP in the processes that this thread starts.

    When a terminal closes, the kernel sends SIGHUP to the process group of this program, which contains Ray's
    processes. They must run until this program ends its Ray. Ray itself blocks SIGINT in them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reread_authentication() -> None:
    """Make Ray read its authentication settings from the environment again."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


class _Final(list[str]):
    """A list that ignores `extend`."""

    def extend(self, _: Iterable[str]) -> None:
        """Ignore Ray's attempt to add the driver's working folder: workers would search it before all others."""


def _job() -> JobConfig:
    """Return a job whose workers search the folders that precede this program's standard library, in the same order."""
    job = JobConfig()
    library = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    before = itertools.takewhile(lambda place: place not in library, sys.path)
    # Reversed, because a worker inserts each folder at the front.
    job._py_driver_sys_path = _Final(reversed([str(Path(place).absolute()) for place in before]))
    return job


def _import_root() -> str:
    """Return the folder from which this project is imported, installed or not; workers need it too."""
    return str(Path(__file__).parents[2])
