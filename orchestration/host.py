"""What the host is on which this runs: its code and versions, what it may use of its CPUs, its limits, its disk.

All of it is read where it stands; only `fsync_times` takes time, as much as it is told. What it and `lacking_calls`
write is removed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from raft_actor_node.errors import Unsupported
from raft_actor_node.origin import digest_of, origin
from raft_actor_node.runtime.disk import REAL_DISK, nearest_present, sync_directory, write_all

PACKAGES = ("raft_actor_node", "orchestration", "chaos", "sweeps")
"""Of this project."""
DEPENDENCIES = ("raft-lab", "ray", "grpcio", "protobuf", "numpy", "pydantic", "uvloop")
"""Distributions whose versions decide what a number means."""
MOST_SAMPLES = 1000
"""The fewest with which a 99th percentile has 10 samples above it."""
_WRITE_BYTES = 512
"""About a batch of a few small entries."""


def versions() -> dict[str, str | None]:
    """Python's, and those of the distributions; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in DEPENDENCIES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def code_folder() -> Path:
    """From where this project is imported."""
    return Path(__file__).parents[1]


def code_digest(root: Path | None = None) -> str:
    """Twelve hexadecimal digits of all source files of this project: equal where the same code runs. With `root` of the
    packages in that folder, else of those that this process imports."""
    digests = (origin(package).digest if root is None else digest_of([root / package]) for package in PACKAGES)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:12]


def cpu_model() -> str:
    """What the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def cpus_available(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """How many CPUs this process may use at most: its affinity, and the quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(allowed), *_quotas(groups, own)])


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """CPUs that each control group above this process allows; versions 1 and 2 (cgroups(7)). Where the path is that
    of the machine, and not of the container, its last folders are not there, and the container's root counts."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = groups / "cpu" if controllers else groups
        inside = base / path.lstrip("/")
        for folder in (inside, *inside.parents):
            words = _words(folder, ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",))
            if len(words) == 2 and words[0] not in ("max", "-1"):
                yield int(words[0]) / int(words[1])
            if folder == base:
                break


def _words(folder: Path, names: Iterable[str]) -> list[str]:
    try:
        return [word for name in names for word in (folder / name).read_text(encoding="ascii").split()]
    except OSError:
        return []


def ephemeral_ports() -> tuple[int, int] | None:
    """First and last of the ports that the system gives to who asks for any; None where it does not tell."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(first), int(last)


def fsync_times(folder: Path, seconds: float) -> list[int]:
    """Times of fdatasync after a small append, in nanoseconds, in a folder, as the log of a node does it: over zeros
    that were written ahead. Stops after MOST_SAMPLES, or `seconds`. Nothing stays behind. Raises OSError.

    A folder that is not there yet is not made: hosts that share the disk would take it from under each other. The
    folder above, in which a node would make it, is on the same file system.
    """
    samples: list[int] = []
    with tempfile.TemporaryFile(dir=nearest_present(folder), buffering=0) as file:
        descriptor, data = file.fileno(), os.urandom(_WRITE_BYTES)
        write_all(REAL_DISK, descriptor, [bytes(MOST_SAMPLES * _WRITE_BYTES)], 0)
        os.fsync(descriptor)
        end = time.monotonic() + seconds
        while len(samples) < MOST_SAMPLES and time.monotonic() < end:
            write_all(REAL_DISK, descriptor, [data], len(samples) * _WRITE_BYTES)
            begin = time.monotonic_ns()
            os.fdatasync(descriptor)
            samples.append(time.monotonic_ns() - begin)
    return samples


def lacking_calls(folder: Path) -> list[str]:
    """What a log needs and the file system of this folder lacks, and how it said so; one line each.

    A node locks its directory, and makes the entries of directories durable. Both are tried in a directory that is made
    for this, beside where `fsync_times` writes. Nothing stays behind. Raises OSError.
    """
    lacking = []
    with tempfile.TemporaryDirectory(dir=nearest_present(folder)) as name:
        directory = Path(name)
        try:
            REAL_DISK.close(REAL_DISK.lock(directory))
        except Unsupported as error:
            lacking.append(error.lacks)
        try:
            sync_directory(REAL_DISK, directory)
        except Unsupported as error:
            lacking.append(error.lacks)
    return lacking
