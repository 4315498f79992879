"""The load generator: alone, against a fake engine, and with the real engine against fake nodes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from chaos.history import BARE, History
from chaos.linearizability import check
from raft_actor_node import client_engine
from raft_actor_node.config import ClientSettings, TransportSettings
from raft_actor_node.kv.commands import Kind
from sweeps.load.draws import Arrivals, Choices
from sweeps.load.generator import LoadGenerator, LoadResult
from sweeps.load.operations import FAIL, KINDS, OK, UNKNOWN
from sweeps.load.recorder import LoadSnapshot
from sweeps.spec.parameters import LoadSettings, Mix
from tests.client.fakes import FakeNode, book
from tests.sweeps.fakes import FakeEngine

PATIENCE_S = 30.0


def generator(load: LoadSettings, engine: Any = FakeEngine, longest_value: int = 1 << 20) -> LoadGenerator:
    return LoadGenerator(
        load, ClientSettings(), TransportSettings(), seed=1, longest_value=longest_value, engine=engine
    )


async def until(load: LoadGenerator, condition: Callable[[LoadSnapshot], bool]) -> LoadSnapshot:
    """Wait until a snapshot satisfies the condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition(snapshot := await load.snapshot()):
        assert time.monotonic() < deadline, snapshot
        await asyncio.sleep(0.005)
    return snapshot


async def rows(load: LoadGenerator, count: int) -> None:
    await until(load, lambda snapshot: snapshot.ok >= count)


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    started = FakeNode()
    await started.start()
    yield started
    await started.stop()


async def run(load: LoadSettings, count: int = 100, **options: Any) -> tuple[LoadGenerator, LoadResult]:
    """Run load until `count` operations succeeded, then drain."""
    under_test = generator(load, **options)
    await under_test.connect({"n1": "a"})
    await under_test.start()
    await rows(under_test, count)
    await under_test.drain(PATIENCE_S)
    return under_test, await under_test.result()


def test_the_numbers_of_kinds_and_outcomes_are_those_of_the_client() -> None:
    assert KINDS == {
        "put": Kind.PUT,
        "get": Kind.GET,
        "delete": Kind.DELETE,
        "cas": Kind.COMPARE_AND_SWAP,
        "append": Kind.APPEND,
    }
    assert (OK, FAIL, UNKNOWN) == (client_engine.OK, client_engine.FAIL, client_engine.UNKNOWN)
    assert set(Mix.model_fields) == set(KINDS)


def test_choices_follow_the_mix_and_the_seed() -> None:
    load = LoadSettings(mix=Mix(put=0.2, get=0.7, append=0.1), keys=10)
    drawn = Choices(load, seed=3).take(20_000)
    assert drawn == Choices(load, seed=3).take(20_000)
    assert drawn != Choices(load, seed=4).take(20_000)
    kinds = Counter(kind for kind, _ in drawn)
    assert kinds[KINDS["put"]] == pytest.approx(4000, rel=0.1)
    assert kinds[KINDS["get"]] == pytest.approx(14_000, rel=0.1)
    assert set(kinds) == {KINDS["put"], KINDS["get"], KINDS["append"]}
    assert {key for _, key in drawn} == set(range(10))


def test_small_and_large_takes_give_the_same_series() -> None:
    one_by_one = Choices(LoadSettings(), seed=1)
    assert [one_by_one.take(1)[0] for _ in range(9000)] == Choices(LoadSettings(), seed=1).take(9000)


def test_zipf_prefers_the_first_keys() -> None:
    drawn = Counter(key for _, key in Choices(LoadSettings(keys=100, key_dist="zipf"), seed=1).take(50_000))
    weights = 1 / np.arange(1, 101)
    for key in (0, 1, 9):
        assert drawn[key] == pytest.approx(50_000 * weights[key] / weights.sum(), rel=0.1)


def test_constant_arrivals_are_evenly_spaced_and_poisson_ones_are_not() -> None:
    even = Arrivals(LoadSettings(mode="open", rate=1000.0, arrivals="constant"), 1, 0).until(5_000_000_000)
    assert len(even) == 5000
    assert set(np.diff(even)) == {1_000_000}
    uneven = Arrivals(LoadSettings(mode="open", rate=1000.0), 1, 0).until(5_000_000_000)
    gaps = np.diff(uneven)
    assert len(uneven) == pytest.approx(5000, rel=0.1)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)


def test_arrivals_are_taken_once_each() -> None:
    arrivals = Arrivals(LoadSettings(mode="open", rate=1000.0, arrivals="constant"), 1, 0)
    taken = [arrivals.until(now) for now in (500_000, 2_500_000, 2_500_000, 4_000_000)]
    assert taken == [[], [1_000_000, 2_000_000], [], [3_000_000, 4_000_000]]


async def test_a_closed_loop_has_one_operation_per_client_outstanding() -> None:
    load = generator(LoadSettings(clients=8))
    await load.connect({"n1": "a"})
    await load.start()
    engine: Any = load._engine
    await rows(load, 200)
    assert len(engine.open) == 8
    assert len({operation.session.id for operation in engine.open}) == 8
    await load.stop()
    assert await load.drain(PATIENCE_S) == 0
    columns = (await load.result()).columns
    assert set(columns["client"]) == set(range(8))
    assert (columns["intended_ns"] <= columns["start_ns"]).all()
    assert (columns["start_ns"] <= columns["end_ns"]).all()
    for client in range(8):
        mine = columns["client"] == client
        assert (columns["start_ns"][mine][1:] >= columns["end_ns"][mine][:-1]).all()


async def test_operations_of_one_moment_are_submitted_together() -> None:
    load = generator(LoadSettings(clients=32))
    await load.connect({"n1": "a"})
    await load.start()
    engine: Any = load._engine
    await rows(load, 100)
    assert {len(batch) for batch in engine.batches} == {32}
    await load.close()


async def test_an_open_loop_keeps_its_rate_and_counts_from_when_operations_were_due() -> None:
    begin = time.monotonic_ns()
    _, result = await run(LoadSettings(mode="open", rate=500.0, arrivals="constant", clients=2000), count=100)
    columns = result.columns
    assert set(np.diff(np.sort(columns["intended_ns"]))) == {2_000_000}
    assert columns["intended_ns"].min() >= begin
    assert (columns["start_ns"] >= columns["intended_ns"]).all()
    assert len(result.dropped_ns) == 0


async def test_what_finds_no_client_free_is_dropped_and_counted() -> None:
    load = generator(LoadSettings(mode="open", rate=1000.0, arrivals="constant", clients=4))
    await load.connect({"n1": "a"})
    engine: Any = load._engine
    engine.silent = True
    await load.start()
    assert (await until(load, lambda snapshot: snapshot.dropped >= 20)).outstanding == 4
    assert await load.drain(0.0) == 4
    result = await load.result()
    assert (result.columns["outcome"] == UNKNOWN).all()
    due = np.sort(np.concatenate((result.columns["intended_ns"], result.dropped_ns)))
    assert set(np.diff(due)) == {1_000_000}


async def test_what_is_dropped_has_the_kind_that_was_due() -> None:
    """Each arrival draws its kind and key, whether or not it finds a free client.

    The drawn kinds are therefore those of an open loop that drops nothing, in the same order.
    """
    settings = LoadSettings(
        mode="open", rate=1000.0, arrivals="constant", clients=4, mix=Mix(put=0.5, get=0.3, cas=0.2)
    )
    load = generator(settings)
    await load.connect({"n1": "a"})
    engine: Any = load._engine
    engine.silent = True
    await load.start()
    await until(load, lambda snapshot: snapshot.dropped >= 50)
    await load.drain(0.0)
    result = await load.result()
    started = zip(result.columns["intended_ns"], result.columns["kind"], strict=True)
    dropped = zip(result.dropped_ns, result.dropped_kind, strict=True)
    kinds = [int(kind) for _, kind in sorted([*started, *dropped])]
    assert kinds == [kind for kind, _ in Choices(settings, load._seed).take(len(kinds))]
    assert len(set(result.dropped_kind.tolist())) == 3


@pytest.mark.parametrize(("pause_ms", "started"), [(5, 5), (3000, 64)])
async def test_what_came_due_before_the_end_is_started_or_dropped_though_the_loop_was_paused(
    pause_ms: int, started: int
) -> None:
    """A pause at the end of the measurement counts like one in its middle.

    When the load is stopped, all operations that are due are taken; those that find no free client are dropped.
    """
    now_ns = 10**9
    load = LoadGenerator(
        LoadSettings(mode="open", rate=1000.0, arrivals="constant", clients=64),
        ClientSettings(),
        TransportSettings(),
        seed=1,
        longest_value=1 << 20,
        engine=FakeEngine,
        clock=lambda: now_ns,
    )
    await load.connect({"n1": "a"})
    begin_ns = await load.start()
    now_ns += pause_ms * 1_000_000
    await load.stop()
    now_ns += 1_000_000_000
    await load.drain(PATIENCE_S)
    result = await load.result()
    due_ns = result.columns["intended_ns"].tolist() + result.dropped_ns.tolist()
    assert due_ns == [begin_ns + each * 1_000_000 for each in range(1, pause_ms + 1)]
    assert (len(result.columns["kind"]), len(result.dropped_ns)) == (started, pause_ms - started)


async def test_a_snapshot_shows_what_was_dropped_as_waiting() -> None:
    """While nothing completes, the live percentiles show how long that has been so."""
    load = generator(LoadSettings(mode="open", rate=1000.0, arrivals="constant", clients=4))
    await load.connect({"n1": "a"})
    engine: Any = load._engine
    engine.silent = True
    await load.start()
    snapshot = await until(load, lambda snapshot: snapshot.dropped >= 20)
    assert len(snapshot.recent) > 0
    p99_ms, at_least = snapshot.recent_ms("p99")
    assert p99_ms is not None
    assert at_least
    assert await load.drain(0.0) == 4


async def test_nothing_new_is_sent_after_stop() -> None:
    load = generator(LoadSettings(clients=4))
    await load.connect({"n1": "a"})
    await load.start()
    engine: Any = load._engine
    await rows(load, 20)
    await load.stop()
    sent = len(engine.batches)
    assert await load.drain(PATIENCE_S) == 0
    assert len(engine.batches) == sent
    assert engine.closed


async def test_written_values_are_unique_and_can_be_found_again() -> None:
    _, result = await run(LoadSettings(clients=8, mix=Mix(put=0.6, get=0.4), keys=5, value_bytes=100), count=400)
    columns = result.columns
    written = columns["written"][columns["kind"] == KINDS["put"]]
    assert len(set(written)) == len(written)
    assert (columns["written"][columns["kind"] == KINDS["get"]] == 0).all()
    assert set(written >> np.uint64(40)) == {client + 1 for client in range(8)}
    observed = columns["observed"][(columns["kind"] == KINDS["get"]) & (columns["observed"] > 0)]
    assert len(observed) > 50
    assert set(observed) <= set(written)


async def test_keys_and_values_have_the_asked_lengths() -> None:
    load = generator(LoadSettings(clients=4, mix=Mix(put=1.0), key_bytes=20, value_bytes=5))
    await load.connect({"n1": "a"})
    await load.start()
    engine: Any = load._engine
    await rows(load, 10)
    assert {(len(each.key), len(each.value)) for batch in engine.batches for each in batch} == {(20, 5)}
    await load.close()


async def test_compare_and_swap_expects_what_was_seen_last_and_mostly_swaps() -> None:
    load = generator(LoadSettings(clients=1, mix=Mix(cas=0.8, delete=0.1, get=0.1), keys=3))
    await load.connect({"n1": "a"})
    await load.start()
    engine: Any = load._engine
    await rows(load, 100)
    done = [each for batch in engine.batches for each in batch if each.outcome == OK]
    swaps = [each for each in done if each.kind == Kind.COMPARE_AND_SWAP]
    assert sum(each.found for each in swaps) > len(swaps) / 2
    await load.close()


async def test_appended_values_stay_below_the_limit() -> None:
    load = generator(LoadSettings(clients=4, mix=Mix(append=1.0), keys=1, value_bytes=64), longest_value=200)
    await load.connect({"n1": "a"})
    await load.start()
    engine: Any = load._engine
    longest = 0
    for _ in range(100):
        longest = max(longest, max(map(len, engine.store.values()), default=0))
        await rows(load, (await load.snapshot()).ok + 4)
    assert 100 < longest < 200
    await load.close()


async def test_no_value_is_made_of_more_writes_than_a_checker_can_follow() -> None:
    _, result = await run(LoadSettings(clients=4, mix=Mix(append=0.5, get=0.5), keys=1, value_bytes=64), count=900)
    lengths = np.diff(result.composite_end, prepend=0)
    assert 100 < lengths.max() < 150, "the limit, and what is under way when it is reached"


async def test_what_was_expected_seen_and_found_is_recorded() -> None:
    mix = Mix(put=0.2, get=0.2, delete=0.2, cas=0.2, append=0.2)
    _, result = await run(LoadSettings(clients=8, mix=mix, keys=3, value_bytes=16), count=600)
    columns = result.columns
    history = History.from_columns(
        {**columns, "composite_ids": result.composite_ids, "composite_end": result.composite_end}, value_bytes=16
    )
    assert check(history).verdict == "ok"
    swaps = columns["kind"] == KINDS["cas"]
    assert set(columns["found"][swaps]) == {0, 1}
    assert (columns["expected"][~swaps] == 0).all()
    bare = {BARE + written for written in columns["written"][columns["kind"] == KINDS["append"]].tolist()}
    known = set(columns["written"].tolist()) | bare | set(range(len(result.composite_end) + 1))
    assert set(columns["expected"].tolist()) <= known
    assert len(set(columns["expected"][swaps].tolist())) > 10


async def test_a_client_that_thinks_pauses_between_its_operations() -> None:
    _, result = await run(LoadSettings(clients=4, think=0.02), count=20)
    columns = result.columns
    for client in range(4):
        mine = columns["client"] == client
        assert (columns["start_ns"][mine][1:] - columns["end_ns"][mine][:-1] >= 19_000_000).all()


async def test_a_snapshot_counts_every_outcome_so_far_without_looking_at_all_rows() -> None:
    load = generator(LoadSettings(clients=4))
    await load.connect({"n1": "a"})
    await load.start()
    await rows(load, 20)
    engine: Any = load._engine
    engine.silent = True
    await load.stop()
    await load.drain(0.0)
    outcomes = Counter((await load.result()).columns["outcome"].tolist())
    load._recorder.column("outcome")[:] = 0
    snapshot = await load.snapshot()
    assert (snapshot.ok, snapshot.failed, snapshot.unknown) == (outcomes[OK], outcomes[FAIL], outcomes[UNKNOWN])


async def test_a_snapshot_tells_of_the_time_since_the_last_one() -> None:
    load = generator(LoadSettings(clients=4))
    await load.connect({"n1": "a"})
    await load.start()
    await rows(load, 50)
    snapshot = await load.snapshot()
    assert snapshot.outstanding == 4
    p50_ms, at_least = snapshot.recent_ms("p50")
    assert p50_ms is None or (p50_ms >= 1.0 and not at_least)
    await rows(load, snapshot.ok + 50)
    await load.snapshot()
    at_once = await load.snapshot()
    assert (at_once.recent_ms("p50"), at_once.per_second) == ((None, False), 0.0)
    await load.close()


async def test_it_samples_its_own_cpu_time_and_lag() -> None:
    _, result = await run(LoadSettings(clients=2), count=60)
    assert len(result.sample_ns) == len(result.cpu_ns) == len(result.loop_lag_ns) >= 1
    assert (np.diff(result.cpu_ns) >= 0).all()


@pytest.mark.parametrize("mode", ["closed", "open"])
async def test_with_the_real_engine_every_kind_succeeds(node: FakeNode, mode: Any) -> None:
    load = LoadSettings(
        mode=mode, rate=2000.0, clients=16, keys=4, mix=Mix(put=0.2, get=0.2, delete=0.2, cas=0.2, append=0.2)
    )
    under_test = LoadGenerator(
        load, ClientSettings(rpc_timeout=10.0), TransportSettings(), seed=1, longest_value=1 << 20
    )
    await under_test.connect(book([node]))
    await under_test.start()
    await rows(under_test, 500)
    await under_test.stop()
    assert await under_test.drain(PATIENCE_S) == 0
    columns = (await under_test.result()).columns
    assert (columns["outcome"] == OK).all()
    assert set(columns["kind"]) == set(KINDS.values())
    assert (columns["attempts"] == 1).all()
    assert len(columns["kind"]) == len(node.operations)


async def test_with_the_real_engine_a_silent_cluster_ends_in_unknown_writes_and_failed_reads(node: FakeNode) -> None:
    settings = ClientSettings(rpc_timeout=0.5, retry_budget=1.5)
    under_test = LoadGenerator(
        LoadSettings(clients=8, mix=Mix(put=0.5, get=0.5)), settings, TransportSettings(), seed=1, longest_value=1 << 20
    )
    await under_test.connect(book([node]))
    node.default = lambda operation: None
    await under_test.start()
    await until(under_test, lambda snapshot: snapshot.unknown > 0 and snapshot.failed > 0)
    await under_test.drain(PATIENCE_S)
    columns = (await under_test.result()).columns
    assert set(columns["outcome"][columns["kind"] == KINDS["put"]]) == {UNKNOWN}
    assert set(columns["outcome"][columns["kind"] == KINDS["get"]]) == {FAIL}
    assert (columns["attempts"] > 1).any()
