"""Runs the cells of a sweep one after the other, and writes down what they show.

A cell that fails is recorded with its reason, and the sweep goes on. An interruption ends the cell that runs:
its faults are healed, its nodes are stopped, what it has is written, and the run stays marked as incomplete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.cell import Backend, CellRun, Record
from sweeps.grid import Cell
from sweeps.live import View
from sweeps.progress import Progress
from sweeps.results import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, CellFiles, RunWriter, describe, file_system
from sweeps.summary import Evidence, judge, summarise


class Runner:
    """One run of a sweep on a backend."""

    def __init__(
        self, backend: Backend, writer: RunWriter, progress: Progress, view: View, thresholds: Mapping[str, str]
    ) -> None:
        self._backend, self._writer, self._progress, self._view = backend, writer, progress, view
        self._thresholds = thresholds

    async def run(self, cells: Sequence[Cell]) -> int:
        """Run the cells; returns the exit code of `sweep`. A cancellation is raised after cleaning up."""
        self._writer.journal("run started", cells=len(cells))
        try:
            statuses = [await self._run_cell(cell) for cell in cells]
        except asyncio.CancelledError:
            self._writer.journal("run interrupted", cells_done=len(self._progress.done))
            self._writer.finish(complete=False, exit_code=EXIT_INTERRUPTED)
            raise
        code = EXIT_OK if all(status == "ok" for status in statuses) else EXIT_FAILED
        self._writer.journal("run finished", exit_code=code)
        self._writer.finish(complete=True, exit_code=code)
        return code

    async def _run_cell(self, cell: Cell) -> str:
        self._writer.journal("cell started", cell=cell.id, label=cell.label, repeat=cell.repeat)
        self._progress.begin_cell(cell)
        run = CellRun(cell, self._backend, self._progress, run_id=run_id(self._writer))
        try:
            record = await run.run()
        except asyncio.CancelledError:
            try:
                if run.interrupted is not None:
                    summary, _ = self._findings(run.interrupted)
                    self._write(cell, run.interrupted, {"status": "interrupted", "reason": "interrupted", **summary})
            finally:
                await run.release(keep=False)
            raise
        summary, reason = self._findings(record)
        verdict: dict[str, Any] = {"status": "failed" if reason else "ok", "reason": reason}
        if record.error and record.detail != record.error:
            verdict["detail"] = record.detail
        await self._release(run, keep=reason is not None)
        if reason is not None and record.storage:
            verdict["kept"] = sorted(set(record.storage.values()))
        self._write(cell, record, verdict | summary)
        self._view.cell_done(self._progress)
        if "kept" in verdict:
            self._view.note(f"the logs of cell {cell.id} are kept in {', '.join(verdict['kept'])}")
        return str(verdict["status"])

    def _findings(self, record: Record) -> tuple[dict[str, Any], str | None]:
        """What the cell shows, and why it failed, if it did. Raw data that cannot be understood fails it too,
        and is written down as it is."""
        try:
            summary = summarise(record.evidence)
            return summary, self._verdict(record, summary)
        except Exception as failure:
            record.fails(failure, "summarising")
            return summarise(Evidence(record.evidence.parameters, None, ())), record.error

    def _verdict(self, record: Record, summary: Mapping[str, Any]) -> str | None:
        if record.error is not None:
            return record.error
        reason = judge(record.evidence, summary, self._thresholds)
        return (record.unavailable or reason) if reason is not None and record.evidence.operations is None else reason

    async def _release(self, run: CellRun, *, keep: bool) -> None:
        """End the cell's processes. What fails here is written down; the next cell has a new cluster anyway."""
        try:
            await run.release(keep=keep)
        except Exception as error:
            self._writer.journal("release failed", error=f"{type(error).__name__}: {error}")

    def _write(self, cell: Cell, record: Record, findings: Mapping[str, Any]) -> None:
        evidence = record.evidence
        for folder in list(record.storage.values())[:1]:
            if evidence.cores is not None:  # all on this host, so that its file systems are the nodes'
                self._writer.add_facts({"wal": {"folder": folder, "file_system": file_system(Path(folder))}})
        result = {"cell": cell.id, **findings}
        files = CellFiles(evidence.operations, evidence.events, record.schedule, record.logs)
        self._writer.write_cell(cell, result, files)
        self._writer.journal("cell finished", cell=cell.id, status=result["status"], reason=result["reason"])
        self._progress.end_cell(describe(cell), result)


def run_id(writer: RunWriter) -> str:
    """Names the run on the hosts of its nodes: the name of the sweep and the time."""
    return f"{writer.path.parent.name}-{writer.path.name}"[:100]
