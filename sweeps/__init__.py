"""The experiment: a spec expands into cells; each cell runs a cluster under load and faults, and yields arrays.

from sweeps import Sweep

run = Sweep.from_preset("quick", overrides={"cluster.nodes": [3, 5]}).run()
run.results                    # one record per cell
run.cells[0].latency("put")    # numpy int64, ns, of completed operations
run.to_dataframe()             # pandas, an optional extra
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.api import CellResult, Run, Sweep

__all__ = ["CellResult", "Run", "Sweep"]


def __getattr__(name: str) -> object:
    # Lazy, so that the command line prints its help without importing numpy and pydantic.
    if name in __all__:
        from sweeps import api  # noqa: PLC0415

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
