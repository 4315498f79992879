"""The grammar of `chaos:`: accepted values are written back as they were, and refusals take one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from chaos import BadChaos, ChaosSpec, label, parse_chaos
from raft_actor_node.errors import ConfigError

ACCEPTED: list[tuple[Any, str]] = [
    ("none", "none"),
    ({"crash": "leader", "at": "1/3", "restart_after": "2s"}, "crash leader"),
    ({"crash": ["n1", "n2"], "every": "5s", "restart_after": "1/10"}, "crash n1,n2"),
    ({"pause": "minority", "at": "500ms", "resume_after": "1.5s"}, "pause minority"),
    ({"partition": "leader-in-minority", "clients": "majority"}, "partition leader-in-minority clients in majority"),
    ({"partition": [["n1", "clients"], ["n2", "n3"]]}, "partition n1,clients | n2,n3"),
    ({"partition": "constrained-election", "at": "1s", "heal_after": "5s"}, "partition constrained-election"),
    ({"partition": "bridge", "behind": "2s"}, "partition bridge behind 2s"),
    ({"partition": [["n1", "n2"], ["n1", "n3"]], "behind": "1s"}, "partition n1,n2 | n1,n3 behind 1s"),
    ({"isolate": "leader", "between": "clients"}, "isolate leader from clients"),
    ({"one_way": "leader", "direction": "in"}, "one_way leader in"),
    ({"drop": 0.2}, "drop 0.2"),
    ({"drop": 0.1, "between": "all", "messages": "replies", "nodes": "leader"}, "drop 0.1 leader and clients replies"),
    ({"delay": "20ms", "jitter": "10ms"}, "delay 20ms jitter 10ms"),
    ({"delay": "0s", "tail": "100ms"}, "delay 0s tail 100ms"),
    ({"delay": "1ms", "jitter": "2ms", "tail": "5ms", "nodes": "one"}, "delay 1ms jitter 2ms tail 5ms one"),
    ({"bandwidth": "64KiB", "nodes": "leader", "direction": "out"}, "bandwidth 64KiB leader out"),
    ({"bandwidth": 1000, "between": "all"}, "bandwidth 1000 and clients"),
    ({"duplicate": 0.1, "messages": "requests"}, "duplicate 0.1 requests"),
    ({"duplicate": 0.1, "late": "5s", "nodes": "one"}, "duplicate 0.1 late 5s one"),
    ({"monkey": ["crash", "pause"], "every": "3s", "seed": 7}, "monkey crash+pause"),
    ([{"crash": "one"}, {"replay": "runs/1/schedule.json"}], "crash one + replay schedule.json"),
]

REFUSED: list[tuple[Any, str]] = [
    ("leader", "'leader' is not a fault; write none or a mapping"),
    ({}, "no kind of fault among no keys"),
    ({"crsh": "leader"}, "did you mean crash?"),
    ({"crash": "leader", "restart_aftr": "2s"}, "crash: unknown key 'restart_aftr'; did you mean restart_after?"),
    ({"crash": "leader", "heal_after": "2s"}, "crash: unknown key 'heal_after'"),
    ({"crash": "leader", "pause": "one"}, "crash and pause in one mapping"),
    ({"crash": 5}, "crash: 5 names no nodes; allowed: leader,"),
    ({"crash": []}, "crash: [] is not a list of different node ids"),
    ({"crash": ["n1", "n1"]}, "crash: ['n1', 'n1'] is not a list of different node ids"),
    ({"crash": "leader", "at": 3}, "crash.at: 3 is neither a duration"),
    ({"crash": "leader", "at": 3.5}, "crash.at: 3.5 is neither a duration"),
    ({"crash": "leader", "at": "4/3"}, "crash.at: '4/3' is not a share of the measuring phase"),
    ({"crash": "leader", "at": "1/0"}, "crash.at: '1/0' is not a share of the measuring phase"),
    ({"crash": "leader", "at": "-1s"}, "crash.at: '-1s' is neither a duration"),
    ({"crash": "leader", "every": "5s"}, "crash: restart_after: needed with every"),
    ({"drop": 0.1, "every": "5s"}, "drop: heal_after: needed with every"),
    ({"crash": "leader", "every": "0s", "restart_after": "1s"}, "crash: every: must be above 0s"),
    ({"partition": "halvs"}, "partition: 'halvs' is not a partition; did you mean halves?"),
    ({"partition": {"a": 1}}, "is not a partition"),
    ({"partition": "ring", "clients": "minority"}, "partition: clients: only with leader-in-minority"),
    ({"partition": "halves", "behind": "1s"}, "partition: behind: only with bridge, quorum-loss, constrained-election"),
    ({"partition": [["n1"], ["n2", "n3"]], "behind": "1s"}, "partition: behind: only with"),
    ({"partition": "bridge", "behind": "0s"}, "partition.behind: Input should be greater than 0"),
    ({"one_way": "leader"}, "one_way.direction: Field required"),
    ({"one_way": "leader", "direction": "both"}, "one_way.direction: Input should be 'in' or 'out', not 'both'"),
    ({"drop": 1.5}, "drop: Input should be less than or equal to 1, not 1.5"),
    ({"drop": float("nan")}, "drop: Input should be a finite number"),
    ({"delay": "3"}, "delay: '3' is not a duration"),
    ({"delay": "2h"}, "delay: Input should be less than or equal to 3600"),
    ({"bandwidth": "64kb"}, "bandwidth: '64kb' is not a size; write bytes, or a number with B, KiB, MiB or GiB"),
    ({"bandwidth": 0}, "bandwidth: Input should be greater than or equal to 1, not 0"),
    ({"duplicate": 0.1, "late": 5}, "duplicate.late: 5 is not a duration"),
    ({"duplicate": 0.1, "late": "5s", "between": "clients"}, "duplicate: late: only with between: nodes, not clients"),
    ({"duplicate": 0.1, "late": "5s", "between": "all"}, "duplicate: late: only with between: nodes, not all"),
    ({"delay": "5ms", "late": "5s"}, "delay: unknown key 'late'"),
    ({"monkey": ["crush"], "every": "3s"}, "monkey: 'crush' is no kind of fault; did you mean crash?"),
    ({"monkey": [{}], "every": "3s"}, "monkey: {} is no kind of fault"),
    ({"monkey": [], "every": "3s"}, "monkey: [] is not a list of kinds"),
    ({"monkey": ["crash"], "every": "0s"}, "monkey.every: Input should be greater than 0"),
    ({"replay": ""}, "replay: String should have at least 1 character"),
    ([{"crash": "leader"}, {"pause": "leader", "at": "x"}], "1.pause.at: 'x' is neither a duration"),
]


@pytest.mark.parametrize(("value", "name"), ACCEPTED)
def test_what_is_accepted_is_written_back_as_it_was_read(value: Any, name: str) -> None:
    spec = parse_chaos(value)
    assert spec.written == value
    assert label(spec) == name
    assert ChaosSpec.model_validate_json(spec.model_dump_json()) == spec
    assert hash(parse_chaos(value)) == hash(spec)
    assert bool(spec) == (value != "none")


@pytest.mark.parametrize(("value", "message"), REFUSED)
def test_what_is_refused_is_named_in_one_line(value: Any, message: str) -> None:
    with pytest.raises(BadChaos) as caught:
        parse_chaos(value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("value", [None, [], "none"])
def test_there_are_several_ways_to_write_none(value: Any) -> None:
    assert parse_chaos(value) == ChaosSpec()


def test_defaults_are_not_written_and_one_item_needs_no_list() -> None:
    assert parse_chaos([{"drop": 0.2, "at": "0s", "between": "nodes"}]).written == {"drop": 0.2}


class Cell(BaseModel):
    chaos: ChaosSpec = ChaosSpec()


def test_a_larger_model_may_hold_a_spec() -> None:
    assert Cell().model_dump() == {"chaos": "none"}
    written = {"crash": "leader", "at": "1/3"}
    assert Cell.model_validate({"chaos": written}).model_dump(mode="json") == {"chaos": written}
    with pytest.raises(ValidationError, match="neither a duration"):
        Cell.model_validate({"chaos": {"crash": "leader", "at": 1}})


def test_the_json_schema_allows_none_one_or_many() -> None:
    schema = Cell.model_json_schema()
    none, one, many = schema["$defs"]["ChaosSpec"]["anyOf"]
    assert "none" in none["enum"]
    assert many == {"type": "array", "items": one}
    kinds = {ref["$ref"].rsplit("/", 1)[-1] for ref in one["oneOf"]}
    assert {"Crash", "Partition", "Monkey", "Replay"} < kinds
    assert schema["$defs"]["Crash"]["additionalProperties"] is False
    assert json.dumps(schema)


@pytest.mark.parametrize(
    "value", [{"delay": 0.02}, {"delay": "20ms", "jitter": 0.01}, {"monkey": ["crash"], "every": 3.5}]
)
def test_durations_carry_their_unit(value: dict[str, object]) -> None:
    with pytest.raises(BadChaos, match="unit"):
        parse_chaos(value)
