"""The life of cells, on a cluster in the test's process: what is done, what is recorded, how runs end."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestration import InfrastructureError, NodeFailed, PlacementRefused
from orchestration.plan import NodeExit
from orchestration.sim_cluster import run_virtual
from raft_actor_node.names import node_names
from sweeps.api import Run, Sweep, make_view
from sweeps.load.group import LoadGroup
from sweeps.load.operations import OK
from sweeps.run.collect import read_trace
from sweeps.run.progress import Progress
from sweeps.show.live import LiveView, PlainView
from sweeps.spec.source import read_source
from sweeps.store.reader import read_run
from tests.sweeps.fakes import FakeBackend, FakeCluster, FakeEngine, RefusingEngine, VirtualBackend

BRIEF = "{boot: 300ms, warmup: 50ms, measure: 300ms}"
TWO_CELLS = f"name: tiny\norder: sequential\nbase: {{phases: {BRIEF}}}\naxes: {{load.clients: [2, 4]}}"
CRASH = f"name: tiny\nbase: {{phases: {BRIEF}, chaos: {{crash: leader, at: 1/3, restart_after: 100ms}}}}"


def sweep(text: str = TWO_CELLS) -> Sweep:
    return Sweep.from_source(read_source(text, "file.yaml"))


async def execute(under_test: Sweep, backend: FakeBackend, out: Path) -> tuple[int, Path, str]:
    """Run the sweep with the plain view; return the exit code, the run directory and the output."""
    console = Console(file=io.StringIO(), width=200)
    code, path = await under_test.execute(
        out, ["sweep"], backend.connect, lambda progress: PlainView(console, progress), announce=console.print
    )
    return code, path, console.file.getvalue()  # type: ignore[attr-defined]


def execute_virtually(text: str, backend: VirtualBackend, out: Path) -> tuple[int, Path, str]:
    """As `execute`, in virtual time."""
    return run_virtual(lambda: execute(sweep(text), backend, out))


def journal(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]


async def test_a_cell_goes_through_its_phases_and_leaves_nothing_running(tmp_path: Path) -> None:
    backend = FakeBackend()
    code, path, printed = await execute(sweep(), backend, tmp_path)
    assert code == 0
    assert [cluster.calls for cluster in backend.clusters] == [["halt", "stop keep=False"]] * 2
    assert all(worker.closed for worker in backend.workers)

    stored = read_run(path)
    assert stored.manifest["complete"] is True
    assert stored.manifest["exit_code"] == 0
    assert stored.manifest["ray"] == "a fake"
    assert stored.manifest["wal"]["folder"] == "/logs/cell"
    assert [event["event"] for event in journal(path)] == [
        "run started", "cell started", "cell finished", "cell started", "cell finished", "run finished",
    ]  # fmt: skip
    first = stored.cells[0]
    assert first.result["status"] == "ok"
    assert list(first.result["phases_s"]) == ["boot", "elect", "warm up", "measure", "drain", "inspect"]
    assert first.result["phases_s"]["measure"] >= 0.3
    assert list(first.result["bring_up_s"]) == ["place", "spawn", "serving", "leader"]
    assert first.result["nodes"]["n1"]["fsync_p50_us"] == 200
    assert first.result["nodes"]["n1"]["cpu_share"] == pytest.approx(0.25, abs=0.02)
    assert (first.path / "nodes" / "n2.log").read_text() == "log of n2\n"
    assert printed.count("\n[") == 2

    operations = first.operations()
    assert operations.measure_ns[1] - operations.measure_ns[0] == 300_000_000
    assert operations.measured.any()
    assert not operations.measured.all(), "the warm-up is recorded, and not measured"
    of_load = operations["client"] < operations.first_reader
    assert set(operations["client"][of_load]) == {0, 1}
    keys, read = operations.read_back()
    assert 0 < keys == read, "at the end each key that was written is read once"


async def test_all_clocks_are_compared_while_there_is_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons at both ends of a cell would miss what a clock gains and loses again in between."""
    monkeypatch.setattr("sweeps.run.machine.CLOCK_POLL_S", 0.05)
    backend = FakeBackend()
    await execute(sweep(), backend, tmp_path)
    compared = [worker.compared for cluster in backend.clusters for worker in cluster.workers.values()]
    assert min(compared) >= 2
    assert min(worker.compared for worker in backend.workers) >= 3, "and once more at the end"


async def test_the_parameters_reach_the_cluster(tmp_path: Path) -> None:
    backend = FakeBackend()
    text = f"""
name: tiny
base:
  cluster: {{nodes: 5, placement: pack, command: [program, --flag]}}
  raft: {{election_timeout: 1s-2s, pre_vote: false}}
  storage: {{fsync: off}}
  limits: {{value_bytes: 2KiB}}
  phases: {BRIEF}
"""
    await execute(sweep(text), backend, tmp_path)
    plan = backend.clusters[0].plan
    assert (plan.nodes, plan.placement, plan.command) == (5, "pack", ("program", "--flag"))
    assert (plan.raft.election_timeout.min_s, plan.raft.pre_vote) == (1.0, False)
    assert (plan.storage.fsync, plan.limits.value_bytes, plan.chaos_enabled) == ("off", 2048, False)
    assert plan.boot_timeout_s == 0.3
    assert plan.run_id.startswith("tiny-20")


def test_chaos_happens_within_the_measurement_and_is_written_down(tmp_path: Path) -> None:
    backend = VirtualBackend()
    code, path, printed = execute_virtually(CRASH, backend, tmp_path)
    assert code == 0
    assert backend.clusters[0].plan.chaos_enabled
    assert backend.clusters[0].calls == ["crash n1", "restart n1", "halt", "stop keep=False"]

    [cell] = read_run(path).cells
    assert cell.result["faults"] == 1
    assert cell.result["elections"] == {"started": 1, "won": 1, "first_term": 1, "last_term": 2}
    [failover] = cell.result["failovers"]
    assert (failover["old_leader"], failover["new_leader"], failover["term"]) == ("n1", "n2", 2)
    assert failover["succeeded_ms"] is not None
    assert "failover" in printed

    schedule = json.loads((cell.path / "schedule.json").read_text())
    assert [fault["crash"] for fault in schedule["faults"]] == [["n1"]], "the leader by name, to be replayed"
    events = [json.loads(line) for line in (cell.path / "events.jsonl").read_text().splitlines()]
    assert [event["time_ns"] for event in events] == sorted(event["time_ns"] for event in events)
    crash, heal = (event for event in events if event["kind"] == "crash")
    operations = cell.operations()
    begin, end = operations.measure_ns
    assert begin <= crash["time_ns"] < heal["time_ns"] <= end
    assert operations.fault_ns.tolist() == [[crash["time_ns"], heal["done_ns"]]]


def test_a_saved_schedule_can_be_replayed(tmp_path: Path) -> None:
    _, path, _ = execute_virtually(CRASH, VirtualBackend(), tmp_path)
    saved = read_run(path).cells[0].path / "schedule.json"
    backend = VirtualBackend()
    text = f"name: again\nbase: {{phases: {BRIEF}, chaos: {{replay: {saved}}}}}"
    assert execute_virtually(text, backend, tmp_path)[0] == 0
    assert backend.clusters[0].calls[:2] == ["crash n1", "restart n1"]


async def test_a_cell_whose_cluster_does_not_come_up_fails_and_the_sweep_goes_on(tmp_path: Path) -> None:
    backend = FakeBackend()
    backend.refusals[0] = NodeFailed("n2", "exit code 3 (cannot bind)", 3, "last line of the log")
    code, path, printed = await execute(sweep(), backend, tmp_path)
    assert code == 1
    failed, good = read_run(path).cells
    assert failed.result["status"] == "failed"
    assert failed.result["reason"].startswith("node n2: exit code 3 (cannot bind)")
    assert "last line of the log" in failed.result["detail"]
    assert good.result["status"] == "ok"
    assert read_run(path).manifest["complete"] is True
    assert "FAILED: node n2: exit code 3 (cannot bind)" in printed
    assert backend.workers[0].closed


class Fragile(FakeCluster):
    """A cluster in which n2 ends by itself when another node is crashed."""

    async def crash(self, *node_ids: str) -> None:
        await super().crash(*node_ids)
        self.unexpected_exits.append(NodeExit("n2", "exit", 7, "", 0))


DIES = "name: tiny\nbase: {phases: {warmup: 50ms, measure: 60s}, chaos: {crash: leader, at: 200ms}}"


async def test_a_node_that_ends_by_itself_fails_the_cell_at_once_and_its_logs_are_kept(tmp_path: Path) -> None:
    backend = FakeBackend(lambda cluster: setattr(cluster, "__class__", Fragile))
    async with asyncio.timeout(20):
        code, path, printed = await execute(sweep(DIES), backend, tmp_path)
    assert code == 1
    [cell] = read_run(path).cells
    assert cell.result["reason"] == "node n2 ended (exit): exit code 7 (invariant broken)"
    assert cell.result["kept"] == ["/logs/cell"]
    assert "are kept in /logs/cell" in printed
    assert backend.clusters[0].calls[-1] == "stop keep=True"
    operations = cell.operations()
    assert operations.measured.any(), "what was measured until then is kept"


async def test_what_clients_saw_before_the_measurement_is_kept_when_a_node_ends_there(tmp_path: Path) -> None:
    class Dying(FakeEngine):
        def _complete(self, batch: list[Any]) -> None:
            super()._complete(batch)
            backend.clusters[0].unexpected_exits.append(NodeExit("n2", "exit", 5, "", 0))

    text = "name: tiny\nbase: {phases: {warmup: 60s, measure: 60s}}"
    backend = FakeBackend(engine=Dying)
    async with asyncio.timeout(20):
        code, path, _ = await execute(sweep(text), backend, tmp_path)
    assert code == 1
    [cell] = read_run(path).cells
    assert cell.result["reason"] == "node n2 ended (exit): exit code 5 (data corrupt or foreign)"
    operations = cell.operations()
    assert (operations["outcome"] == OK).any()
    assert not operations.measured.any()


async def test_an_error_of_ours_costs_one_cell_only(tmp_path: Path) -> None:
    def breaks(cluster: FakeCluster) -> None:
        if len(backend.clusters) == 0:
            cluster.bring_up_times = None  # type: ignore[assignment]

    backend = FakeBackend(breaks)
    code, path, _ = await execute(sweep(), backend, tmp_path)
    assert code == 1
    failed, good = read_run(path).cells
    assert failed.result["reason"].startswith("AttributeError:")
    assert "Traceback" in failed.result["detail"]
    assert good.result["status"] == "ok"


async def test_one_node_whose_files_are_lost_fails_the_cell_and_the_others_logs_stay(tmp_path: Path) -> None:
    class Leaky(FakeCluster):
        async def halt(self) -> None:
            raise OSError("cannot halt") if len(backend.clusters) > 1 else InfrastructureError("n2 would not halt")

        async def collect(self, node_id: str) -> Any:
            if node_id == "n2":
                raise ValueError("no such file")
            return await super().collect(node_id)

    backend = FakeBackend(lambda cluster: setattr(cluster, "__class__", Leaky))
    code, path, _ = await execute(sweep(), backend, tmp_path)
    assert code == 1
    first, second = read_run(path).cells
    assert first.result["reason"] == "halting the nodes: n2 would not halt"
    assert second.result["reason"] == "halting the nodes: OSError: cannot halt"
    logs = {file.name: file.read_text() for file in (first.path / "nodes").iterdir()}
    assert logs.keys() == {"n1.log", "n2.log", "n3.log"}
    assert logs["n2.log"] == "its log could not be fetched: no such file\n"
    assert len(first.operations()) > 0
    assert [cell.result["status"] for cell in (first, second)] == ["infrastructure", "failed"]
    assert [cluster.calls for cluster in backend.clusters] == [["stop keep=False"], ["stop keep=True"]]


@pytest.mark.parametrize(
    "broken",
    ["sweeps.run.runner.unmet_expectation", "sweeps.run.faults.fault_windows", "sweeps.run.collect.read_trace"],
)
async def test_an_error_after_the_measurement_costs_one_cell_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    module, _, name = broken.rpartition(".")
    real = getattr(sys.modules[module], name)

    def fails_at_first(*arguments: Any) -> Any:
        if len(backend.clusters) == 1:
            raise KeyError("kind")
        return real(*arguments)

    monkeypatch.setattr(broken, fails_at_first)
    backend = FakeBackend()
    code, path, _ = await execute(sweep(), backend, tmp_path)
    assert code == 1
    failed, good = read_run(path).cells
    assert failed.result["status"] == "failed"
    assert "KeyError: 'kind'" in failed.result["reason"]
    assert "Traceback" in failed.result["detail"]
    assert good.result["status"] == "ok"
    assert [cluster.calls[-1] for cluster in backend.clusters] == ["stop keep=True", "stop keep=False"]


async def test_without_a_leader_there_is_no_load(tmp_path: Path) -> None:
    backend = FakeBackend(lambda cluster: setattr(cluster, "elects", False))
    code, path, _ = await execute(sweep(f"name: tiny\nbase: {{phases: {BRIEF}}}"), backend, tmp_path)
    [cell] = read_run(path).cells
    assert code == 1
    assert cell.result["reason"] == "no leader was elected within 0.3 s"
    assert not (cell.path / "latency.npz").exists()


async def test_unavailability_that_is_expected_is_good(tmp_path: Path) -> None:
    text = f"name: tiny\nbase: {{phases: {BRIEF}, expect: unavailable}}"
    silent = FakeBackend(lambda cluster: setattr(cluster, "elects", False), RefusingEngine)
    assert (await execute(sweep(text), silent, tmp_path))[0] == 0
    assert (await execute(sweep(text), FakeBackend(engine=RefusingEngine), tmp_path))[0] == 0
    code, path, _ = await execute(sweep(text), FakeBackend(), tmp_path)
    assert code == 1
    assert read_run(path).cells[0].result["reason"] == "expected to be unavailable, and operations succeeded"


async def test_sessions_that_cannot_be_opened_fail_the_cell(tmp_path: Path) -> None:
    backend = FakeBackend(engine=RefusingEngine)
    code, path, _ = await execute(sweep(f"name: tiny\nbase: {{phases: {BRIEF}}}"), backend, tmp_path)
    assert code == 1
    assert read_run(path).cells[0].result["reason"] == "no session could be opened: no leader within 10 s"


@pytest.mark.parametrize(("condition", "code"), [("< 10s", 0), ("< 1us", 1)])
async def test_a_missed_threshold_fails_the_cell(tmp_path: Path, condition: str, code: int) -> None:
    text = f"{TWO_CELLS}\nthresholds: {{latency.all.max: '{condition}'}}"
    found, path, _ = await execute(sweep(text), FakeBackend(), tmp_path)
    assert found == code
    reasons = {str(cell.result["reason"])[:27] for cell in read_run(path).cells}
    assert reasons == ({"threshold latency.all.max: "} if code else {"None"})


@pytest.mark.parametrize(
    ("text", "owner", "method"),
    [
        pytest.param(f"name: tiny\nbase: {{phases: {BRIEF}}}", FakeCluster, "collect", id="files are fetched"),
        pytest.param(DIES, LoadGroup, "drain", id="a failed cell drains"),
    ],
)
async def test_interruptions_while_a_cell_ends_keep_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, owner: type, method: str
) -> None:
    asked, go, real = asyncio.Event(), asyncio.Event(), getattr(owner, method)
    notes: asyncio.Queue[str] = asyncio.Queue()

    async def late(*arguments: Any) -> Any:
        asked.set()
        await go.wait()
        return await real(*arguments)

    monkeypatch.setattr(owner, method, late)
    monkeypatch.setattr(PlainView, "note", lambda _, note: notes.put_nowait(note))
    backend = FakeBackend(lambda cluster: setattr(cluster, "__class__", Fragile))
    running = asyncio.create_task(execute(sweep(text), backend, tmp_path))
    async with asyncio.timeout(20):
        await asked.wait()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            assert (await notes.get()).startswith("interrupted")
        go.set()
        code, path, _ = await running
    assert code == 130
    [cell] = read_run(path).cells
    assert cell.result["status"] == "interrupted"
    assert cell.operations().measured.any()


@pytest.mark.parametrize("verdict", ["ok", "violated"])
async def test_logs_of_a_cell_are_kept_by_what_the_judge_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    """A planted violation that was not found fails the cell; its logs are then needed."""

    async def judged(*_: object) -> dict[str, Any]:
        name = "linearizability"
        findings = [
            {"check": name, "verdict": verdict, "reason": "so"},
            {"check": "coverage", "verdict": "ok", "reason": ""},
        ]
        return {"verdict": verdict, "reason": "so", "findings": findings}

    monkeypatch.setattr("sweeps.run.runner.judged", judged)
    backend = FakeBackend()
    code, path, _ = await execute(sweep(f"name: tiny\nbase: {{expect: violated, phases: {BRIEF}}}"), backend, tmp_path)
    [cell] = read_run(path).cells
    missed = verdict == "ok"
    assert (code, cell.result["status"]) == ((1, "failed") if missed else (0, "ok"))
    assert backend.clusters[0].calls[-1] == f"stop keep={missed}"


@pytest.mark.parametrize(("problem", "code"), [(BrokenPipeError(), 141), (OSError(errno.ENOSPC, "full"), 1)])
async def test_a_run_whose_output_fails_says_in_its_manifest_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: OSError, code: int
) -> None:
    def fails(*_: object) -> None:
        raise problem

    monkeypatch.setattr(PlainView, "cell_done", fails)
    with pytest.raises(type(problem)):
        await execute(sweep(), FakeBackend(), tmp_path)
    [path] = (tmp_path / "tiny").glob("2*")
    assert json.loads((path / "manifest.json").read_text())["exit_code"] == code


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_interruption_heals_stops_and_keeps_what_there_is(tmp_path: Path, sent: int) -> None:
    text = """
name: tiny
order: sequential
base: {phases: {warmup: 50ms, measure: 60s}, chaos: {crash: leader, at: 1ms}}
axes: {load.clients: [2, 4]}
"""
    backend = FakeBackend()
    running = asyncio.create_task(execute(sweep(text), backend, tmp_path))
    async with asyncio.timeout(20):
        await backend.started.wait()
        while "crash n1" not in backend.clusters[0].calls:
            await asyncio.sleep(0.005)
            assert not running.done()
        os.kill(os.getpid(), sent)
        code, path, printed = await running
    assert code == 130
    assert "interrupted: healing the cluster and stopping its nodes" in printed
    assert len(backend.clusters) == 1, "the next cell does not begin"
    assert backend.clusters[0].calls == ["crash n1", "restart n1", "halt", "stop keep=False"]
    assert backend.workers[0].closed

    stored = read_run(path)
    assert stored.manifest["complete"] is False
    assert stored.manifest["exit_code"] == 130
    [cell] = stored.cells
    assert cell.result["status"] == "interrupted"
    assert len(cell.operations()) > 0
    assert journal(path)[-1]["event"] == "run interrupted"


async def test_hosts_that_cannot_carry_a_cell_are_refused_before_anything_starts(tmp_path: Path) -> None:
    backend = FakeBackend()
    backend.most_nodes = 5
    text = f"name: tiny\nbase: {{phases: {BRIEF}}}\naxes: {{cluster.placement: [pack, spread], cluster.nodes: [3, 7]}}"
    with pytest.raises(PlacementRefused, match="of 7 nodes needs more hosts"):
        await execute(sweep(text), backend, tmp_path)
    assert (backend.clusters, backend.workers) == ([], [])
    stored = read_run((tmp_path / "latest").resolve())
    assert (stored.manifest["complete"], stored.manifest["exit_code"]) == (False, 2)
    assert stored.manifest["stopped"].endswith("of 7 nodes needs more hosts")


async def test_every_different_placement_is_asked_for_once_and_the_hosts_are_told(tmp_path: Path) -> None:
    backend = FakeBackend()
    backend.hosts = ("one", "other", "third")
    text = (
        f"name: tiny\nrepeats: 2\norder: sequential\nbase: {{phases: {BRIEF}}}\n"
        "axes: {cluster.placement: [pack, {per_host: 2}], cluster.nodes: [1, 3], load.clients: [1, 2]}\n"
        "exclude: [{load.clients: 2, cluster.placement: pack}]"
    )
    under_test = sweep(text)
    code, path, printed = await execute(under_test, backend, tmp_path)
    assert code == 0
    assert [(plan.nodes, str(plan.placement)) for plan in backend.checked] == [
        (1, "pack"), (3, "pack"), (1, "{per_host: 2}"), (3, "{per_host: 2}"),
    ]  # fmt: skip
    assert "placement: the nodes of a cell are on 1 to 3 of 3 hosts" in printed
    for cell in read_run(path).cells:
        nodes = cell.params["parameters"]["cluster"]["nodes"]
        place = {"host": "10.0.0.1", "hostname": "here"}
        assert cell.result["placement"] == dict.fromkeys(node_names(nodes), place)


async def test_a_backend_that_cannot_be_reached_ends_the_run(tmp_path: Path) -> None:
    def connect() -> Any:
        raise InfrastructureError("Ray (nowhere:1): refused")

    with pytest.raises(InfrastructureError, match="refused") as failed:
        await sweep().execute(tmp_path, ["sweep"], connect, lambda progress: PlainView(Console(quiet=True), progress))
    [run] = (tmp_path / "tiny").glob("2*")
    assert failed.value.__notes__ == [f"`sweep resume {run}` then runs the remaining cells"]
    assert read_run((tmp_path / "latest").resolve()).manifest["complete"] is False


def test_from_python_a_sweep_is_one_call(tmp_path: Path) -> None:
    run = sweep(f"{TWO_CELLS}\nrepeats: 2").run(tmp_path, connect=FakeBackend().connect)
    assert isinstance(run, Run)
    assert run.exit_code == 0
    assert [record["axes"] for record in run.results] == [{"load.clients": n} for n in (2, 2, 4, 4)]
    latencies = run.cells[0].latency("put")
    assert latencies.dtype == "int64"
    assert len(latencies) == run.results[0]["operations"]["by_kind"]["put"]["ok"]
    assert (latencies > 1_000_000).all()
    assert run.cells[0].id == run.results[0]["cell"]
    assert run.cells[0].verdict == "ok"


def test_a_dataframe_needs_pandas_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = sweep().run(tmp_path, connect=FakeBackend().connect)
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'raft-lab\[dataframe\]'"):
        run.to_dataframe()


def test_presets_take_overrides_from_python() -> None:
    found = Sweep.from_preset("quick", overrides={"cluster.nodes": [3, 5], "load.clients": 2, "chaos": "none"})
    assert [cell.parameters.cluster.nodes for cell in found.cells] == [3, 5]
    assert {cell.parameters.load.clients for cell in found.cells} == {2}


def test_the_display_is_live_on_a_terminal_only() -> None:
    progress = Progress("x", ())
    terminal, pipe = Console(file=io.StringIO(), force_terminal=True), Console(file=io.StringIO())
    assert isinstance(make_view(terminal, progress, plain=False), LiveView)
    assert isinstance(make_view(terminal, progress, plain=True), PlainView)
    assert isinstance(make_view(pipe, progress, plain=False), PlainView)


def test_of_the_commits_in_a_trace_the_first_of_each_term_and_life_stays() -> None:
    told = "1 started 0, 2 commit 1, 3 commit 1, 4 commit 2, 5 started 2, 6 commit 2"
    lines = [
        json.dumps({"time_ns": int(at), "kind": kind, "term": int(term)})
        for at, kind, term in (words.split() for words in told.split(","))
    ]
    foreign = ['{"time_ns": 7, "ki', "7", '{"time_ns": 7, "term": 1}', '{"time_ns": "7", "term": 1, "kind": "x"}', "{}"]
    events = read_trace([*foreign, *lines], "n4", offset_ns=100)
    assert [(event.time_ns, event.kind) for event in events] == [
        (-99, "started"), (-98, "commit"), (-96, "commit"), (-95, "started"), (-94, "commit"),
    ]  # fmt: skip
    assert {event.node for event in events} == {"n4"}
