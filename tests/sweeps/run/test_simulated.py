"""Sweeps in simulation, and the judging of stored cells."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from chaos.checks import registry
from chaos.events import FaultEvent
from chaos.history import History, Operation
from orchestration.sim_cluster import SimCluster
from orchestration.sim_cluster.settings import SimSettings
from raft_actor_node.errors import ConfigError
from raft_actor_node.kv.store import Result as Applied
from raft_actor_node.kv.store import Store
from sweeps import cli
from sweeps.api import Sweep
from sweeps.judge.checking import judged
from sweeps.judge.histories import history_of
from sweeps.judge.program import judge as judge_folder
from sweeps.load.operations import FAIL, OK, Operations
from sweeps.run.cell import CellRun
from sweeps.run.progress import Progress
from sweeps.run.simulated import in_virtual_time, scale
from sweeps.spec.estimate import MOST_SIMULATED
from sweeps.spec.parameters import CheckSettings, LoadSettings, Parameters, PhaseSettings
from sweeps.spec.source import read_source
from sweeps.store.events import write_events
from sweeps.store.lock import RunLock
from sweeps.store.reader import StoredCell, StoredRun, read_run
from sweeps.store.results_csv import write_rows
from sweeps.store.writer import RunWriter
from tests.sweeps.fakes import FakeBackend
from tests.sweeps.run.test_runner import execute, sweep

CRASH = """
name: simulated
order: sequential
base:
  target: sim
  load: {clients: 8, think: 20ms, keys: 20, mix: {put: 0.3, get: 0.3, delete: 0.1, cas: 0.15, append: 0.15}}
  phases: {warmup: 100ms, measure: 2s}
  chaos: {crash: leader, at: 1/3, restart_after: 500ms}
"""


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


@pytest.fixture(autouse=True)
def judge() -> None:
    """Keep the real judge."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulated")


@pytest.fixture(scope="module")
def stored(out: Path) -> StoredRun:
    """A run of one cell, simulated by the command line."""
    (out / "crash.yaml").write_text(CRASH.replace("  target: sim\n", ""))
    done = command("run", str(out / "crash.yaml"), "--target", "sim", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "simulated: times are those of the simulated world" in done.stdout
    return read_run((out / "simulated" / "latest").resolve())


@pytest.fixture
def cell(stored: StoredRun, tmp_path: Path) -> StoredCell:
    """A copy of the cell, for a test to spoil."""
    folder = shutil.copytree(stored.cells[0].path, tmp_path / "cell")
    return StoredCell(folder, stored.cells[0].params, stored.cells[0].result)


def test_a_simulated_cell_leaves_what_a_real_one_does(stored: StoredRun) -> None:
    assert stored.manifest["target"] == "sim"
    assert stored.manifest["complete"] is True
    [cell] = stored.cells
    assert {path.name for path in cell.path.iterdir()} == {
        "params.json", "result.json", "latency.npz", "events.jsonl", "schedule.json",
        "inspection.json", "nodes", "traces",
    }  # fmt: skip
    result = cell.result
    assert (result["status"], result["target"]) == ("ok", "sim")
    assert 300 < len(cell.operations()) <= MOST_SIMULATED
    assert result["load_scaled"] is None
    assert result["phases_s"]["measure"] == 2.0
    [failover] = result["failovers"]
    assert failover["succeeded_ms"] > 0
    assert result["verdict"]["verdict"] == "ok"
    assert {each["check"] for each in result["verdict"]["findings"]} == set(CHECKS)


def test_what_has_no_meaning_in_simulation_is_absent(stored: StoredRun) -> None:
    assert not {"host_busy", "nodes", "load", "clock_error_ms"} & set(stored.cells[0].result)
    assert "wal" not in stored.manifest
    assert "ray" not in stored.manifest


async def test_the_same_seed_gives_the_same_cell_whatever_ran_before_it(tmp_path: Path, stored: StoredRun) -> None:
    text = CRASH.replace("chaos: {crash", "chaos: {pause").replace("restart", "resume")
    source = read_source(text + "axes: {chaos: [none, {crash: leader, at: 1/3, restart_after: 500ms}]}", "file.yaml")
    run = await asyncio.to_thread(Sweep.from_source(source).run, tmp_path)
    [again] = [cell for cell in run.cells if cell.id == stored.cells[0].params["cell"]]
    assert again.result["digest"] == stored.cells[0].result["digest"]
    assert (again.operations()["end_ns"] == stored.cells[0].operations()["end_ns"]).all()


async def test_from_within_an_event_loop_it_runs_in_a_thread_and_only_there(tmp_path: Path) -> None:
    """A notebook's cells already run in an event loop."""
    simulated = sweep(CRASH)
    with pytest.raises(RuntimeError, match=r"await asyncio\.to_thread\(sweep\.run\)"):
        simulated.run(tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    assert (await asyncio.to_thread(simulated.run, tmp_path)).exit_code == 0


def test_real_and_simulated_cells_in_one_run_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^file.yaml:1: axes.target: a run has one target \(raft, sim\)"):
        sweep("axes: {target: [raft, sim]}")


def test_a_foreign_program_cannot_be_simulated() -> None:
    with pytest.raises(ConfigError, match=r"^file.yaml:1: cluster.command: only this project's own node"):
        sweep("base: {target: sim, cluster: {command: [other]}}")


@pytest.mark.parametrize(
    "load",
    [
        LoadSettings(),
        LoadSettings(clients=1),
        LoadSettings(clients=100_000),
        LoadSettings(clients=100_000, think=3600.0),
        LoadSettings(mode="open", rate=1e6),
        LoadSettings(think=0.001),
    ],
)
def test_load_is_scaled_to_what_can_be_simulated(load: LoadSettings) -> None:
    phases = PhaseSettings(warmup=2.0, measure=10.0)
    scaled, changed = scale(load, phases)
    if scaled.mode == "open":
        assert scaled.rate is not None
        assert scaled.rate * 12 <= 0.95 * MOST_SIMULATED
    else:
        assert scaled.clients * (1 + 12 / scaled.think) <= MOST_SIMULATED
    before, after = load.model_dump(), scaled.model_dump()
    assert set(changed or {}) == {f"load.{name}" for name in before if before[name] != after[name]} != set()
    assert scale(scaled, phases)[0] == scaled


def test_fewer_operations_are_simulated_when_values_are_large() -> None:
    phases = PhaseSettings(warmup=2.0, measure=10.0)
    scaled, _ = scale(LoadSettings(mode="open", rate=100.0, value_bytes=2**20), phases)
    assert scaled.rate is not None
    assert 200 < scaled.rate * 12 <= 256


def test_a_small_load_stays_as_it_is() -> None:
    phases = PhaseSettings(warmup=2.0, measure=10.0)
    for load in (LoadSettings(mode="open", rate=300.0), LoadSettings(clients=4, think=0.1)):
        assert scale(load, phases) == (load, None)


SLOW = """
name: slow
base:
  target: sim
  cluster: {nodes: 5}
  sim: {clock_rate: [0.2, 0.3]}
  raft: {election_timeout: 150ms-300ms}
  load: {mode: open, rate: 30, keys: 10, mix: {append: 0.5, get: 0.5}}
  phases: {warmup: 500ms, measure: 22s}
  chaos: {partition: leader-in-minority, at: 1s, heal_after: 20s}
  expect: available
"""


async def test_slow_clocks_get_the_time_that_they_need(tmp_path: Path) -> None:
    """Limits in election timeouts, such as that for a leader without a quorum to step down, follow the slowest clock.

    Slow clocks alone must not make a cell unavailable.
    """
    run = await asyncio.to_thread(Sweep.from_source(read_source(SLOW, "file.yaml")).run, tmp_path)
    [cell] = run.cells
    assert cell.result["verdict"]["reason"] == ""
    assert (run.exit_code, cell.verdict) == (0, "ok")


async def test_slow_clocks_are_waited_for_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of the longest election timeouts (300 ms) take 15 s on a clock at a fifth of real speed."""
    phases, enter, leader = [""], Progress.enter, SimCluster.leader

    def entered(progress: Progress, phase: str, length_s: float | None = None) -> None:
        enter(progress, phase, length_s)
        phases.append(phase)

    async def hidden(cluster: SimCluster) -> str | None:
        return None if phases[-1] == "inspect" else await leader(cluster)

    monkeypatch.setattr(Progress, "enter", entered)
    monkeypatch.setattr(SimCluster, "leader", hidden)
    run = await asyncio.to_thread(Sweep.from_source(read_source(SLOW, "file.yaml")).run, tmp_path)
    settled = run.cells[0].stored.inspection()["settled"]
    assert 15.0 <= (settled["end_ns"] - settled["begin_ns"]) / 1e9 < 16.0


@pytest.mark.parametrize("target", ["sim", "raft"])
def test_only_simulated_clocks_are_slow(target: Any) -> None:
    assert Parameters(target=target, sim=SimSettings(clock_rate=(0.2, 3.0))).slowest_clock == (
        0.2 if target == "sim" else 1.0
    )
    assert Parameters(target=target, sim=SimSettings(clock_rate=(2.0, 3.0))).slowest_clock == 1.0


async def test_each_step_is_compared_with_the_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry that takes effect twice is found when a node applies it, not only in what clients saw."""
    monkeypatch.setattr(Store, "_repeated", lambda *_: Applied())
    text = CRASH.replace("chaos: {crash: leader, at: 1/3, restart_after: 500ms}", LOST_ANSWERS)
    run = await asyncio.to_thread(Sweep.from_source(read_source(text, "file.yaml")).run, tmp_path)
    found = {each["check"]: each["reason"] for each in run.cells[0].result["verdict"]["findings"]}
    assert run.exit_code == 3
    assert "at most once" in found["invariants"]


LOST_ANSWERS = "chaos: {drop: 0.3, between: clients, messages: replies}\n  client: {rpc_timeout: 50ms}"


async def test_a_cancellation_reaches_what_runs_in_virtual_time() -> None:
    began, seen = threading.Event(), []

    async def work() -> None:
        began.set()
        try:
            while True:  # noqa: ASYNC110 - nothing to await: the task only passes virtual time
                await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    running = asyncio.create_task(in_virtual_time(work))
    await asyncio.to_thread(began.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen == ["cancelled"]


async def test_an_interrupted_simulation_keeps_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring, loop, enter = asyncio.Event(), asyncio.get_running_loop(), Progress.enter

    def entered(progress: Progress, phase: str, length_s: float | None = None) -> None:
        enter(progress, phase, length_s)
        if phase == "measure":
            loop.call_soon_threadsafe(measuring.set)

    monkeypatch.setattr(Progress, "enter", entered)
    text = CRASH.replace("measure: 2s", "measure: 1h")
    async with asyncio.timeout(60):
        running = asyncio.create_task(execute(sweep(text), FakeBackend(), tmp_path))
        await measuring.wait()
        os.kill(os.getpid(), signal.SIGINT)
        code, path, _ = await running
    assert code == 130
    [cell] = read_run(path).cells
    assert cell.result["status"] == "interrupted"
    assert cell.result["verdict"]["verdict"] == "pending"
    assert len(cell.operations()) > 0


# ------------------------------------------------------------------------------ judging what is stored


def found(cell: StoredCell, **checks: Any) -> dict[str, str]:
    """The verdict of each check on a stored cell, and the cell's own under ""."""
    verdict = judge_folder(cell.path, CheckSettings(**checks))
    return {each["check"]: each["verdict"] for each in verdict["findings"]} | {"": verdict["verdict"]}


CHECKS = tuple(check.name for check in registry.CHECKS)
GOOD = dict.fromkeys((*CHECKS, ""), "ok")


def spoil(cell: StoredCell, **changes: Any) -> None:
    path = cell.path / "inspection.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_good_cell_is_good(cell: StoredCell) -> None:
    assert found(cell) == GOOD


def test_a_stale_read_is_not_linearizable_and_is_shown(cell: StoredCell) -> None:
    operations = cell.operations()
    gets = (operations["kind"] == 2) & (operations["outcome"] == OK) & (operations["observed"] > 0)
    last = max(gets.nonzero()[0], key=lambda row: int(operations["start_ns"][row]))
    first_put = ((operations["kind"] == 1) & (operations["key"] == operations["key"][last])).nonzero()[0][0]
    operations["observed"][last] = operations["written"][first_put]
    operations.save(cell.path / "latency.npz")
    assert found(cell) == {**GOOD, "linearizability": "violated", "": "violated"}
    assert "impossible" in (cell.path / "violation.txt").read_text()
    assert (cell.path / "violation.svg").read_text().startswith("<svg")
    assert found(cell, linearizable=False)[""] == "ok"


def test_two_leaders_of_a_term_are_found_in_the_traces(cell: StoredCell, stored: StoredRun) -> None:
    traces = cell.traces()
    elected = next(json.loads(line) for lines in traces.values() for line in lines if "became_leader" in line)
    other = next(node for node in traces if node != elected["node"])
    last = json.loads(traces[other][-1])
    forged = {**elected, "node": other, "number": last["number"] + 1, "time_ns": last["time_ns"] + 1}
    text = "".join(f"{line}\n" for line in [*traces[other], json.dumps(forged)])
    (cell.path / "traces" / f"{other}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert found(cell)["invariants"] == "violated"


def test_states_that_differ_are_found(cell: StoredCell) -> None:
    settled = cell.inspection()["settled"]
    settled["nodes"]["n2"]["prefix_hash"] = "00" * 32
    spoil(cell, settled=settled)
    assert found(cell) == {**GOOD, "state": "violated", "": "violated"}


@pytest.mark.parametrize(
    ("changes", "also"),
    [
        ({"last_applied": 10**6}, {}),
        ({"durable_index": 0}, {"durability": "violated"}),
    ],
)
def test_what_nodes_say_of_themselves_is_held_against_the_rules(
    cell: StoredCell, changes: dict[str, int], also: dict[str, str]
) -> None:
    """Committed entries that are not on the disks of a quorum, and a node that applied more than was committed."""
    statuses = cell.inspection()["statuses"]
    spoil(cell, statuses=[*statuses[:-2], *({**status, **changes} for status in statuses[-2:])])
    assert found(cell) == {**GOOD, "inspection": "violated", **also, "": "violated"}


def test_more_acknowledged_writes_than_entries_are_lost_writes(cell: StoredCell) -> None:
    """Logs that end early are still consistent with one another, and durable up to their ends."""
    inspection = cell.inspection()
    ends = {"last_index": 9, "durable_index": 9, "commit_index": 9, "last_applied": 9}
    settled = inspection["settled"]
    settled["hash_index"] = 9
    for state in settled["nodes"].values():
        state["last_applied"] = 9
    shutil.rmtree(cell.path / "traces")
    spoil(cell, settled=settled, statuses=[{**status, **ends} for status in inspection["statuses"]])
    assert (found(cell)["durability"], found(cell)["inspection"]) == ("violated", "ok")


def test_a_check_that_was_switched_off_is_told_and_without_any_nothing_is_shown(cell: StoredCell) -> None:
    verdict = judge_folder(cell.path, CheckSettings(linearizable=False))
    assert (verdict["verdict"], verdict["not_checked"]) == ("ok", ["linearizability"])
    verdict = judge_folder(cell.path, CheckSettings(linearizable=False, invariants=False))
    assert verdict["verdict"] == "unknown"
    assert verdict["reason"] == "checks: neither linearizability nor invariants was checked"


@pytest.mark.parametrize(("exit_code", "verdict"), [(7, "violated"), (5, "violated"), (6, "unknown")])
def test_a_node_that_ended_by_itself_tells_why(cell: StoredCell, exit_code: int, verdict: str) -> None:
    spoil(cell, exits=[{"exit_code": exit_code, "text": "node n2 ended"}])
    assert found(cell) == {**GOOD, "exits": verdict, "": verdict}


def test_what_the_simulation_found_broken_is_a_violation(cell: StoredCell) -> None:
    spoil(cell, violations=["1.0 s: n1: two leaders"])
    assert found(cell) == {**GOOD, "invariants": "violated", "": "violated"}


def test_a_cluster_without_a_leader_afterwards_is_not_alive(cell: StoredCell) -> None:
    settled = cell.inspection()["settled"]
    far = settled["end_ns"] + 100 * 10**9
    later = {"done_ns": settled["end_ns"] + 1}
    events = [
        event.model_copy(update=later) if isinstance(event, FaultEvent) and event.action == "heal" else event
        for event in cell.events()
    ]
    (cell.path / "events.jsonl").write_text(write_events(events))
    spoil(cell, settled={**settled, "leader_ns": None, "end_ns": far})
    assert found(cell)["liveness"] == "violated"
    # The judge gives a node that started late more time.
    started = {"kind": "started", "node": "n1", "term": 1, "number": 1, "time_ns": far - 10**9}
    with (cell.path / "events.jsonl").open("a") as file:
        file.write(json.dumps(started) + "\n")
    assert found(cell)["liveness"] == "unknown"
    spoil(cell, settled=None)
    assert found(cell)["liveness"] == "unknown"


def test_a_fault_that_did_nothing_proves_nothing(cell: StoredCell) -> None:
    """A fault without a record proves nothing either: its node has one incarnation too many."""
    events = [event for event in cell.events() if not isinstance(event, FaultEvent)]
    (cell.path / "events.jsonl").write_text(write_events(events))
    assert found(cell) == {**GOOD, "invariants": "unknown", "coverage": "unknown", "": "unknown"}


SIDE_BY_SIDE = """
name: side-by-side
order: sequential
base:
  target: sim
  load: {clients: 8, think: 20ms, keys: 20}
  phases: {warmup: 100ms, measure: 2s}
axes:
  chaos:
    - [{drop: 0.05}, {partition: [[n1, n2, n3]], at: 500ms, heal_after: 500ms}]
    - [{drop: 0.05}, {partition: [[n1], [n2, n3]], at: 500ms, heal_after: 500ms}]
    - [{isolate: [n1], at: 500ms, heal_after: 1s}, {crash: [n1], at: 700ms, restart_after: 200ms}]
    - [{isolate: [n1], at: 500ms, heal_after: 1s}, {crash: [n1], at: 500ms}]
    - [{isolate: [n1], at: 500ms, heal_after: 1s}, {pause: [n1], at: 700ms}]
"""


async def test_each_fault_has_its_own_proof(tmp_path: Path) -> None:
    """A partition that cuts nothing must not count the messages lost on a lossy link as its own.

    A real fault keeps its proof when its nodes are killed or paused while it lasts.
    """
    run = await asyncio.to_thread(Sweep.from_source(read_source(SIDE_BY_SIDE, "file.yaml")).run, tmp_path)
    coverage = [
        next(each for each in cell.result["verdict"]["findings"] if each["check"] == "coverage") for cell in run.cells
    ]
    assert [each["verdict"] for each in coverage] == ["unknown", "ok", "ok", "ok", "ok"]
    assert coverage[0]["reason"] == "partition n1,n2,n3 did nothing: no message was cut"
    assert {cell.result["verdict"]["verdict"] for cell in run.cells[1:]} == {"ok"}


def with_outcome(cell: StoredCell, outcome: int, where: Callable[[Operations], Any]) -> dict[str, str]:
    """The verdicts after the outcome of some of the cell's operations was changed."""
    operations = cell.operations()
    operations["outcome"][where(operations)] = outcome
    operations.save(cell.path / "latency.npz")
    return found(cell, linearizable=False)


def test_operations_that_fail_prove_nothing(cell: StoredCell) -> None:
    """The number of failed operations does not matter."""
    assert int(cell.operations().measured.sum()) > 200
    assert with_outcome(cell, FAIL, lambda operations: slice(30, None))["coverage"] == "unknown"


OUTAGE = """
name: outage
order: sequential
base:
  target: sim
  raft: {election_timeout: 50ms-100ms, heartbeat_interval: 15ms, rpc_timeout: 30ms}
  client: {rpc_timeout: 200ms, retry_budget: 1s}
  load: {mode: open, rate: 100, clients: 64, keys: 20}
  phases: {boot: 2s, warmup: 300ms, measure: 5s}
  chaos: {isolate: majority, at: 1s, heal_after: 3s}
  expect: unavailable
"""


@pytest.fixture(scope="module")
def without_majority(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    out = tmp_path_factory.mktemp("outage")
    (out / "outage.yaml").write_text(OUTAGE)
    done = command("run", str(out / "outage.yaml"), "--out", str(out))
    assert done.exit_code == 0, done.output
    return read_run((out / "outage" / "latest").resolve())


@pytest.fixture
def outage(without_majority: StoredRun, tmp_path: Path) -> StoredCell:
    """A copy of a cell that was unavailable as expected, for a test to spoil."""
    folder = shutil.copytree(without_majority.cells[0].path, tmp_path / "outage")
    return StoredCell(folder, without_majority.cells[0].params, without_majority.cells[0].result)


@pytest.mark.parametrize(
    "where",
    [
        lambda operations: operations["end_ns"] < operations.fault_ns[0, 0],
        lambda operations: operations["end_ns"] > operations.fault_ns[0, 1],
    ],
    ids=["before the fault", "after it"],
)
def test_an_outage_that_was_there_before_and_after_the_fault_shows_nothing(
    outage: StoredCell, where: Callable[[Operations], Any]
) -> None:
    assert found(outage) == GOOD
    assert with_outcome(outage, FAIL, where)["coverage"] == "unknown"


def test_an_outage_that_nobody_felt_shows_nothing(outage: StoredCell) -> None:
    operations = outage.operations()
    begin, end = operations.fault_ns[0].tolist()
    waited = (operations["start_ns"] < end) & (operations["end_ns"] > begin + 10**9)
    operations["start_ns"][waited] = operations["intended_ns"][waited] = begin
    operations["end_ns"][waited] = begin + 1
    operations.save(outage.path / "latency.npz")
    assert found(outage, linearizable=False)["coverage"] == "unknown"


def test_what_is_wrong_is_wrong_though_unavailability_was_expected(outage: StoredCell) -> None:
    settled = outage.inspection()["settled"]
    nodes = {**settled["nodes"], "n1": {**settled["nodes"]["n1"], "prefix_hash": "00" * 32}}
    later = settled["begin_ns"] + 10**10
    spoil(outage, settled={**settled, "nodes": nodes, "leader_ns": None, "end_ns": later})
    assert found(outage) == {**GOOD, "state": "violated", "liveness": "violated", "": "violated"}
    (outage.path / "latency.npz").unlink()
    assert found(outage)["state"] == "violated"


NEVER = OUTAGE.replace("  chaos: {isolate: majority, at: 1s, heal_after: 3s}", "  sim: {delay: 200ms-200ms}")


def test_where_nobody_is_ever_served_clients_ask_all_the_time(tmp_path: Path) -> None:
    """An outage without any leader is proven if there are no faults; if there are, it proves nothing about them."""
    safe, disturbed = NEVER.replace("expect: unavailable", "expect: safe"), f"{NEVER}  chaos: {{crash: leader, at: 1s}}"
    assert safe != NEVER
    for text, code, coverage in ((NEVER, 0, "ok"), (safe, 0, "unknown"), (disturbed, 4, "unknown")):
        (tmp_path / "never.yaml").write_text(text)
        done = command("run", str(tmp_path / "never.yaml"), "--out", str(tmp_path))
        assert done.exit_code == code, done.output
        [cell] = read_run((tmp_path / "latest").resolve()).cells
        verdict = cell.result["verdict"]
        assert {each["check"]: each["verdict"] for each in verdict["findings"]}["coverage"] == coverage
        if coverage == "ok":
            assert verdict["not_checked"] == ["state", "liveness"]
            spoil(cell, asked=None)
            assert found(cell)["coverage"] == "unknown", "nobody asked"


def test_unavailability_is_refuted_by_sessions_that_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The load uses sessions that open late, so operations succeed."""
    connect, tried = CellRun._connect, []

    async def late(life: CellRun, cluster: Any, load: Any) -> bool:
        tried.append(1)
        return len(tried) > 2 and await connect(life, cluster, load)

    monkeypatch.setattr(CellRun, "_connect", late)
    text = OUTAGE.replace("  chaos: {isolate: majority, at: 1s, heal_after: 3s}\n", "")
    (tmp_path / "late.yaml").write_text(text)
    done = command("run", str(tmp_path / "late.yaml"), "--out", str(tmp_path))
    assert done.exit_code == 1
    [cell] = read_run((tmp_path / "latest").resolve()).cells
    assert cell.result["reason"] == "expected to be unavailable, and operations succeeded"


def test_too_few_operations_prove_nothing(cell: StoredCell) -> None:
    assert found(cell, least_operations=10_000) == {**GOOD, "coverage": "unknown", "": "unknown"}


def test_a_cell_that_was_never_loaded_proves_nothing(cell: StoredCell) -> None:
    (cell.path / "latency.npz").unlink()
    assert found(cell)[""] == "unknown"


async def test_the_judge_is_a_process_of_its_own_within_bounds(cell: StoredCell, tmp_path: Path) -> None:
    verdict = await judged(cell.path, CheckSettings())
    assert verdict["verdict"] == "ok"
    assert verdict["seconds"] > 0
    (cell.path / "params.json").write_text("{")
    broken = await judged(cell.path, CheckSettings())
    assert broken["verdict"] == "unknown"
    assert broken["reason"].startswith("judge: ")


async def test_a_judge_that_fails_costs_nothing_that_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "judge"
    finding = json.dumps({"check": "state", "verdict": "violated", "reason": "n1 and n2 differ", "detail": ""})
    script.write_text(f"#!/bin/sh\necho '{finding}'\nprintf '{{'\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    verdict = await judged(tmp_path, CheckSettings())
    assert (verdict["verdict"], verdict["reason"]) == ("violated", "state: n1 and n2 differ")
    assert verdict["findings"][1]["reason"] == "ended with -9"


def damage(cell: StoredCell, name: str) -> None:
    (cell.path / name).write_text("{")


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("traces/n1.jsonl.gz", {"invariants", "inspection", "durability", "liveness"}),
        ("events.jsonl", {"invariants", "inspection", "liveness", "coverage"}),
        ("inspection.json", {"invariants", "inspection", "exits", "state", "durability", "liveness", "coverage"}),
    ],
)
def test_a_check_that_fails_costs_no_other_one(cell: StoredCell, name: str, lost: set[str]) -> None:
    damage(cell, name)
    verdicts = found(cell)
    assert {check for check in CHECKS if verdicts[check] != "ok"} == lost
    assert {verdicts[check] for check in lost} == {"unknown"}


def trace(cell: StoredCell, node_id: str, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    (cell.path / "traces" / f"{node_id}.jsonl.gz").write_bytes(gzip.compress(text.encode()))


def test_an_odd_line_costs_no_violation_that_was_found(cell: StoredCell) -> None:
    settled = cell.inspection()["settled"]
    settled["nodes"]["n2"]["prefix_hash"] = "00" * 32
    spoil(cell, settled=settled)
    odd = {"kind": "became_leader", "number": 1, "term": 1, "index": 0, "time_ns": 1, "log_term": "?", "peer": ""}
    trace(cell, "n1", [json.dumps(odd), *cell.traces()["n1"]])
    assert found(cell) == {**GOOD, "state": "violated", "invariants": "unknown", "": "violated"}


def test_traces_of_which_something_is_missing_prove_nothing(cell: StoredCell) -> None:
    whole = cell.traces()
    crashed = next(node for node, lines in whole.items() if sum('"started"' in line for line in lines) == 2)
    other = next(node for node in whole if node != crashed)
    second = max(at for at, line in enumerate(whole[crashed]) if '"started"' in line)
    for node, lines in (
        (crashed, whole[crashed][:second]),
        (crashed, whole[crashed][second:]),
        (other, whole[other][:1]),
        (other, whole[other][::10]),
        (other, [line for at, line in enumerate(whole[other]) if at != 5]),
    ):
        trace(cell, node, lines)
        assert found(cell)["invariants"] == "unknown"
        trace(cell, node, whole[node])
    assert found(cell) == GOOD


def test_a_node_of_ours_under_another_command_is_to_have_traces(cell: StoredCell) -> None:
    """A node that reports its status must have traces; a foreign program that reports nothing may lack them."""
    shutil.rmtree(cell.path / "traces")
    parameters = {**cell.params["parameters"], "cluster": {"nodes": 3, "command": ["python", "-m", "other"]}}
    (cell.path / "params.json").write_text(json.dumps({**cell.params, "parameters": parameters}))
    assert found(cell)["invariants"] == "unknown"
    spoil(cell, statuses=[])
    assert found(cell)["invariants"] == "unknown"
    spoil(cell, statuses=[], settled=None)
    assert "invariants" not in found(cell)


def test_states_of_which_one_is_not_known_prove_nothing(cell: StoredCell) -> None:
    settled = cell.inspection()["settled"]
    settled["nodes"]["n3"]["state_hash"] = ""
    spoil(cell, settled=settled)
    assert found(cell) == {**GOOD, "state": "unknown", "": "unknown"}


def test_a_leader_that_is_not_found_at_the_end_is_missed(cell: StoredCell) -> None:
    """A leader soon after the fault does not suffice."""
    settled = cell.inspection()["settled"]
    spoil(cell, settled={**settled, "leader_ns": None})
    assert found(cell)["liveness"] == "unknown"
    spoil(cell, settled={**settled, "leader_ns": None, "end_ns": settled["begin_ns"] + 60 * 10**9})
    assert found(cell)["liveness"] == "violated"


def test_the_load_is_to_be_met_before_faults_that_last_for_the_whole_measurement(cell: StoredCell) -> None:
    operations = cell.operations()
    begin, end = operations.measure_ns
    parameters = {**cell.params["parameters"]}
    parameters["load"] = {**parameters["load"], "mode": "open", "rate": 100}
    (cell.path / "params.json").write_text(json.dumps({**cell.params, "parameters": parameters}))
    dropped = np.linspace(begin - 10**8, begin - 1, 50).astype(np.int64)
    faults = np.array([[begin, end]], np.int64)
    replace(operations, dropped_ns=dropped, fault_ns=faults).save(cell.path / "latency.npz")
    assert found(cell)["coverage"] == "unknown"


def test_a_run_is_judged_again_and_its_results_are_rewritten(stored: StoredRun, out: Path, tmp_path: Path) -> None:
    path = shutil.copytree(stored.path, tmp_path / "run", symlinks=True)
    result = path / "cells" / stored.cells[0].params["cell"] / "result.json"
    text = result.read_text().replace('"verdict": "ok"', '"verdict": "pending"')
    result.write_text(text)
    done = command("check", str(path), "--time-limit", "30s")
    assert done.exit_code == 0, done.output
    assert "verdict ok" in done.stdout
    assert read_run(path).cells[0].result["verdict"]["verdict"] == "ok"


def test_a_run_that_is_not_complete_is_unknown_at_best(stored: StoredRun, tmp_path: Path) -> None:
    """Cells that never ran prove nothing; a violation stays a violation."""
    path = shutil.copytree(stored.path, tmp_path / "run", symlinks=True)
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps({**stored.manifest, "complete": False}))
    assert command("check", str(path)).exit_code == 4
    cell = read_run(path).cells[0]
    spoil(cell, violations=["1.0 s: n1: two leaders"])
    assert command("check", str(path)).exit_code == 3
    manifest.write_text(json.dumps(stored.manifest))
    write_rows(path, ())
    assert command("check", str(path)).exit_code == 4


def test_a_run_is_not_judged_while_it_runs(stored: StoredRun, tmp_path: Path) -> None:
    """The driver locks the run until it finishes it or dies."""
    program = "import sys; from pathlib import Path; from sweeps.store.lock import RunLock; "
    program += "lock = RunLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    path = shutil.copytree(stored.path, tmp_path / "run", symlinks=True)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        done = command("check", str(path))
        message = f"sweep: {path}: still runs, or is being judged; wait until that ends\n"
        assert (done.exit_code, done.stderr) == (2, message)
        driver.kill()
        driver.wait()
    assert command("check", str(path)).exit_code == 0


def test_the_writer_of_a_run_holds_it_until_it_has_finished(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "", {})
    with pytest.raises(ConfigError, match="still runs"):
        RunLock(writer.path)
    writer.finish(complete=False, exit_code=1)
    RunLock(writer.path).release()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_lock_on_a_folder_that_is_missing_fails_with_one_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RunLock(tmp_path / "missing")
    gc.collect()


def test_a_history_leaves_as_json_lines_and_comes_back(stored: StoredRun, out: Path, tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    assert command("history", "--out", str(out), "--output", str(file)).exit_code == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["type"] for line in lines} >= {"invoke", "ok"}
    done = command("check", "--history", str(file))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("ok: ")
    printed = command("history", "simulated", "--out", str(out), "--cell", stored.cells[0].params["cell"])
    assert printed.stdout == file.read_text()
    assert len(history_of(stored.cells[0])) == len(stored.cells[0].operations())


def test_a_history_of_others_is_judged(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    lines = [
        {"process": 0, "type": "invoke", "f": "write", "value": 1},
        {"process": 0, "type": "ok", "f": "write", "value": 1},
        {"process": 1, "type": "invoke", "f": "read", "value": None},
        {"process": 1, "type": "ok", "f": "read", "value": None},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = command("check", "--history", str(file))
    assert done.exit_code == 3
    assert "impossible" in done.stdout
    text, picture = tmp_path / "history.violation.txt", tmp_path / "history.violation.svg"
    assert done.stdout.endswith(f"{text}\n{picture}\n")
    assert "impossible" in text.read_text()
    assert picture.read_text().startswith("<svg")
    file.write_text("")
    assert command("check", "--history", str(file)).exit_code == 4
    file.write_text("{\n")
    bad = command("check", "--history", str(file))
    assert (bad.exit_code, len(bad.stderr.splitlines())) == (2, 1)


def test_a_history_is_judged_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a cell, the judge is a process of its own with bounded memory and time."""
    monkeypatch.setattr("sweeps.judge.program.check", None)
    file = tmp_path / "wide.jsonl"
    History(Operation(n, "put", 1, n, invoke_ns=n, return_ns=10**9 + n) for n in range(50_000)).write_jsonl(file)
    done = command("check", "--history", str(file), "--memory-limit", "64MiB")
    assert (done.exit_code, done.stdout.split(":")[0]) == (4, "unknown"), done.output
    assert "memory ran out" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--history", "nowhere.jsonl"], "sweep: Invalid value for '--history'"),
        (["check", "--time-limit", "60"], "sweep: --time-limit: '60' is not a duration"),
        (["check", "--memory-limit", "1KiB"], "sweep: --memory-limit: must be at least"),
        (["check", "nothing", "--out", "nowhere"], "sweep: nothing: no run here"),
        (["history", "nothing", "--out", "nowhere"], "sweep: nothing: no run here"),
        (["run", "quick", "--target", "etcd"], "sweep: Invalid value for '--target'"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    done = command(*arguments)
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(message)
