"""A disk in memory that forgets or tears what was not synced, fails when told to, and fills up.

The write-ahead log of a simulated node lives on it, unchanged. Each file has two contents: what every process sees
(the page cache) and what is on the platter; a sync of the file brings its changes from one to the other. Names are
alike: a creation or a rename is on the platter once its directory was synced.

    kill         the process is gone, the page cache stays
    lose_power   what no sync covered is gone, kept or torn: any subset of 512-byte sectors, any subset of names,
                 the size of a file with or without its content. A sector is whole: drives promise that, unless
                 `whole_sectors` says that this one does not.

A call that is under way at such a moment may be done by half: what is called between `begin` and `commit` is as if
it were still running until the commit, and a crash before it leaves any prefix of these calls.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

from raft_actor_node.errors import DirectoryLocked
from raft_actor_node.runtime.disk import Disk

SECTOR_BYTES = 512

_Change = tuple[int, bytes | None]
"""Bytes written at an offset, or None: the file was cut there."""


class PowerLoss(NamedTuple):
    """What a power failure did to the changes that no sync had covered."""

    writes_kept: int
    writes_torn: int
    writes_lost: int
    names_kept: int
    names_lost: int


class _File:
    """The content of a file, whatever names it has."""

    __slots__ = ("cached", "durable", "links", "pending")

    def __init__(self, content: bytes = b"") -> None:
        self.cached = bytearray(content)
        self.durable = bytearray(content)
        self.pending: list[_Change] = []
        """Changes of `cached` that are not in `durable`, in their order."""
        self.links = 1


class _NewName(NamedTuple):
    """A creation (`source` is None) or a rename that its directory's sync has not covered."""

    source: Path | None
    target: Path
    file: _File | None
    """None: a directory."""


class SimDisk(Disk):
    """A file system in memory; all that chance decides is drawn from `rng`."""

    room_bytes = 4096

    def __init__(self, rng: random.Random, *, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        """ENOSPC for what exceeds it, after a short write; None is no limit."""
        self.fail_writes: int | None = None
        """While set, each write raises this errno after some of its bytes were written."""
        self.fail_syncs: int | None = None
        """While set, each sync raises this errno. What it should have covered is then partly on the platter, and
        no later sync covers it: the kernel takes it for written."""
        self.failures = 0
        """Calls that were refused, as this disk was told to."""
        self.short_writes = False
        """While set, a write takes some of its bytes and says so."""
        self.slowness = 1.0
        """How many times as long as others of its world this disk takes; for whoever lets the time pass."""
        self.whole_sectors = True
        """While unset, a power failure may leave of a sector the first new bytes with the old ones behind them."""
        self.on_call: Callable[[str], None] | None = None
        """Told the name of each call that changes or syncs something, before it is done; may raise."""
        self._rng = rng
        self._names: dict[Path, _File | None] = {Path("/"): None}
        self._durable_names = dict(self._names)
        self._new_names: list[_NewName] = []
        self._open: dict[int, _File | Path] = {}
        self._locks: dict[int, Path] = {}
        self._next_fd = 0
        self._under_way: list[tuple[_File, _Change | None]] | None = None
        """Calls since `begin`, not performed yet; a change of None is a sync."""

    # ------------------------------------------------------------------------------ processes and power

    def begin(self) -> None:
        """From here on, writes and syncs are under way: not done before `commit`. Calls that concern names or
        read first wait for what is under way."""
        self._accept()
        self._under_way = []

    def commit(self) -> None:
        """All calls since `begin` are done."""
        self._accept()
        self._under_way = None

    def kill(self) -> None:
        """End the process that uses this disk: any prefix of what is under way was done, its files are closed."""
        under_way, self._under_way = self._under_way or [], None
        done = self._rng.randint(0, len(under_way))
        for file, change in under_way[:done]:
            self._perform(file, change)
        if done < len(under_way):
            file, change = under_way[done]
            if change is not None and change[1] is not None:
                self._perform(file, (change[0], change[1][: self._rng.randint(0, len(change[1]))]))
        self._open.clear()
        self._locks.clear()

    def lose_power(self) -> PowerLoss:
        """End the process and the machine: what no sync covered is kept, torn or gone, each as chance has it."""
        self.kill()
        keep = self._probability()
        kept_names = [name for name in self._new_names if self._rng.random() < keep]
        names_lost = len(self._new_names) - len(kept_names)
        self._new_names.clear()
        for name in kept_names:
            _enter(self._durable_names, name)
        # What lies in a directory that was lost is out of reach.
        reached: dict[Path, _File | None] = {}
        for path in sorted(self._durable_names, key=lambda path: len(path.parts)):
            if path.parent in reached or path == path.parent:
                reached[path] = self._durable_names[path]
        self._names, self._durable_names = reached, dict(reached)
        fates: Counter[str] = Counter()
        for file in self._files():
            file.links = sum(other is file for other in reached.values())
            fates.update(self._tear(file))
        return PowerLoss(fates["kept"], fates["torn"], fates["lost"], len(kept_names), names_lost)

    def _probability(self) -> float:
        """How likely an unsynced change is to survive: often none does, or each."""
        return self._rng.choice((0.0, 1.0, 0.5, self._rng.random()))

    def _tear(self, file: _File) -> Iterator[str]:
        """Bring some of the unsynced changes to the platter and forget the rest; tells what became of each."""
        keep = self._probability()
        for change in file.pending:
            pieces = _sectors(change)
            kept = [piece for piece in pieces if self._rng.random() < keep]
            for offset, data in kept:
                if data is not None and not self.whole_sectors:
                    data = data[: self._rng.randint(0, len(data))]  # noqa: PLW2901
                _apply(file.durable, (offset, data))
            yield "kept" if len(kept) == len(pieces) else "torn" if kept else "lost"
        grown = len(file.cached) - len(file.durable)
        if file.pending and grown > 0 and self._rng.random() < keep:
            file.durable.extend(bytes(grown))
        file.pending.clear()
        file.cached[:] = file.durable

    # ------------------------------------------------------------------------------ files at rest

    def contents(self) -> dict[Path, bytes]:
        """What each file holds as a process sees it."""
        self._accept()
        return {path: bytes(file.cached) for path, file in self._names.items() if file is not None}

    def put(self, path: Path, content: bytes | None) -> None:
        """Change a file behind everybody's back, durably: its content, or None to delete it."""
        self._accept()
        for names in (self._names, self._durable_names):
            names.pop(path, None)
        if content is not None:
            self._names[path] = self._durable_names[path] = _File(content)

    # ------------------------------------------------------------------------------ Disk: what is there

    def exists(self, path: Path) -> bool:
        return path in self._names

    def read(self, path: Path) -> bytes | None:
        self._accept()
        if path not in self._names:
            return None
        return bytes(self._file_at(path).cached)

    def links(self, fd: int) -> int:
        return self._file(fd).links

    def memory_file_system(self, path: Path) -> str | None:
        return None  # it is in memory, but it stands for one that is not

    def random_bytes(self, size: int) -> bytes:
        return self._rng.randbytes(size)

    # ------------------------------------------------------------------------------ Disk: descriptors

    def lock(self, directory: Path) -> int:
        self._check_directory(directory)
        if directory in self._locks.values():
            raise DirectoryLocked(f"{directory}: another process holds this directory; nothing was touched")
        fd = self._descriptor(directory)
        self._locks[fd] = directory
        return fd

    def open(self, path: Path, flags: int) -> int:
        self._accept()
        if flags & os.O_DIRECTORY:
            self._check_directory(path)
            return self._descriptor(path)
        if path not in self._names and flags & os.O_CREAT:
            self._call("create")
            self._check_directory(path.parent)
            self._rename(_NewName(None, path, _File()))
        file = self._file_at(path)
        if flags & os.O_TRUNC and file.cached:
            self._call("truncate")
            self._perform(file, (0, None))
        return self._descriptor(file)

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)
        self._locks.pop(fd, None)

    # ------------------------------------------------------------------------------ Disk: changes

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        self._call("write")
        file, data = self._file(fd), b"".join(buffers)
        if self.fail_writes is not None:
            self._change(file, (offset, data[: self._rng.randint(0, len(data))]))
            self._refuse(self.fail_writes)
        if self.short_writes and data:
            data = data[: self._rng.randint(1, len(data))]
        if self.capacity_bytes is not None:
            used = sum(len(other.cached) for other in self._files())
            data = data[: max(self.capacity_bytes - used + max(len(file.cached) - offset, 0), 0)]
            if not data:
                self._refuse(errno.ENOSPC)
        self._change(file, (offset, data))
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        self._call("truncate")
        self._change(self._file(fd), (size, None))

    def fdatasync(self, fd: int) -> None:
        self._sync(self._file(fd))

    def fsync(self, fd: int) -> None:
        directory = self._open.get(fd)
        if not isinstance(directory, Path):
            self._sync(self._file(fd))
            return
        self._call("sync directory")
        self._accept()
        if self.fail_syncs is not None:
            self._refuse(self.fail_syncs)
        others = []
        for name in self._new_names:
            if name.target.parent == directory:
                _enter(self._durable_names, name)
            else:
                others.append(name)
        self._new_names = others

    def replace(self, source: Path, target: Path) -> None:
        self._call("rename")
        self._accept()
        file = self._file_at(source)
        self._check_directory(target.parent)
        if source != target:
            self._rename(_NewName(source, target, file))

    def mkdir(self, path: Path) -> None:
        self._call("mkdir")
        self._accept()
        self._check_directory(path.parent)
        if path not in self._names:
            self._rename(_NewName(None, path, None))

    # ------------------------------------------------------------------------------ inside

    def _call(self, name: str) -> None:
        if self.on_call is not None:
            self.on_call(name)

    def _refuse(self, code: int) -> NoReturn:
        self.failures += 1
        raise OSError(code, os.strerror(code))

    def _accept(self) -> None:
        """Perform what is under way."""
        if self._under_way:
            for file, change in self._under_way:
                self._perform(file, change)
            self._under_way.clear()

    def _change(self, file: _File, change: _Change | None) -> None:
        if self._under_way is None:
            self._perform(file, change)
        else:
            self._under_way.append((file, change))

    def _perform(self, file: _File, change: _Change | None) -> None:
        """Change what processes see, or, with None, bring the file to the platter."""
        if change is not None:
            _apply(file.cached, change)
            file.pending.append(change)
            return
        for pending in file.pending:
            _apply(file.durable, pending)
        file.pending.clear()

    def _sync(self, file: _File) -> None:
        self._call("sync")
        if self.fail_syncs is None:
            self._change(file, None)
            return
        # The kernel drops what it could not write, and goes on showing it until the power fails.
        self._accept()
        for change in file.pending:
            for piece in _sectors(change):
                if self._rng.random() < 0.5:
                    _apply(file.durable, piece)
        file.pending.clear()
        self._refuse(self.fail_syncs)

    def _rename(self, name: _NewName) -> None:
        replaced = self._names.get(name.target)
        if replaced is not None:
            replaced.links -= 1
        _enter(self._names, name)
        self._new_names.append(name)

    def _descriptor(self, opened: _File | Path) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = opened
        return self._next_fd

    def _file(self, fd: int) -> _File:
        file = self._open.get(fd)
        if not isinstance(file, _File):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return file

    def _file_at(self, path: Path) -> _File:
        file = self._names.get(path, _ABSENT)
        if file is _ABSENT or file is None:
            code = errno.ENOENT if file is _ABSENT else errno.EISDIR
            raise OSError(code, os.strerror(code), str(path))
        return file

    def _check_directory(self, path: Path) -> None:
        found = self._names.get(path, _ABSENT)
        if found is not None:
            code = errno.ENOENT if found is _ABSENT else errno.ENOTDIR
            raise OSError(code, os.strerror(code), str(path))

    def _files(self) -> Iterator[_File]:
        return (file for file in self._names.values() if file is not None)


_ABSENT = _File()
"""Stands for no file, where None is a directory."""


def _enter(names: dict[Path, _File | None], name: _NewName) -> None:
    if name.source is not None:
        names.pop(name.source, None)
    names[name.target] = name.file


def _apply(content: bytearray, change: _Change) -> None:
    offset, data = change
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


def _sectors(change: _Change) -> list[_Change]:
    """A change in the pieces that reach the platter, or do not, each on its own."""
    offset, data = change
    if data is None:
        return [change]
    end = offset + len(data)
    bounds = [offset, *range(offset - offset % SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES), end]
    return [(start, data[start - offset : stop - offset]) for start, stop in pairwise(bounds)]
