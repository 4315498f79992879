"""From a `chaos:` value and a seed to a schedule: determinism, times, saving and replaying."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos import BadChaos, Schedule, parse_chaos, plan
from chaos.faults import FAULTS, Crash
from chaos.schedule import MAX_INTERVALS
from raft_actor_node.names import node_names

NODES = ("n1", "n2", "n3", "n4", "n5")
EVERYTHING: Any = {"monkey": list(FAULTS), "every": "1s"}


def planned(value: Any, *, duration_s: float = 10.0, nodes: tuple[str, ...] = NODES, seed: int = 42) -> Schedule:
    return plan(parse_chaos(value), duration_s=duration_s, nodes=nodes, seed=seed)


def times(schedule: Schedule) -> list[tuple[float, float | None]]:
    return [(float(fault.at), None if fault.lasts is None else float(fault.lasts)) for fault in schedule.faults]


def test_none_is_an_empty_schedule() -> None:
    assert planned("none").faults == ()


def test_preparing_must_leave_something_of_the_fault() -> None:
    with pytest.raises(BadChaos, match="partition: behind: 1s must be shorter than heal_after, 800ms"):
        planned({"partition": "constrained-election", "heal_after": "800ms"})
    assert planned({"partition": "constrained-election", "heal_after": "1/5"}).faults


def test_a_share_is_a_share_of_the_phase() -> None:
    fault = {"crash": "leader", "at": "1/3", "restart_after": "1/10"}
    assert times(planned(fault, duration_s=30.0)) == [(10.0, 3.0)]
    assert times(planned({"drop": 0.2})) == [(0.0, None)]


def test_three_thirds_of_a_phase_are_three_intervals() -> None:
    for duration_s in (0.7, 1.1, 10.0, 29.9):
        fault = {"crash": "one", "every": "1/3", "restart_after": "1/12"}
        assert len(planned(fault, duration_s=duration_s).faults) == 3
        assert len(planned({**fault, "at": "2/3"}, duration_s=duration_s).faults) == 1


def test_the_leader_is_left_open_and_other_parts_are_decided() -> None:
    schedule = planned([{"crash": "leader"}, {"crash": "one"}, {"pause": "minority"}, {"partition": "halves"}])
    written = [fault.written for fault in schedule.faults]
    assert written[0] == {"crash": "leader"}
    assert [len(written[1]["crash"]), len(written[2]["pause"])] == [1, 2]
    assert sorted(node for group in written[3]["partition"] for node in group) == list(NODES)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20), st.floats(0.0, 1.0))
def test_a_repeated_fault_strikes_once_in_each_interval_and_ends_within_it(seed: int, count: int, part: float) -> None:
    every_s, lasts_s = 2.0, round(part * 2.0, 3)
    value = {"crash": "leader", "every": "2s", "restart_after": f"{lasts_s}s", "at": "1s"}
    schedule = planned(value, duration_s=1.0 + count * every_s, seed=seed)
    assert len(schedule.faults) == count
    for k, (at_s, length_s) in enumerate(times(schedule)):
        start_s = 1.0 + k * every_s
        assert length_s == pytest.approx(lasts_s)
        assert start_s <= at_s <= start_s + every_s
        assert at_s + lasts_s <= start_s + every_s + 1e-5


def test_crash_times_are_spread_over_the_interval() -> None:
    schedule = planned({"crash": "leader", "every": "1s", "restart_after": "200ms"}, duration_s=1000.0)
    offsets = sorted(at_s % 1.0 for at_s, _ in times(schedule))
    assert len(offsets) == 1000
    # Uniform on [0, 0.8): the empirical distribution deviates by less than four standard errors everywhere.
    assert max(abs(offset / 0.8 - rank / 1000) for rank, offset in enumerate(offsets)) < 2 / 1000**0.5


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 15))
def test_a_monkey_does_one_feasible_thing_at_a_time(seed: int, n: int) -> None:
    nodes = node_names(n)
    schedule = planned(EVERYTHING, duration_s=20.0, nodes=nodes, seed=seed)
    assert len(schedule.faults) == 20
    for k, (at_s, lasts_s) in enumerate(times(schedule)):
        assert lasts_s is not None
        assert 0.25 <= lasts_s <= 0.75
        assert k <= at_s < at_s + lasts_s <= k + 1 + 1e-5


def test_a_monkey_does_everything_it_is_told_and_nothing_else() -> None:
    assert {fault.kind for fault in planned(EVERYTHING, duration_s=500.0).faults} == set(FAULTS)
    only = planned({"monkey": ["crash", "drop"], "every": "1s"}, duration_s=100.0)
    assert {fault.kind for fault in only.faults} == {"crash", "drop"}


def test_the_seed_decides_and_a_monkeys_own_seed_wins() -> None:
    assert planned(EVERYTHING, seed=1) == planned(EVERYTHING, seed=1)
    assert planned(EVERYTHING, seed=1).faults != planned(EVERYTHING, seed=2).faults
    own = {**EVERYTHING, "seed": 9}
    assert planned(own, seed=1).faults == planned(own, seed=2).faults


def test_another_item_does_not_change_what_the_first_does() -> None:
    alone = planned(EVERYTHING)
    beside = planned([EVERYTHING, {"drop": 0.1}])
    assert [fault for fault in beside.faults if fault in alone.faults] == list(alone.faults)


def test_the_schedule_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from chaos import parse_chaos, plan\n"
        "from chaos.faults import FAULTS\n"
        "spec = parse_chaos([{'monkey': list(FAULTS), 'every': '1s'}, {'partition': 'ring'}, {'crash': 'minority'}])\n"
        "print(plan(spec, duration_s=30.0, nodes=('n1', 'n2', 'n3', 'n4', 'n5'), seed=3).model_dump_json())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0.5, 100.0))
def test_a_saved_schedule_is_read_back_unchanged(seed: int, duration_s: float) -> None:
    value = [
        {"monkey": list(FAULTS), "every": f"{duration_s / 8:.6f}s"},
        {"crash": "leader", "at": "1/3", "restart_after": "1/7"},
        {"partition": "leader-in-minority", "clients": "minority", "at": "123us"},
        {"delay": "20ms", "jitter": "7ms", "between": "all", "messages": "replies"},
    ]
    schedule = planned(value, duration_s=duration_s, seed=seed)
    assert Schedule.model_validate_json(schedule.model_dump_json()) == schedule


def test_a_schedule_can_be_replayed_from_its_file(tmp_path: Path) -> None:
    schedule = planned([EVERYTHING, {"crash": ["n2"], "at": "1/3", "restart_after": "2s"}])
    schedule.save(tmp_path / "schedule.json")
    assert Schedule.load(tmp_path / "schedule.json") == schedule
    assert [path.name for path in tmp_path.iterdir()] == ["schedule.json"]
    again = planned({"replay": str(tmp_path / "schedule.json")})
    assert again == schedule


def test_a_schedule_may_be_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "by-hand.json"
    path.write_text('{"duration_s": 5, "seed": 1, "faults": [{"crash": "n1", "at": "1s", "restart_after": "2s"}]}')
    assert Schedule.load(path).faults == (Crash.model_validate({"crash": ["n1"], "at": "1s", "restart_after": "2s"}),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ("{}", "duration_s: Field required"),
        ('{"duration_s": 5, "seed": 1, "faults": [{"monkey": ["crash"], "every": "1s"}]}', "must be a single fault"),
        ('{"duration_s": 5, "seed": 1, "faults": [{"crash": "one", "at": "1/3"}]}', "strikes once, at a time"),
        ('{"duration_s": 5, "seed": 1, "faults": [{"crash": "one", "at": "5s"}]}', "must be before the end at 5s"),
        ('{"duration_s": 5, "seed": 1, "faults": [{"drop": 1, "at": "2s"}, {"drop": 1}]}', "order of their times"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "schedule.json"
    path.write_text(text)
    with pytest.raises(BadChaos) as caught:
        planned({"replay": str(path)})
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "n", "message"),
    [
        ({"crash": "leeder"}, 3, "crash: the cluster has no node 'leeder'; did you mean leader? (nodes: n1, n2, n3)"),
        ({"crash": ["n1", "n7"]}, 3, "crash: the cluster has no node 'n7'"),
        ({"crash": "minority"}, 2, "crash: minority needs at least 3 nodes, the cluster has 2"),
        ({"pause": "follower"}, 1, "pause: follower needs at least 2 nodes, the cluster has 1"),
        ({"partition": "ring"}, 3, "partition: ring needs at least 4 nodes, the cluster has 3"),
        ({"partition": [["n1"], ["n2"]]}, 4, "partition: no group contains n3, n4"),
        ({"drop": 0.1}, 1, "drop: a single node has no links to other nodes"),
        ({"monkey": ["partition"], "every": "1s"}, 1, "partition: halves needs at least 2 nodes, the cluster has 1"),
        ({"drop": 0.1, "nodes": "followers"}, 1, "nodes: followers needs at least 2 nodes, the cluster has 1"),
        ({"crash": "one", "at": "10s"}, 3, "crash.at: 10s is not before the end of the phase of 10s"),
        ({"crash": "one", "at": "1/1"}, 3, "crash.at: 1/1 is not before the end of the phase of 10s"),
        ({"monkey": ["crash"], "every": "11s"}, 3, "monkey.every: no interval of 11s in the phase of 10s"),
        (
            {"monkey": ["crash"], "every": "1us"},
            3,
            f"monkey.every: more than {MAX_INTERVALS} intervals of 1us in the phase of 10s",
        ),
        (
            {"crash": "leader", "every": "1s", "restart_after": "2s"},
            3,
            "crash.restart_after: 2s does not fit into an interval of every: 1s; shorten it to at most 1s, or lengthen",
        ),
        (
            {"drop": 0.1, "every": "1/10", "heal_after": "1/4"},
            3,
            "drop.heal_after: 2.5s does not fit into an interval of every: 1s",
        ),
        ({"replay": "missing.json"}, 3, "missing.json: cannot be read"),
    ],
)
def test_what_cannot_happen_is_refused_before_anything_starts(value: Any, n: int, message: str) -> None:
    with pytest.raises(BadChaos) as caught:
        planned(value, nodes=node_names(n))
    assert message in str(caught.value)


def test_a_single_node_may_still_lose_its_clients() -> None:
    schedule = planned({"isolate": "all", "between": "clients"}, nodes=("n1",))
    assert schedule.faults[0].ids == ("n1",)
