"""The history of a cell, for checkers of ours and of others."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from chaos.history import History
from raft_actor_node.errors import ConfigError
from sweeps.results import StoredCell, find_run, read_run
from sweeps.spec import Parameters


def history_of(cell: StoredCell) -> History:
    """Everything the clients of a stored cell did, warm-up included. Raises FileNotFoundError when the cell never
    came to load."""
    operations = cell.operations()
    composites = {"composite_ids": operations.composite_ids, "composite_end": operations.composite_end}
    value_bytes = Parameters.model_validate(cell.params["parameters"]).load.value_bytes
    return History.from_columns({**operations.columns, **composites}, value_bytes=value_bytes)


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
        raise ConfigError(f"--cell: {chosen[0].params['cell']} never came to any load, it has no history") from None
    if output is not None:
        history.write_jsonl(output)
        return
    with tempfile.TemporaryDirectory() as folder:
        history.write_jsonl(path := Path(folder, "history.jsonl"))
        with path.open(encoding="utf-8") as file:
            shutil.copyfileobj(file, sys.stdout)
