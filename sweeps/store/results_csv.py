"""results.csv: one row per cell."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sweeps.spec.grid import show
from sweeps.spec.metrics import LOWER_BOUNDS, METRICS, column
from sweeps.store.files import write_text

_CSV_FIRST = ("cell", "repeat", "status", "verdict", "not_checked", "reason", "target", "load_scaled")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the results.csv of the run in `path`."""
    rows = list(rows)
    names = list(dict.fromkeys((*_CSV_FIRST, *(name for row in rows for name in row))))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path / "results.csv", text.getvalue())


def csv_row(params: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Return one row of results.csv from params.json and result.json; fields that were not measured are empty."""
    verdict = result.get("verdict", {})
    row: dict[str, Any] = {"cell": params["cell"], "repeat": params["repeat"], "status": result["status"]}
    row["verdict"] = verdict.get("verdict", "")
    row["not_checked"] = "; ".join(verdict.get("not_checked", ()))
    row["reason"] = result.get("reason") or verdict.get("reason") or ""
    row["target"] = params["parameters"]["target"]
    row["load_scaled"] = "; ".join(load_changes(result))
    row["load.mode"] = params["parameters"]["load"]["mode"]
    row |= {name: show(value) for name, value in params["axes"].items()}
    row["cluster.nodes"] = params["parameters"]["cluster"]["nodes"]
    row["hosts"] = "; ".join(f"{host} x {count}" for host, count in nodes_by_host(result).items())
    row["chaos"] = result.get("chaos", "")
    row |= {_column(name): "" if value is None else value for name, value in result.get("metrics", {}).items()}
    row["lower_bounds"] = "; ".join(_column(name) for name in result.get(LOWER_BOUNDS, ()))
    row["flags"] = "; ".join(result.get("flags", ()))
    return row


def nodes_by_host(result: Mapping[str, Any]) -> Counter[str]:
    """Return the number of nodes of a cell on each host, by address."""
    return Counter(place["host"] for place in (result.get("placement") or {}).values())


def load_changes(result: Mapping[str, Any]) -> list[str]:
    """Return how the load of a simulated cell was reduced: `load.rate 391, not 1000`."""
    return [f"{name} {now}, not {asked}" for name, (asked, now) in (result.get("load_scaled") or {}).items()]


def _column(metric: str) -> str:
    return METRICS[metric].column if metric in METRICS else column(metric)
