"""From axes to cells."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from orchestration.targets import TARGETS
from raft_actor_node.errors import ConfigError
from sweeps.spec.grid import Cell, make_cells
from sweeps.spec.resolve import resolve
from sweeps.spec.source import read_source

AXES = "axes: {cluster.nodes: [3, 5, 7], load.clients: [1, 8]}"


def cells(text: str) -> list[Cell]:
    source = read_source(text, "file.yaml")
    return make_cells(resolve(source), source)


def shape(found: list[Cell]) -> list[tuple[int, int, int]]:
    return [(cell.parameters.cluster.nodes, cell.parameters.load.clients, cell.repeat) for cell in found]


def test_the_cells_are_the_product_of_the_axes_times_the_repeats() -> None:
    found = shape(cells(f"{AXES}\nrepeats: 2"))
    assert Counter(found) == Counter((n, c, r) for n in (3, 5, 7) for c in (1, 8) for r in (1, 2))


def test_sequential_is_the_order_of_the_file_with_repeats_together() -> None:
    found = shape(cells(f"{AXES}\nrepeats: 2\norder: sequential"))
    assert found == [(n, c, r) for n in (3, 5, 7) for c in (1, 8) for r in (1, 2)]


def test_interleaved_visits_every_cell_in_each_repeat_in_an_order_that_the_seed_decides() -> None:
    first = shape(cells(f"{AXES}\nrepeats: 3\nseed: 1"))
    assert [repeat for _, _, repeat in first] == [1] * 6 + [2] * 6 + [3] * 6
    assert first == shape(cells(f"{AXES}\nrepeats: 3\nseed: 1"))
    assert first != shape(cells(f"{AXES}\nrepeats: 3\nseed: 2"))
    rounds = [[(n, c) for n, c, repeat in first if repeat == r] for r in (1, 2, 3)]
    assert len({tuple(each) for each in rounds}) > 1


def test_excluded_combinations_are_left_out_however_they_are_written() -> None:
    axes = "axes: {cluster.nodes: [3, 5], client.rpc_timeout: [1s, 2s]}"
    text = f"{axes}\nexclude: [{{cluster.nodes: 5, client.rpc_timeout: 1000ms}}]"
    found = {(cell.parameters.cluster.nodes, cell.parameters.client.rpc_timeout) for cell in cells(text)}
    assert found == {(3, 1.0), (3, 2.0), (5, 2.0)}


def test_the_same_cell_has_the_same_id_in_another_sweep() -> None:
    [alone] = cells("base: {cluster: {nodes: 5}, client: {rpc_timeout: 1000ms}}")
    among = cells("name: other\nseed: 7\nrepeats: 2\naxes: {cluster.nodes: [3, 5]}")
    assert alone.id in {cell.id for cell in among if cell.repeat == 1 and cell.parameters.cluster.nodes == 5}
    assert len({cell.id for cell in among}) == 4


def test_seeds_differ_from_cell_to_cell_and_follow_the_seed_of_the_sweep() -> None:
    first, second = cells("repeats: 2")
    assert first.seed != second.seed
    assert first.seed == cells("repeats: 2")[0].seed
    assert first.seed != cells("repeats: 2\nseed: 5")[0].seed


def test_a_mapping_for_a_section_keeps_the_rest_of_it() -> None:
    text = "base: {load: {keys: 7, clients: 3}}\naxes: {load: [{clients: 1}, {mode: open, rate: 5}]}\norder: sequential"
    closed, open_ = (cell.parameters.load for cell in cells(text))
    assert (closed.clients, closed.keys) == (1, 7)
    assert (open_.clients, open_.keys, open_.mode, open_.rate) == (3, 7, "open", 5.0)


def test_an_axis_over_chaos_replaces_it_as_a_whole() -> None:
    text = "base: {chaos: {crash: leader}}\naxes: {chaos: [none, {pause: leader}, [{crash: one}, {pause: n2}]]}"
    labels = {cell.label for cell in cells(text)}
    assert labels == {"chaos=none", "chaos=pause leader", "chaos=crash one + pause n2"}


def test_base_alone_is_one_cell() -> None:
    [cell] = cells("{}")
    assert cell.axes == {}
    assert cell.label == "nodes=3"


@pytest.mark.parametrize("chaos", ["{disk: leader, stall: true}", "{monkey: [disk, crash], every: 1s}"])
def test_a_fault_that_the_target_cannot_have_is_refused(chaos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raft = TARGETS["raft"]
    without = replace(raft, can=replace(raft.can, node_faults=False))
    monkeypatch.setattr("sweeps.spec.parameters.TARGETS", {**TARGETS, "raft": without})
    with pytest.raises(ConfigError, match="chaos: disk needs node_faults, which target raft lacks; remove the fault"):
        cells(f"{{base: {{chaos: {chaos}}}}}")
    assert cells("{base: {chaos: {crash: leader}}}")
