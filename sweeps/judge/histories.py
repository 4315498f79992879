"""The history of a cell, for our checker and for those of other projects."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from chaos.checks.evidence import Missing
from chaos.history import History
from raft_actor_node.errors import ConfigError
from sweeps.spec.parameters import Parameters
from sweeps.store.files import writing
from sweeps.store.reader import StoredCell, find_run, read_run


class IncompleteHistory(Missing):
    """The operations of some clients are lost."""


def history_of(cell: StoredCell) -> History:
    """Return all operations of the clients of a stored cell, warm-up included, with the error of their clocks.

    Raises FileNotFoundError if no load ran in the cell, and IncompleteHistory if operations are lost.
    """
    operations = cell.operations()
    if operations.lost:
        count = len(operations.generator_error_ns)
        raise IncompleteHistory(
            f"the operations of {operations.lost} of {count} load generators are lost: what they wrote is unknown"
        )
    more = {name: getattr(operations, name) for name in ("composite_ids", "composite_end", "generator_error_ns")}
    if len(operations.generator_error_ns) == 1:
        # All times come from one clock. Its unknown offset from the driver's clock does not matter.
        more["generator_error_ns"] = np.zeros(1, np.int64)
    value_bytes = Parameters.model_validate(cell.params["parameters"]).load.value_bytes
    return History.from_columns({**operations.columns, **more}, value_bytes=value_bytes)


def export(out: Path, run: str | None, cell_id: str | None, output: Path | None) -> None:
    """Write the history of a cell of a run as JSON lines to a file, or to standard output. Raises ConfigError."""
    stored = read_run(find_run(out, run))
    chosen = [cell for cell in stored.cells if cell_id in (None, cell.params["cell"])]
    if len(chosen) != 1:
        cells = ", ".join(f"{cell.params['cell']} ({cell.params['label']})" for cell in stored.cells)
        what = "must name one of the cells" if cell_id is None else f"there is no cell {cell_id}"
        raise ConfigError(f"--cell: {what}: {cells or 'the run has none'}")
    try:
        history = history_of(chosen[0])
    except FileNotFoundError:
        raise ConfigError(f"--cell: {chosen[0].params['cell']}: no load ran, so there is no history") from None
    except IncompleteHistory as error:
        raise ConfigError(f"--cell: {chosen[0].params['cell']}: {error}") from None
    if output is not None:
        with writing(output):
            history.write_jsonl(output)
        return
    with tempfile.TemporaryDirectory() as folder:
        with writing(path := Path(folder, "history.jsonl")):
            history.write_jsonl(path)
        with path.open(encoding="utf-8") as file:
            shutil.copyfileobj(file, sys.stdout)
