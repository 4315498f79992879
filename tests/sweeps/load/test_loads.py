"""Several load generators as one: their hosts, their shares, the merge of their rows on one clock, and their loss."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from chaos.history import History
from chaos.linearizability import check
from orchestration import InfrastructureError, PlacementRefused, RayBackend
from orchestration.face import Host
from orchestration.plan import OnHosts
from raft_actor_node.errors import ConfigError, OperationError
from sweeps.judge.histories import IncompleteHistory, export, history_of
from sweeps.judge.program import judge
from sweeps.load.generator import LoadResult
from sweeps.load.group import LoadGroup, divided, generator_hosts, seed_of
from sweeps.load.operations import COLUMNS, KINDS
from sweeps.load.recorder import LoadSnapshot
from sweeps.load.results import GroupResult, merged
from sweeps.spec.parameters import LoadSettings, Mix, Parameters
from sweeps.store.reader import StoredCell, read_run
from tests.sweeps.fakes import FakeBackend, FakeCluster, FakeEngine, FakeWorker, RefusingEngine
from tests.sweeps.run.test_runner import BRIEF, execute, sweep

MS, S = 10**6, 10**9
PATIENCE_S = 30.0
HERE = socket.gethostname()
ID = 1 << 40
HEAD, *HOSTS = [Host(f"h{n}", f"10.0.0.{n}", 1.0, is_driver=n == 0, name=f"host{n}") for n in range(5)]


# ------------------------------------------------------------------------------ where, and how much


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ("driver", (None,)),
        ("leader", (HOSTS[1],)),
        ("every_host", tuple(HOSTS[:3])),
        ("own_host", (HOSTS[3],)),
        (OnHosts(hosts=("host3", "10.0.0.1", "host3")), (HOSTS[2], HOSTS[0], HOSTS[2])),
    ],
)
def test_the_hosts_of_the_generators(on: Any, expected: tuple[Host | None, ...]) -> None:
    nodes = [HOSTS[2], HOSTS[0], HOSTS[1], HOSTS[0]]
    assert generator_hosts(on, [HEAD, *HOSTS], nodes, HOSTS[1]) == expected


def test_hosts_that_are_not_there_are_refused() -> None:
    with pytest.raises(PlacementRefused, match=r"load\.on: own_host needs a host .* 4 nodes are on 4 of 5 hosts"):
        generator_hosts("own_host", [HEAD, *HOSTS], HOSTS, HOSTS[0])
    with pytest.raises(PlacementRefused, match=r"load\.on: .*'nowhere'.*10\.0\.0\.1"):
        generator_hosts(OnHosts(hosts=("nowhere",)), [HEAD, *HOSTS], HOSTS, HOSTS[0])
    many = [Host(f"h{n}", f"10.1.{n // 256}.{n % 256}", 1.0) for n in range(300)]
    with pytest.raises(PlacementRefused, match=r"load\.on: 299 hosts are too many, at most 256"):
        generator_hosts("own_host", many, many[:1], many[0])


def test_clients_and_rate_are_divided() -> None:
    load = LoadSettings(clients=10, mode="open", rate=300.0)
    parts = divided(load, 4)
    assert [part.clients for part in parts] == [3, 3, 2, 2]
    assert [part.rate for part in parts] == [90.0, 90.0, 60.0, 60.0]
    assert divided(load, 1) == [load]
    assert [(part.clients, part.rate) for part in divided(LoadSettings(clients=2), 5)] == [(1, None), (1, None)]


def test_each_generator_has_a_seed_of_its_own_and_a_single_one_that_of_the_cell() -> None:
    seeds = [seed_of(7, number) for number in range(50)]
    assert seeds[0] == 7
    assert len({seed + more for seed in seeds for more in (0, 1)}) == 100, "a generator uses the next one, too"
    assert seeds == [seed_of(7, number) for number in range(50)]
    assert seeds[1:] != [seed_of(8, number) for number in range(1, 50)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: {load: {on: moon}}", "file.yaml:1: load.on: must be driver, leader, every_host, own_host or {hosts:"),
        ("base: {load: {on: {hosts: []}}}", "file.yaml:1: load.on: must be driver"),
        ("base: {load: {on: {host: [a]}}}", "file.yaml:1: load.on: must be driver"),
        ("base: {target: sim, load: {on: leader}}", "file.yaml:1: load.on: must be driver in a simulation"),
    ],
)
def test_bad_places_are_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        sweep(text)
    assert str(error.value).startswith(message)


def test_places_can_be_an_axis() -> None:
    cells = sweep("axes: {load.on: [driver, every_host, {hosts: [a, b]}]}\nrepeats: 1\norder: sequential").cells
    assert [cell.parameters.load.on for cell in cells] == ["driver", "every_host", OnHosts(hosts=("a", "b"))]
    assert cells[2].label == "on={hosts: [a, b]}"
    assert Parameters.model_validate(cells[2].parameters.model_dump(mode="json")) == cells[2].parameters


# ------------------------------------------------------------------------------ on one clock


def result(
    *rows: dict[str, int], composites: tuple[tuple[int, ...], ...] = (), dropped: tuple[int, ...] = ()
) -> LoadResult:
    columns = {name: np.array([row.get(name, 0) for row in rows], dtype) for name, dtype in COLUMNS.items()}
    ids = np.array([number for each in composites for number in each], np.uint64)
    ends = np.cumsum([len(each) for each in composites]).astype(np.int64)
    none = np.empty(0, np.int64)
    kinds = np.array([due % 4 + 1 for due in dropped], np.uint8)
    return LoadResult(columns, ids, ends, np.array(dropped, np.int64), kinds, none, none, none)


def test_rows_are_put_on_the_drivers_clock_and_in_order() -> None:
    one = result(
        {"intended_ns": 90, "start_ns": 100, "end_ns": 200}, {"start_ns": 300, "end_ns": 400}, dropped=(351, 353)
    )
    other = result({"intended_ns": 1100, "start_ns": 1150, "end_ns": 1250}, dropped=(1202, 1352))
    rows = merged({0: (one, 0), 2: (other, 1000)})
    assert rows.columns["start_ns"].tolist() == [100, 150, 300]
    assert rows.columns["generator"].tolist() == [0, 2, 0]
    assert rows.columns["generator"].dtype == np.uint8
    assert (rows.columns["end_ns"] - rows.columns["start_ns"]).tolist() == [100, 100, 100]
    assert rows.columns["intended_ns"].tolist() == [90, 100, 0]
    assert rows.dropped_ns.tolist() == [202, 351, 352, 353]
    assert rows.dropped_kind.tolist() == [1202 % 4 + 1, 351 % 4 + 1, 1352 % 4 + 1, 353 % 4 + 1], (
        "each goes with its time"
    )
    assert one.columns["start_ns"].tolist() == [100, 300], "what came back may be read-only"


def test_a_single_generator_keeps_its_rows_as_they_are() -> None:
    only = result({"start_ns": 300}, {"start_ns": 100})
    rows = merged({0: (only, 0)})
    assert all(rows.columns[name] is only.columns[name] for name in COLUMNS)
    assert merged({}).columns["kind"].tolist() == []


def test_composites_of_several_generators_have_places_of_their_own() -> None:
    get, append, cas = KINDS["get"], KINDS["append"], KINDS["cas"]
    one = result(
        {"kind": get, "observed": 1}, {"kind": get, "observed": 2}, composites=((ID, ID + 1), (ID + 1, ID + 2))
    )
    other = result(
        {"kind": get, "observed": 1},
        {"kind": get, "observed": 0},
        {"kind": get, "observed": ID + 9},
        {"kind": append, "observed": 1},
        {"kind": cas, "observed": ID + 9, "expected": 2},
        composites=((ID + 3,), (ID + 4, ID + 5, ID + 6)),
    )
    rows = merged({0: (one, 0), 1: (other, 0)})
    assert rows.columns["observed"].tolist() == [1, 2, 3, 0, ID + 9, 1, ID + 9], "of an append it is a length"
    assert rows.columns["expected"].tolist() == [0, 0, 0, 0, 0, 0, 4]
    assert rows.composite_end.tolist() == [2, 4, 5, 8]
    assert rows.composite_ids.tolist() == [ID, ID + 1, ID + 1, ID + 2, ID + 3, ID + 4, ID + 5, ID + 6]


# ------------------------------------------------------------------------------ a group of generators


class Hosts:
    """Hosts with clocks of their own, and one store for all generators."""

    load_options: Mapping[str, Any] = {}

    def __init__(self, engine: type[FakeEngine] = FakeEngine, *, wrong_ns: int = 0, error_ns: int = 0) -> None:
        """`wrong_ns`: by how much each measured offset, except the first, is too large."""
        self.engine, self.wrong_ns, self.error_ns = engine, wrong_ns, error_ns
        self.store: dict[bytes, bytes] = {}
        self.workers: list[FakeWorker] = []

    async def host(self, factory: Callable[..., Any], *args: Any, on: Any = None, **kwargs: Any) -> FakeWorker:
        ahead_ns = int(on.host_id[1:]) * 1000 * S

        def engine(*args: Any, **kwargs: Any) -> FakeEngine:
            made = self.engine(*args, **kwargs)
            made.store = self.store
            return made

        worker = FakeWorker(
            factory(*args, engine=engine, clock=lambda: time.monotonic_ns() + ahead_ns, **kwargs),
        )
        exact = on.is_driver
        worker.host = on
        worker.clock = SimpleNamespace(
            offset_ns=ahead_ns + (0 if exact else self.wrong_ns), error_ns=0 if exact else self.error_ns
        )
        self.workers.append(worker)
        return worker


def group(backend: Hosts, load: LoadSettings, *hosts: Host) -> LoadGroup:
    return LoadGroup(backend, Parameters(load=load), 1, hosts)


MIXED = LoadSettings(clients=7, keys=3, mix=Mix(put=0.2, get=0.3, delete=0.1, cas=0.2, append=0.2))


async def run(backend: Hosts, load: LoadSettings = MIXED, count: int = 400) -> tuple[LoadGroup, GroupResult]:
    """Run load from the head and two hosts until `count` operations succeeded."""
    under_test = group(backend, load, HEAD, *HOSTS[:2])
    await under_test.open()
    await under_test.connect({"n1": "a"}, 1.0)
    await under_test.start()
    await until(under_test, lambda snapshot: snapshot.ok >= count)
    await under_test.stop()
    assert await under_test.drain(PATIENCE_S) == 0
    return under_test, await under_test.result()


async def until(under_test: LoadGroup, condition: Callable[[LoadSnapshot], bool]) -> LoadSnapshot:
    deadline = time.monotonic() + PATIENCE_S
    while not condition(snapshot := await under_test.snapshot()):
        assert time.monotonic() < deadline, snapshot
        await asyncio.sleep(0.005)
    return snapshot


def history(found: GroupResult) -> History:
    rows = found.merge()
    more = {name: getattr(rows, name) for name in ("composite_ids", "composite_end")}
    return History.from_columns({**rows.columns, **more, "generator_error_ns": found.error_ns}, value_bytes=64)


async def test_a_group_has_disjoint_clients_and_its_history_is_one() -> None:
    begin_ns = time.monotonic_ns()
    backend = Hosts(error_ns=100)
    under_test, found = await run(backend)
    assert [(each.host, each.clients) for each in found.generators] == [(HEAD, 3), (HOSTS[0], 2), (HOSTS[1], 2)]
    columns = found.merge().columns
    clients = [set(columns["client"][columns["generator"] == number].tolist()) for number in range(3)]
    assert clients == [{0, 1, 2}, {3, 4}, {5, 6}]
    written = columns["written"][columns["written"] > 0]
    assert len(set(written.tolist())) == len(written)
    assert (columns["start_ns"] >= begin_ns).all(), "on the driver's clock"
    assert (columns["end_ns"] <= time.monotonic_ns()).all()
    assert (np.diff(columns["start_ns"]) >= 0).all()
    assert [each.error_ns for each in list(history(found))[:1]] in ([0], [100])
    assert check(history(found)).verdict == "ok"
    drawn = [[(o.f, o.key) for o in history(found) if o.process in mine][:20] for mine in clients]
    assert drawn[0] != drawn[1] != drawn[2], "each has a seed of its own"
    assert under_test.lost == []
    await under_test.close()
    assert all(worker.closed for worker in backend.workers)


async def test_an_offset_that_is_wrong_beyond_its_bound_is_found_and_one_within_it_is_no_violation() -> None:
    for wrong_ns, error_ns, verdict in ((S, MS, "violated"), (S, S, "ok"), (-S, MS, "violated"), (-S, S, "ok")):
        _, found = await run(Hosts(wrong_ns=wrong_ns, error_ns=error_ns))
        assert check(history(found)).verdict == verdict, (wrong_ns, error_ns)


def test_an_error_widens_as_much_as_it_says_and_no_more() -> None:
    """Client 2 reads at 120 ns a value that was overwritten by 80 ns: stale, unless its clock is wrong by 40 ns."""
    put = {"kind": KINDS["put"], "outcome": 1, "client": 1}
    first = result({**put, "written": ID + 1, "end_ns": 20}, {**put, "written": ID + 2, "start_ns": 30, "end_ns": 80})
    get = {"kind": KINDS["get"], "outcome": 1, "client": 2, "observed": ID + 1, "found": 1}
    other = result({**get, "start_ns": 1120, "end_ns": 1130})
    columns = merged({0: (first, 0), 1: (other, 1000)}).columns
    for error_ns, verdict in ((39, "violated"), (40, "ok")):
        errors = {"generator_error_ns": np.array([0, error_ns], np.int64)}
        assert check(History.from_columns({**columns, **errors})).verdict == verdict


async def test_regular_operations_of_several_generators_do_not_fall_together() -> None:
    load = LoadSettings(mode="open", rate=300.0, arrivals="constant", clients=3000)
    under_test = group(Hosts(), load, HEAD, *HOSTS[:2])
    await under_test.open()
    await under_test.connect({"n1": "a"}, 1.0)
    begins = [await member.call("start", member.number / 3) for member in under_test._members]
    await until(under_test, lambda snapshot: snapshot.ok >= 30)
    await under_test.drain(PATIENCE_S)
    for number, (each, begin_ns) in enumerate(zip((await under_test.result()).generators, begins, strict=True)):
        assert each.result is not None
        due = np.sort(each.result.columns["intended_ns"]) - begin_ns
        assert due[0] == pytest.approx(10 * MS * (1 + number / 3), abs=2)
        assert set(np.diff(due)) <= {10 * MS - 1, 10 * MS, 10 * MS + 1}
    await under_test.close()


async def test_sessions_that_are_not_granted_are_an_error_and_may_be_asked_for_again() -> None:
    under_test = group(Hosts(RefusingEngine), MIXED, HEAD, HOSTS[0])
    await under_test.open()
    for _ in range(2):
        with pytest.raises(OperationError, match="no leader"):
            await under_test.connect({"n1": "a"}, 1.0)
    await under_test.close()


class Deaf(FakeWorker):
    """A worker that does not answer the calls in `to`."""

    to: tuple[str, ...] = ()

    async def call(self, method: str, *args: Any, timeout_s: float | None = None, **kwargs: Any) -> Any:
        if method in self.to:
            raise InfrastructureError(f"the actor on 10.0.0.1 did not answer {method}() within 5 s\n and more")
        return await super().call(method, *args, timeout_s=timeout_s, **kwargs)


async def deafened(*to: str) -> tuple[LoadGroup, Hosts]:
    """A group whose second generator stops answering once all have begun."""
    backend = Hosts()
    under_test = group(backend, MIXED, HEAD, HOSTS[0])
    await under_test.open()
    await under_test.connect({"n1": "a"}, 1.0)
    await under_test.start()
    await until(under_test, lambda snapshot: snapshot.ok >= 100)
    backend.workers[1].__class__ = Deaf
    backend.workers[1].to = to  # type: ignore[attr-defined]
    return under_test, backend


async def test_one_that_is_cut_off_for_a_while_is_left_alone_and_told_later() -> None:
    under_test, backend = await deafened("snapshot", "update_addresses", "stop")
    before = await under_test.snapshot()
    await under_test.update_addresses({"n1": "b"})
    engines: Any = [worker.held._engine for worker in backend.workers]
    assert [engine.addresses for engine in engines] == [{"n1": "b"}, {"n1": "a"}]
    assert (await under_test.snapshot()).ok >= before.ok, "what it had done is not forgotten"
    await under_test.stop()
    backend.workers[1].to = ()  # type: ignore[attr-defined]
    await under_test.snapshot()
    assert engines[1].addresses == {"n1": "b"}
    await under_test.drain(PATIENCE_S)
    assert (await under_test.result()).error_ns.tolist() == [0, 0]
    assert under_test.lost == []
    await under_test.close()


@pytest.mark.parametrize("method", ["drain", "result"])
async def test_the_others_go_on_without_one_that_is_lost(method: str) -> None:
    under_test, _ = await deafened(method)
    await under_test.drain(PATIENCE_S)
    found = await under_test.result()
    assert found.error_ns.tolist() == [0, -1]
    assert set(found.merge().columns["generator"].tolist()) == {0}
    assert under_test.lost == [
        f"the load generator on {HOSTS[0]} is lost: the actor on 10.0.0.1 did not answer {method}() within 5 s"
    ]
    await under_test.close()


# ------------------------------------------------------------------------------ in a cell


class ManyHosts(FakeBackend):
    """A backend whose clusters are on HOSTS[0]; load generators are placed on the host that the cell asks for."""

    hosts: Any = (HEAD, *HOSTS)
    deaf_to: tuple[str, ...] = ()
    error_ns = 2 * MS

    async def host(self, factory: Callable[..., Any], *args: Any, on: Any = None, **kwargs: Any) -> FakeWorker:
        worker = await super().host(factory, *args, on=on, **kwargs)
        worker.host = on or HEAD
        if on is HOSTS[1]:
            worker.__class__ = Deaf
            worker.to = self.deaf_to  # type: ignore[attr-defined]
            worker.clock = SimpleNamespace(offset_ns=0, error_ns=self.error_ns)
        return worker


def from_two(clients: int = 4) -> str:
    load = f"{{clients: {clients}, on: {{hosts: [host1, host2]}}}}"
    return f"name: tiny\nbase: {{phases: {BRIEF}, load: {load}}}"


async def run_cell(text: str, tmp_path: Path, *, deaf_to: tuple[str, ...] = ()) -> tuple[int, StoredCell]:
    backend = ManyHosts()
    backend.deaf_to = deaf_to
    code, path, _ = await execute(sweep(text), backend, tmp_path)
    return code, read_run(path).cells[0]


async def test_a_cell_says_where_its_load_came_from(tmp_path: Path) -> None:
    _, cell = await run_cell(from_two(), tmp_path)
    one, other = cell.result["generators"]
    assert (one["host"], one["clients"], one["offset_ns"], one["error_ns"]) == ("10.0.0.1", 2, 0, 0)
    assert (other["host"], other["clients"], other["error_ns"], other["lost"]) == ("10.0.0.2", 2, 2 * MS, None)
    assert one["cpu_share"] is not None
    assert cell.result["load"]["cpu_share"] == max(one["cpu_share"], other["cpu_share"])
    assert cell.result["clock_error_ms"] == 2.0
    operations = cell.operations()
    assert set(operations["generator"].tolist()) == {0, 1}
    assert operations.generator_error_ns.tolist() == [0, 2 * MS]
    assert {operation.error_ns for operation in history_of(cell)} == {0, 2 * MS}
    export(tmp_path, None, None, tmp_path / "h.jsonl")
    errors = {json.loads(line).get("error") for line in (tmp_path / "h.jsonl").read_text().splitlines()}
    assert errors == {None, 2 * MS}


async def test_the_load_of_a_single_generator_is_as_it_was(tmp_path: Path) -> None:
    _, cell = await run_cell(f"name: tiny\nbase: {{phases: {BRIEF}, load: {{clients: 4}}}}", tmp_path)
    [only] = cell.result["generators"]
    assert (only["host"], only["clients"], only["offset_ns"], only["error_ns"]) == ("10.0.0.0", 4, 0, 0)
    assert cell.operations().error_ns == 0


async def test_an_order_of_clocks_that_nobody_knows_is_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error_ns, verdict in ((2 * MS, "ok"), (S, "unknown")):
        monkeypatch.setattr(ManyHosts, "error_ns", error_ns)
        _, cell = await run_cell(from_two(), tmp_path)
        found = judge(cell.path, Parameters().checks.model_copy(update={"least_operations": 1}))
        [finding] = [each for each in found["findings"] if each["check"] == "coverage"]
        assert finding["verdict"] == verdict, finding
    assert finding["reason"].startswith("the clocks of load generators are known only within 1 s")
    _, cell = await run_cell(f"name: tiny\nbase: {{phases: {BRIEF}, load: {{on: {{hosts: [host2]}}}}}}", tmp_path)
    found = judge(cell.path, Parameters().checks.model_copy(update={"least_operations": 1}))
    assert "known within" not in str(found), "a single one has an order of its own"


async def test_what_one_clock_measured_is_not_widened(tmp_path: Path) -> None:
    _, cell = await run_cell(f"name: tiny\nbase: {{phases: {BRIEF}, load: {{on: {{hosts: [host2]}}}}}}", tmp_path)
    assert cell.result["generators"][0]["error_ns"] == cell.operations().error_ns == 2 * MS
    assert {operation.error_ns for operation in history_of(cell)} == {0}


async def test_hosts_without_a_client_are_left_out_and_the_cell_says_so(tmp_path: Path) -> None:
    _, cell = await run_cell(from_two(clients=1), tmp_path)
    assert len(cell.result["generators"]) == 1
    assert "load.on: 1 of 2 hosts have a load generator, because there are only 1 clients" in cell.result["flags"]


async def test_a_leader_that_moves_away_from_the_load_is_told(tmp_path: Path) -> None:
    def spread(cluster: FakeCluster) -> None:
        for worker, host in zip(cluster.workers.values(), HOSTS, strict=False):
            worker.host = host

    def moves(cluster: FakeCluster) -> None:
        spread(cluster)
        cluster.addresses.subscribe = lambda _: setattr(cluster, "leads", "n2")  # type: ignore[method-assign]

    for prepare, flagged in ((spread, False), (moves, True)):
        backend = ManyHosts(prepare)
        text = f"name: tiny\nbase: {{phases: {BRIEF}, load: {{on: leader}}}}"
        _, path, _ = await execute(sweep(text), backend, tmp_path)
        [cell] = read_run(path).cells
        assert cell.result["generators"][0]["host"] == HOSTS[0].address
        assert ("the leader was on another host than the load" in str(cell.result["flags"])) == flagged


async def test_a_cell_that_lost_a_generator_is_not_ok_and_its_history_proves_nothing(tmp_path: Path) -> None:
    code, cell = await run_cell(from_two(), tmp_path, deaf_to=("drain",))
    assert code == 1
    assert cell.result["status"] != "ok"
    assert cell.result["reason"].startswith("the load generator on ")
    assert cell.result["generators"][1]["lost"]
    assert set(cell.operations()["generator"].tolist()) == {0}, "what is left is kept"
    with pytest.raises(IncompleteHistory):
        history_of(cell)
    with pytest.raises(ConfigError, match=r"--cell: \w+: the operations of 1 of 2 load generators are lost"):
        export(tmp_path, None, None, None)
    findings = judge(cell.path, Parameters().checks)["findings"]
    [finding] = [each for each in findings if each["check"] == "linearizability"]
    assert (finding["verdict"], "1 of 2 load generators are lost" in finding["reason"]) == ("unknown", True)


@pytest.mark.parametrize(("on", "why"), [("{hosts: [nowhere]}", ".*'nowhere'"), ("own_host", "own_host needs a host")])
async def test_hosts_that_are_not_there_are_refused_before_anything_starts(tmp_path: Path, on: str, why: str) -> None:
    backend = ManyHosts()
    with pytest.raises(PlacementRefused, match=rf"load\.on: {why}"):
        text = f"name: tiny\nbase: {{cluster: {{nodes: 5}}}}\naxes: {{load.on: [driver, {on}]}}"
        await execute(sweep(text), backend, tmp_path)
    assert backend.clusters == []


@pytest.mark.timeout(120)
def test_two_generators_on_a_real_ray(tmp_path: Path) -> None:
    """Two actors on one host, which is named twice, share the load; their joint history is linearizable."""
    text = f"""
name: two
base:
  load: {{clients: 5, keys: 5, mix: {{put: 0.4, get: 0.4, append: 0.2}}, on: {{hosts: [{HERE}, {HERE}]}}}}
  phases: {{warmup: 200ms, measure: 3s}}
"""
    run = sweep(text).run(tmp_path, connect=lambda: RayBackend.connect("local"))
    [cell] = run.cells
    assert (cell.result["status"], cell.result["reason"]) == ("ok", None)
    assert [each["clients"] for each in cell.result["generators"]] == [3, 2]
    assert [(each["offset_ns"], each["error_ns"]) for each in cell.result["generators"]] == [(0, 0)] * 2
    assert all(each["cpu_share"] > 0 for each in cell.result["generators"])
    operations = cell.operations()
    of_load = operations["client"] < operations.first_reader
    by_generator = [operations["client"][of_load & (operations["generator"] == number)].tolist() for number in (0, 1)]
    assert [set(clients) for clients in by_generator] == [{0, 1, 2}, {3, 4}]
    read_back = operations["key"][~of_load].tolist()
    assert sorted(read_back) == list(range(5)), "each key once, by one generator or the other"
    assert set(operations["generator"][~of_load].tolist()) == {0, 1}
    assert (np.diff(operations["start_ns"]) >= 0).all()
    verdict = judge(cell.stored.path, Parameters().checks.model_copy(update={"least_operations": 1}))
    assert verdict["verdict"] == "ok", verdict["reason"]
