"""The code inside a Ray actor: a host for any object, and the supervisor of one node.

Neither class uses Ray; pool.py makes actors of `ObjectHost`. One actor hosts many objects in turn, because a new actor
costs 0.3 s of CPU. Every call of either class runs as a task of one asyncio loop, so a `kill` never queues behind a
`wait`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import inspect
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from orchestration.errors import DISK_ERRORS, InfrastructureError, NodeFailed, OtherCode, remedy
from orchestration.plan import NodeFiles
from orchestration.ray_cluster.owner import (
    OWNER_VARIABLE,
    Leftover,
    end_orphans,
    end_process,
    hold,
    owner,
    start_ticks,
)
from orchestration.ray_cluster.process import Exit, NodeProcess
from raft_actor_node.origin import Origin
from raft_actor_node.patience import Patience
from raft_actor_node.runtime.disk import memory_file_system

_NODE_PACKAGE = "raft_actor_node"


class HostFacts(NamedTuple):
    """Facts that an actor reports about its host."""

    hostname: str
    cpus: int
    pid: int
    """Process id of the actor."""
    clock_id: str
    """Id of the monotonic clock; equal on two hosts only if they read the same clock."""


class ObjectHost:
    """Holds one object at a time and calls its methods."""

    def __init__(self) -> None:
        self._object: Any = None

    async def facts(self) -> HostFacts:
        """Return the facts about this host."""
        return HostFacts(socket.gethostname(), os.cpu_count() or 1, os.getpid(), clock_id())

    async def now_ns(self) -> int:
        """Read the monotonic clock of this host."""
        return time.monotonic_ns()

    async def create(self, factory: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Close the current object and create a new one, on the loop that will run its methods."""
        await self.close()
        self._object = factory(*args, **kwargs)

    async def call(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method of the object, sync or async."""
        return await _settle(getattr(self._object, method)(*args, **kwargs))

    async def close(self) -> None:
        """Drop the object; if it has a `close()`, sync or async, call that first."""
        hosted, self._object = self._object, None
        if hasattr(hosted, "close"):
            await _settle(hosted.close())


async def _settle(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def clock_id() -> str:
    """Return an id of this process's monotonic clock: the boot id of the machine, and the time namespace if any."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = socket.gethostname()
    try:
        return f"{boot}/{Path('/proc/self/ns/time').readlink()}"
    except OSError:  # Linux before 5.6
        return boot


@dataclass(frozen=True)
class NodeSpec:
    """All that a supervisor needs in order to start and restart a node."""

    node_id: str
    run_id: str
    cell_id: str
    config: Mapping[str, Any]
    """NodeConfig as JSON, without the fields that depend on the host or on the incarnation."""
    command: str | tuple[str, ...]
    """`default`, a command line, or the words of one; the supervisor appends `--config FILE`."""
    cwd: str
    """Working directory of the command; a host without this directory uses the private folder of the cell."""
    bind_host: str
    advertise_host: str
    boot_timeout_s: float
    code: Origin
    """The driver's `raft_actor_node`; a node started by the default command must run the same code."""


class Started(NamedTuple):
    """The report of a node that is ready."""

    address: str
    pid: int
    spawned_ns: int
    """When the process was started, on the monotonic clock of its host."""
    ready_ns: int
    """When the process reported its address, on the same clock."""
    ticks: int
    """When the process was started, in ticks since boot; together with the pid this identifies the process."""


class NodeSupervisor:
    """Starts, stops and disturbs the process of one node, across its incarnations, on one directory.

    The node's files are in a private folder of the run and cell; the user may choose only the log directory. All times
    are on this host's monotonic clock. When the actor ends in any way, the node's process ends with it (process.py);
    the files remain.
    """

    def __init__(self, spec: NodeSpec) -> None:
        self._spec = spec
        self._process: NodeProcess | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self._held: int | None = None
        chosen = spec.config["storage"]["dir"]
        cell = Path(spec.run_id, spec.cell_id)
        self._scratch = temporary_folder() / cell
        self._storage = self._scratch if chosen == "auto" else Path(chosen).absolute() / cell
        self._config_file, self._log_file, self._trace_file = (
            self._scratch / f"{spec.node_id}.{suffix}" for suffix in ("json", "log", "trace.jsonl")
        )

    async def start(
        self,
        links: Sequence[Mapping[str, Any]],
        node_faults: Mapping[str, Any] = MappingProxyType({}),
        *,
        bootstrap: bool,
        seed: int | None = None,
    ) -> Started:
        """Start the process and wait until it is ready; first kill a process that still runs.

        `links` is the table of link faults and `node_faults` the faults inside this node; both are in force before the
        node opens its port. `bootstrap` allows an empty directory. `seed` seeds the timeouts of this incarnation.
        Raises NodeFailed, OtherCode if the node does not run the driver's code, and InfrastructureError when this
        host's disk fails.
        """
        # One start at a time: the caller may have given up an earlier start, and retried.
        async with self._starting:
            if self._process is not None:
                await self._process.kill()
            spawned_ns = time.monotonic_ns()
            process = self._process = await self._spawn(
                {"links": list(links), "node_faults": dict(node_faults)}, bootstrap, seed
            )
            if self._closed:
                await process.kill()
            report = await process.report(self._spec.boot_timeout_s)
            if self._spec.command == "default" and report.code.digest != self._spec.code.digest:
                await process.kill()
                raise OtherCode.of(f"node {self._spec.node_id}", _NODE_PACKAGE, report.code, self._spec.code)
            return Started(report.address, process.pid, spawned_ns, time.monotonic_ns(), start_ticks(process.pid))

    async def _spawn(self, faults: Mapping[str, Any], bootstrap: bool, seed: int | None) -> NodeProcess:
        try:
            if self._held is None:
                self._held = hold(self._scratch)
            # Creates the folder, even while other cells remove the empty folders above it.
            os.close(hold(self._storage))
            _cut_torn_line(self._trace_file)
            self._config_file.write_text(json.dumps(self._config(faults, bootstrap, seed)), encoding="utf-8")
            return await NodeProcess.spawn(
                self._spec.node_id,
                [*command_words(self._spec.command), "--config", str(self._config_file)],
                log_file=self._log_file,
                env=_environment() | {OWNER_VARIABLE: owner()},
                cwd=self._working_directory(),
            )
        except OSError as error:
            place = error.filename or self._scratch
            what = f"{place}: {error.strerror or error}"
            if error.errno in DISK_ERRORS:
                who = f"node {self._spec.node_id} on {socket.gethostname()}"
                raise InfrastructureError(f"{who} cannot be started: {what}; {remedy(error)}") from None
            raise NodeFailed(self._spec.node_id, f"cannot be started: {what}") from None

    async def wait(self, most_s: float | None = None) -> Exit | None:
        """Wait until the current process ends; return None after `most_s` seconds."""
        try:
            async with Patience(most_s):
                return await self._running().wait()
        except TimeoutError:
            return None

    async def send_addresses(self, book: Mapping[str, Any]) -> None:
        """Send the address book to the node, without waiting until the node reads it."""
        if self._process is not None:
            self._process.send({"addresses": book})

    async def kill(self) -> int:
        """Send SIGKILL and wait until the process has ended. Returns the time of the signal."""
        process = self._running()
        sent_ns = process.send_signal(signal.SIGKILL)
        await process.wait()
        return sent_ns

    async def terminate(self) -> Exit:
        """Send SIGTERM, and SIGKILL if the process does not end; wait until it has ended."""
        return await self._running().terminate()

    async def pause(self) -> int:
        """Send SIGSTOP. Returns the time at which the process was seen stopped."""
        return await self._running().pause()

    async def resume(self) -> int:
        """Send SIGCONT. Returns the time of the signal."""
        return self._running().resume()

    async def collect(self) -> NodeFiles:
        """Read what the node has written so far, without an incomplete last line of the trace."""
        trace, log = await asyncio.gather(
            asyncio.to_thread(_read, self._trace_file), asyncio.to_thread(_read, self._log_file)
        )
        return NodeFiles(trace.rpartition("\n")[0].splitlines(), log, str(self._storage))

    async def close(self) -> None:
        """End the process for good; the files remain."""
        self._closed = True
        if self._process is not None:
            await self._process.kill()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    async def reap(self, pid: int, ticks: int) -> list[Leftover]:
        """Replace a supervisor that was killed: hold its files, and end the processes that it left running.

        These are its node, identified by pid and start time, and every process that the node started.
        """
        if self._held is None:
            with contextlib.suppress(OSError):
                self._held = hold(self._scratch)
        await asyncio.to_thread(end_process, pid, ticks)
        return await asyncio.to_thread(end_orphans)

    async def remove_files(self) -> None:
        """Delete everything the node has written, and the folders of the cell once they are empty."""
        await self.close()
        await asyncio.to_thread(self._remove_files)

    def _running(self) -> NodeProcess:
        if self._process is None:
            raise NodeFailed(self._spec.node_id, "was never started")
        return self._process

    def _config(self, faults: Mapping[str, Any], bootstrap: bool, seed: int | None) -> dict[str, Any]:
        config = dict(self._spec.config)
        return config | {
            "storage": {**config["storage"], "dir": str(self._storage)},
            "bind_host": self._spec.bind_host,
            "advertise_host": self._spec.advertise_host,
            "bootstrap": bootstrap,
            "seed": seed,
            **faults,
            "trace_file": str(self._trace_file),
        }

    def _working_directory(self) -> Path:
        wanted = Path(self._spec.cwd)
        return wanted if wanted.is_dir() else self._scratch

    def _remove_files(self) -> None:
        shutil.rmtree(self._storage / self._spec.node_id, ignore_errors=True)
        for file in (self._config_file, self._log_file, self._trace_file):
            file.unlink(missing_ok=True)
        for cell in {self._scratch, self._storage}:
            for folder in (cell, cell.parent):
                try:
                    folder.rmdir()
                except OSError:
                    break  # it still contains other nodes of the cell, or other cells of the run


def temporary_folder() -> Path:
    """Return the folder for `storage.dir: auto`: a temporary folder of this user, on a disk if possible.

    Many systems keep /tmp in memory, where an fsync proves nothing, and /var/tmp on a disk.
    """
    usual, lasting = Path(tempfile.gettempdir()), Path("/var/tmp")  # noqa: S108 - a private folder is made below
    on_disk = lasting.is_dir() and memory_file_system(usual) is not None and memory_file_system(lasting) is None
    return (lasting if on_disk else usual) / f"raft-lab-{os.getuid()}"


def command_words(command: str | Sequence[str]) -> list[str]:
    """Split a node's command into words; `default` is this project's own node."""
    if command == "default":
        # -P: a module in the working directory must not shadow a module of the node.
        return [sys.executable, "-P", "-m", _NODE_PACKAGE]
    return shlex.split(command) if isinstance(command, str) else list(command)


def _environment() -> dict[str, str]:
    """Return the actor's environment without Ray's variables; PYTHONPATH names the folder of this project."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    package = importlib.util.find_spec(_NODE_PACKAGE)
    if package is not None and package.submodule_search_locations:
        root = str(Path(package.submodule_search_locations[0]).parent)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (root, env.get("PYTHONPATH"))))
    return env


def _cut_torn_line(path: Path) -> None:
    """Cut off an incomplete last line, left by a SIGKILL during a write; the next incarnation begins a new line."""
    if path.exists():
        written = path.read_bytes()
        os.truncate(path, written.rfind(b"\n") + 1)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
