"""Progress of a run: state that the runner updates and a display reads. Nothing is drawn here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.load.recorder import LoadSnapshot
from sweeps.spec.estimate import cell_s, overhead_s
from sweeps.spec.grid import Cell
from sweeps.store.reader import Repeat

PHASES = ("boot", "elect", "warm up", "measure", "drain", "inspect", "collect", "check")


@dataclass
class CellProgress:
    """Progress of the current cell."""

    cell: Cell
    position: int
    """Position in the sweep, from 1."""
    begin_s: float
    phase: str = PHASES[0]
    phase_begin_s: float = 0.0
    phase_length_s: float | None = None
    """Planned length of the phase; None if it is open-ended."""
    leader: str | None = None
    term: int | None = None
    first_term: int | None = None
    faults: int = 0
    faults_asked: int = 0
    last_fault: str = ""
    snapshot: LoadSnapshot = field(default_factory=LoadSnapshot)
    throughput: deque[float] = field(default_factory=lambda: deque(maxlen=240))

    @property
    def elections(self) -> int | None:
        """Number of terms since the first leader was seen."""
        return None if self.term is None or self.first_term is None else self.term - self.first_term


class Progress:
    """Progress of a run. `clock` returns seconds; `cores` is the number of cores that a cell's processes share."""

    def __init__(
        self, name: str, cells: Sequence[Cell], *, cores: int = 2, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.cells = cells
        self.where = ""
        """The Ray cluster and the folder of the results, for display."""
        self.done: list[Repeat] = []
        self.current: CellProgress | None = None
        self.checking: int | None = None
        """Position, from 0, of the cell whose deferred check runs."""
        self._cores = cores
        self._clock = clock
        self._begin_s = clock()
        self._overheads: list[tuple[float, float]] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._begin_s

    @property
    def left_s(self) -> float:
        """Estimated seconds until the last cell ends.

        The estimate is scaled by the time that earlier cells needed outside their load.
        """
        real, estimated = (sum(times) for times in zip(*self._overheads, strict=True)) if self._overheads else (1, 1)
        factor = min(5.0, max(0.2, real / estimated))

        def whole(cell: Cell) -> float:
            extra = overhead_s(cell, self._cores)
            return cell_s(cell, self._cores) + extra * (factor - 1)

        started = len(self.done) + (self.current is not None)
        left = sum(whole(cell) for cell in self.cells[started:])
        if self.current is not None:
            left += max(0.0, whole(self.current.cell) - (self._clock() - self.current.begin_s))
        return left

    @property
    def share(self) -> float:
        """Estimated share of the work that is done, from 0 to 1."""
        total = self.elapsed_s + self.left_s
        return self.elapsed_s / total if total > 0 else 0.0

    def take_up(self, done: Sequence[Repeat]) -> None:
        """Record the cells that ran before this run was resumed."""
        self.done = list(done)

    def begin_cell(self, cell: Cell) -> None:
        """Record that the next cell begins."""
        now = self._clock()
        self.current = CellProgress(cell, len(self.done) + 1, now, phase_begin_s=now)

    def enter(self, phase: str, length_s: float | None = None) -> None:
        """Record that the cell enters a phase."""
        if self.current is not None:
            self.current.phase, self.current.phase_begin_s = phase, self._clock()
            self.current.phase_length_s = length_s

    def phase_s(self) -> float:
        """Return the seconds since the current phase began."""
        return self._clock() - self.current.phase_begin_s if self.current is not None else 0.0

    def load(self, snapshot: LoadSnapshot) -> None:
        """Record a snapshot of the load."""
        if self.current is not None:
            self.current.snapshot = snapshot
            self.current.throughput.append(snapshot.per_second)

    def leads(self, leader: str | None, term: int | None) -> None:
        """Record the reported leader and term; the term shown never decreases."""
        if self.current is not None:
            self.current.leader = leader
            if term is not None:
                self.current.term = max(term, self.current.term or 0)
                if self.current.first_term is None:
                    self.current.first_term = term

    def asks(self, faults: int) -> None:
        """Record the number of faults in the schedule."""
        if self.current is not None:
            self.current.faults_asked = faults

    def fault(self, what: str, *, counts: bool) -> None:
        """Record an action of the monkey. `counts` says whether it put a fault in force."""
        if self.current is not None:
            self.current.faults += counts
            self.current.last_fault = what

    def end_cell(self, params: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Record the result of the cell."""
        if self.current is not None:
            took_s = self._clock() - self.current.begin_s
            cell = self.current.cell
            extra_s = overhead_s(cell, self._cores)
            if result["status"] == "ok":
                self._overheads.append((max(0.0, took_s - (cell_s(cell, self._cores) - extra_s)), extra_s))
        self.done.append((params, result))
        self.current = None

    def check_cell(self, position: int) -> None:
        """Record that the deferred check of a cell begins."""
        self.checking = position

    def end_check(self, position: int, result: Mapping[str, Any]) -> None:
        """Record the verdict of a finished cell."""
        params, _ = self.done[position]
        self.done[position] = (params, result)
        self.checking = None
