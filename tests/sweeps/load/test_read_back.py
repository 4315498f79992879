"""The reads at the end: after the heal, each written key is read once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.sim_cluster import SimLoop, run_virtual
from raft_actor_node.client_operation import OPEN, Operation
from raft_actor_node.config import ClientSettings, TransportSettings
from sweeps.api import CellResult, Sweep
from sweeps.load.generator import READ_TOGETHER, LoadGenerator, LoadResult
from sweeps.load.group import LoadGroup
from sweeps.load.operations import COLUMNS, FAIL, KINDS, OK, UNKNOWN, Operations, written_keys
from sweeps.spec.parameters import LoadSettings, Mix, Parameters
from sweeps.spec.source import read_source
from tests.client.fakes import FakeNode
from tests.mutants.catalogue import mutants
from tests.mutants.edit import planted
from tests.sweeps.fakes import FakeBackend, FakeEngine

ONLY_PUTS = """
name: puts
base:
  target: sim
  load: {clients: 8, think: 20ms, keys: 200, mix: {put: 1}}
  phases: {warmup: 100ms, measure: 2s}
  checks: {invariants: false}
"""
"""Without invariants: the simulation compares every step with a model, which would find a lost write by itself.

Real processes have no such model.
"""


@pytest.fixture(autouse=True)
def judge() -> None:
    """Keep the real judge."""


def cell(out: Path, text: str = ONLY_PUTS) -> CellResult:
    """The only cell of a sweep."""
    [found] = Sweep.from_source(read_source(text, "file.yaml")).run(out).cells
    return found


# ------------------------------------------------------------------------------ what the reads find


@pytest.mark.parametrize("call", ["stream", "unary"])
def test_a_lost_write_is_found_under_a_load_that_never_reads(tmp_path: Path, call: str) -> None:
    with planted(mutants()["put-without-effect"].edits):
        found = cell(tmp_path, ONLY_PUTS.replace("clients: 8", f"clients: 8, call: {call}"))
    assert found.verdict == "violated"
    broken = {each["check"] for each in found.result["verdict"]["findings"] if each["verdict"] == "violated"}
    assert broken == {"linearizability"}


def test_without_them_it_is_not_found_and_the_verdict_says_what_was_left_out(tmp_path: Path) -> None:
    """The control experiment."""
    with planted(mutants()["put-without-effect"].edits):
        found = cell(tmp_path, ONLY_PUTS.replace("invariants: false", "invariants: false, read_back: 0s"))
    assert found.verdict == "ok"
    assert "read back" in found.result["verdict"]["not_checked"]
    assert set(found.operations()["kind"].tolist()) == {KINDS["put"]}


def test_without_the_bug_every_key_is_read_and_no_figure_changes(tmp_path: Path) -> None:
    found = cell(tmp_path / "with")
    assert found.verdict == "ok"
    assert "read back" not in found.result["verdict"]["not_checked"]
    operations = found.operations()
    at_end = operations["client"] >= operations.first_reader
    assert operations.first_reader == 8
    assert set(operations["kind"][at_end].tolist()) == {KINDS["get"]}
    assert operations["start_ns"][at_end].min() > operations["end_ns"][~at_end].max()
    assert operations["key"][at_end].tolist() == written_keys(operations.columns).tolist()
    assert found.latency("get").size == 0
    without = cell(tmp_path / "without", ONLY_PUTS.replace("invariants: false", "invariants: false, read_back: 0s"))
    for name in ("counts", "latency", "throughput"):
        assert found.result.get(name) == without.result.get(name), name


# ------------------------------------------------------------------------------ which keys, and how


def test_only_acknowledged_writes_that_changed_something_count() -> None:
    rows = [("put", OK, 0), ("put", UNKNOWN, 0), ("put", FAIL, 0), ("get", OK, 1), ("cas", OK, 1), ("cas", OK, 0)]
    rows += [("append", OK, 0), ("delete", OK, 1)]
    columns = {name: np.zeros(len(rows), dtype) for name, dtype in COLUMNS.items()}
    for key, (kind, outcome, found) in enumerate(rows):
        for name, value in (("key", key), ("kind", KINDS[kind]), ("outcome", outcome), ("found", found)):
            columns[name][key] = value
    assert written_keys(columns).tolist() == [0, 4, 6, 7]
    columns["client"][3] = 9
    assert Operations(columns, (0, 1), first_reader=9).read_back() == (4, 0), "another key was read"
    columns["key"][3] = 6
    assert Operations(columns, (0, 1), first_reader=9).read_back() == (4, 1)


class Reader(FakeEngine):
    """Records the largest number of outstanding reads, and leaves the `unanswered` ones open."""

    most = 0
    unanswered: Callable[[Operation], bool] = staticmethod(lambda operation: False)

    def submit(self, operations: Any) -> None:
        super().submit(operations)
        Reader.most = max(Reader.most, len(self.open))

    def _complete(self, batch: list[Operation]) -> None:
        super()._complete([each for each in batch if each.outcome == OPEN and not Reader.unanswered(each)])

    async def close(self) -> None:
        for operation in self.open:
            operation.outcome, operation.end_ns = FAIL, self.clock()
        given_up, self.open = self.open, []
        if given_up:
            self.on_done(given_up)


async def read(load: LoadSettings, keys: int, timeout_s: float) -> tuple[LoadResult, float]:
    """Read back this many keys in virtual time; return the result and the elapsed seconds."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    Reader.most = 0
    generator = LoadGenerator(
        load,
        ClientSettings(),
        TransportSettings(),
        seed=1,
        longest_value=1 << 20,
        first_client=3,
        engine=Reader,
        clock=loop.now_ns,
    )
    begin_s = loop.time()
    await generator.read_back({"n1": "a"}, np.arange(keys, dtype=np.uint32), 50, timeout_s)
    return await generator.result(), loop.time() - begin_s


@pytest.mark.parametrize(
    ("load", "most"),
    [
        (LoadSettings(), READ_TOGETHER),
        (LoadSettings(value_bytes=100_000), 10),
        (LoadSettings(value_bytes=1 << 20), 1),
        (LoadSettings(value_bytes=64, mix=Mix(append=1.0)), 963),
    ],
)
def test_many_keys_are_read_in_batches_of_bounded_size(load: LoadSettings, most: int) -> None:
    keys = 2 * most + 1
    result, seconds = run_virtual(lambda: read(load, keys, 10.0))
    assert Reader.most == most
    assert result.columns["key"].tolist() == list(range(keys))
    assert set(result.columns["client"].tolist()) == set(range(50, 50 + most)), "each outstanding one has its own"
    assert set(result.columns["outcome"].tolist()) == {OK}
    assert seconds == pytest.approx(3 * Reader.delay_s)


def test_they_end_with_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "unanswered", staticmethod(lambda operation: operation.key.endswith(b"7")))
    result, seconds = run_virtual(lambda: read(LoadSettings(value_bytes=100_000), 100, 3.0))
    assert seconds == pytest.approx(3.0)
    assert result.columns["outcome"].tolist() == [OK] * 9 + [FAIL], "the first batch, and no other one"


@pytest.mark.parametrize("call", ["stream", "unary"])
def test_a_pause_of_generator_and_node_together_costs_no_key(call: Any) -> None:
    """When a machine is suspended, its clock goes on, but neither generator nor node runs."""
    timeout_s, pause_s = 0.6, 2.5

    async def main() -> LoadResult:
        node = FakeNode()
        await node.start()
        settings = LoadSettings(call=call)
        generator = LoadGenerator(settings, ClientSettings(), TransportSettings(), seed=1, longest_value=1 << 20)
        asyncio.get_running_loop().call_later(0.001, time.sleep, pause_s)
        await generator.read_back({"n1": node.address}, np.arange(50, dtype=np.uint32), 50, timeout_s)
        await node.stop()
        return await generator.result()

    assert timeout_s < ClientSettings().rpc_timeout < pause_s
    result = asyncio.run(main())
    assert result.columns["key"].tolist() == list(range(50))
    assert set(result.columns["outcome"].tolist()) == {OK}


def test_several_generators_read_each_key_once_also_when_one_of_them_is_lost() -> None:
    parameters = Parameters(load=LoadSettings(clients=6, keys=9, mix=Mix(put=1.0)))

    class Here(FakeBackend):
        def __init__(self) -> None:
            super().__init__()
            self.load_options: Mapping[str, Any] = {"clock": asyncio.get_running_loop().now_ns}  # type: ignore[attr-defined]

    async def live() -> list[Any]:
        group = LoadGroup(Here(), parameters, 1, ["a", "b", "c"])
        await group.open()
        await group.connect({"n1": "x"}, 1.0)
        await group.start()
        await asyncio.sleep(0.5)
        await group.drain(1.0)
        group._members[1].lost = "its host is gone"
        await group.read_back(10.0)
        return [each.result for each in (await group.result()).generators]

    first, lost, last = run_virtual(live)
    assert lost is None
    read = [part.columns["key"][part.columns["client"] >= 6].tolist() for part in (first, last)]
    assert sorted(read[0] + read[1]) == list(range(9))
    assert read[0]
    assert read[1]


# ------------------------------------------------------------------------------ when some reads are not answered


def test_keys_that_could_not_be_read_make_the_verdict_unknown_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LoadGenerator.read_back

    async def some(self: LoadGenerator, addresses: Any, keys: Any, first_client: int, timeout_s: float) -> None:
        await whole(self, addresses, keys[:5], first_client, timeout_s)

    monkeypatch.setattr(LoadGenerator, "read_back", some)
    found = cell(tmp_path)
    keys = len(written_keys(found.operations().columns))
    assert found.verdict == "unknown"
    assert found.result["verdict"]["reason"] == (
        f"coverage: only 5 of {keys} keys that were written could be read at the end within 10s (checks.read_back)"
    )


def test_the_reads_do_not_hide_that_the_load_was_not_served() -> None:
    """The reads succeed after the heal, but only an operation of the load ends a failover or an outage."""
    columns = {name: np.zeros(3, dtype) for name, dtype in COLUMNS.items()}
    columns["outcome"][:] = OK
    columns["end_ns"][:] = [5, 6, 99]
    columns["client"][:] = [0, 1, 2]
    assert Operations(columns, (0, 50), first_reader=2).success_ns().tolist() == [5, 6]
    assert Operations(columns, (0, 50)).success_ns().tolist() == [5, 6, 99]
