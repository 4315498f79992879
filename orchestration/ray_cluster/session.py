"""The connection to Ray: a cluster that is there, or a private one for the life of this program.

A private Ray is out of everybody's way. Its access token lives in the environment of its processes and not
in a file of the home directory, where a later `ray start` would find it and demand it from other hosts; its
files are in a folder of its own. And it ends with the driver: the kernel kills the greater part when the
thread that started it ends, guard.py the rest.
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
from orchestration.ray_cluster.calls import Caller, Pulse, bounded
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
"""When a head that does not answer is lost, in seconds in which this program waited for it. Ray itself ends a program a
minute after that."""
_GUARD_TIMEOUT_S = 30.0
_KNOCK_TIMEOUT_S = 5.0
_LONGEST_BASE = 24
# Ray starts as many workers at a time as it believes to have CPUs; with 2 the first 15 actors take twice as long.
_LEAST_CPUS = 4
# Ray prints a warning, whatever log_to_driver says, from about four times as many workers on: never with 99 nodes.
_WORKERS_AT_A_TIME = 32


class Session:
    """A connection to Ray. Made by `connect`."""

    def __init__(self, origin: str, hosts: Sequence[Host], *, private: bool, pulse: Pulse | None = None) -> None:
        self.origin = origin
        """Which Ray this is, in a few words."""
        self.hosts = tuple(hosts)
        """The hosts that were alive when it began."""
        self.private = private
        """True when this Ray was started for this program: everything is on this machine."""
        self._pulse = pulse

    @property
    def lost(self) -> str | None:
        """Why nothing can be done here any more; None as long as Ray's head answers."""
        silent = self._pulse is not None and self._pulse.silent
        return f"Ray's head has not answered for {_SILENCE_S:g} s" if silent else None


@contextlib.asynccontextmanager
async def connect(address: str | None = None) -> AsyncIterator[Session]:
    """Use the Ray cluster at `address` or $RAY_ADDRESS (`auto`: the one on this machine), else start one.

    `local` starts a private one whatever the environment says. A connection that this program has already
    is used in any case, and left open. What was started is taken down at the end. Raises
    InfrastructureError.
    """
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    if wanted not in ("auto", "local"):
        try:
            split_address(wanted)
        except ValueError as error:
            todo = "run this program on a host of the cluster" if "://" in wanted else "or use auto, or local"
            raise InfrastructureError(f"Ray ({wanted}): {error}; {todo}") from None
    # Ray's processes die with the thread that started them, so this one lives as long as they may.
    caller = Caller()
    try:
        with _advice(wanted):
            connection = await caller.bounded(f"Ray ({wanted})", _CONNECT_TIMEOUT_S, lambda: _Connection(wanted))
        try:
            with _advice(wanted):
                origin, hosts = await caller.bounded(f"Ray ({wanted})", _CONNECT_TIMEOUT_S, connection.open)
            pulse = Pulse(ray.nodes, _PULSE_S, _SILENCE_S)
            try:
                yield Session(origin, hosts, private=connection.private, pulse=pulse)
            finally:
                pulse.end()
        finally:
            with contextlib.suppress(InfrastructureError):  # then it goes with this program, or with its guard
                await caller.bounded("Ray", _DISCONNECT_TIMEOUT_S, connection.disconnect)
            await asyncio.to_thread(connection.end_private)
    finally:
        caller.end()


async def ask_head(question: Callable[[], T]) -> T:
    """What Ray's head answers. One that cannot be reached would keep us waiting."""
    return await bounded("Ray's head", _HEAD_TIMEOUT_S, question)


def live_hosts() -> list[Host]:
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
    """The life of the connection to Ray. Blocking; all of it runs in one thread."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._borrowed = bool(ray.is_initialized())
        self.private = wanted == "local" and not self._borrowed
        self._folder = _ray_folder() if self.private else None
        self._held = hold(Path(self._folder)) if self._folder else None
        self._guard = _start_guard(self._folder) if self._folder else None

    def open(self) -> tuple[str, list[Host]]:
        """Connect; what to call this Ray, and its hosts."""
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
                            # Else nodes and load generator would yield the CPU to everything else on the machine.
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
            if reason.startswith("Failed to connect to Ray cluster"):  # though somebody listens there
                reason += " (compare RAY_AUTH_MODE, and the token in ~/.ray/auth_token, with the head's)"
            raise InfrastructureError(f"Ray ({self._wanted}): {reason}") from error
        return f"{origin} {ray.get_runtime_context().gcs_address}", live_hosts()

    def disconnect(self) -> None:
        """From Ray, unless the connection is not ours."""
        if not self._borrowed:
            ray.shutdown()

    def end_private(self) -> None:
        """Take down what was started."""
        if self._guard is not None:
            _reread_authentication()
            # The same end as after a SIGKILL of this program, so it is exercised every time. A byte, and not only the
            # end of the pipe: a process that was forked from this one may still have it open.
            try:
                communicate(self._guard, b"\n", seconds=_GUARD_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                # The guard goes on by itself, and the results do not depend on it.
                what = "%s: the private Ray was not cleaned up within %g s; if the folder stays, run sweep clean"
                log.warning(what, self._folder, _GUARD_TIMEOUT_S)
        if self._held is not None:
            os.close(self._held)


@contextlib.contextmanager
def _advice(wanted: str) -> Iterator[None]:
    """Say what to look at when Ray does not answer at its start."""
    try:
        yield
    except InfrastructureError as error:
        if "did not answer" not in str(error):  # it says itself what is wrong
            raise
        look = f"see that its head runs and has CPU (ray status --address={wanted})"
        if wanted == "local":
            look = f"see that this machine has CPU (uptime), memory (free -m) and room in {tempfile.gettempdir()} (df)"
        raise InfrastructureError(f"{str(error).rstrip('.')}; {look}, then try again") from error


def _knock(address: str) -> None:
    """Raise OSError when nobody listens there; Ray itself would try for minutes."""
    if address != "auto":
        try:
            socket.create_connection(split_address(address), timeout=_KNOCK_TIMEOUT_S).close()
        except OSError as error:
            why = error.strerror or str(error)
            raise ConnectionError(f"{why}; see that Ray's head runs there (ray status --address={address})") from None


def _ray_folder() -> str:
    """A new folder for the files of a private Ray; short, because it puts Unix sockets far below it."""
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
    """The environment that a private Ray inherits; this program's own is left as it was.

    Ray's default would write a token into the home directory. With the token in the environment only this
    user's processes can use it. A RAY_AUTH_MODE that the user has set is left alone.
    """
    ours: dict[str, str | None] = {
        "PYTHONPATH": os.pathsep.join(filter(None, (_import_root(), os.environ.get("PYTHONPATH")))),
        "PYTHONOPTIMIZE": None,  # at 2 there are no docstrings, and a part of Ray's does not start without its own
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
    """Have what this thread starts hear nothing of a terminal that is closed: only this program ends its Ray, in order.

    Ray does the same for SIGINT. Its processes are of this program's group, which the kernel sends SIGHUP.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reread_authentication() -> None:
    """Make Ray forget what it read from the environment when it was imported or last used."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


class _Final(list[str]):
    """A list that stays as it is."""

    def extend(self, _: Iterable[str]) -> None:
        """Ray adds the folder in which the driver was started: its workers would look there before anywhere else."""


def _job() -> JobConfig:
    """Workers look where this program looks before its standard library, and in the same order."""
    job = JobConfig()
    library = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    before = itertools.takewhile(lambda place: place not in library, sys.path)
    # They put each before those that are there.
    job._py_driver_sys_path = _Final(reversed([str(Path(place).absolute()) for place in before]))
    return job


def _import_root() -> str:
    """The folder from which this project is imported, installed or not; workers need it too."""
    return str(Path(__file__).parents[2])
