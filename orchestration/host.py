"""Facts about this host: code and versions, available CPUs, limits, disk.

Most functions return at once. `fsync_times` measures for a given time. `fsync_times` and `lacking_calls` write to the
disk, and remove what they wrote.
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
"""The packages of this project."""
DEPENDENCIES = ("raft-lab", "ray", "grpcio", "protobuf", "numpy", "pydantic", "uvloop")
"""Distributions whose versions influence the measurements."""
MOST_SAMPLES = 1000
"""Maximum number of samples: the smallest number with 10 samples above the 99th percentile."""
_WRITE_BYTES = 512
"""About the size of a batch of a few small entries."""


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of DEPENDENCIES; None for a distribution that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in DEPENDENCIES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def code_folder() -> Path:
    """Return the folder from which this project is imported."""
    return Path(__file__).parents[1]


def code_digest(root: Path | None = None) -> str:
    """Return 12 hexadecimal digits that identify the source files of this project; equal for the same code.

    With `root` the packages in that folder are hashed, otherwise those that this process imports.
    """
    digests = (origin(package).digest if root is None else digest_of([root / package]) for package in PACKAGES)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:12]


def cpu_model() -> str:
    """Return the model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def cpus_available(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the number of CPUs that this process may use, from its affinity and the quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(allowed), *_quotas(groups, own)])


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Yield the CPUs that each control group above this process allows, for versions 1 and 2 (cgroups(7)).

    In a container the path may be the machine's. Its last folders are then missing, and the container's root counts.
    """
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
    """Return the first and last ephemeral port of the system; None where the system does not report them."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(first), int(last)


def fsync_times(folder: Path, seconds: float) -> list[int]:
    """Measure fdatasync after a small append in a folder, in nanoseconds.

    It writes as a node's log does: over zeros that were written ahead. It stops after MOST_SAMPLES or `seconds`, and
    leaves no files. Raises OSError.

    It does not create a missing folder, because hosts that share the disk would remove each other's folder. It uses the
    nearest existing parent, which is on the same file system.
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
    """Return the calls that a log needs and this folder's file system lacks, with its error; one line each.

    A node locks its directory, and makes directory entries durable. This function tries both in a temporary
    directory, beside the file of `fsync_times`, and leaves no files. Raises OSError.
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
