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
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import ray
import ray.cloudpickle
from ray._private.state import available_resources_per_node
from ray._raylet import (  # type: ignore[attr-defined]
    AuthenticationMode,
    AuthenticationTokenLoader,
    Config,
    get_authentication_mode,
)
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestration.errors import InfrastructureError, OtherCode, PlacementRefused
from orchestration.host import PACKAGES
from orchestration.plan import ClusterPlan, Placement
from orchestration.ray_cluster.actor import ObjectHost
from orchestration.ray_cluster.calls import Caller, Pulse, bounded
from orchestration.ray_cluster.cluster import RayCluster
from orchestration.ray_cluster.doctor import DeadHost, Examination, RayFacts, examine
from orchestration.ray_cluster.owner import RAY_PREFIX, hold
from orchestration.ray_cluster.placement import Host, choose_hosts, cpus_of_actor, shortage
from orchestration.ray_cluster.tasks import on_each_host
from orchestration.ray_cluster.worker import Worker
from raft_actor_node import origin as origin_module
from raft_actor_node.addresses import split_address
from raft_actor_node.origin import Origin, origin, origins
from raft_actor_node.patience import Patience, communicate

# By value, for a worker that has other code, or none, must answer too.
ray.cloudpickle.register_pickle_by_value(origin_module)  # type: ignore[no-untyped-call]

T = TypeVar("T")

log = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 200 * 2**20
_ACTOR_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 60.0
_DISCONNECT_TIMEOUT_S = 20.0
_PLACEMENT_TIMEOUT_S = 30.0
"""How long others have to give back the CPUs that they use."""
_HEAD_TIMEOUT_S = 10.0
_POLL_S = 0.2
_PULSE_S = 2.0
_SILENCE_S = 15.0
"""When a head that does not answer is lost, in seconds in which this program waited for it. Ray itself ends a program a
minute after that."""
_GUARD_TIMEOUT_S = 30.0
_KNOCK_TIMEOUT_S = 5.0
_CODE_TIMEOUT_S = 20.0
_LONGEST_BASE = 24
# Ray starts as many workers at a time as it believes to have CPUs; with 2 the first 15 actors take twice as long.
_LEAST_CPUS = 4
# Ray prints a warning, whatever log_to_driver says, from about four times as many workers on: never with 99 nodes.
_WORKERS_AT_A_TIME = 32
_MAX_CONCURRENCY = 1000


class DriverClock:
    """The monotonic clock of the driver's host, on which all times of a cluster are told."""

    now_ns = staticmethod(time.monotonic_ns)


class Backend:
    """A connection to Ray, and a pool of actors that are used again from cell to cell. Made by `connect`."""

    clock = DriverClock()
    load_options: Mapping[str, Any] = MappingProxyType({})
    """What a load generator is given beside its own: nothing, for its engine and its clock are the real ones."""

    code: Mapping[str, Origin] = MappingProxyType({package: origin(package) for package in PACKAGES})
    """What this program runs, as its source was when it began: by package."""

    def __init__(self, origin: str, hosts: Sequence[Host], private: bool) -> None:
        self.hosts = tuple(hosts)
        """The hosts that are alive, as of the last start of a cluster."""
        self.private = private
        """True when this Ray was started for this program: everything is on this machine."""
        self._origin = origin
        self._idle: defaultdict[str, list[Worker]] = defaultdict(list)
        self._workers: set[Worker] = set()
        self._clusters: set[RayCluster] = set()
        self._pulse: Pulse | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, address: str | None = None) -> AsyncIterator[Backend]:
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
                backend = cls(origin, hosts, private=connection.private)
                backend._pulse = Pulse(ray.nodes, _PULSE_S, _SILENCE_S)
                try:
                    yield backend
                finally:
                    await backend._close()
            finally:
                with contextlib.suppress(InfrastructureError):  # then it goes with this program, or with its guard
                    await caller.bounded("Ray", _DISCONNECT_TIMEOUT_S, connection.disconnect)
                await asyncio.to_thread(connection.end_private)
        finally:
            caller.end()

    @property
    def description(self) -> str:
        """One line: which Ray this is, its hosts and their addresses."""
        count = len(self.hosts)
        addresses = ", ".join(host.address for host in self.hosts)
        return f"Ray: {self._origin}; {count} host{'s' if count != 1 else ''}: {addresses}"

    @property
    def lost(self) -> str | None:
        """Why nothing can be done here any more; None as long as Ray's head answers."""
        silent = self._pulse is not None and self._pulse.silent
        return f"Ray's head has not answered for {_SILENCE_S:g} s" if silent else None

    async def start_cluster(self, plan: ClusterPlan) -> RayCluster:
        """Bring up a cluster; see RayCluster.bring_up."""
        cluster = await RayCluster.bring_up(self, plan)
        self._clusters.add(cluster)
        return cluster

    def forget(self, cluster: RayCluster) -> None:
        """The cluster has been stopped."""
        self._clusters.discard(cluster)

    async def host(
        self, factory: Callable[..., Any], *args: Any, on: Host | None = None, any_code: bool = False, **kwargs: Any
    ) -> Worker:
        """An actor on the host `on`, of `hosts`, that holds `factory(*args, **kwargs)`; default: the driver's host.

        The factory, as a rule a class, must be importable there. The host may be one that offers no CPU. Raises
        InfrastructureError, PlacementRefused, OtherCode unless `any_code` will do, and what the factory raises.
        """
        [worker] = await self.acquire([on or self._drivers_host()], any_code=any_code)
        try:
            await worker.create(factory, *args, **kwargs)
        except BaseException:
            await worker.close()
            raise
        return worker

    async def examine(self, storage_dir: str = "auto", *, quick: bool = False) -> Examination:
        """Ask all hosts about themselves and one another; see doctor.examine."""
        return await examine(self, storage_dir, quick=quick)

    async def ray_facts(self) -> RayFacts:
        """Which Ray this is, and what hosts it has lost. Raises InfrastructureError when it does not answer."""
        return RayFacts(
            description=self.description,
            address=ray.get_runtime_context().gcs_address,
            version=ray.__version__,
            private=self.private,
            authentication="token" if get_authentication_mode() == AuthenticationMode.TOKEN else "none",
            dead=await _ask_head(_dead_hosts),
        )

    async def check(self, plan: ClusterPlan) -> tuple[Host, ...]:
        """The hosts that the nodes of such a cluster would have now, one for each node; nothing is started.

        Raises PlacementRefused, at once when hosts are missing, within 30 s when others use their CPUs, OtherCode, and
        InfrastructureError.
        """
        chosen = await self._choose(plan.nodes, plan.placement)
        needed = [*chosen, self._drivers_host()]  # there the load generator is
        await self.check_code(needed)
        await self._until_free(self._without_idle(needed))
        return chosen

    async def check_code(self, hosts: Iterable[Host] | None = None) -> None:
        """Raise OtherCode when what Ray starts on one of these hosts (default: all) imports other code than this
        program. A host that does not answer is passed over: that shows elsewhere."""
        for host, found in await _imported_on(dict.fromkeys(self.hosts if hosts is None else hosts)):
            for package, *there in found:
                if there[0] != self.code[package].digest:
                    raise OtherCode.of(f"what Ray starts on {host}", package, Origin(*there), self.code[package])

    async def place(self, count: int, placement: Placement) -> list[Worker]:
        """One actor for each of `count` nodes. Raises PlacementRefused and InfrastructureError."""
        chosen = await self._choose(count, placement)
        hosts = self.hosts
        try:
            return await self.acquire(chosen)
        except (InfrastructureError, PlacementRefused):
            chosen = await self._choose(count, placement)
            if set(self.hosts) == set(hosts):
                raise
            return await self.acquire(chosen)  # a host was lost meanwhile, or came

    async def another(self, host: Host) -> Worker:
        """One more actor on a host that has lost one. Raises InfrastructureError, at once when the host is gone."""
        if host.host_id not in [each.host_id for each in await _ask_head(_live_hosts)]:
            raise InfrastructureError(f"{host} left the Ray cluster")
        [worker] = await self.acquire([host])
        return worker

    async def acquire(self, chosen: Sequence[Host], *, any_code: bool = False) -> list[Worker]:
        """One actor on each chosen host: idle ones first, then new ones. Raises OtherCode unless `any_code` will do."""
        await self._drop_lost({host.host_id for host in chosen})
        idle = [self._idle[host.host_id].pop() if self._idle[host.host_id] else None for host in chosen]
        try:
            missing = [host for host, worker in zip(chosen, idle, strict=True) if worker is None]
            new = iter(await self._create(missing, any_code))
        except BaseException:
            for worker in filter(None, idle):
                self._take_back(worker, healthy=True)
            raise
        return [worker or next(new) for worker in idle]

    async def _drop_lost(self, host_ids: Iterable[str]) -> None:
        """Give up the idle actors on these hosts that do not answer."""

        async def answers(worker: Worker) -> bool:
            try:
                await worker.knock()
            except InfrastructureError:
                return False
            return True

        idle = [worker for host_id in host_ids for worker in self._idle.pop(host_id, ())]
        healthy = await asyncio.gather(*map(answers, idle))
        for worker, well in zip(idle, healthy, strict=True):
            self._take_back(worker, healthy=well)

    async def _create(self, chosen: Sequence[Host], any_code: bool) -> list[Worker]:
        if not chosen:
            return []
        await self._until_free(chosen)
        actor_class = ray.remote(ObjectHost)

        def make() -> list[Any]:
            return [
                actor_class.options(
                    num_cpus=cpus_of_actor(host),
                    max_restarts=0,  # a restart by Ray would be a fault that nobody logged
                    max_concurrency=_MAX_CONCURRENCY,
                    # By Ray's id and not by the address: a host that has just come back may be listed twice.
                    scheduling_strategy=NodeAffinitySchedulingStrategy(host.host_id, soft=False),
                ).remote()
                for host in chosen
            ]

        actors = await _ask_head(make)
        workers = [Worker(actor, host, self._take_back) for actor, host in zip(actors, chosen, strict=True)]
        self._workers.update(workers)
        same_code = asyncio.create_task(self.check_code(() if any_code else chosen))
        try:
            await asyncio.gather(*(worker.connect(_ACTOR_TIMEOUT_S) for worker in workers))
            await same_code
        except BaseException as error:
            for worker in workers:
                self._take_back(worker, healthy=False)
            if isinstance(error, InfrastructureError):
                await self._check_alive(chosen)  # says it better
                await same_code  # likewise
            raise
        finally:
            same_code.cancel()
        return workers

    async def _choose(self, count: int, placement: Placement) -> tuple[Host, ...]:
        self.hosts = tuple(await _ask_head(_live_hosts))
        return choose_hosts(count, self.hosts, placement)

    def _drivers_host(self) -> Host:
        found = next((host for host in self.hosts if host.is_driver), None)
        if found is None:
            raise InfrastructureError("this program's host is not in the Ray cluster any more")
        return found

    def _without_idle(self, chosen: Sequence[Host]) -> list[Host]:
        """Those of the hosts on which a new actor is needed."""
        idle = {host_id: len(workers) for host_id, workers in self._idle.items()}
        new = []
        for host in chosen:
            idle[host.host_id] = idle.get(host.host_id, 0) - 1
            if idle[host.host_id] < 0:
                new.append(host)
        return new

    async def _until_free(self, chosen: Sequence[Host]) -> None:
        """Wait until there is a CPU for a new actor on each of these hosts."""
        async with Patience(_PLACEMENT_TIMEOUT_S, interrupt=False) as patience:
            while missing := shortage(chosen, await _ask_head(_free_cpus)):
                await self._check_alive(chosen)
                if patience.over:
                    raise PlacementRefused(f"placement: not possible within {_PLACEMENT_TIMEOUT_S:g} s: {missing}")
                await asyncio.sleep(_POLL_S)

    async def _check_alive(self, chosen: Sequence[Host]) -> None:
        alive = {host.host_id for host in await _ask_head(_live_hosts)}
        if lost := [str(host) for host in chosen if host.host_id not in alive]:
            raise InfrastructureError(f"{', '.join(dict.fromkeys(lost))} left the Ray cluster")

    def _take_back(self, worker: Worker, healthy: bool) -> None:
        if healthy:
            self._idle[worker.host.host_id].append(worker)
        elif worker in self._workers:
            self._workers.remove(worker)
            worker.kill()

    async def _close(self) -> None:
        if self._pulse is not None:
            self._pulse.end()
        for cluster in tuple(self._clusters):
            await cluster.stop()
        if not self.private:  # a private Ray goes as a whole
            with contextlib.suppress(InfrastructureError):  # the actors end with their owner, which is this program
                await _ask_head(self._end_actors)

    def _end_actors(self) -> None:
        for worker in self._workers:
            worker.end()


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
        return f"{origin} {ray.get_runtime_context().gcs_address}", _live_hosts()

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


async def _ask_head(question: Callable[[], T]) -> T:
    """What Ray's head answers. One that cannot be reached would keep us waiting."""
    return await bounded("Ray's head", _HEAD_TIMEOUT_S, question)


def _live_hosts() -> list[Host]:
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


def _dead_hosts() -> list[DeadHost]:
    """Those that were in the cluster and are not there again, under another id."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    alive = {node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    dead = [node for node in nodes if node["NodeManagerAddress"] not in alive]
    return [
        DeadHost(node["NodeManagerAddress"], node["NodeManagerHostname"], node.get("DeathReasonMessage") or "")
        for node in dead
    ]


async def _imported_on(hosts: Iterable[Host]) -> list[tuple[Host, list[tuple[str, str, str]]]]:
    """What a process that Ray starts imports for each package of this project, on each of the hosts that answer."""
    outcomes = await on_each_host(origins, PACKAGES, hosts, timeout_s=_CODE_TIMEOUT_S)
    return [(outcome.item, outcome.result) for outcome in outcomes if outcome.result is not None]


def _free_cpus() -> dict[str, float]:
    """Host id to the CPUs that nobody uses, as Ray's head knew a moment ago."""
    available = available_resources_per_node()  # type: ignore[no-untyped-call]
    return {host_id: resources.get("CPU", 0.0) for host_id, resources in available.items()}


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
