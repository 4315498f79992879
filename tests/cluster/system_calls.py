"""What was on a real node's disk when a message left, by its system calls, which strace records.

The order of the lines is the order of events, as strace lets a thread continue only after it has written what the
thread did. A call begins on one line and ends on that line or a later one. A message leaves when the call that sends
its last byte begins. A write is on disk when an fsync ends that began after the end of the write.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from raft_actor_node.runtime.hard_state import StoredHardState, decode_hard_state
from raft_actor_node.runtime.wal import HARD_STATE_NAMES, LOG_NAME
from raft_actor_node.runtime.wal_format import _UNIT

TRACED = (
    "openat,mkdir,mkdirat,rename,renameat,renameat2,ftruncate,pwrite64,pwritev,pwritev2,write,writev,"
    "fsync,fdatasync,sendto,sendmsg"
)
SENDS = ("sendmsg", "sendto", "write", "writev")
LONGEST = 1 << 16
"""strace cuts longer strings short; only the room ahead of a log is longer."""


def strace(output: Path) -> list[str]:
    """The words before a command that trace it to the file OUTPUT.PID.

    The command stays the child of its parent. The tracer is in a session of its own and ends with the command.
    """
    options = f"-DDD -f --seccomp-bpf -q -yy -xx -ttt -s {LONGEST} -e trace={TRACED} -e signal=KILL"
    return ["sh", "-c", f'exec strace {options} -o "$0.$$" "$@"', str(output)]


def untraceable() -> str | None:
    """Why processes cannot be traced here; None if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    told = subprocess.run(
        ["strace", "-f", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False
    )
    return f"strace does not work here: {told.stderr.strip()}" if told.returncode else None


class Call(NamedTuple):
    """A system call."""

    name: str
    path: str
    """The first descriptor's file, or the ends of its socket."""
    names: tuple[str, ...]
    """The paths among the arguments."""
    data: bytes
    """The bytes that the call wrote or sent."""
    result: int
    begin: int
    """The line on which the call begins."""
    end: int
    """The line on which the call ends."""
    begin_s: float
    end_s: float


_LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_WHOLE = re.compile(r"(\w+)\((.*?)(?: <unfinished \.\.\.>)?\)\s+= (-?\d+|\?)")
_FIRST_FD = re.compile(r"\d+<(.*?)>(?=[,)]|$)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def calls(files: Sequence[Path]) -> list[Call]:
    """All calls of a node's incarnations, in the order of their beginnings.

    A call that a kill interrupts counts as done if it sends, and as failed otherwise.
    """
    begun: dict[str, tuple[str, int, float]] = {}
    found = []
    lines = [line for file in files for line in file.read_text(encoding="ascii").splitlines()]
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        assert match is not None, line[:200]
        thread, time_s, text = match[1], float(match[2]), match[3]
        begin, begin_s = number, time_s
        if resumed := _RESUMED.match(text):
            head, begin, begin_s = begun.pop(thread)
            text = head + resumed[1]
        elif text.endswith(" <unfinished ...>"):
            begun[thread] = text.removesuffix(" <unfinished ...>"), number, time_s
            continue
        elif text.startswith("+++") and thread in begun:
            head, begin, begin_s = begun.pop(thread)
            text = f"{head}) = ?"
        if (whole := _WHOLE.match(text)) is None:
            continue  # the end of a process
        name, arguments = whole[1], whole[2]
        result = int(whole[3]) if whole[3] != "?" else LONGEST if name in SENDS else -1
        first = _FIRST_FD.match(arguments)
        strings = [_bytes(each) for each in _STRING.findall(arguments)]
        sends = first is not None and name not in ("openat", "mkdirat", "renameat", "renameat2")
        data = b"".join(strings)[: max(result, 0)] if sends else b""
        names = () if sends else tuple(each.decode() for each in strings)
        found.append(Call(name, _path(first[1]) if first else "", names, data, result, begin, number, begin_s, time_s))
    return sorted(found, key=lambda call: call.begin)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _path(text: str) -> str:
    return _bytes(text).decode() if text.startswith("\\x") else text


def lives(output: Path) -> list[Path]:
    """The trace files of a node's incarnations, in order; none before all incarnations have ended."""
    files = list(output.parent.glob(f"{output.name}.*"))
    texts = [file.read_text(encoding="ascii") for file in files]
    for file, text in zip(files, texts, strict=True):
        if not re.search(rf"^{file.suffix[1:]} +\S+ \+\+\+", text, re.MULTILINE):
            return []
    return [file for _, file in sorted(zip([float(text.split(maxsplit=2)[1]) for text in texts], files, strict=True))]


class Sent(NamedTuple):
    """A gRPC message, and when it left."""

    socket: str
    stream: int
    message: bytes
    begin: int
    begin_s: float


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA = 0


def messages(found: Sequence[Call]) -> Iterator[Sent]:
    """The sent messages: the DATA frames of HTTP/2, joined into messages of gRPC."""
    bytes_of: dict[str, bytes] = {}
    open_: dict[tuple[str, int], bytes] = {}
    for call in found:
        if not call.path.startswith("TCP") or call.name not in SENDS:
            continue
        left = (bytes_of.get(call.path, b"") + call.data).removeprefix(_PREFACE)
        while len(left) >= 9 and len(left) >= 9 + (size := int.from_bytes(left[:3], "big")):
            kind, stream = left[3], int.from_bytes(left[5:9], "big")
            body, left = left[9 : 9 + size], left[9 + size :]
            if kind != _DATA:
                continue
            part = open_.get((call.path, stream), b"") + body
            while len(part) >= 5 and len(part) >= 5 + (length := int.from_bytes(part[1:5], "big")):
                yield Sent(call.path, stream, part[5 : 5 + length], call.begin, call.begin_s)
                part = part[5 + length :]
            open_[call.path, stream] = part
        bytes_of[call.path] = left


@dataclass
class File:
    """The writes to a file, in order, and how many of them are on disk."""

    writes: list[bytes] = field(default_factory=list)
    durable: int = 0


class Disk:
    """The durable part of a node's files at each moment."""

    def __init__(self, found: Sequence[Call], folder: str) -> None:
        """`folder`: the directory of the node."""
        self._folder = folder
        self._files: dict[str, File] = {}
        self._synced: dict[int, tuple[File, int]] = {}
        self.faults: list[str] = []
        """The renames of files that had no fsync before."""
        self._unnamed: dict[str, int] = {}
        """Directory -> line on which one of its entries last changed; only directories without an fsync since then."""
        self.renamed: list[str] = []
        moments = [(call.begin, 0, call) for call in found] + [(call.end, 1, call) for call in found]
        self._moments = sorted(moments, key=lambda moment: moment[:2])
        self._next = 0

    def until(self, line: int) -> None:
        """Process all events before this line."""
        while self._next < len(self._moments) and self._moments[self._next][0] < line:
            _, is_end, call = self._moments[self._next]
            self._next += 1
            if call.result >= 0:
                self._ends(call) if is_end else self._begins(call)

    def _begins(self, call: Call) -> None:
        if call.name in ("fsync", "fdatasync"):
            file = self._files.get(call.path)
            if file is not None:
                self._synced[call.begin] = file, len(file.writes)
        elif call.name.startswith("rename") and call.names[0].startswith(self._folder):
            source, target = call.names
            file = self._files.pop(source, File())
            if not file.writes or file.durable < len(file.writes):
                self.faults.append(f"line {call.begin}: {source} gets its name before its content is on disk")
            self._files[target] = file
            self.renamed.append(PurePosixPath(target).name)

    def _ends(self, call: Call) -> None:
        if call.name in ("pwrite64", "pwritev", "pwritev2") and call.path.startswith(self._folder):
            self._files.setdefault(call.path, File()).writes.append(call.data)
        elif call.name.startswith(("rename", "mkdir")) and call.names[-1].startswith(self._folder):
            self._unnamed[str(PurePosixPath(call.names[-1]).parent)] = call.end
        elif call.name in ("fsync", "fdatasync"):
            if call.begin in self._synced:
                file, count = self._synced.pop(call.begin)
                file.durable = max(file.durable, count)
            if self._unnamed.get(call.path, call.begin) < call.begin:
                del self._unnamed[call.path]

    @property
    def unnamed(self) -> list[str]:
        """Directories of which an entry may be lost."""
        return sorted(self._unnamed)

    def durable(self, name: str) -> list[bytes]:
        """The durable writes to one of the node's files."""
        file = self._files.get(f"{self._folder}/{name}", File())
        return file.writes[: file.durable]

    def hard_state(self) -> StoredHardState:
        """The term and vote that both copies hold."""
        copies = []
        for name in HARD_STATE_NAMES:
            written = self.durable(name)
            decoded = decode_hard_state(written[-1]) if written else None
            copies.append(decoded[1] if decoded is not None else StoredHardState(-1, -1, None))
        return min(copies)

    def last_index(self) -> int:
        """The index up to which the log is on disk without a gap."""
        last = 0
        for write in self.durable(LOG_NAME)[1:]:  # the first write is the header of the file
            at = 0
            while at < len(write) and write[at]:  # a zero byte begins the preallocated room behind the units
                _, _, first, _, _, size, count, _, _ = _UNIT.unpack_from(write, at)
                assert 0 < first <= last + 1
                last = first + count - 1
                at += _UNIT.size + size
        return last
