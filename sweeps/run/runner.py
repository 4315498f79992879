"""Runs the cells of a sweep in order, and writes their results.

A cell that fails is recorded with its reason, and the sweep continues. If the infrastructure of the cell failed, the
sweep continues with the remaining hosts. If no host can take the nodes, or Ray is lost, the sweep stops; `sweep resume`
can run the remaining cells later.

A cell is judged when its nodes have ended, or after the last cell if its checks are deferred. An interruption ends the
current cell: faults are healed, nodes are stopped, results so far are written, and the run is marked as incomplete.

The write-ahead logs of a cell are kept if it failed, or if the judge found an unexpected violation before the next cell
began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from raft_actor_node.errors import RaftLabError
from sweeps.analysis.cell_data import CellData
from sweeps.analysis.summary import summarise
from sweeps.judge.checking import judged
from sweeps.judge.exit_codes import EXIT_INTERRUPTED, ends_with
from sweeps.judge.expectations import PENDING, exit_code, pending, unmet_expectation, with_verdict
from sweeps.run.progress import Progress
from sweeps.run.record import Record
from sweeps.run.view import View
from sweeps.spec.grid import Cell
from sweeps.store.manifest import file_system
from sweeps.store.writer import CellFiles, RunWriter, describe


class CellLife(Protocol):
    """One cell from its beginning to the end of its processes, in real time (CellRun) or in virtual time."""

    @property
    def interrupted(self) -> Record | None:
        """The record up to a cancellation; None if the cell was not cancelled."""

    async def run(self) -> Record:
        """Run the cell. Raises only CancelledError; failures are in the record."""

    async def release(self, *, keep: bool) -> None:
        """Close the load generators and stop the cluster. With `keep` the files of the nodes stay on their hosts."""


Begin = Callable[[Cell, Progress, str], CellLife]
"""Creates the CellLife of a cell; the text is the id of the run."""


class Runner:
    """One run of a sweep."""

    def __init__(
        self, begin: Begin, writer: RunWriter, progress: Progress, view: View, thresholds: Mapping[str, str]
    ) -> None:
        self._begin, self._writer, self._progress, self._view = begin, writer, progress, view
        self._thresholds = thresholds
        self._over: str | None = None
        self._results: dict[str, dict[str, Any]] = {}
        """The latest result of each cell, by cell id, even if it could not be written."""

    async def run(self, cells: Sequence[Cell], done: Sequence[Mapping[str, Any]] = ()) -> int:
        """Run the cells and return the exit code of `sweep`.

        `done` are the existing results of the first cells, which do not run again. After a cancellation the run is
        cleaned up, then CancelledError is raised. An error that ends the run gets the worse of its own exit code and
        that of the results.
        """
        self._results = {cell.id: dict(result) for cell, result in zip(cells, done, strict=False)}
        try:
            return await self._run(cells, len(done))
        except asyncio.CancelledError:
            self._writer.journal("run interrupted", cells_done=len(self._progress.done))
            self._writer.finish(complete=False, exit_code=EXIT_INTERRUPTED)
            raise
        except (RaftLabError, OSError) as error:
            ends_with(error, exit_code(self._results.values()))
            if wrong := [identity for identity, result in self._results.items() if _is_wrong(result)]:
                error.add_note(f"violated before that: cell {', '.join(wrong)}")
            raise

    async def _run(self, cells: Sequence[Cell], done: int) -> int:
        self._writer.journal("run resumed" if self._writer.resumed else "run started", cells=len(cells), done=done)
        results = self._results
        for cell in cells[done:]:
            results[cell.id] = await self._run_cell(cell)
            if self._over is not None:
                break
        for position, cell in enumerate(cells[: len(results)]):
            if results[cell.id]["verdict"]["verdict"] == PENDING:
                results[cell.id] = await self._judge_late(position, cell, results[cell.id])
        code = exit_code(results.values())
        if self._over is None:
            self._writer.journal("run finished", exit_code=code)
        else:
            left = len(cells) - len(results)
            self._writer.journal("run stopped", exit_code=code, cells_left=left, reason=self._over)
            self._view.note(f"stopped, with {left} cells left: {self._over}")
        self._writer.finish(complete=self._over is None, exit_code=code)
        return code

    async def _run_cell(self, cell: Cell) -> dict[str, Any]:
        self._writer.journal("cell started", cell=cell.id, label=cell.label, repeat=cell.repeat)
        self._progress.begin_cell(cell)
        run = self._begin(cell, self._progress, run_id(self._writer))
        try:
            record = await run.run()
        except asyncio.CancelledError:
            try:
                if run.interrupted is not None:
                    summary, _ = self._findings(run.interrupted)
                    stopped = {"status": "interrupted", "reason": "interrupted", **summary}
                    self._finished(cell, self._write(cell, run.interrupted, stopped, "interrupted"))
            finally:
                await run.release(keep=False)
            raise
        if record.over is not None:
            self._over = record.over
            self._writer.add_facts({"stopped": record.over})  # before the judge, which takes time
        summary, reason = self._findings(record)
        status = "infrastructure" if record.lost else "failed" if reason else "ok"
        found: dict[str, Any] = {"status": status, "reason": record.lost or reason}
        if record.detail not in ("", record.error, record.lost):
            found["detail"] = record.detail
        defer = cell.parameters.checks.when == "defer"
        result = self._write(cell, record, found | summary, "deferred" if defer else "not checked yet")
        try:
            if not defer:
                self._progress.enter("check")
                result = await self._judge(cell, result)
        finally:
            kept = await self._release(run, record, keep=result["status"] == "failed" or _is_wrong(result))
            if kept:
                result |= {"kept": kept}
                self._writer.write_result(cell, result)
            self._finished(cell, result)
        self._view.cell_done(self._progress)
        if kept:
            self._view.note(f"the logs of cell {cell.id} are kept in {', '.join(kept)}")
        return result

    async def _judge(self, cell: Cell, result: Mapping[str, Any]) -> dict[str, Any]:
        """Judge a cell whose files are written and whose nodes have ended; return its result with the verdict."""
        verdict = await judged(self._writer.folder(cell), cell.parameters.checks)
        result = self._results[cell.id] = with_verdict(result, verdict, cell.parameters.expect)
        self._writer.write_result(cell, result)
        return result

    async def _judge_late(self, position: int, cell: Cell, result: Mapping[str, Any]) -> dict[str, Any]:
        self._progress.check_cell(position)
        judged_result = await self._judge(cell, result)
        self._writer.journal("cell judged", cell=cell.id, verdict=judged_result["verdict"]["verdict"])
        self._progress.end_check(position, judged_result)
        self._view.cell_judged(self._progress, position)
        return judged_result

    def _findings(self, record: Record) -> tuple[dict[str, Any], str | None]:
        """Return what the cell shows, and why it failed.

        If the raw data cannot be summarised, the cell also fails; the data is written unchanged.
        """
        try:
            summary = summarise(record.evidence)
            return summary | record.facts, self._reason(record, summary)
        except Exception as failure:
            record.fails(failure, "summarising")
            return summarise(CellData(record.evidence.parameters, None, ())), record.error

    def _reason(self, record: Record, summary: Mapping[str, Any]) -> str | None:
        if record.error is not None:
            return record.error
        reason = unmet_expectation(record.evidence, summary, self._thresholds)
        return (record.unavailable or reason) if reason is not None and record.evidence.operations is None else reason

    async def _release(self, run: CellLife, record: Record, *, keep: bool) -> list[str]:
        """Release the cell; return the folders in which the logs of its nodes are kept.

        A failure is only written to the journal, because the next cell has a new cluster.
        """
        try:
            await run.release(keep=keep)
        except Exception as error:
            self._writer.journal("release failed", error=f"{type(error).__name__}: {error}")
        return sorted(set(filter(None, record.storage.values()))) if keep else []

    def _write(self, cell: Cell, record: Record, found: Mapping[str, Any], why_pending: str) -> dict[str, Any]:
        """Write the folder of a cell with a pending verdict; return the result of the cell."""
        evidence = record.evidence
        for folder in list(record.storage.values())[:1]:
            if evidence.cores is not None:  # set only if all nodes are on this host
                self._writer.add_facts({"wal": {"folder": folder, "file_system": file_system(Path(folder))}})
        result = with_verdict({"cell": cell.id, **found}, pending(why_pending), cell.parameters.expect)
        files = CellFiles(
            evidence.operations, evidence.events, record.schedule, record.logs, record.traces, record.inspection
        )
        self._writer.write_cell(cell, result, files)
        return result

    def _finished(self, cell: Cell, result: Mapping[str, Any]) -> None:
        verdict = result["verdict"]["verdict"]
        facts = {"status": result["status"], "reason": result["reason"], "verdict": verdict}
        self._writer.journal("cell finished", cell=cell.id, **facts)
        self._progress.end_cell(describe(cell), result)


def _is_wrong(result: Mapping[str, Any]) -> bool:
    """Return whether the judge found an unexpected violation, for which the logs of the nodes are kept."""
    verdict = result["verdict"]
    return verdict["verdict"] == "violated" and bool(verdict["unexpected"])


def run_id(writer: RunWriter) -> str:
    """Return the name of the run on the hosts of its nodes: the name of the sweep and the time."""
    return f"{writer.path.parent.name}-{writer.path.name}"[:100]
