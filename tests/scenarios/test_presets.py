"""The presets of partitions and disks in virtual time, at a lower rate: every cell meets its expectation.

Histories are judged where the presets run (`sweep run survival --target sim`), and here only for the controls, which
must not pass. All other cells are checked for the invariants of Raft at every step, and for the expected availability.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.checks.coverage import LEAST_INJECTED
from chaos.faults import Disk
from raft_actor_node.errors import DiskError
from sweeps.analysis.summary import summarise
from sweeps.api import CellResult, Run, Sweep
from sweeps.judge.expectations import unmet_expectation
from sweeps.run.progress import Progress
from sweeps.run.record import Record
from sweeps.run.simulated import SimulatedCell
from sweeps.spec.grid import Cell
from sweeps.spec.thresholds import parse_threshold

PARTIAL = "deaf leader,mute leader,leader in a minority,quorum loss,chained,constrained election"
CONTROLS = {
    "power loss without fsync": ("violated", {"invariants", "exits"}),
    "retries without dedupe": ("violated", {"linearizability"}),
    "client deadline below the commit latency": ("unknown", {"coverage"}),
}
"""Cases that must not pass: the verdict, and the checks that must reach it. These cases are fully judged."""


def checks(cell: CellResult) -> set[str]:
    """The checks that reached the verdict of a cell."""
    return {each["check"] for each in cell.result["verdict"]["findings"] if each["verdict"] == cell.verdict}


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> Run:
    options = ["target=sim", f"cases={','.join(CONTROLS)}"]
    return Sweep.from_options("bad-parameters", options).run(tmp_path_factory.mktemp("controls"))


@pytest.mark.parametrize("case", CONTROLS)
def test_controls_come_to_the_verdict_that_they_must(controls: Run, case: str) -> None:
    [cell] = [cell for cell in controls.cells if cell.stored.params["axes"]["case"] == case]
    assert cell.result["status"] == "ok"
    assert (cell.verdict, checks(cell)) == CONTROLS[case]
    assert controls.exit_code == 0, "all of it was expected"


def test_acknowledged_writes_that_a_power_loss_took_are_missed(tmp_path: Path) -> None:
    """Most nodes without fsync find a damaged log, and end. If all find an empty log, the cluster goes on.

    Clients then see that acknowledged writes are gone. No observer watches the disks, so that must suffice.
    """
    options = ["target=sim", "cases=power loss without fsync", "checks.invariants=false"]
    for seed in range(1, 31):
        [cell] = Sweep.from_options("bad-parameters", options, seed).run(tmp_path / str(seed)).cells
        if cell.verdict == "violated":
            assert checks(cell) == {"linearizability"}
            assert (cell.stored.path / "violation.svg").is_file()
            return
    pytest.fail("not missed with 30 seeds")


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
    result = summarise(record.evidence)
    assert unmet_expectation(record.evidence, result, {}) is None
    assert result["operations"]["dropped"] == 0
    asked, injected = result["faults_asked"], result["faults"]
    assert injected >= LEAST_INJECTED * asked, "else its verdict would be unknown"


@pytest.mark.parametrize("cell", cells("survival", "cluster.nodes=5", f"cases={PARTIAL}"), ids=ids)
def test_survival(cell: Cell) -> None:
    assert_as_expected(slower(cell, 30.0))


@pytest.mark.parametrize("cell", cells("scenarios"), ids=ids)
def test_scenarios(cell: Cell) -> None:
    assert_as_expected(slower(cell, 40.0))


@pytest.mark.parametrize("cell", cells("disks"), ids=ids)
def test_disks(cell: Cell) -> None:
    """This includes facts that only nodes can count: the fault hit the disk, or its error ended the node.

    No follower's disk costs an election.
    """
    cell = slower(cell, 40.0)
    record = live(cell)
    assert record.error is None, record.detail
    result = summarise(record.evidence)
    assert unmet_expectation(record.evidence, result, {}) is None
    assert result["faults"] == result["faults_asked"]
    ends = {end["exit_code"] for end in record.inspection["fault_exits"]}
    [fault] = cell.parameters.chaos.root
    assert isinstance(fault, Disk)
    assert ends == ({DiskError.exit_code} if fault.error else set())
    counted = {name for status in record.inspection["statuses"] for name, count in status["touched"].items() if count}
    assert ends or counted & {"fsyncs_delayed", "fsyncs_stalled"}
    if "follower" in cell.label:
        assert result["elections"]["won"] == 0


@pytest.mark.parametrize(
    "cell", [cell for cell in cells("bad-parameters") if cell.axes["case"] not in CONTROLS], ids=ids
)
def test_bad_parameters_show_their_signature(cell: Cell) -> None:
    record = live(cell)
    assert record.error is None, record.detail
    result = summarise(record.evidence)
    assert unmet_expectation(record.evidence, result, {}) is None
    for metric, condition in cell.signature.items():
        assert parse_threshold(metric, condition).miss(result["metrics"]) is None
