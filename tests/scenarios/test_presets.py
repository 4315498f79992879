"""The presets of this subject in virtual time, at a lower rate: every cell is as it is expected to be.

Histories are judged where the presets are run (`sweep run survival --target sim`); here the invariants of Raft are
watched at every step, and availability is what the presets say.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sweeps.api import Sweep
from sweeps.cell import Record
from sweeps.grid import Cell
from sweeps.progress import Progress
from sweeps.simulated import SimulatedCell
from sweeps.summary import judge, summarise
from sweeps.thresholds import parse_threshold

PARTIAL = "deaf leader,mute leader,leader in a minority,quorum loss,chained,constrained election"
SKIPPED = {
    "a heartbeat of 1 ms with 15 nodes",  # saturates a machine, which a simulation has not
    "power loss without fsync",  # violations: what they show is judged from the history
    "retries without dedupe",
    "client deadline below the commit latency",
}


def cells(preset: str, *options: str) -> list[Cell]:
    return list(Sweep.from_options(preset, ["target=sim", *options]).cells)


def ids(cell: Cell) -> str:
    return cell.label.removeprefix("case=").replace(" ", "-")


def live(cell: Cell) -> Record:
    progress = Progress("test", [cell], cores=1)
    progress.begin_cell(cell)
    return asyncio.run(SimulatedCell(cell, progress, "test").run())


def slower(cell: Cell, rate: float) -> Cell:
    load = cell.parameters.load
    fewer = {"clients": 8} if load.mode == "closed" else {"rate": min(rate, load.rate or rate)}
    load = load.model_copy(update=fewer)
    return replace(cell, parameters=cell.parameters.model_copy(update={"load": load}))


def assert_as_expected(cell: Cell) -> None:
    record = live(cell)
    assert record.error is None, record.detail
    assert judge(record.evidence, summarise(record.evidence), {}) is None


@pytest.mark.parametrize("cell", cells("survival", "cluster.nodes=5", f"cases={PARTIAL}"), ids=ids)
def test_survival(cell: Cell) -> None:
    assert_as_expected(slower(cell, 30.0))


@pytest.mark.parametrize("cell", cells("scenarios"), ids=ids)
def test_scenarios(cell: Cell) -> None:
    assert_as_expected(slower(cell, 40.0))


@pytest.mark.parametrize(
    "cell", [cell for cell in cells("bad-parameters") if cell.axes["case"] not in SKIPPED], ids=ids
)
def test_bad_parameters_show_their_signature(cell: Cell) -> None:
    record = live(cell)
    assert record.error is None, record.detail
    result = summarise(record.evidence)
    assert judge(record.evidence, result, {}) is None
    for metric, condition in cell.signature.items():
        assert parse_threshold(metric, condition).miss(result["metrics"]) is None
