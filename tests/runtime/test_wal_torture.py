"""All faults in any order: calls, crashes, power failures, failing disks, damage, crashes during recovery.

A state machine draws the order. A ledger beside the log (torture.py) records the promises. A reader in this file
derives the required outcome of damage from the documented layout.
"""

from __future__ import annotations

import errno
import random
import re
import struct
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from orchestration.sim_cluster.disk import SECTOR_BYTES, SimDisk
from raft_actor_node.errors import DataCorrupt, DiskError
from raft_actor_node.runtime.wal import HARD_STATE_NAMES, LOG_NAME, MARK_NAME
from tests.runtime.torture import DIRECTORY, OUTCOMES, Died, Ledger, dies_after, sim_disk

SEGMENT = struct.Struct("<8sIQ8sHHH")
UNIT = struct.Struct("<8sQQQQQIII")
MARK = struct.Struct("<8s8sQII")

LOG, MARK_PATH = DIRECTORY / LOG_NAME, DIRECTORY / MARK_NAME
ENDS: dict[str, Callable[[SimDisk], object]] = {"killed": SimDisk.kill, "power lost": SimDisk.lose_power}


def header_at(log: bytes, offset: int) -> tuple[int, int] | None:
    """(body length, chain) of a valid unit header."""
    header = log[offset : offset + UNIT.size]
    if len(header) < UNIT.size:
        return None
    nonce, at, _, _, _, body_bytes, _, chain, crc = UNIT.unpack(header)
    valid = nonce == log[20:28] and at == offset and crc == crc32(header[:-4])
    return (body_bytes, chain) if valid else None


def unit_ends(log: bytes) -> list[int]:
    """The ends of the segment header and of each good unit behind it."""
    *_, cluster_bytes, node_bytes, members_bytes = SEGMENT.unpack_from(log)
    ends = [SEGMENT.size + cluster_bytes + node_bytes + members_bytes + 4]
    (chain,) = struct.unpack_from("<I", log, ends[0] - 4)
    while header := header_at(log, ends[-1]):
        start, end = ends[-1], ends[-1] + UNIT.size + header[0]
        chain = crc32(log[start + UNIT.size : end], crc32(log[start : start + UNIT.size - 8], chain))
        if end > len(log) or chain != header[1]:
            break
        ends.append(end)
    return ends


class Torture(RuleBasedStateMachine):
    """A log, its ledger, and what happens to its disk."""

    @initialize(seed=st.integers(0, 2**32 - 1))
    def bootstrap(self, seed: int) -> None:
        self.disk = sim_disk(seed)
        self.ledger = Ledger(self.disk)
        self.ledger.open()
        self.states: list[tuple[list[tuple[int, bytes]], int]] = [([], 0)]
        """The log's state after none, one, two ... of its units."""
        self.healthy: dict[Any, bytes] = {}
        """The files before they were damaged; empty while they are undamaged."""
        self.undamaged = self.ledger.promised, self.ledger.underway
        self.kept_units: int | None = None
        """The number of units that damage leaves; None: all."""
        self.may_refuse = False

    @property
    def up(self) -> bool:
        return self.ledger.wal is not None

    # ------------------------------------------------------------------------------ the process

    @precondition(lambda self: self.up)
    @rule(step=st.integers(0, 3), vote=st.sampled_from([None, "n1", "n2"]), fate=st.data())
    def save_hard_state(self, step: int, vote: str | None, fate: st.DataObject) -> None:
        assert self.ledger.promised is not None
        term, voted_for, *_ = self.ledger.promised
        if step == 0 and voted_for is not None:
            vote = voted_for
        self.call(fate, lambda: self.ledger.save_hard_state(term + step, vote))

    @precondition(lambda self: self.up)
    @rule(sizes=st.lists(st.integers(0, 1500), max_size=4), chance=st.randoms(use_true_random=False), fate=st.data())
    def append(self, sizes: list[int], chance: random.Random, fate: st.DataObject) -> None:
        assert self.ledger.promised is not None
        term, _, log, commit_index = self.ledger.promised
        first_index = chance.randint(commit_index, len(log)) + 1
        entries = [(term, chance.randbytes(size)) for size in sizes]
        commit_index = chance.randint(commit_index, first_index - 1 + len(entries))
        if self.call(fate, lambda: self.ledger.append(first_index, entries, commit_index)):
            self.states.append(self.ledger.promised[2:])

    def call(self, fate: st.DataObject, call: Callable[[], None]) -> bool:
        """Make a call, which a crash may interrupt."""
        kinds = ["done"] * 6 + [*ENDS, "dies", "EIO on write", "EIO on sync", "ENOSPC", "short writes"]
        kind = fate.draw(st.sampled_from(kinds), label="fate")
        disk = self.disk
        disk.short_writes = kind == "short writes"
        if kind in ENDS:
            self.ledger.interrupt = True
        elif kind == "dies":
            disk.on_call = dies_after(fate.draw(st.integers(0, 4), label="after calls"))
        elif kind == "EIO on write":
            disk.fail_writes = errno.EIO
        elif kind == "EIO on sync":
            disk.fail_syncs = errno.EIO
        elif kind == "ENOSPC":
            disk.capacity_bytes = sum(map(len, disk.contents().values())) + fate.draw(st.integers(0, 2000))
        try:
            call()
        except (Died, DiskError):
            event(kind)
            disk.commit() if kind == "ENOSPC" else None
            self.end(fate.draw(st.sampled_from(sorted(ENDS)), label="end") if kind not in ENDS else kind)
            return False
        finally:
            disk.on_call = disk.fail_writes = disk.fail_syncs = disk.capacity_bytes = None
            disk.short_writes = False
        return True

    @precondition(lambda self: self.up)
    @rule(kind=st.sampled_from(sorted(ENDS)))
    def end(self, kind: str) -> None:
        ENDS[kind](self.disk)
        self.ledger.wal = None

    @precondition(lambda self: self.up)
    @rule()
    def close(self) -> None:
        self.ledger.close()

    @precondition(lambda self: not self.up)
    @rule(calls=st.none() | st.integers(0, 30), kind=st.sampled_from(sorted(ENDS)))
    def recover(self, calls: int | None, kind: str) -> None:
        """Start again; the process may die during recovery."""
        if calls is not None and not self.healthy:
            self.disk.on_call = dies_after(calls)
        before = self.disk.contents()
        try:
            recovered = self.ledger.open()
        except Died:
            event(f"{kind} in recovery")
            ENDS[kind](self.disk)
            return
        except DataCorrupt:
            assert self.may_refuse
            assert self.disk.contents() == before, "what is refused is left alone"
            OUTCOMES["refused"] += 1
            self.undo_damage()
            return
        finally:
            self.disk.on_call = None
        self.count(recovered.warnings)
        self.healthy, self.kept_units, self.may_refuse = {}, None, False

    def count(self, warnings: list[str]) -> None:
        """Update the states of the units after a recovery."""
        units = len(unit_ends(self.disk.contents()[LOG])) - 1
        assert self.ledger.promised is not None
        if units == len(self.states):
            self.states.append(self.ledger.promised[2:])
        lost = len(self.states) - 1 - units
        del self.states[units + 1 :]
        assert self.states[-1] == self.ledger.promised[2:]
        if self.healthy:
            assert self.kept_units is None or units == self.kept_units
        if lost:
            OUTCOMES["indistinguishable"] += 1
        elif any("cut off" in warning for warning in warnings):
            OUTCOMES["cut"] += 1
        elif warnings:
            OUTCOMES["repaired"] += 1

    # ------------------------------------------------------------------------------ damage at rest

    @precondition(lambda self: not self.up and not self.healthy)
    @rule(
        kind=st.sampled_from(["flip", "zeros", "noise", "cut", "stale"]),
        where=st.sampled_from([0.99, 0.95]) | st.floats(0, 1, exclude_max=True),
        marked=st.booleans(),
        chance=st.randoms(use_true_random=False),
    )
    def damage_log(self, kind: str, where: float, marked: bool, chance: random.Random) -> None:
        """Damage the log; the durable mark may be lost as well, which leaves less that is certain."""
        log = self.disk.contents()[LOG]
        ends = unit_ends(log)
        at = int(where * ends[-1])
        sector = slice(at - at % SECTOR_BYTES, at - at % SECTOR_BYTES + SECTOR_BYTES)
        damaged = bytearray(log)
        if kind == "flip":
            damaged[at] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del damaged[at:]
        elif kind == "stale":
            damaged[ends[-1] :] = log[at : ends[-1]]
        else:
            size = len(damaged[sector])
            damaged[sector] = bytes(size) if kind == "zeros" else chance.randbytes(size)
        self.damage(LOG, bytes(damaged))
        if not marked:
            self.disk.put(MARK_PATH, None)
        self.judge(log, bytes(damaged), ends)

    def judge(self, log: bytes, damaged: bytes, ends: list[int]) -> None:
        """The required outcome for a damaged log: it is refused, or a given number of units is kept."""
        good = next((i for i, (a, b) in enumerate(zip(damaged, log, strict=False)) if a != b), len(damaged))
        bad = sum(end <= good for end in ends)
        if bad == len(ends):
            return
        mark = self.disk.contents().get(MARK_PATH, b"")
        durable = MARK.unpack(mark)[2] if len(mark) == MARK.size and crc32(mark[:-4]) == MARK.unpack(mark)[4] else 0
        start = ends[bad - 1] if bad else 0
        behind = any(
            header_at(damaged, found.start())
            for found in re.compile(re.escape(log[20:28])).finditer(damaged, start + 1)
        )
        if bad == 0 or durable > start or behind:
            self.may_refuse, self.kept_units = True, -1
        elif bad < len(self.states):
            # A promise is lost, but the damage looks exactly like a tear. The ledger records that, so the loss does not
            # count as a bug.
            promised, underway = self.ledger.promised, self.ledger.underway
            assert promised is not None
            self.kept_units = bad - 1
            self.ledger.promised = (*promised[:2], *self.states[bad - 1])
            saving = underway is not None and underway[2:] == promised[2:]
            self.ledger.underway = (*underway[:2], *self.states[bad - 1]) if underway and saving else None
        else:
            self.kept_units = bad - 1

    @precondition(lambda self: not self.up and not self.healthy)
    @rule(
        name=st.sampled_from([*HARD_STATE_NAMES, MARK_NAME]),
        content=st.sampled_from([None, b"", bytes(36), b"\xff" * 128]),
    )
    def damage_small_file(self, name: str, content: bytes | None) -> None:
        copies = [self.disk.contents().get(DIRECTORY / name) for name in HARD_STATE_NAMES]
        # During a save, one copy may be bad already, so this would be the second fault.
        self.may_refuse = name != MARK_NAME and copies[0] != copies[1]
        self.damage(DIRECTORY / name, content)

    def damage(self, path: Any, content: bytes | None) -> None:
        self.healthy = self.disk.contents()
        self.undamaged = self.ledger.promised, self.ledger.underway
        self.disk.put(path, content)

    def undo_damage(self) -> None:
        for path, content in self.healthy.items():
            self.disk.put(path, content)
        self.ledger.promised, self.ledger.underway = self.undamaged
        self.healthy, self.kept_units, self.may_refuse = {}, None, False

    def teardown(self) -> None:
        """At the end no promise is broken."""
        if self.healthy:
            self.undo_damage()
        self.disk.lose_power()
        self.ledger.check()


TestTorture = pytest.mark.timeout(900)(Torture.TestCase)  # shrinking a failure takes long
TestTorture.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
