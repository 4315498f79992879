"""The reference agrees with the code, and describes everything that a run leaves behind."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from chaos.checks.base import Check
from chaos.checks.registry import CHECKS
from docs.generate.reference import FOLDER, PAGES, arrays
from docs.generate.stored import CSV_COLUMNS, FILES, RESULT_KEYS
from sweeps.analysis.cell_data import CellData
from sweeps.analysis.summary import summarise
from sweeps.api import Run, Sweep
from sweeps.load.node_stats import NodeStats
from sweeps.load.operations import GENERATOR
from sweeps.spec.metrics import METRICS, STAGES
from sweeps.spec.parameters import PARAMETER_NAMES, Parameters
from sweeps.spec.source import read_source

SPEC = """
name: reference
base:
  target: sim
  load: {mode: open, rate: 60, clients: 64}
  phases: {warmup: 500ms, measure: 4s}
axes:
  chaos:
    - none
    - {crash: leader, at: 1s, restart_after: 1s}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Sweep.from_source(read_source(SPEC, "reference.yaml")).run(tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_fresh(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "`make reference` writes it anew"


def test_no_other_page_is_there() -> None:
    assert {page.name for page in FOLDER.iterdir()} == {*PAGES}


def test_every_parameter_is_in_the_table_with_a_meaning() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \|.*\| ([^|]*) \|$", PAGES["parameters.md"](), re.MULTILINE)
    told = {name for name, meaning in rows if meaning.strip()}
    sections = {name.partition(".")[0] for name in PARAMETER_NAMES if "." in name}
    assert set(PARAMETER_NAMES) - sections - told == set()


def keys(value: Any, path: str = "") -> Iterator[str]:
    """The dotted names of all leaves; `[]` for elements of lists of mappings."""
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from keys(part, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for part in value:
            yield from keys(part, f"{path}[]")
    else:
        yield path


def form(known: str) -> str:
    """A key of the table as a regular expression, in which `<x>` matches any name."""
    pattern = re.escape(known).replace("<metric>", ".+")
    pattern = pattern.replace("<stage>", f"({'|'.join(STAGES)})").replace("<p>", r"(p[\d.]+|max)")
    return re.sub(r"<\w+>", r"[^.]+", pattern) + r"(\..*)?"


def described(key: str) -> bool:
    """Whether the table has a key or a container of it; for null or empty values, whether it has any key inside."""
    return any(re.fullmatch(form(known), key) or known.startswith((f"{key}.", f"{key}[")) for known in RESULT_KEYS)


@pytest.fixture(scope="module")
def found(run: Run) -> set[str]:
    """The keys of all results."""
    # Only real cells have these: figures of nodes and of the load.
    real = summarise(
        CellData(
            parameters=Parameters(),
            operations=run.cells[0].operations(),
            events=(),
            nodes={"n1": NodeStats()},
            loads=[NodeStats()],
        )
    )
    return {key for result in (*(cell.result for cell in run.cells), real) for key in keys(result)}


def test_every_key_of_a_result_is_described(found: set[str]) -> None:
    assert "failovers[].elected_ms" in found
    assert sorted(key for key in found if not described(key)) == []


def test_every_key_that_is_described_exists(found: set[str]) -> None:
    rare = ("detail", "kept", "placement.")
    told = [known for known in RESULT_KEYS if not known.startswith(rare)]
    assert [known for known in told if not any(re.fullmatch(form(known), key) for key in found)] == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_is_explained(check: Check) -> None:
    assert f"\n| {check.name} | " in (FOLDER.parent / "explanation/verdicts.md").read_text(encoding="utf-8")


def test_every_file_is_described(run: Run) -> None:
    patterns = [re.sub(r"<\w+>", "[^/]+", re.escape(name)) for name in FILES]
    files = [path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [file for file in files if not any(re.fullmatch(pattern, file) for pattern in patterns)] == []


def test_every_column_is_described(run: Run) -> None:
    with (run.path / "results.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    known = {*CSV_COLUMNS, *(metric.column for metric in METRICS.values()), "chaos"}
    assert [name for name in columns if name not in known] == []


def test_every_array_is_described_with_its_dtype(run: Run) -> None:
    told = {name: dtype for name, dtype, _ in arrays()}
    with np.load(run.path / "cells" / run.cells[0].id / "latency.npz") as file:
        found = {name: str(file[name].dtype) for name in file.files}
    assert set(told) - {GENERATOR} == set(found) - {GENERATOR}
    assert found == {name: told[name] for name in found}
