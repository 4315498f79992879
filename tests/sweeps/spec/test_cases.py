"""Named cases: they set several parameters at once, expect results of combinations, and name what must be refused."""

from __future__ import annotations

import pytest

from raft_actor_node.errors import ConfigError
from sweeps.api import Sweep
from sweeps.spec.cases import refusals
from sweeps.spec.grid import Cell, make_cells
from sweeps.spec.overrides import override, parse_option
from sweeps.spec.resolve import resolve
from sweeps.spec.source import PRESETS, open_source, read_source

CASES = """
order: sequential
base: {cluster: {nodes: 5}}
cases:
  calm: {chaos: none}
  crash:
    chaos: {crash: leader}
    load: {clients: 3}
    expect: available
    signature: {elections: ">= 1"}
  bad:
    raft: {heartbeat_interval: 1s}
    refused: "raft.election_timeout: the longest"
axes: {raft.pre_vote: [true, false]}
expectations:
  - {case: crash, expect: ok}
  - {case: crash, raft.pre_vote: false, expect: unavailable}
"""


def cells(text: str, *options: str) -> list[Cell]:
    source = read_source(text, "file.yaml")
    for option in options:
        source = override(source, *parse_option(option), f"-o {option}")
    return make_cells(resolve(source), source)


def test_a_case_sets_several_parameters_and_is_an_axis() -> None:
    found = [(dict(cell.axes), cell.parameters.load.clients, bool(cell.parameters.chaos)) for cell in cells(CASES)]
    assert found == [
        ({"case": "calm", "raft.pre_vote": True}, 16, False),
        ({"case": "calm", "raft.pre_vote": False}, 16, False),
        ({"case": "crash", "raft.pre_vote": True}, 3, True),
        ({"case": "crash", "raft.pre_vote": False}, 3, True),
    ]
    assert cells(CASES)[2].label == "case=crash pre_vote=true"
    assert [dict(cell.signature) for cell in cells(CASES)] == [{}, {}, {"elections": ">= 1"}, {"elections": ">= 1"}]


def test_the_last_expectation_that_matches_counts() -> None:
    assert [cell.parameters.expect for cell in cells(CASES)] == ["ok", "ok", "ok", "unavailable"]


def test_a_case_can_be_excluded_in_combinations() -> None:
    found = cells(f"{CASES}exclude: [{{case: crash, raft.pre_vote: true}}]")
    assert [cell.axes["case"] for cell in found] == ["calm", "calm", "crash"]


def test_some_cases_can_be_chosen() -> None:
    assert {cell.axes["case"] for cell in cells(CASES, "cases=crash")} == {"crash"}
    assert {cell.axes["case"] for cell in cells(CASES, "cases=crash,calm")} == {"crash", "calm"}
    with pytest.raises(ConfigError, match=r"-o cases=crsh: cases: there is no case 'crsh'; did you mean crash"):
        cells(CASES, "cases=crsh")


def test_what_must_be_refused_is_told_with_its_error() -> None:
    source = read_source(CASES, "file.yaml")
    [(case, error)] = refusals(resolve(source), source).items()
    assert case == "bad"
    assert error.startswith("raft.election_timeout: the longest must be at least heartbeat_interval")
    assert Sweep.from_source(source).refused == {case: error}


def test_a_spec_with_cases_survives_a_round_trip() -> None:
    source = read_source(CASES, "file.yaml")
    again = read_source(resolve(source).to_yaml(), "again.yaml")
    assert [cell.id for cell in make_cells(resolve(again), again)] == [cell.id for cell in cells(CASES)]
    assert refusals(resolve(again), again) == refusals(resolve(source), source)


BAD = [
    ("cases: {a: {load.clints: 3}}", "file.yaml:1: cases.a.load.clints: unknown parameter; did you mean load.clients?"),
    ("cases: {a: {expect: fine}}", "file.yaml:1: expect: must be 'ok', 'available'"),
    ("cases: {a: {chaos: {crash: leadr, at: x}}}", "file.yaml:1: chaos: crash.at: 'x' is neither"),
    ("cases: {a: {signature: {speed: '> 1'}}}", "file.yaml:1: cases.a.signature: speed is not a metric"),
    ("cases: {a: {signature: 5}}", "file.yaml:1: cases.a.signature: must be a mapping"),
    (
        "cases: {a: {refused: heartbeat}}",
        "file.yaml:1: cases.a.refused: must be refused with 'heartbeat' in the error, but it",
    ),
    (
        "cases: {a: {refused: heartbeat}, b: {}}",
        "file.yaml:1: cases.a.refused: must be refused with 'heartbeat' in the error, ",
    ),
    (
        "cases: {a: {raft: {heartbeat_interval: 1s}, refused: batch}, b: {}}",
        "file.yaml:1: cases.a.refused: must be refused with 'batch' in the error, but the error is: raft.election_t",
    ),
    ("cases: {a: {load: {clients: 3}}, b: {load.clients: 3}}", "file.yaml:1: cases.b: is the same as 'a' in every par"),
    (
        "cases: {a: {cluster.nodes: 3}}\naxes: {cluster.nodes: [3]}",
        "file.yaml:1: cases.a.cluster.nodes: the spec has",
    ),
    ("cases: {a: {raft: {heartbeat_interval: 1s}}}", "file.yaml:1: raft.election_timeout: the longest must be at"),
    (
        "cases: {a: {}}\nexpectations: [{case: b, expect: ok}]",
        "file.yaml:2: expectations[0].case: there is no case",
    ),
    ("cases: {a: {}}\nexpectations: [{case: a}]", "file.yaml:2: expectations[0]: must have `expect`"),
    ("expectations: [{expect: ok}]", "file.yaml:1: expectations[0]: must have `expect`, and at least one parameter"),
    ("expectations: [{cluster.nodes: 3, expect: x}]", "file.yaml:1: expect: must be 'ok'"),
    ("exclude: [{case: a}]", "file.yaml:1: exclude[0].case: there is no case 'a'"),
    ("axes: {case: [a]}", "file.yaml:1: axes.case: unknown parameter"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_is_wrong_is_said_in_one_line(text: str, message: str) -> None:
    source = read_source(text, "file.yaml")
    with pytest.raises(ConfigError) as error:
        Sweep.from_source(source)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_the_survival_matrix_expects_what_is_known_of_partial_partitions() -> None:
    """With pre-vote and check quorum, a cluster stays available if one node that sees a quorum may become leader."""
    source = open_source("survival")
    found = make_cells(resolve(source), source)
    assert {cell.parameters.cluster.nodes for cell in found} == {5, 7}
    unavailable = {
        (cell.axes["case"], cell.parameters.raft.pre_vote, cell.parameters.raft.check_quorum)
        for cell in found
        if cell.parameters.expect == "unavailable"
    }
    switches = [(p, c) for p in (True, False) for c in (True, False)]
    assert unavailable == {
        *(("no majority anywhere", *switch) for switch in switches),
        *(("constrained election", *switch) for switch in switches),
        *(("deaf leader", pre_vote, False) for pre_vote in (True, False)),
        ("quorum loss", True, False),
    }


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_fault_of_a_preset_lasts_long_enough_to_be_judged(preset: str) -> None:
    for cell in Sweep.from_preset(preset).cells:
        p = cell.parameters
        if p.expect in ("available", "unavailable") and p.chaos:
            [fault] = p.chaos.root
            lasts_s = float(getattr(fault, "lasts", None) or p.phases.measure) - getattr(fault, "prepares_s", 0.0)
            assert lasts_s >= 12 * p.raft.election_timeout.max_s, cell.label
