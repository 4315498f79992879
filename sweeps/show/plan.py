"""Output of `sweep plan` and `sweep presets`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from sweeps.show.formats import clock, size
from sweeps.spec.estimate import RAY_START_S, cell_s, needs
from sweeps.spec.grid import Cell, show
from sweeps.spec.parameters import Spec


def cells_table(spec: Spec, cells: Sequence[Cell]) -> Table:
    """Return the cells that would run, in order."""
    table = Table(
        title=f"{spec.name}: {len(cells)} cells, seed {spec.seed}", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("#", justify="right", style="dim")
    table.add_column("cell", style="dim", no_wrap=True)
    for name in cells[0].axes or ("cluster.nodes",):
        table.add_column(name, overflow="fold", max_width=60)
    if spec.repeats > 1:
        table.add_column("repeat", justify="right")
    table.add_column("time", justify="right", no_wrap=True)
    for position, cell in enumerate(cells, 1):
        values = cell.axes or {"cluster.nodes": cell.parameters.cluster.nodes}
        table.add_row(
            str(position),
            cell.id,
            *(Text(show(value)) for value in values.values()),
            *([str(cell.repeat)] if spec.repeats > 1 else []),
            f"{cell_s(cell):.0f} s",
        )
    return table


def needs_lines(cells: Sequence[Cell]) -> list[str]:
    """Return the resources that the sweep needs, one line each."""
    most = needs(cells)
    simulated = cells[0].parameters.kind.can.virtual_time
    total_s = (0.0 if simulated else RAY_START_S) + sum(cell_s(cell) for cell in cells)
    if simulated:
        return [
            f"time       about {clock(total_s)}, one core, simulated in one process",
            f"memory     about {size(most.memory_bytes)}",
            f"disk       {size(most.results_bytes)} of results",
        ]
    return [
        f"time       about {clock(total_s)}",
        f"hosts      at least {most.hosts[0]}, at most {most.hosts[1]} are used",
        f"processes  at most {most.processes} at a time, besides Ray's own",
        f"memory     about {size(most.memory_bytes)} for all these processes, if all nodes are on one host",
        f"disk       up to {size(most.disk_bytes)} of logs at a time, {size(most.results_bytes)} of results",
    ]


def presets_table(presets: Sequence[tuple[Spec, Sequence[Cell]]]) -> Table:
    """Return the built-in sweeps, with their number of cells and their time."""
    table = Table(box=None, pad_edge=False)
    for name in ("preset", "cells", "time", "what it is for"):
        table.add_column(
            name, justify="right" if name in ("cells", "time") else "left", no_wrap=name != "what it is for"
        )
    for spec, cells in presets:
        total_s = RAY_START_S + sum(cell_s(cell) for cell in cells)
        table.add_row(spec.name, str(len(cells)), f"{total_s / 60:.0f} min", Text(spec.description))
    return table
