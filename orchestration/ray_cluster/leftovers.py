"""Find and remove what killed programs of this project left on a host.

* A node's process, and every process it starts, has its owner's pid and start time in its environment
  ($RAFT_LAB_OWNER). The process is a leftover if its owner is gone. Usually the kernel ends it with its owner
  (process.py).
* The supervisors of a cell's nodes hold a lock on the folder of the cell. The driver and the guard hold a lock on the
  folder of a private Ray. The kernel releases a lock when its holder ends. A folder without a holder is a leftover,
  even if the user kept its logs on purpose.

Nothing else is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestration.ray_cluster import guard
from orchestration.ray_cluster.actor import temporary_folder
from orchestration.ray_cluster.owner import RAY_PREFIX, Leftover, end_orphans

_HOST_TIMEOUT_S = 60.0


def clean(dry_run: bool = False) -> list[Leftover]:
    """Remove this user's leftovers on this host; with `dry_run` only list them."""
    return [*end_orphans(dry_run=dry_run), *_private_rays(dry_run), *_folders(dry_run)]


class Cleaned(NamedTuple):
    """The leftovers of one host."""

    host: str
    leftovers: Sequence[Leftover]
    error: str | None = None
    """Why the host could not be cleaned."""


async def clean_hosts(address: str | None, dry_run: bool) -> AsyncIterator[Cleaned]:
    """Clean this host, then all other hosts of the Ray cluster at `address` or $RAY_ADDRESS, if given.

    Raises InfrastructureError when the cluster cannot be reached.
    """
    yield Cleaned("this host", await asyncio.to_thread(clean, dry_run))
    if (address or os.environ.get("RAY_ADDRESS") or "local") == "local":
        return
    # Imported here because ray takes a second to import.
    from orchestration.ray_cluster.backend import RayBackend  # noqa: PLC0415
    from orchestration.ray_cluster.tasks import on_each_host  # noqa: PLC0415

    async with RayBackend.connect(address) as backend:
        for dead in (await backend.ray_facts()).dead:
            yield Cleaned(dead.address, (), "it left the Ray cluster; clean it when it is back")
        others = [host for host in backend.hosts if not host.is_driver]
        for outcome in await on_each_host(clean, dry_run, others, timeout_s=_HOST_TIMEOUT_S):
            found = [Leftover(*each) for each in outcome.result or ()]
            yield Cleaned(outcome.item.address, found, outcome.error)


def _private_rays(dry_run: bool) -> Iterator[Leftover]:
    guarded = set(_guarded())
    for folder in sorted(each for base in _ray_places() for each in base.glob(f"{RAY_PREFIX}*")):
        with _unheld(folder) as free:
            if free and str(folder) not in guarded:
                if not dry_run:
                    guard.clean_up(str(folder))
                yield Leftover("ray", str(folder))


def _ray_places() -> set[Path]:
    """Return the folders in which private Rays create theirs."""
    return {Path(tempfile.gettempdir()), Path("/tmp")}  # noqa: S108 - as session.py chooses


def _guarded() -> Iterator[str]:
    """Yield the folders whose guard runs, even if the guard does not hold its folder yet."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended
            words = process.read_bytes().split(b"\0")
            if any(word.endswith(b"/guard.py") for word in words):
                yield from map(os.fsdecode, words)


def _folders(dry_run: bool) -> Iterator[Leftover]:
    base = temporary_folder()
    runs = _entries(base) if _own(base) else []
    for cell in [cell for run in runs for cell in _entries(run)]:
        with _unheld(cell) as free:
            if free:
                if not dry_run:
                    shutil.rmtree(cell, ignore_errors=True)
                yield Leftover("folder", str(cell))
        with contextlib.suppress(OSError):  # the run has other cells
            if not dry_run:
                cell.parent.rmdir()
    for run in runs:
        # An OSError means that the run has cells again. If a new cell comes after the rmdir, `hold` creates the folder.
        with contextlib.suppress(OSError):
            if not any(run.iterdir()):
                if not dry_run:
                    run.rmdir()
                yield Leftover("folder", str(run))


def _entries(folder: Path) -> list[Path]:
    """Return the entries of a folder; empty if the path is not a folder or another process removes it meanwhile."""
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir())
    return []


@contextlib.contextmanager
def _unheld(folder: Path) -> Iterator[bool]:
    """Yield whether this is a folder of this user without a holder; inside the context no process can hold it."""
    if not _own(folder):
        yield False
        return
    try:
        ours = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or the file system has no locks
            yield False
        else:
            yield True
    finally:
        os.close(ours)


def _own(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink()
