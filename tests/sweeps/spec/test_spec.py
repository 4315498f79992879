"""Specs: what is read, what is refused and with which message, what the command line overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chaos import label
from orchestration.plan import OnHosts, PerHost
from raft_actor_node.errors import ConfigError
from raft_actor_node.units import Range
from sweeps.spec.document import parse_yaml, split_values
from sweeps.spec.grid import Cell, make_cells
from sweeps.spec.overrides import override, parse_option
from sweeps.spec.parameters import CASE, PARAMETER_NAMES, Spec
from sweeps.spec.resolve import resolve
from sweeps.spec.rules import longest_outage_s
from sweeps.spec.schema import json_schema
from sweeps.spec.source import PRESETS, Source, open_source, read_source

INTERFACE = """
name: election-timeout-vs-size
repeats: 3
seed: 42
order: interleaved            # cells of all repeats mixed, so that a slow minute hits all alike
base:
  target: raft
  cluster:  {nodes: 5, placement: spread, command: default}
  raft:     {election_timeout: 150ms-300ms, heartbeat_interval: 50ms, rpc_timeout: 100ms, pre_vote: true}
  storage:  {fsync: always, dir: auto}
  limits:   {key_bytes: 1KiB, value_bytes: 1MiB}
  client:   {rpc_timeout: 1s, retry_budget: 10s}
  load:     {mode: closed, clients: 16, mix: {put: 0.5, get: 0.5}, keys: 1000, key_dist: uniform, value_bytes: 64}
  phases:   {warmup: 2s, measure: 10s}
  chaos:    none
  allow_bad_parameters: false
  expect: ok
axes:
  cluster.nodes: [3, 5, 7, 9, 11, 13, 15]
  raft.election_timeout: [150ms-300ms, 300ms-600ms]
  chaos:
    - none
    - {crash: leader, at: 1/3, restart_after: 2s}
    - {monkey: [crash, pause, partition, drop], every: 3s}
exclude:
  - {cluster.nodes: 15, raft.election_timeout: 150ms-300ms}
thresholds:
  latency.put.p99: "< 100ms"
"""


def sweep(text: str, *options: str) -> tuple[Spec, list[Cell]]:
    source = read_source(text, "file.yaml")
    for option in options:
        source = override(source, *parse_option(option), f"-o {option}")
    spec = resolve(source)
    return spec, make_cells(spec, source)


def test_the_spec_of_the_design_notes_is_accepted() -> None:
    spec, cells = sweep(INTERFACE)
    assert len(cells) == 3 * (7 * 2 * 3 - 3)
    assert {cell.parameters.cluster.nodes for cell in cells} == {3, 5, 7, 9, 11, 13, 15}
    assert spec.base.raft.election_timeout == Range(0.15, 0.3)


def test_a_resolved_spec_gives_the_same_cells_when_read_again() -> None:
    spec, cells = sweep(INTERFACE)
    again, same = sweep(spec.to_yaml())
    assert again == spec
    assert [cell.id for cell in same] == [cell.id for cell in cells]


def test_words_that_yaml_takes_for_booleans_are_words() -> None:
    spec, cells = sweep("base: {storage: {fsync: off}}")
    assert spec.base.storage.fsync == "off"
    assert cells[0].warnings == ("storage.fsync: off loses acknowledged writes when the power fails",)


def test_numbers_are_those_of_yaml_1_2() -> None:
    spec, _ = sweep("base: {load: {mode: open, rate: 1e3}}")
    assert spec.base.load.rate == 1000.0
    assert parse_yaml("[010, 1:30, 2020-01-01, yes]", "x").data == [10.0, "1:30", "2020-01-01", "yes"]


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_are_sound(preset: str) -> None:
    source = open_source(preset)
    spec = resolve(source)
    cells = make_cells(spec, source)
    assert spec.name == preset
    assert spec.description
    unwise = ("even split", "stalled disk of the leader of two nodes")
    warnings = {line for cell in cells for line in cell.warnings if cell.axes.get(CASE) not in unwise}
    assert not warnings or preset in ("timeouts", "bad-parameters")


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_have_the_clients_for_the_outages_that_they_provoke(preset: str) -> None:
    """The load has one client for each arrival of the longest outage, and three standard deviations more."""
    source = open_source(preset)
    for cell in make_cells(resolve(source), source):
        load = cell.parameters.load
        if load.mode == "open" and not cell.parameters.allow_bad_parameters:
            due = (load.rate or 0.0) * longest_outage_s(cell.parameters)
            assert load.clients >= due + 3 * due**0.5, cell.label


@pytest.mark.parametrize(
    ("chaos", "more", "outage_s"),
    [
        ("none", "", 0.0),
        ("{crash: leader, restart_after: 3s}", "", 2.2),
        ("{drop: 0.1}", "", 2.2),
        ("{crash: majority, restart_after: 3s}", "", 5.2),
        ("{crash: [n1, n2], restart_after: 3s}", "", 5.2),
        ("{crash: [n1], restart_after: 3s}", "", 2.2),
        ("{isolate: all, at: 1/2, heal_after: 1/2}", "", 7.2),
        ("{pause: followers}", "", 11.0),
        ("{partition: leader-in-minority, clients: minority, heal_after: 4s}", "expect: unavailable", 6.2),
    ],
)
def test_how_long_faults_may_keep_clients_waiting(chaos: str, more: str, outage_s: float) -> None:
    """The outage is the time without a quorum, plus two of the longest election timeouts and a client's deadline.

    It is at most the time after which clients give up, 11 s by default.
    """
    base = f"raft: {{election_timeout: 300ms-600ms}}, chaos: {chaos}, load: {{mode: open, rate: 100, clients: 300}}"
    _, [cell] = sweep(f"base: {{{base}{', ' if more else ''}{more}}}")
    assert longest_outage_s(cell.parameters) == pytest.approx(outage_s)
    warned = [line for line in cell.warnings if line.startswith("load.clients: ")]
    assert len(warned) == (outage_s > 3.0)
    assert all(f"raise it to {round(100 * outage_s)}" in line for line in warned)


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_without_chaos_tolerate_no_lost_operation(preset: str) -> None:
    source = open_source(preset)
    spec = resolve(source)
    cells = make_cells(spec, source)
    if preset == "bad-parameters":
        return
    assert all(cell.parameters.raft.rpc_timeout < cell.parameters.raft.election_timeout[0] for cell in cells)
    if not any(cell.parameters.chaos for cell in cells):
        assert spec.thresholds == {"failed": "< 1", "unknown": "< 1"}


def test_the_presets_cover_what_the_issue_names() -> None:
    values: dict[str, Any] = {path.stem: resolve(open_source(path.stem)) for path in PRESETS.glob("*.yaml")}
    more = {"scenarios", "disks", "survival", "bad-parameters"}
    assert set(values) == {"quick", "scalability", "timeouts", "workload", "chaos", *more}
    assert values["quick"].axes["cluster.nodes"] == [3, 5, 7]
    assert values["scalability"].axes["cluster.nodes"] == [3, 5, 7, 9, 11, 13, 15]
    loads = [cell.parameters.load for cell in make_cells(values["workload"], open_source("workload"))]
    assert {64, 1024 * 1024} <= {load.value_bytes for load in loads}
    assert {1, 1000} <= {load.keys for load in loads}
    assert len({load.clients for load in loads}) >= 4
    assert {1.0, 0.1} <= {load.mix.put for load in loads}


# Each row: the spec, the options, and the beginning of the error line.
BAD = [
    (
        "base:\n  chaos: {crash: leader, every: 1s, restart_after: 2s}",
        [],
        "file.yaml:2: chaos: crash.restart_after: 2s does not fit into an interval of every: 1s; shorten it to at most",
    ),
    (
        "thresholds: {failover.elected: '< 1s'}",
        [],
        "file.yaml:1: thresholds: failover.elected is not a metric; did you",
    ),
    ("base: {raft: {election_timeout: 300ms-150ms}}", [], "file.yaml:1: raft.election_timeout: '300ms-150ms' is rev"),
    ("base:\n  raft:\n    heartbeat_interval: 50", [], "file.yaml:3: raft.heartbeat_interval: 50 is not a duration"),
    ("base:\n  raft: {heartbeat_interval: -1ms}", [], "file.yaml:2: raft.heartbeat_interval: '-1ms' is not a dur"),
    (
        "base:\n  raft: {election_timout: 1s-2s}",
        [],
        "file.yaml:2: raft.election_timout: unknown parameter; did you mean",
    ),
    ("base: {raft: {election_timeout: 20ms-40ms}}", [], "file.yaml:1: raft.election_timeout: the longest must be"),
    ("base: {raft: {election_timeout: 60ms-90ms}}", [], "file.yaml:1: raft.election_timeout: the shortest must"),
    ("base: {raft: {max_batch_bytes: 1GiB}}", [], "file.yaml:1: raft.max_batch_bytes: at most transport.message_b"),
    ("raft: {}", [], "file.yaml:1: raft: unknown parameter; did you mean base.raft?"),
    ("bsae: {}", [], "file.yaml:1: bsae: unknown parameter; did you mean base?"),
    ("checks: {linearizable: true}", [], "file.yaml:1: checks: unknown parameter"),
    ("base: 5", [], "file.yaml:1: base: must be a mapping of parameters, not 5"),
    ("[1, 2]", [], "file.yaml:1: must be a mapping"),
    ("", [], "file.yaml: is empty"),
    ("name: ../up", [], "file.yaml:1: name: must match"),
    ("repeats: 0", [], "file.yaml:1: repeats: must be at least 1, not 0"),
    ("repeats: 1.5", [], "file.yaml:1: repeats: must be a whole number, not 1.5"),
    ("seed: -1", [], "file.yaml:1: seed: must be at least 0, not -1"),
    ("order: shuffled", [], "file.yaml:1: order: must be 'interleaved' or 'sequential', not 'shuffled'"),
    ("name: a\nname: b", [], "file.yaml:2: name: appears twice, first on line 1"),
    ("base: {load: {keys: 1, keys: 2}}", [], "file.yaml:1: base.load.keys: appears twice"),
    ("1: 2", [], "file.yaml:1: 1: a key must be text"),
    ("a: &x 1\nb: *x", [], "file.yaml:2: not YAML: aliases are not supported"),
    ("a: [1", [], "file.yaml:1: not YAML:"),
    ("[" * 1500, [], "file.yaml: not YAML: nested too deeply"),
    ("a: !!python/object:os.system {}", [], "file.yaml:1: not YAML: could not determine a constructor"),
    ("base: {target: etcd}", [], "file.yaml:1: target: etcd is not available in this version"),
    ("base: {cluster: {nodes: 0}}", [], "file.yaml:1: cluster.nodes: must be at least 1, not 0"),
    ("base: {cluster: {nodes: '3'}}", [], "file.yaml:1: cluster.nodes: must be a whole number, not '3'"),
    ("base: {cluster: {nodes: true}}", [], "file.yaml:1: cluster.nodes: must be a whole number, not True"),
    ("base: {cluster: {command: []}}", [], "file.yaml:1: cluster.command: must be `default`, a command, or a list"),
    ("base: {cluster: {placement: everywhere}}", [], "file.yaml:1: cluster.placement: must be spread, strict_spread, "),
    ("base: {cluster: {placement: {per_host: 0}}}", [], "file.yaml:1: cluster.placement: must be spread, strict_spr"),
    ("base: {cluster: {placement: {hosts: []}}}", [], "file.yaml:1: cluster.placement: must be spread, strict_spread"),
    ("base: {cluster: {placement: {hosts: h1}}}", [], "file.yaml:1: cluster.placement: must be spread, strict_spread"),
    ("base: {cluster: {placement: {per_host: 1, hosts: [a]}}}", [], "file.yaml:1: cluster.placement: must be spread"),
    ("base: {storage: {fsync: sometimes}}", [], "file.yaml:1: storage.fsync: must be 'always' or 'off'"),
    ("base: {limits: {value_bytes: 1MB}}", [], "file.yaml:1: limits.value_bytes: '1MB' is not a size"),
    ("base: {client: {rpc_timeout: 0s}}", [], "file.yaml:1: client.rpc_timeout: must be above 0, not '0s'"),
    ("base: {load: {mode: open}}", [], "file.yaml:1: load.rate: is required in open mode"),
    ("base: {load: {mode: open, rate: .nan}}", [], "file.yaml:1: load.rate: must be a finite number, not nan"),
    ("base: {load: {mode: open, rate: .inf}}", [], "file.yaml:1: load.rate: must be a finite number, not inf"),
    ("base: {load: {rate: -5}}", [], "file.yaml:1: load.rate: must be above 0, not -5"),
    ("base: {load: {mix: {put: 1.5}}}", [], "file.yaml:1: load.mix.put: must be at most 1, not 1.5"),
    ("base: {load: {mix: {put: 0.5, gte: 0.5}}}", [], "file.yaml:1: load.mix.gte: unknown parameter"),
    ("base: {load: {mix: {put: 0.7}}}", [], "file.yaml:1: load.mix: the shares must sum to 1, not 0.7"),
    ("base: {load: {value_bytes: 2MiB}}", [], "file.yaml:1: load.value_bytes: must be at most limits.value_bytes"),
    ("base: {load: {key_bytes: 2, keys: 1000}}", [], "file.yaml:1: load.key_bytes: 1000 keys need at least 3 bytes"),
    ("base: {load: {clients: 0}}", [], "file.yaml:1: load.clients: must be at least 1, not 0"),
    ("base: {phases: {measure: 0s}}", [], "file.yaml:1: phases.measure: must be above 0, not '0s'"),
    ("base: {expect: anything}", [], "file.yaml:1: expect: must be 'ok', 'available', "),
    ("base: {chaos: {drop: 1.5}}", [], "file.yaml:1: chaos: drop: "),
    ("base: {chaos: {crash: leeder}}", [], "file.yaml:1: chaos: crash: the cluster has no node 'leeder'"),
    ("base: {chaos: {crash: leader, at: 20s}}", [], "file.yaml:1: chaos: crash.at: 20s is not before the end"),
    ("axes:\n  chaos:\n    - none\n    - {drop: 2}", [], "file.yaml:4: chaos: drop: "),
    ("axes: 5", [], "file.yaml:1: axes: must be a mapping, not 5"),
    ("axes:\n  cluster.nodes: 3", [], "file.yaml:2: axes.cluster.nodes: must be a list, not 3"),
    ("axes:\n  cluster.nodes: []", [], "file.yaml:2: axes.cluster.nodes: must have at least one value"),
    ("axes:\n  cluster.nodes: [3, 5, 3]", [], "file.yaml:2: axes.cluster.nodes[2]: 3 appears twice"),
    (
        "axes:\n  client.rpc_timeout: [1s, 1000ms]",
        [],
        "file.yaml:2: axes.client.rpc_timeout[1]: '1000ms' appears twice",
    ),
    ("axes:\n  cluster.nodes:\n    - 3\n    - 0", [], "file.yaml:4: cluster.nodes: must be at least 1, not 0"),
    ("axes:\n  nodes: [3]", [], "file.yaml:2: axes.nodes: unknown parameter; did you mean cluster.nodes?"),
    ("axes:\n  cluster.node: [3]", [], "file.yaml:2: axes.cluster.node: unknown parameter; did you mean cluster.nod"),
    ("axes: {load: [{clients: 1}], load.clients: [1]}", [], "file.yaml:1: axes.load.clients: overlaps with the axis"),
    (
        "axes:\n  raft.election_timeout:\n  - 1s-2s\n  - 20ms-40ms",
        [],
        "file.yaml:4: raft.election_timeout: the longest",
    ),
    ("repeats: 10000\naxes: {cluster.nodes: [3, 5]}", [], "file.yaml:2: axes: 20000 cells are too many; at most 10000"),
    ("exclude: [{}]", [], "file.yaml:1: exclude[0]: must name at least one parameter"),
    ("exclude: [{nodes: 3}]", [], "file.yaml:1: exclude[0].nodes: unknown parameter; did you mean cluster.nodes?"),
    ("exclude:\n- {cluster.nodes: 3}", [], "file.yaml:1: exclude: leaves no cell"),
    (
        "cases: {a: {cluster: {nodes: 0}, refused: nodes}}",
        [],
        "file.yaml:1: cases: leaves no cell: all cases are `refused`",
    ),
    ("exclude: [{cluster.nodes: 0}]", [], "file.yaml:1: cluster.nodes: must be at least 1, not 0"),
    (
        "thresholds:\n  latency.putt.p99: '< 1s'",
        [],
        "file.yaml:2: thresholds: latency.putt.p99 is not a metric; did you",
    ),
    ("thresholds: {latency.put.p99: '100ms'}", [], "file.yaml:1: thresholds: latency.put.p99: '100ms' is not a cond"),
    ("thresholds: {latency.put.p99: '< 100'}", [], "file.yaml:1: thresholds: latency.put.p99: '100' is not a duration"),
    ("thresholds: {throughput: '> fast'}", [], "file.yaml:1: thresholds: throughput: 'fast' is not a number"),
    ("{}", ["cluster.nodes=0"], "-o cluster.nodes=0: cluster.nodes: must be at least 1, not 0"),
    ("{}", ["cluster.nodes=3,5,3"], "-o cluster.nodes=3,5,3: axes.cluster.nodes[2]: 3 appears twice"),
    ("{}", ["cluster.nodes=3,"], "-o cluster.nodes=3,: cluster.nodes: a value is missing"),
    ("{}", ["base=3"], "-o base=3: base: cannot be set by an option; name a parameter, as in cluster.nodes=3"),
    ("{}", ["exclude=3"], "-o exclude=3: exclude: cannot be set by an option"),
    ("{}", ["nodes=3"], "-o nodes=3: nodes: unknown parameter; did you mean cluster.nodes?"),
    ("{}", ["cluster.nodes"], "-o cluster.nodes: must have the form KEY=VALUE"),
    ("{}", ["=3"], "-o =3: must have the form KEY=VALUE"),
    ("{}", ["seed=1,2"], "-o seed=1,2: seed: takes one value; it cannot be an axis"),
    ("{}", ["phases.measure=5"], "-o phases.measure=5: phases.measure: 5 is not a duration"),
    ("{}", ["raft.election_timeout=20ms-40ms"], "-o raft.election_timeout=20ms-40ms: raft.election_timeout: the lon"),
    ("{}", ["load.mix={put: 1.5}"], "-o load.mix={put: 1.5}: load.mix.put: must be at most 1, not 1.5"),
    ("{}", ["chaos={drop: 1.5}"], "-o chaos={drop: 1.5}: chaos: drop: "),
    (
        "{}",
        ["cluster.placement=spread,{per_host: true}"],
        "-o cluster.placement=spread,{per_host: true}: cluster.placement: must be spread, strict_spread, pack, ",
    ),
    ("{}", ["load.rate=nan"], "-o load.rate=nan: load.rate: must be a finite number, not 'nan'"),
    ("axes: {load: [{clients: 1}]}", ["load.clients=5"], "-o load.clients=5: load.clients: the spec has an axis over"),
    ("{}", ["thresholds.latency.put.p9=< 1s"], "-o thresholds.latency.put.p9=< 1s: thresholds: latency.put.p9 is n"),
]


@pytest.mark.parametrize(("text", "options", "message"), BAD, ids=[f"{i}-{row[2][:40]}" for i, row in enumerate(BAD)])
def test_what_is_wrong_is_said_in_one_line(text: str, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        sweep(text, *options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_missing_files_and_mistyped_presets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^quikc: no preset and no file of this name; did you mean quick\?"):
        open_source("quikc")
    with pytest.raises(ConfigError, match=r"^no/such\.yaml: no such file$"):
        open_source("no/such.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml: cannot be read: it is not UTF-8 text"):
        open_source(str(tmp_path / "binary.yaml"))
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        open_source(str(tmp_path))


def test_a_file_without_a_name_is_named_after_itself(tmp_path: Path) -> None:
    (tmp_path / "my sweep.yaml").write_text("{}")
    assert resolve(open_source(str(tmp_path / "my sweep.yaml"))).name == "my-sweep"


def test_bad_parameters_run_when_they_are_allowed() -> None:
    _, cells = sweep("base: {raft: {election_timeout: 20ms-40ms}, allow_bad_parameters: true}")
    assert any(line.startswith("raft.election_timeout: the longest must be") for line in cells[0].warnings)


@pytest.mark.parametrize(
    ("parameters", "warning"),
    [
        ("{cluster: {nodes: 4}}", "cluster.nodes: 4 nodes tolerate 1 failures"),
        ("{raft: {election_timeout: 150ms-155ms}}", "raft.election_timeout: a range of 5ms or less"),
        ("{client: {dedupe: off}}", "client.dedupe: off lets a retry take effect a second time"),
        ("{load: {value_bytes: 4}}", "load.value_bytes: values below 8 bytes are not unique"),
        ("{load: {rate: 5}}", "load.rate: has no effect in closed mode"),
        ("{target: sim, cluster: {placement: pack}}", "cluster.placement: has no effect in simulation"),
    ],
)
def test_what_is_only_unwise_is_a_warning(parameters: str, warning: str) -> None:
    _, cells = sweep(f"base: {parameters}")
    assert any(line.startswith(warning) for line in cells[0].warnings)


def test_options_set_values_and_make_axes() -> None:
    spec, cells = sweep(
        "axes: {cluster.nodes: [3, 5]}",
        "load.clients=64",
        "load.mix={put: 0.25, get: 0.75}",
        "chaos=none,{crash: leader, at: 1/3, restart_after: 2s}",
        "cluster.nodes=7",
        "seed=9",
    )
    assert list(spec.axes) == ["chaos"]
    assert spec.seed == 9
    assert {label(cell.parameters.chaos) for cell in cells} == {"none", "crash leader"}
    parameters = cells[0].parameters
    assert (parameters.cluster.nodes, parameters.load.clients, parameters.load.mix.put) == (7, 64, 0.25)


def test_a_placement_is_a_rule_or_a_mapping_and_can_be_an_axis() -> None:
    spec, cells = sweep("order: sequential", "cluster.placement=spread,{per_host: 2},{hosts: [10.0.0.2, host2]}")
    assert [cell.parameters.cluster.placement for cell in cells] == [
        "spread", PerHost(per_host=2), OnHosts(hosts=("10.0.0.2", "host2")),
    ]  # fmt: skip
    assert [cell.label for cell in cells] == [
        "placement=spread", "placement={per_host: 2}", "placement={hosts: [10.0.0.2, host2]}",
    ]  # fmt: skip
    assert [cell.id for cell in sweep(spec.to_yaml())[1]] == [cell.id for cell in cells]
    _, [cell] = sweep("axes: {cluster.placement: [pack, majority]}", "cluster.placement={per_host: 1}")
    assert cell.parameters.cluster.placement == PerHost(per_host=1)
    _, cells = sweep("axes: {cluster.placement: [pack, {per_host: 1}]}\nexclude: [{cluster.placement: {per_host: 1}}]")
    assert [cell.parameters.cluster.placement for cell in cells] == ["pack"]


def test_an_option_replaces_an_axis_in_its_place() -> None:
    spec, _ = sweep("axes: {cluster.nodes: [3, 5], load.clients: [1, 2]}", "cluster.nodes=7,9")
    assert list(spec.axes.items()) == [("cluster.nodes", [7, 9]), ("load.clients", [1, 2])]


def test_an_option_may_name_a_threshold_or_the_base() -> None:
    spec, cells = sweep("{}", "thresholds.latency.put.p99.9=< 1s", "base.cluster.nodes=5", "cluster.command=[a, b]")
    assert spec.thresholds == {"latency.put.p99.9": "< 1s"}
    assert cells[0].parameters.cluster.nodes == 5
    assert cells[0].parameters.cluster.command == ["a", "b"]


def test_overrides_in_python_need_no_text() -> None:
    source = override(Source({"name": "x"}), "cluster.nodes", [3, 5], "overrides")
    assert len(make_cells(resolve(source), source)) == 2


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("3,5,7", ["3", "5", "7"]),
        ("{a: 1, b: [2, 3]}, none", ["{a: 1, b: [2, 3]}", "none"]),
        ("'x,y',\"z,{\"", ["'x,y'", '"z,{"']),
        ("150ms-300ms", ["150ms-300ms"]),
    ],
)
def test_values_are_split_at_outer_commas(text: str, parts: list[str]) -> None:
    assert split_values(text) == parts


def test_the_schema_knows_every_parameter() -> None:
    schema = json_schema()
    assert set(schema["properties"]["axes"]["properties"]) == set(PARAMETER_NAMES)
    assert schema["properties"]["axes"]["additionalProperties"] is False
    nodes = schema["properties"]["axes"]["properties"]["cluster.nodes"]["items"]
    assert (nodes["minimum"], nodes["maximum"]) == (1, 99)
    rules, *mappings = schema["properties"]["axes"]["properties"]["cluster.placement"]["items"]["anyOf"]
    assert rules["enum"] == ["spread", "strict_spread", "pack", "majority"]
    assert [schema["$defs"][each["$ref"].rsplit("/", 1)[-1]]["required"] for each in mappings] == [
        ["per_host"], ["hosts"],
    ]  # fmt: skip
    for section in ("Raft", "Storage", "Limit", "Transport", "Client", "Cluster", "Load", "Phase"):
        properties = schema["$defs"][f"{section}Settings"]["properties"]
        assert [name for name, field in properties.items() if not field.get("description")] == [], section
    beat = schema["properties"]["axes"]["properties"]["raft.heartbeat_interval"]["items"]
    assert beat["description"] == "Time between two heartbeats of an idle leader."
    assert schema["$defs"]["Parameters"]["additionalProperties"] is False
