"""The files of a cell as evidence for the checks; chaos/checks/evidence.py defines each part.

Each part is read when a check first needs it, and then cached.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from chaos.checks.evidence import AppliedState, FaultExit, Load, Missing, Outage, Settled, UnexpectedExit
from chaos.events import NEVER_NS, FaultEvent
from chaos.history import History
from chaos.linearizability import Violation
from chaos.statuses import Status
from raft_actor_node.core.invariants.liveness import LIVENESS_BOUND
from raft_actor_node.core.trace import TraceRecord
from raft_actor_node.names import node_names
from raft_actor_node.trace_lines import parse_trace
from raft_actor_node.units import format_duration
from sweeps.analysis.availability import late_windows, waiting
from sweeps.analysis.events import Event, faults_of, traced_of
from sweeps.judge.histories import history_of
from sweeps.load.latencies import Ints, Mask
from sweeps.load.operations import FAIL, NO_READER, OK, UNKNOWN, Operations
from sweeps.spec.parameters import CheckSettings, Parameters
from sweeps.store.files import WriteFailed, writing
from sweeps.store.reader import read_cell

VIOLATION_FILES = ("violation.txt", "violation.svg")
"""The files that show a violation, as text and as a picture."""


def write_violation(violation: Violation, files: Iterable[Path]) -> None:
    """Write the text and the picture of a violation into two files. Raises WriteFailed."""
    for file, text in zip(files, (violation.as_text(), violation.as_svg()), strict=True):
        with writing(file):
            file.write_text(text, encoding="utf-8")


class CellEvidence:
    """One cell in its folder. Raises OSError and ValueError if there is no cell in the folder."""

    def __init__(self, folder: Path, checks: CheckSettings) -> None:
        self._folder, self._checks = folder, checks
        self._cell = read_cell(folder)
        self._parameters = Parameters.model_validate(self._cell.params["parameters"])

    @property
    def omitted(self) -> Sequence[str]:
        """Parts of checks that were not made."""
        operations = self._operations
        omits = operations is not None and self._checks.linearizable and operations.first_reader == NO_READER
        return ["read back"] if omits else []

    # ------------------------------------------------------------------------------ what was asked for

    @cached_property
    def nodes(self) -> Sequence[str]:
        return node_names(self._parameters.cluster.nodes)

    @property
    def foreign(self) -> bool:
        return self._parameters.cluster.command != "default"

    @property
    def check_quorum(self) -> bool:
        return self._parameters.raft.check_quorum

    @property
    def longest_timeout_s(self) -> float:
        return self._parameters.raft.election_timeout[1] / self._parameters.slowest_clock

    @property
    def leader_due(self) -> bool:
        calm_outage = self.outage_expected and not self.faults_planned
        return not (self._parameters.allow_bad_parameters or self._parameters.expect == "safe" or calm_outage)

    @property
    def faults_planned(self) -> bool:
        return bool(self._parameters.chaos)

    @property
    def outage_expected(self) -> bool:
        return self._parameters.expect == "unavailable"

    @property
    def least_operations(self) -> int:
        return self._checks.least_operations

    @property
    def time_limit_s(self) -> float:
        return self._checks.time_limit

    @property
    def memory_limit_bytes(self) -> int:
        return self._checks.memory_limit

    # ------------------------------------------------------------------------------ what clients saw

    @property
    def history(self) -> History | None:
        if self._operations is None:
            return None
        if not self._parameters.load.value_bytes:
            raise Missing("values of 0 bytes do not identify their writes")
        return history_of(self._cell)

    @property
    def refused_sessions(self) -> int:
        return len((self._inspection.get("asked") or {}).get("attempts_ns", ()))

    @property
    def answered_ns(self) -> Sequence[int]:
        return [] if self._operations is None else self._operations.success_ns().tolist()

    @property
    def nothing_answered(self) -> bool:
        return self._operations is None or not (self._operations["outcome"] == OK).any()

    @property
    def acknowledged_writes(self) -> int:
        operations = self._operations
        if operations is None:
            return 0
        return int(np.count_nonzero((operations["outcome"] == OK) & ~operations.of_kind("get")))

    @property
    def measure_begin_ns(self) -> int:
        return self._operations.measure_ns[0] if self._operations is not None else 0

    @property
    def load(self) -> Load:
        operations = self._operations
        if operations is None:
            return Load(0, 0)
        ok, unknown = operations.count(OK), operations.count(UNKNOWN)
        counts = ok + unknown + operations.count(FAIL), ok, unknown
        if self._parameters.load.mode == "closed":
            return Load(*counts)
        begin, end = operations.measure_ns
        due, dropped = operations["intended_ns"], operations.dropped_ns
        calm_due, calm_dropped = self._undisturbed(due), self._undisturbed(dropped)
        due_inside, dropped_inside = operations.measured, (dropped >= begin) & (dropped < end)
        if (calm_due & due_inside).any() or (calm_dropped & dropped_inside).any():
            calm_due, calm_dropped = calm_due & due_inside, calm_dropped & dropped_inside
        # Otherwise faults lasted for the whole measurement, and the warm-up shows whether the load could be met.
        missed = int(np.count_nonzero(calm_dropped))
        return Load(*counts, due=int(np.count_nonzero(calm_due)) + missed, not_started=missed)

    @property
    def outage(self) -> Outage:
        operations, chaos = self._operations, self._parameters.chaos
        clients = self._parameters.load.clients
        fewest = min(self._checks.least_operations, clients)  # a client that waits in vain sends few requests
        if operations is None:
            asked = self._inspection.get("asked")
            if chaos or asked is None:
                return Outage(0, fewest, unasked=1.0, before=0 if chaos else None, after=0 if chaos else None)
            begin, end = np.array(asked["attempts_ns"], np.int64).reshape(-1, 2).T
            attempts, unasked = waiting(begin, end, [tuple(asked["window_ns"])])
            return Outage(attempts * clients, fewest, unasked)  # in each attempt every client asks for its session
        windows = late_windows(self._events, operations, self.longest_timeout_s) if chaos else [operations.measure_ns]
        waited, unasked = waiting(operations["start_ns"], operations["end_ns"], windows)
        if not chaos:
            return Outage(waited, fewest, unasked)
        done, faults = operations.success_ns(), operations.fault_ns
        first, last = (int(faults[0, 0]), int(faults[-1, 1])) if len(faults) else (0, NEVER_NS)
        return Outage(waited, fewest, unasked, before=int((done < first).sum()), after=int((done > last).sum()))

    @property
    def unread(self) -> str:
        operations = self._operations
        if operations is None or not self._checks.linearizable or operations.first_reader == NO_READER:
            return ""
        keys, read = operations.read_back()
        limit = format_duration(self._parameters.checks.read_back)
        unread = f"only {read} of {keys} keys that were written could be read at the end within {limit}"
        return f"{unread} (checks.read_back)" if read < keys else ""

    @property
    def clock_doubt(self) -> str:
        # A stale read is stale by about an election timeout. Within the clock error the checker accepts any order.
        operations, shortest_s = self._operations, self._parameters.raft.election_timeout[0]
        if operations is None or (operations.generator_error_ns >= 0).sum() < 2:
            return ""
        if operations.error_ns <= shortest_s * 1e9:
            return ""
        bound = f"the clocks of load generators are known only within {operations.error_ns / 1e9:.3g} s"
        return f"{bound}, longer than the shortest election timeout: the order of operations proves little"

    def _undisturbed(self, times: Ints) -> Mask:
        """Return the mask of the times outside all faults and outside the recovery time after each fault."""
        assert self._operations is not None
        recovery_ns = int(LIVENESS_BOUND * self.longest_timeout_s * 1e9)
        calm = np.ones(len(times), np.bool_)
        for begin, end in self._operations.fault_ns.tolist():
            calm &= (times < begin) | (times - recovery_ns >= end)
        return calm

    # ------------------------------------------------------------------------------ what nodes reported

    def traced(self, kind: str | None = None) -> Iterator[TraceRecord]:
        for node_id, lines in self._traces.items():
            chosen = lines if kind is None else (line for line in lines if f'"{kind}"' in line)
            for event in parse_trace(chosen, node_id, self._offset_ns(node_id)):
                if kind is None or event.kind == kind:
                    yield event

    @cached_property
    def committed_before_end(self) -> int:
        if self.settled is None:
            return 0
        until_ns = self.settled.begin_ns - 2 * self.clock_error_ns
        commits = (event for event in self.traced("commit") if event.time_ns and event.time_ns <= until_ns)
        return max((event.index for event in commits), default=0)

    @property
    def traces_nothing(self) -> bool:
        return not any(self._traces.values())

    @cached_property
    def statuses(self) -> Sequence[Status]:
        return [self._status(told) for told in self._inspection.get("statuses", ())]

    @cached_property
    def settled(self) -> Settled | None:
        if not (told := self._inspection.get("settled")):
            return None
        states = [
            AppliedState(
                node_id,
                state["last_applied"],
                bytes.fromhex(state["applied_hash"]),
                told["hash_index"],
                bytes.fromhex(state["prefix_hash"]),
                bytes.fromhex(state["state_hash"]),
            )
            for node_id, state in told.get("nodes", {}).items()
        ]
        return Settled(told["begin_ns"], told["end_ns"], told["leader_ns"], states)

    @property
    def exits(self) -> Sequence[UnexpectedExit]:
        return [UnexpectedExit(end["exit_code"], end["text"]) for end in self._inspection.get("exits", ())]

    @property
    def fault_exits(self) -> Sequence[FaultExit]:
        told = self._inspection.get("fault_exits", ())
        return [FaultExit(end["node"], end["exit_code"], end["time_ns"]) for end in told]

    @property
    def lost(self) -> Sequence[str]:
        return list(self._inspection.get("lost", ()))

    @property
    def broken_steps(self) -> Sequence[str]:
        return self._inspection.get("violations") or []

    @property
    def clock_error_ns(self) -> int:
        of_nodes = (int(clock["error_ns"]) for clock in self._inspection.get("clocks", {}).values())
        return max(self._operations.error_ns if self._operations is not None else 0, *of_nodes, 0)

    def _status(self, told: Mapping[str, Any]) -> Status:
        fields = {name: value for name, value in told.items() if name not in ("node", "time_ns")}
        return Status(told["node"], time_ns=told["time_ns"] - self._offset_ns(told["node"]), **fields)

    def _offset_ns(self, node_id: str) -> int:
        """Return how far the clock of a node's host is ahead of the driver's."""
        return int(self._inspection.get("clocks", {}).get(node_id, {}).get("offset_ns", 0))

    # ------------------------------------------------------------------------------ the faults

    @cached_property
    def faults(self) -> Sequence[FaultEvent]:
        return faults_of(self._events)

    @cached_property
    def roles(self) -> Sequence[TraceRecord]:
        return traced_of(self._events)

    @property
    def aims(self) -> Mapping[int, str]:
        return {int(position): aim for position, aim in self._inspection.get("aims", {}).items()}

    @property
    def faults_asked(self) -> Mapping[str, int]:
        return dict(self._inspection.get("faults_asked", {}))

    # ------------------------------------------------------------------------------ what a check writes

    def keep_violation(self, violation: Violation | None) -> str:
        files = [self._folder / name for name in VIOLATION_FILES]
        if violation is None:
            for file in files:
                with contextlib.suppress(OSError):  # the verdict does not depend on these files
                    file.unlink(missing_ok=True)
            return ""
        try:
            write_violation(violation, files)
        except WriteFailed as error:
            return str(error)
        return ""

    # ------------------------------------------------------------------------------ the files

    @cached_property
    def _events(self) -> list[Event]:
        return self._cell.events()

    @cached_property
    def _inspection(self) -> dict[str, Any]:
        return self._cell.inspection()

    @cached_property
    def _traces(self) -> dict[str, list[str]]:
        return self._cell.traces()

    @cached_property
    def _operations(self) -> Operations | None:
        return self._cell.operations() if (self._folder / "latency.npz").is_file() else None
