"""The write-ahead log: the entries, the term and the vote of a node on its disk.

This module handles files, the order of writes and disk errors. wal_format.py and hard_state.py define the formats and
validate what was read; disk.py has the system calls.

One directory per node, locked while the Wal is open:

    segment-00000001.wal   the log: one checksummed unit per append, one fsync per unit
    hard-state-a, -b       term and vote, in two copies
    durable-mark           the offset up to which the log is on disk. Rewritten after each fsync of the log, but synced
                           only at open and close. It may lag behind the log and is never ahead of it

The log file is created last, so a directory without a log file does not belong to a member yet. Every file is created
by write, fsync, rename and fsync of the directory. Recovery checks everything before it changes anything.

After an error of a write or an fsync, every later call raises DiskError, and nothing is retried. After a failed fsync
the kernel may drop the dirty pages, and the next fsync would report success.
"""

from __future__ import annotations

import errno
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from raft_actor_node.errors import ConfigError, DataCorrupt, DiskError, InvariantViolated
from raft_actor_node.runtime.disk import REAL_DISK, Disk, sync_directory, write_all
from raft_actor_node.runtime.hard_state import INITIAL, StoredHardState, decode_hard_state, encode_hard_state, newest
from raft_actor_node.runtime.wal_format import (
    NONCE_BYTES,
    DurableMark,
    ReplayedLog,
    Segment,
    decode_mark,
    decode_segment_header,
    encode_mark,
    encode_segment_header,
    encode_unit,
    replay,
    rewrite,
)

SEGMENT_NUMBER = 1
LOG_NAME = f"segment-{SEGMENT_NUMBER:08}.wal"
HARD_STATE_NAMES = ("hard-state-a", "hard-state-b")
MARK_NAME = "durable-mark"


@dataclass(frozen=True)
class Recovered:
    """State that a node recovers from its disk when it starts. Entry i of the log is at position i-1."""

    current_term: int
    voted_for: str | None
    terms: array[int]
    payloads: list[bytes]
    commit_index: int
    """Largest commit index given to an append; all entries up to it are committed."""
    warnings: list[str]
    """Repairs, one line each: a torn tail, a bad copy of the hard state, a bad durable mark, a rewritten old log."""


class Wal:
    """The log of a node. Calls block; after `open`, only one thread at a time may use it."""

    def __init__(self, directory: Path, disk: Disk, fsync: bool) -> None:
        """Use `Wal.open`."""
        self.directory = directory
        self.on_fsync: Callable[[int], None] | None = None
        """Called with the latency of each fsync of log and hard state, in nanoseconds. It must not raise."""
        self._disk = disk
        self._fsync = fsync
        self._descriptors = ExitStack()
        self._failure: str | None = None
        # Recovery sets the rest.
        self._nonce = b""
        self._hard_state = INITIAL
        self._last_index = self._commit_index = 0
        self._end = self._chain = self._durable_offset = 0
        self._file_bytes = 0
        self._log_fd = self._mark_fd = -1
        self._copy_fds: list[int] = []

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        cluster_id: str,
        node_id: str,
        members: Iterable[str],
        bootstrap: bool,
        fsync: bool = True,
        allow_memory_fs: bool = False,
        disk: Disk = REAL_DISK,
    ) -> tuple[Wal, Recovered]:
        """Lock a node's directory, recover its content, and make the recovered content durable.

        With `bootstrap`, initialize the directory for a new member if it is missing or has no log. Existing data is
        opened normally.

        The log is bound to `members` when it is created, or when a log of an older version without members is first
        opened. Their order does not matter.

        With `fsync` off, nothing is synced once the log is open. This exists only as a control experiment.

        Raises ConfigError (a memory file system, or not a directory), DirectoryLocked, DataCorrupt and DiskError.
        DataCorrupt means damage that a torn write cannot explain, data of another node or of other members, or missing
        data without `bootstrap`. Nothing was changed then.
        """
        wal = cls(directory.absolute(), disk, fsync)
        try:
            if not allow_memory_fs and (name := disk.memory_file_system(wal.directory)) is not None:
                raise ConfigError(
                    f"storage.dir: {directory} is on a memory file system ({name}), where fsync makes nothing durable; "
                    "choose a directory on a disk or set storage.allow_memory_fs"
                )
            return wal, wal._recover(cluster_id, node_id, tuple(sorted(members)), bootstrap)
        except NotADirectoryError as error:
            wal._release("could not be opened")
            raise ConfigError(f"storage.dir: {error.filename} is not a directory") from None
        except OSError as error:
            wal._release("could not be opened")
            raise DiskError(f"{error.filename or directory}: {error.strerror or error}") from error
        except BaseException:
            wal._release("could not be opened")
            raise

    def save_hard_state(self, term: int, voted_for: str | None) -> None:
        """Make term and vote durable in both copies. Call this before appending entries of a new term.

        Raises DiskError, and InvariantViolated for a decreasing term or a second vote in a term (paper, section 5.2).
        """
        self._check_usable()
        old = self._hard_state
        if (term, voted_for) == (old.term, old.voted_for):
            return
        if term < old.term or (term == old.term and old.voted_for is not None):
            raise InvariantViolated(
                f"hard state: term {term} with vote {voted_for} cannot follow term {old.term} with vote {old.voted_for}"
            )
        state = StoredHardState(old.sequence + 1, term, voted_for)
        record = encode_hard_state(self._nonce, state)
        with self._ends_at_error():
            # In sequence: while one copy is being written, the other is intact on disk.
            for fd in self._copy_fds:
                write_all(self._disk, fd, (record,), 0)
                self._sync(fd)
        self._hard_state = state

    def append(self, first_index: int, terms: Sequence[int], payloads: Sequence[bytes], commit_index: int) -> None:
        """Replace all entries from `first_index` on by the given entries, durably, with one fsync.

        If the process or the machine stops during the call, the append takes effect as a whole or not at all. All
        entries up to `commit_index`, possibly including the new ones, are committed.

        Raises DiskError. Raises ValueError if terms and payloads differ in number. Raises InvariantViolated if the
        append would leave a gap or replace a committed entry, if `commit_index` is beyond the last entry, or if a term
        is above the saved term.
        """
        self._check_usable()
        last_index = first_index - 1 + len(terms)
        self._check_append(first_index, last_index, terms, payloads, commit_index)
        commit_index = max(commit_index, self._commit_index)
        header, body, chain = encode_unit(
            self._nonce,
            self._end,
            self._chain,
            first_index=first_index,
            terms=terms,
            payloads=payloads,
            commit_index=commit_index,
            durable_offset=self._durable_offset,
        )
        end = self._end + len(header) + len(body)
        with self._ends_at_error():
            write_all(self._disk, self._log_fd, (header, body, self._room(end)), self._end)
            self._sync(self._log_fd)
            if self._fsync:
                self._durable_offset = end
                write_all(self._disk, self._mark_fd, (encode_mark(self._nonce, DurableMark(end, chain)),), 0)
        self._end, self._chain = end, chain
        self._last_index, self._commit_index = last_index, commit_index

    def _room(self, end: int) -> bytes:
        """Return the zeros to write after a unit that ends at `end`; none unless a small unit used up the room."""
        if end <= self._file_bytes:
            return b""
        room_bytes = self._disk.room_bytes
        room = bytes(room_bytes) if end - self._end < room_bytes // 8 else b""
        self._file_bytes = end + len(room)
        return room

    def close(self) -> None:
        """Cut off unused room, sync the durable mark and release the directory. A second call does nothing."""
        try:
            if self._failure is None:
                with self._ends_at_error():
                    if self._end < self._file_bytes:
                        self._disk.ftruncate(self._log_fd, self._end)
                    if self._fsync:
                        self._disk.fdatasync(self._mark_fd)
        finally:
            self._release("is closed")

    # ------------------------------------------------------------------------------ recovery

    def _recover(self, cluster_id: str, node_id: str, members: tuple[str, ...], bootstrap: bool) -> Recovered:
        self._enter_directory(bootstrap)
        log_path = self.directory / LOG_NAME
        data = self._disk.read(log_path)
        if data is None:
            data = self._create_member(cluster_id, node_id, members, bootstrap)
        segment = decode_segment_header(data, str(log_path))
        if (segment.cluster_id, segment.node_id, segment.number) != (cluster_id, node_id, SEGMENT_NUMBER):
            raise DataCorrupt(
                f"{log_path}: segment {segment.number} of node {segment.node_id!r} of cluster {segment.cluster_id!r}, "
                f"not segment {SEGMENT_NUMBER} of {node_id!r} of {cluster_id!r}; nothing was changed"
            )
        if segment.members not in ((), members):
            raise DataCorrupt(
                f"{log_path}: members: {list(segment.members)} in the log, {list(members)} in the configuration; "
                "give the node the members of its log again, or start a new cluster in another directory; "
                "nothing was changed"
            )
        copies = [self._read(name) for name in HARD_STATE_NAMES]
        state = newest(copies, segment.nonce, str(self.directory))
        mark_bytes = self._read(MARK_NAME)
        mark = None if mark_bytes is None else decode_mark(mark_bytes, segment.nonce)
        log = replay(data, segment, mark, str(log_path))
        if log.terms and log.terms[-1] > state.term:
            raise DataCorrupt(
                f"{log_path}: the last entry has term {log.terms[-1]}, but the hard state has term {state.term}; "
                "nothing was changed"
            )
        # All checks are done. Files are changed only from here on.
        self._nonce, self._hard_state = segment.nonce, state
        warnings = self._settle_log(log_path, log, data)
        if not segment.members:
            segment, log, mark, mark_bytes = self._bind_members(log_path, segment, log, members)
            warnings.append(f"{log_path}: rewritten from format 1, now bound to members {list(members)}")
        warnings += self._settle_hard_state(copies, state)
        warnings += self._settle_mark(segment, log, mark, mark_bytes)
        # The previous process may have ended between a rename and the fsync of the directory.
        self._sync_entry(log_path)
        self._sync_entry(self.directory)
        return Recovered(state.term, state.voted_for, log.terms, log.payloads, log.commit_index, warnings)

    def _enter_directory(self, bootstrap: bool) -> None:
        """Lock the directory; create it only for a new member."""
        missing = [path for path in (self.directory, *self.directory.parents) if not self._disk.exists(path)]
        if missing and not bootstrap:
            raise self._comes_back_empty("no such directory")
        if missing:
            self._sync_entry(missing[-1].parent)
        for path in reversed(missing):
            self._disk.mkdir(path)
            self._sync_entry(path)
        self._descriptors.callback(self._disk.close, self._disk.lock(self.directory))

    def _create_member(self, cluster_id: str, node_id: str, members: Sequence[str], bootstrap: bool) -> bytes:
        """Write the files of a new member, the log last; return it. Without a log, the other files do not count."""
        if not bootstrap:
            raise self._comes_back_empty("it contains no log")
        found = {name: data for name in (*HARD_STATE_NAMES, MARK_NAME) if (data := self._read(name)) is not None}
        for name, data in found.items():
            decoded = decode_hard_state(data)
            # An interrupted bootstrap leaves at most initial hard states.
            if decoded is None or decoded[1] != INITIAL:
                raise self._comes_back_empty(f"it contains {name} but no log")
        # The nonce has no zero bytes, so that not even the first byte of a unit can look like room.
        nonce = bytes(byte | 1 for byte in self._disk.random_bytes(NONCE_BYTES))
        for name in HARD_STATE_NAMES:
            self._create(name, encode_hard_state(nonce, INITIAL))
        header = encode_segment_header(SEGMENT_NUMBER, nonce, cluster_id, node_id, members)
        self._create(LOG_NAME, header)
        return header

    def _settle_log(self, path: Path, log: ReplayedLog, data: bytes) -> list[str]:
        """Cut off a torn tail, and make the rest durable. After a crash, the rest may exist only in the page cache."""
        self._log_fd = self._open(path, os.O_RDWR)
        self._file_bytes = len(data)
        torn = bool(data[log.end :].strip(b"\0"))
        if torn:
            self._disk.ftruncate(self._log_fd, log.end)
            self._file_bytes = log.end
        self._write_again(self._log_fd, data[log.durable_offset : log.end], log.durable_offset)
        self._end, self._chain = log.end, log.chain
        self._last_index, self._commit_index = len(log.terms), log.commit_index
        return [f"{path}: offset {log.end}: cut off {len(data) - log.end} bytes of a torn last unit"] if torn else []

    def _bind_members(
        self, path: Path, segment: Segment, log: ReplayedLog, members: Sequence[str]
    ) -> tuple[Segment, ReplayedLog, DurableMark, bytes]:
        """Replace a log of version 1 by a log with members.

        Return its segment, its content, its durable mark, and the present bytes of the mark's file (none).
        """
        # The mark fits only the old log, so clear it first: wherever the process ends, the log opens without a mark.
        self._create(MARK_NAME, b"")
        data = rewrite(segment, log, members)
        self._create(path.name, data)
        bound = decode_segment_header(data, str(path))
        again = replay(data, bound, None, str(path))
        self._settle_log(path, again, data)
        return bound, again, DurableMark(again.end, again.chain), b""

    def _settle_hard_state(self, copies: Sequence[bytes | None], state: StoredHardState) -> list[str]:
        """Make both copies valid and durable, and open them."""
        record = encode_hard_state(self._nonce, state)
        warnings = []
        for name, copy in zip(HARD_STATE_NAMES, copies, strict=True):
            path = self.directory / name
            if copy != record:
                self._create(name, record)
                decoded = None if copy is None else decode_hard_state(copy)
                stale = decoded is not None and decoded[0] == self._nonce
                damage = "missing" if copy is None else "out of date" if stale else "damaged"
                warnings.append(f"{path}: was {damage}; restored from the other copy: term {state.term}")
            fd = self._open(path, os.O_RDWR)
            self._copy_fds.append(fd)
            self._write_again(fd, record, 0)
        return warnings

    def _settle_mark(
        self, segment: Segment, log: ReplayedLog, mark: DurableMark | None, mark_bytes: bytes | None
    ) -> list[str]:
        """Update the durable mark and open it."""
        known = DurableMark(log.end, log.chain)
        record = encode_mark(self._nonce, known)
        if record != mark_bytes:
            self._create(MARK_NAME, record)
        path = self.directory / MARK_NAME
        self._mark_fd = self._open(path, os.O_RDWR)
        self._disk.fsync(self._mark_fd)
        self._durable_offset = known.offset
        if mark is None and (mark_bytes is not None or log.end > segment.header_bytes):
            damage = "missing" if mark_bytes is None else "damaged"
            return [f"{path}: was {damage}; this start could not detect a loss of whole units at the end of the log"]
        return []

    def _comes_back_empty(self, what: str) -> DataCorrupt:
        return DataCorrupt(
            f"{self.directory}: {what}; a member must not come back empty, because it would forget its vote; "
            "set bootstrap only for a new member; nothing was changed"
        )

    # ------------------------------------------------------------------------------ files

    def _write_again(self, fd: int, data: bytes, offset: int) -> None:
        """Make data that was read from a file durable: write it again, and sync.

        An fsync alone may do nothing: after a failed fsync of the previous process, the kernel may treat unwritten
        pages as clean. Overwriting bytes with the same bytes is safe even if the write is torn.
        """
        write_all(self._disk, fd, (data,), offset)
        self._disk.fsync(fd)

    def _read(self, name: str) -> bytes | None:
        return self._disk.read(self.directory / name)

    def _open(self, path: Path, flags: int) -> int:
        fd = self._disk.open(path, flags)
        self._descriptors.callback(self._disk.close, fd)
        return fd

    def _create(self, name: str, data: bytes) -> None:
        """Create or replace a file atomically and durably."""
        path, temporary = self.directory / name, self.directory / f"{name}.tmp"
        fd = self._disk.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            write_all(self._disk, fd, (data,), 0)
            self._disk.fsync(fd)
        finally:
            self._disk.close(fd)
        self._disk.replace(temporary, path)
        self._sync_entry(path)

    def _sync_entry(self, path: Path) -> None:
        """Make the directory entry of a file or directory durable."""
        # A directory that this user cannot read was not created by a node of this user, so it needs no sync.
        with suppress(PermissionError):
            sync_directory(self._disk, path.parent)

    def _sync(self, fd: int) -> None:
        """Sync a file, and check that it is still in its directory."""
        if self._fsync:
            start_ns = time.monotonic_ns()
            self._disk.fdatasync(fd)
            if self.on_fsync is not None:
                self.on_fsync(time.monotonic_ns() - start_ns)
        if self._disk.links(fd) == 0:
            raise OSError(errno.ENOENT, "a file of the log was deleted while in use")

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise DiskError(self._failure)

    def _check_append(
        self, first_index: int, last_index: int, terms: Sequence[int], payloads: Sequence[bytes], commit_index: int
    ) -> None:
        if len(terms) != len(payloads):
            raise ValueError(f"append: {len(terms)} terms, but {len(payloads)} payloads")
        if not self._commit_index < first_index <= self._last_index + 1:
            raise InvariantViolated(
                f"append: first index {first_index}, but the log ends at {self._last_index} "
                f"and is committed up to {self._commit_index}"
            )
        if commit_index > last_index:
            raise InvariantViolated(f"append: commit index {commit_index} is beyond the last index {last_index}")
        if terms and terms[-1] > self._hard_state.term:
            raise InvariantViolated(f"append: term {terms[-1]} is above the saved term {self._hard_state.term}")

    @contextmanager
    def _ends_at_error(self) -> Iterator[None]:
        """Disable the log if an exception interrupts a write, because the state of the files is then unknown."""
        try:
            yield
        except BaseException as error:
            what = (error.strerror if isinstance(error, OSError) else None) or repr(error)
            self._failure = f"{self.directory}: the disk failed: {what}; the log accepts no more writes"
            if isinstance(error, OSError):
                raise DiskError(self._failure) from error
            raise

    def _release(self, why: str) -> None:
        if self._failure is None:
            self._failure = f"{self.directory}: the log {why}"
        self._descriptors.close()
