"""The run directory: the results of a run, on disk, consistent and readable at any moment.

    results/<name>/<time>/
      spec.yaml  manifest.json  journal.jsonl  results.csv
      cells/<id>/ params.json  result.json  latency.npz  events.jsonl  schedule.json  nodes/<node id>.log
                  inspection.json  traces/<node id>.jsonl.gz   further input of the checks
                  violation.txt  violation.svg                 a history that is not linearizable, if there is one
    results/<name>/latest, results/latest -> the newest

Each file and each cell folder is written under a temporary name and renamed, which is atomic. Only the journal is
appended to, line by line. So a run that is killed at any moment can be read and resumed. The manifest has
`complete: true` once the last cell is done; the manifest of an interrupted or killed run has `complete: false`.
"""

from __future__ import annotations

import datetime
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.errors import remedy
from raft_actor_node.errors import ConfigError
from sweeps.analysis.events import Event
from sweeps.load.operations import Operations
from sweeps.spec.grid import Cell
from sweeps.store.events import write_events
from sweeps.store.files import cut_torn_line, new_directory, point, write_compressed, write_json, write_text, writing
from sweeps.store.lock import RunLock
from sweeps.store.manifest import now
from sweeps.store.reader import StoredCell, StoredRun, read_cell, read_run
from sweeps.store.results_csv import csv_row, write_rows


@dataclass(frozen=True)
class CellFiles:
    """Everything that is stored of a cell besides its result."""

    operations: Operations | None
    events: Sequence[Event]
    """Faults, phases and trace events; the writer sorts them by time."""
    schedule: Mapping[str, Any] | None
    logs: Mapping[str, str]
    """Node id -> log."""
    traces: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Node id -> all lines of its trace, on its own clock."""
    inspection: Mapping[str, Any] = field(default_factory=dict)
    """What the nodes reported at the end."""


class RunWriter:
    """Writes a run directory, cell by cell, and excludes other writers until it has finished.

    Created by `create` or `reopen`.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], lock: RunLock) -> None:
        self.path = path
        self._manifest = dict(manifest)
        self._rows: dict[str, dict[str, Any]] = {}
        self._lock = lock
        self._finished = False

    @classmethod
    def create(cls, out: Path, name: str, spec_yaml: str, manifest: Mapping[str, Any]) -> RunWriter:
        """Create the directory of a new run below `out`. Raises ConfigError when it cannot be written."""
        stamp = datetime.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        try:
            path = new_directory(out / name / stamp)
        except OSError as error:
            raise ConfigError(f"--out {out}: cannot be written: {error.strerror}; {remedy(error)}") from None
        writer = cls(path, manifest, RunLock(path))
        with writing(path):
            (path / "cells").mkdir()
        write_text(path / "spec.yaml", spec_yaml)
        write_rows(path, ())
        writer._write_manifest(complete=False)  # last: a directory with a manifest is a run
        for link in (path.parent / "latest", path.parent.parent / "latest"):
            point(link, path)
        return writer

    @classmethod
    def reopen(cls, path: Path, cells: Sequence[Cell], facts: Mapping[str, Any]) -> tuple[RunWriter, list[StoredCell]]:
        """Resume a stopped run. Return its writer, and the done cells among `cells` in the order in which they ran.

        The caller runs the other cells, some of them again. The manifest stores `facts` with the time of this call.
        Raises ConfigError if the run is damaged, still runs, or has other cells.
        """
        lock = RunLock(path)
        run = read_run(path)
        identities = run.manifest.get("cells")
        if identities is not None and sorted(identities) != sorted(cell.id for cell in cells):
            began = run.manifest.get("commit") or "another version"
            raise ConfigError(
                f"{path}: its spec.yaml gives other cells than when the run began, with {began}: restore the file, or "
                "resume with that version"
            )
        writer = cls(path, run.manifest, lock)
        for name in ("finished", "exit_code", "stopped"):
            writer._manifest.pop(name, None)
        writer._manifest["resumed"] = [*run.manifest.get("resumed", ()), {"time": now(), **facts}]
        writer._write_manifest(complete=False)
        with writing(path):
            cut_torn_line(path / "journal.jsonl")
            for partial in [*path.rglob(".*.partial")]:
                if partial.is_dir():
                    shutil.rmtree(partial, ignore_errors=True)
                else:
                    partial.unlink(missing_ok=True)
        found = _found_cells(run, cells)
        writer._rows = {cell.params["cell"]: csv_row(cell.params, cell.result) for cell in found}
        write_rows(path, writer._rows.values())
        return writer, [cell for cell in found if is_done(cell.result)]

    @property
    def resumed(self) -> bool:
        """Whether the run was resumed."""
        return "resumed" in self._manifest

    def journal(self, event: str, **data: Any) -> None:
        """Add a line to the journal: what happened, and when on the wall clock and on the monotonic clock."""
        line = {"time": now(), "time_ns": time.monotonic_ns(), "event": event, **data}
        path = self.path / "journal.jsonl"
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def add_place(self, facts: Mapping[str, Any]) -> None:
        """Store in the manifest the facts about the cluster that runs the following cells.

        In a resumed run they go into the entry of the resumption, because the existing facts describe the earlier
        cells. Raises ConfigError if the run changes between a private Ray and a Ray cluster.
        """
        private = self._manifest.setdefault("private_ray", facts["private_ray"])
        if private != facts["private_ray"]:
            began, now = ("a private Ray", "a Ray cluster") if private else ("a Ray cluster", "a private Ray")
            raise ConfigError(f"--address: the run began on {began} ({self._manifest.get('ray')}), and this is {now}")
        place: dict[str, Any] = self._manifest["resumed"][-1] if self.resumed else self._manifest
        place.update(facts)
        self._write_manifest(complete=False)

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Add facts to the manifest."""
        self._manifest |= facts
        self._write_manifest(complete=False)

    def write_cell(self, cell: Cell, result: Mapping[str, Any], files: CellFiles) -> Path:
        """Write the folder and the CSV row of a cell; both replace those of an earlier attempt."""
        folder = self.path / "cells" / f".{cell.id}.partial"
        shutil.rmtree(folder, ignore_errors=True)
        with writing(folder):
            (folder / "nodes").mkdir(parents=True)
        write_json(folder / "params.json", describe(cell))
        for node_id, log in files.logs.items():
            write_text(folder / "nodes" / f"{node_id}.log", log)
        write_text(folder / "events.jsonl", write_events(files.events))
        write_json(folder / "schedule.json", files.schedule)
        if files.operations is not None:
            with writing(path := folder / "latency.npz"):
                files.operations.save(path)
        write_json(folder / "inspection.json", files.inspection)
        for node_id, lines in files.traces.items():
            with writing(path := folder / "traces" / f"{node_id}.jsonl.gz"):
                path.parent.mkdir(exist_ok=True)
                write_compressed(path, lines)
        write_json(folder / "result.json", result)
        if self.folder(cell).exists():
            # Remove the row first: a row must never exist without its folder.
            self._rows.pop(cell.id, None)
            write_rows(self.path, self._rows.values())
            with writing(self.folder(cell)):
                shutil.rmtree(self.folder(cell))
        with writing(self.folder(cell)):
            folder.replace(self.folder(cell))
        self._write_row(cell, result)
        return self.folder(cell)

    def write_result(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Rewrite the result and the CSV row of a cell."""
        write_json(self.folder(cell) / "result.json", result)
        self._write_row(cell, result)

    def _write_row(self, cell: Cell, result: Mapping[str, Any]) -> None:
        self._rows[cell.id] = csv_row(describe(cell), result)
        write_rows(self.path, self._rows.values())

    def folder(self, cell: Cell) -> Path:
        """Return the folder of a cell."""
        return self.path / "cells" / cell.id

    def finish(self, *, complete: bool, exit_code: int) -> None:
        """Record in the manifest how the run ended, and release the lock. Later calls change nothing."""
        if self._finished:
            return
        self._finished = True
        self._manifest |= {"finished": now(), "exit_code": exit_code}
        self._write_manifest(complete=complete)
        self._lock.release()

    def _write_manifest(self, *, complete: bool) -> None:
        self._manifest["complete"] = complete
        write_json(self.path / "manifest.json", self._manifest)


def _found_cells(run: StoredRun, cells: Sequence[Cell]) -> list[StoredCell]:
    """Return the cells that ended, including one whose folder exists but whose CSV row was not written."""
    ended = {cell.params["cell"]: cell for cell in run.cells}
    for cell in cells:
        folder = run.path / "cells" / cell.id
        if cell.id not in ended and folder.is_dir():
            try:
                ended[cell.id] = read_cell(folder)
            except OSError:
                pass  # the folder was about to be replaced
            except ValueError as error:
                raise ConfigError(f"{run.path}: is not a run that can be read: {error}") from None
    return list(ended.values())


def is_done(result: Mapping[str, Any]) -> bool:
    """Return whether a cell must not be run again: it ended normally, or a violation was found."""
    return result["status"] in ("ok", "failed") or result["verdict"]["verdict"] == "violated"


def describe(cell: Cell) -> dict[str, Any]:
    """Return a cell as JSON: params.json."""
    return {
        "cell": cell.id,
        "label": cell.label,
        "axes": cell.axes,
        "repeat": cell.repeat,
        "seed": cell.seed,
        "warnings": list(cell.warnings),
        "signature": dict(cell.signature),
        "parameters": cell.parameters.model_dump(mode="json"),
    }
