"""A log on a simulated disk, with a ledger of its promises: the oracle of the storage tests.

The ledger is in the test's memory and never forgets. The log must agree with it, whatever happened to the disk.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestration.sim_cluster.disk import SimDisk
from raft_actor_node.runtime.wal import Recovered, Wal

DIRECTORY = Path("/data/n1")
MEMBERS = ["n1", "n2", "n3"]

State = tuple[int, str | None, list[tuple[int, bytes]], int]
"""Term, vote, entries, commit index."""
NEW: State = (0, None, [], 0)

OUTCOMES: Counter[str] = Counter()
"""What became of damaged logs, over all tests of a session; shown at its end.

refused            DataCorrupt, and no byte was changed
repaired           everything recovered, with a warning
cut                a torn tail that was never promised, cut off with a warning
indistinguishable  promised, and cut off with a warning: above the durable mark, it looks exactly like a tear
"""


class Died(BaseException):
    """The process was killed."""


def dies_after(calls: int) -> Callable[[str], None]:
    """A hook for SimDisk.on_call: the process dies after this many calls, instead of making the next one."""
    left = iter(range(calls))

    def count(_: str) -> None:
        if next(left, None) is None:
            raise Died

    return count


def open_wal(disk: SimDisk, *, bootstrap: bool = False, **options: Any) -> tuple[Wal, Recovered]:
    """Open the log of node n1 of cluster c with members n1, n2, n3."""
    named: dict[str, Any] = {"cluster_id": "c", "node_id": "n1", "members": MEMBERS} | options
    return Wal.open(DIRECTORY, bootstrap=bootstrap, disk=disk, **named)


def state_of(recovered: Recovered) -> State:
    log = list(zip(recovered.terms, recovered.payloads, strict=True))
    return recovered.current_term, recovered.voted_for, log, recovered.commit_index


class Ledger:
    """Calls on a log, and the promises that they made."""

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self.wal: Wal | None = None
        self.promised: State | None = None
        self.underway: State | None = None
        """What the interrupted call would have promised; None if no call was interrupted."""
        self.interrupt = False
        """Whether the process dies in the next call."""

    def open(self, **options: Any) -> Recovered:
        """Recover. The recovered state must be promised or under way, and counts as promised from then on."""
        self.disk.commit()
        # Before the first promise the bootstrap may be repeated; later it must not be needed.
        self.wal, recovered = open_wal(self.disk, bootstrap=self.promised is None, **options)
        found = state_of(recovered)
        assert found in (self.promised or NEW, self.underway), f"{found}: not {self.promised} or {self.underway}"
        self.promised, self.underway = found, None
        return recovered

    def save_hard_state(self, term: int, vote: str | None) -> None:
        assert self.promised is not None
        self._call((term, vote, *self.promised[2:]), lambda wal: wal.save_hard_state(term, vote))

    def append(self, first_index: int, entries: list[tuple[int, bytes]], commit_index: int) -> None:
        assert self.promised is not None
        term, vote, log, _ = self.promised
        terms, payloads = [entry[0] for entry in entries], [entry[1] for entry in entries]
        self._call(
            (term, vote, log[: first_index - 1] + entries, commit_index),
            lambda wal: wal.append(first_index, terms, payloads, commit_index),
        )

    def _call(self, state: State, call: Callable[[Wal], None]) -> None:
        assert self.wal is not None
        self.underway = state
        self.disk.begin()
        call(self.wal)
        if self.interrupt:
            self.interrupt = False
            raise Died
        self.disk.commit()
        self.promised, self.underway = state, None

    def close(self) -> None:
        assert self.wal is not None
        self.wal.close()
        self.wal = None

    def live(self) -> None:
        """Use every kind of call on a log once."""
        self.save_hard_state(1, "n1")
        self.append(1, [(1, b""), (1, b"one"), (1, b"x" * 300)], 1)
        self.save_hard_state(2, None)
        self.save_hard_state(2, "n3")
        self.append(3, [(2, b"y" * 1700)], 2)
        self.append(4, [(2, b"")], 3)
        self.close()

    def check(self) -> None:
        """Open the log twice; the second time there must be nothing to repair."""
        self.open()
        self.close()
        before = self.disk.contents()
        assert self.open().warnings == []
        self.close()
        assert self.disk.contents() == before


def sim_disk(*seed: object) -> SimDisk:
    """A new disk; equal seeds make equal disks.

    Half of them tear sectors as well, which the two copies of term and vote must survive.
    """
    chance = random.Random(repr(seed))
    disk = SimDisk(chance)
    disk.whole_sectors = chance.random() < 0.5
    return disk
