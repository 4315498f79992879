"""`sweep doctor`: interpretation and display of an examination of the hosts.

A finding is *wrong* if a run on that host would fail or its results would be invalid. Otherwise it is a *note*: a
property of the machines that matters when reading their numbers. Findings are pure functions of an examination.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from rich.table import Table
from rich.text import Text

from raft_actor_node.config import RaftSettings
from sweeps.show.formats import duration

if TYPE_CHECKING:
    from rich.console import Console

    from orchestration.ray_cluster.doctor import (
        Connection,
        Examination,
        HostReport,
        MachineFacts,
        RayFacts,
        Storage,
    )

_RAFT = RaftSettings()

SLOW_BROADCAST_MS = _RAFT.election_timeout.min_s * 1e3 / 10
"""A broadcast, that is, a round trip and an fsync, should take a tenth of the election timeout (paper, section 5.6).
The same limit applies to each of the two alone. The timeout is the shortest of the default range."""
SLOW_FSYNC_MS = round((_RAFT.election_timeout.min_s - _RAFT.heartbeat_interval) * 1e3 / 2, 3)
"""Limit for the 99th percentile: half the gap between the heartbeat interval and the shortest timeout. Above this limit
false elections begin, and cells get a flag."""
FASTEST_FSYNC_MS = 0.005
"""Below this an fsync writes nothing: a round trip to the fastest flash memory through the kernel takes 10 us."""
CLOCK_ERROR_MS = _RAFT.heartbeat_interval * 1e3 / 10
"""The stages of a failover take tenths of a heartbeat interval; a larger clock error makes their order uncertain."""
LEAST_FREE_BYTES = 2**30
"""The largest cell of the presets writes 0.3 GiB of logs to one host; failed cells leave their logs there."""
LEAST_OPEN_FILES = 1024
"""A node among 15 has 54 files open: two connections to each peer, its log, and the files of the runtime. Each load
generator adds one. A Ray worker has about 100. A shell usually allows 1024; a lower limit is a configuration."""
BUSY = 1.0
"""Runnable processes per CPU before a run starts; from 1 on, every CPU is already busy."""


class HostFinding(NamedTuple):
    """A property of a host that matters to a run, and what to do about it."""

    severity: Literal["wrong", "note"]
    host: str
    """Address of a host, two addresses with an arrow between them, or `Ray`."""
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.host}: {self.what}; {self.todo}"


@runtime_checkable
class Examined(Protocol):
    """A backend whose hosts can be examined."""

    async def examine(self, storage_dir: str = ..., *, quick: bool = ...) -> Examination:
        """Examine all hosts."""


# ---------------------------------------------------------------------------------- findings


def findings(examination: Examination) -> list[HostFinding]:
    """Return all findings of an examination, those that are wrong first."""
    found = [
        *ray_findings(examination.ray, examination.hosts),
        *(each for host in examination.hosts for each in host_findings(host, examination)),
        *link_findings(examination),
    ]
    return sorted(found, key=lambda finding: finding.severity != "wrong")


def exit_code(found: list[HostFinding]) -> int:
    """Return the exit code of `sweep doctor`: 0 without findings or with notes only, else 1."""
    return int(any(finding.severity == "wrong" for finding in found))


def ray_findings(ray: RayFacts, hosts: Sequence[HostReport]) -> Iterator[HostFinding]:
    """Yield the findings about the Ray cluster as a whole."""
    if not any(host.cpus > 0 for host in hosts):
        yield HostFinding("wrong", "Ray", "no host offers a CPU for nodes", "add one: ray start --address=...")
    if ray.authentication == "none" and not ray.private:
        yield HostFinding(
            "note",
            "Ray",
            "it runs without authentication: any process that can reach its ports can run programs on its hosts",
            "create a token (ray get-auth-token --generate), set RAY_AUTH_MODE=token on all hosts, restart Ray",
        )
    for dead in ray.dead:
        why = f" ({dead.reason})" if dead.reason else ""
        what = f"{dead.hostname or 'this host'} was in the cluster and is dead{why}"
        yield HostFinding("note", dead.address, what, f"to add it again, run there: ray start --address={ray.address}")


def host_findings(host: HostReport, examination: Examination) -> Iterator[HostFinding]:
    """Yield the findings about one host."""

    def finding(severity: Literal["wrong", "note"], what: str, todo: str) -> HostFinding:
        return HostFinding(severity, host.address, what, todo)

    if host.error is not None:
        yield finding("wrong", host.error, _repair(host.error))
    if host.code is not None:
        here, there = examination.driver, host.code
        if there.digest != here.digest:
            what = f"other code than the driver's: {there.digest} in {there.folder}, not {here.digest} in {here.folder}"
            yield finding("wrong", what, "install the same wheel there, and start Ray there again")
        if others := [
            f"{name} {there.versions.get(name) or 'is missing'}, not {version}"
            for name, version in here.versions.items()
            # With the same code it does not matter how the package was installed.
            if name != "raft-lab" and there.versions.get(name) != version
        ]:
            yield finding("wrong", f"other versions than the driver's: {'; '.join(others)}", "install the same there")
    if host.machine is not None:
        yield from machine_findings(host.address, host.machine)
    if host.storage is not None:
        yield from storage_findings(host.address, host.storage)
    if host.clock_error_ns is not None and host.clock_error_ns > CLOCK_ERROR_MS * 1e6:
        what = f"its clock's offset from the driver's is known only within {duration(host.clock_error_ns / 1e6)}"
        yield finding("note", what, "run the driver closer to it, or ignore shorter time differences between hosts")


def machine_findings(address: str, machine: MachineFacts) -> Iterator[HostFinding]:
    """Yield the findings about CPU and limits."""
    if machine.open_files < LEAST_OPEN_FILES:
        what = f"a process may open {machine.open_files} files; a run needs {LEAST_OPEN_FILES}"
        yield HostFinding("wrong", address, what, "ulimit -n 65536, and start Ray there again")
    if machine.cpus_available < machine.cores:
        what = f"{machine.cpus_available:g} of {machine.cores} cores may be used, because of a quota or an affinity"
        yield HostFinding(
            "note", address, what, "raise that limit, or start Ray with as many CPUs: ray start --num-cpus"
        )
    if machine.load >= BUSY * machine.cpus_available:
        what = f"on average {machine.load:g} processes shared its {machine.cpus_available:g} CPUs in the last minute"
        yield HostFinding("note", address, what, "end other programs there, or wait a minute if a run has just ended")
    if machine.niceness > 0:
        what = f"each Ray worker runs with niceness {machine.niceness}, so nodes yield to everything else there"
        yield HostFinding("note", address, what, "ray start --head --system-config='{\"worker_niceness\": 0}'")


def storage_findings(address: str, storage: Storage) -> Iterator[HostFinding]:
    """Yield the findings about the folder of the logs."""
    where = f"the logs' folder {storage.folder}"
    if storage.error is not None:
        yield HostFinding("wrong", address, f"{where}: {storage.error}", "make it writable, or set storage.dir")
    for lack in storage.lacks:
        what = f"{where} is on a file system ({storage.file_system or 'unknown'}) without {lack}: nodes refuse it"
        yield HostFinding("wrong", address, what, "set storage.dir to a folder on a local disk")
    if storage.in_memory:
        what = f"{where} is in memory ({storage.file_system}): an fsync proves nothing, nodes refuse it"
        yield HostFinding("wrong", address, what, "set storage.dir to a folder on a disk")
    if storage.free_bytes is not None and storage.free_bytes < LEAST_FREE_BYTES:
        what = f"{where} has {_bytes(storage.free_bytes)} free; a run needs {_bytes(LEAST_FREE_BYTES)}"
        yield HostFinding("wrong", address, what, "make room, or set storage.dir")
    median, late = storage.fsync.ms(0.5), storage.fsync.ms(0.99)
    if median is not None and median < FASTEST_FSYNC_MS and not storage.in_memory:
        what = f"an fsync in {storage.folder} takes {duration(median)}, less than on any disk"
        yield HostFinding("note", address, what, "if power failures matter, check whether fsync is switched off there")
    if median is not None and median > SLOW_BROADCAST_MS:
        what = f"an fsync takes {duration(median)}, more than a tenth of the shortest election timeout"
        yield HostFinding("note", address, what, "set storage.dir to a faster disk, or raise raft.election_timeout")
    elif late is not None and late > SLOW_FSYNC_MS:
        what = f"one fsync in a hundred takes {duration(late)} or more, long enough to cause false elections"
        yield HostFinding("note", address, what, "check what else uses this disk, or raise raft.election_timeout")


def link_findings(examination: Examination) -> Iterator[HostFinding]:
    """Yield the findings about links between hosts; a link that is broken in both directions has one finding."""
    ports = {host.address: host.machine.ports for host in examination.hosts if host.machine is not None}
    broken = {(link.source, link.target): link.error for link in examination.links if link.error is not None}
    for (source, target), error in broken.items():
        both = (target, source) in broken
        if both and source > target:
            continue
        arrow = "<->" if both else "->"
        first_last = ports.get(target)
        which = "the ephemeral TCP ports" if first_last is None else f"TCP ports {first_last[0]} to {first_last[1]}"
        reasons = "; ".join(dict.fromkeys((error, broken.get((target, source), error))))
        what = f"no connection to an ephemeral port{', in either direction' if both else ''}: {reasons}"
        todo = f"allow {source} to reach {which} of {target}{', and the reverse' if both else ''} (firewall, routes)"
        yield HostFinding("wrong", f"{source} {arrow} {target}", what, todo)
    for link in examination.links:
        median = link.round_trips.ms(0.5)
        if median is not None and median > SLOW_BROADCAST_MS and link.source < link.target:
            what = f"a round trip takes {duration(median)}, more than a tenth of the shortest election timeout"
            yield HostFinding("note", f"{link.source} <-> {link.target}", what, "raise raft.election_timeout")


def _repair(error: str) -> str:
    if any(sign in error for sign in ("No module named", "import", "has no attribute", "other code")):
        return "install the same wheel there as here, in the Python that runs Ray"
    return "check that the host is up and Ray runs there with a free CPU; else remove it from the cluster (ray stop)"


# ---------------------------------------------------------------------------------- manifest


def as_json(examination: Examination) -> dict[str, Any]:
    """Return the examination with its findings, for the manifest."""
    return examination.as_json() | {"findings": [finding._asdict() for finding in findings(examination)]}


# ---------------------------------------------------------------------------------- output


def hosts_table(examination: Examination) -> Table:
    """Return a table with a row for each host."""
    table = _table("host", "name", "cpus", "load", "clock", "fsync p50", "p99", "logs on", "free", "files", "code")
    for host in examination.hosts:
        table.add_row(*(Text(word) for word in _host_words(host)))
    return table


def links_table(examination: Examination) -> Table:
    """Return a table of median round trips, or errors: rows are connecting hosts, columns are their targets."""
    by_pair = {(link.source, link.target): link for link in examination.links}
    names = {host.address: host.hostname or host.address for host in examination.hosts}
    table = _table("round trip from, to", *names.values())
    for source, name in names.items():
        table.add_row(Text(name), *(_link_cell(by_pair.get((source, target))) for target in names))
    return table


def finding_lines(found: list[HostFinding]) -> list[Text]:
    """Return a line for each finding, with its remedy."""
    styles = {"wrong": "bold red", "note": "yellow"}
    lines = [
        Text.assemble((f"{severity:5}", styles[severity]), f"  {host}: {what}\n       -> {todo}")
        for severity, host, what, todo in found
    ]
    return lines or [Text("all is well", style="green")]


def plain_lines(examination: Examination, found: list[HostFinding]) -> list[str]:
    """Return the whole report as plain text, a line for each host, link and finding."""
    names = ("name", "cpus", "load", "clock", "fsync p50", "fsync p99", "logs on", "free", "files", "code")
    lines = head_lines(examination)
    for host in examination.hosts:
        address, *words = _host_words(host)
        told = "; ".join(f"{name} {word}" for name, word in zip(names, words, strict=True))
        lines.append(f"{address}  {told}")
    for link in examination.links:
        median, late = (duration(link.round_trips.ms(q)) for q in (0.5, 0.99))
        told = link.error or f"round trip p50 {median}; p99 {late}"
        lines.append(f"{link.source} -> {link.target}  {told}")
    return [*lines, *(str(each) for each in found), *([] if found else ["all is well"])]


def head_lines(examination: Examination) -> list[str]:
    """Return lines about the Ray cluster and the driver's code."""
    ray, here = examination.ray, examination.driver
    dead = f", {len(ray.dead)} dead" if ray.dead else ""
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in here.versions.items())
    return [f"{ray.description}{dead}; authentication: {ray.authentication}", f"driver: code {here.digest}, {versions}"]


def doctor(
    console: Console,
    connect: Callable[[], AbstractAsyncContextManager[Examined]],
    storage_dir: str,
    *,
    plain: bool,
) -> int:
    """Examine the hosts and show the findings; return the exit code. Raises InfrastructureError."""

    async def examine() -> Examination:
        async with connect() as backend:
            return await backend.examine(storage_dir)

    examination = asyncio.run(examine())
    found = findings(examination)
    if plain:
        for line in plain_lines(examination, found):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        for line in head_lines(examination):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(hosts_table(examination))
        if examination.links:
            console.print(links_table(examination))
        for text in finding_lines(found):
            console.print(text, soft_wrap=True)
    return exit_code(found)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in others:
        table.add_column(name, overflow="fold")
    return table


def _host_words(host: HostReport) -> list[str]:
    machine, storage = host.machine, host.storage
    where = f"{host.address} (driver)" if host.is_driver else host.address
    on_machine, on_disk = ["-"] * 3, ["-"] * 4
    if machine is not None:
        usable = machine.cpus_available
        cores = f"{machine.cores}" if usable == machine.cores else f"{usable:g} of {machine.cores}"
        on_machine = [cores, f"{machine.load:g}", f"{machine.open_files}"]
    if storage is not None:
        on_disk = [
            duration(storage.fsync.ms(0.5)),
            duration(storage.fsync.ms(0.99)),
            f"{storage.file_system or '?'} ({storage.device or '?'})",
            "-" if storage.free_bytes is None else _bytes(storage.free_bytes),
        ]
    cores, load, files = on_machine
    return [where, host.hostname, cores, load, _clock(host), *on_disk, files, host.code.digest if host.code else "-"]


def _clock(host: HostReport) -> str:
    if host.clock_offset_ns is None or host.clock_error_ns is None:
        return "-"
    if host.same_clock:
        return "the driver's"
    return f"{host.clock_offset_ns / 1e9:+.6f} s within {duration(host.clock_error_ns / 1e6)}"


def _link_cell(link: Connection | None) -> Text:
    if link is None:
        return Text("-", style="dim")
    return Text(duration(link.round_trips.ms(0.5))) if link.error is None else Text(link.error, style="bold red")


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
