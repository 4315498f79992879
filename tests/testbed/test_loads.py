"""Load from hosts with their own clocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chaos.history import History
from chaos.linearizability import check
from orchestration.testbed.hosts import Testbed
from orchestration.testbed.ray_hosts import RayHosts
from sweeps.analysis.events import traced_of
from sweeps.api import CellResult, Run
from sweeps.judge.histories import history_of
from sweeps.spec.grid import show
from tests.testbed.commands import options, sweep

S = 10**9
TWICE = "{hosts: [head, host4, host4]}"
PLACES = ("driver", "leader", "every_host", "own_host", TWICE)
OPTIONS = (
    f"load.on={','.join(PLACES)}",
    "load.clients=10",
    "load.keys=20",
    "load.mix={put: 0.3, get: 0.3, cas: 0.2, append: 0.2}",
    "cluster.nodes=3",
    "chaos=none",
    "phases.measure=1s",
    "phases.warmup=500ms",
    "checks.least_operations=1",
)


@pytest.fixture(scope="module")
def cells(bed: Testbed, ray: RayHosts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, CellResult]:
    """Run a cell for each way to place load, on three of four hosts."""
    folder = tmp_path_factory.mktemp("loads")
    done = sweep(bed, ray, "run", "quick", *options(*OPTIONS), "--out", str(folder))
    assert done.code == 0, done.output + done.errors
    found = Run.read(folder / "quick/latest").cells
    assert len(found) == len(PLACES)
    return {show(cell.stored.params["axes"]["load.on"]): cell for cell in found}


def names(bed: Testbed, cell: CellResult) -> list[str]:
    """Return the names of the hosts of the cell's load generators."""
    return [bed.host(generator["host"]).name for generator in cell.result["generators"]]


def test_load_comes_from_where_it_is_asked_to(bed: Testbed, cells: dict[str, CellResult]) -> None:
    assert all((cell.result["status"], cell.verdict) == ("ok", "ok") for cell in cells.values())
    places = {place: names(bed, cell) for place, cell in cells.items()}
    [beside_leader] = places.pop("leader")
    assert places == {
        "driver": ["head"],
        "every_host": ["host1", "host2", "host3"],
        "own_host": ["host4"],
        TWICE: ["head", "host4", "host4"],
    }
    led = [event.node for event in traced_of(cells["leader"].stored.events()) if event.kind == "became_leader"]
    assert beside_leader in {cells["leader"].result["placement"][node]["hostname"] for node in led}


def test_the_measured_offset_of_each_generator_is_right_within_its_bound(
    bed: Testbed, cells: dict[str, CellResult]
) -> None:
    for cell in cells.values():
        for generator in cell.result["generators"]:
            true_ns = bed.host(generator["host"]).clock_offset_ns - bed.head.clock_offset_ns
            assert abs(generator["offset_ns"] - true_ns) <= generator["error_ns"] < S / 10
            assert (generator["error_ns"] == 0) == (generator["host"] == bed.head.address)


def test_rows_of_all_hosts_are_on_the_drivers_clock(cells: dict[str, CellResult]) -> None:
    for cell in cells.values():
        operations, generators = cell.operations(), cell.result["generators"]
        assert operations.generator_error_ns.tolist() == [generator["error_ns"] for generator in generators]
        assert (np.diff(operations["start_ns"]) >= 0).all() or len(generators) == 1
        (begin, *_), (*_, end) = ([event.time_ns for event in cell.stored.events()] for _ in range(2))
        assert begin < operations["start_ns"].min() < operations["end_ns"].max() < end
        of_load = operations["client"] < operations.first_reader
        for number, generator in enumerate(generators):
            clients = set(operations["client"][of_load & (operations["generator"] == number)].tolist())
            assert len(clients) == generator["clients"]
        assert len(set(operations["client"][of_load].tolist())) == 10


def test_the_checker_widens_by_the_bound_and_finds_an_offset_that_is_wrong_beyond_it(
    cells: dict[str, CellResult], tmp_path: Path
) -> None:
    assert {operation.error_ns for operation in history_of(cells["own_host"].stored)} == {0}, "it is all on one clock"
    stored = cells["every_host"].stored
    right = history_of(stored)
    assert {operation.error_ns for operation in right} == set(stored.operations().generator_error_ns.tolist())
    right.write_jsonl(tmp_path / "h.jsonl")
    lines: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert all(line["error"] > 0 for line in lines if line["type"] == "invoke")
    for error_ns, verdict in ((None, "violated"), (S, "ok")):
        found = check(_moved(history_of(stored), set(_clients(stored.operations(), 1)), S, error_ns))
        assert found.verdict == verdict, found.reason


def _clients(operations: Any, generator: int) -> list[int]:
    clients: list[int] = operations["client"][operations["generator"] == generator].tolist()
    return clients


def _moved(history: History, clients: set[int], by_ns: int, error_ns: int | None) -> History:
    """Return the history with shifted times of some clients, and with this clock error for them."""
    for operation in history:
        if operation.process in clients:
            operation.invoke_ns, operation.return_ns = operation.invoke_ns + by_ns, operation.return_ns + by_ns
            operation.error_ns = operation.error_ns if error_ns is None else error_ns
    return history
