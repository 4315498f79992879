"""Partition arithmetic: which links are cut, on every node set from 3 to 15."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.faults import Drop, Isolate, OneWay, Partition
from chaos.shapes import SHAPES, compose, cut, hubs, separated, touching
from raft_actor_node.core.quorum import largest_minority, quorum_size
from raft_actor_node.links import CLIENTS, LinkRule
from raft_actor_node.names import node_names

SIZES = range(3, 16)
resolve = Partition.resolved


def visible(n: int, shape: str, seed: int = 0) -> dict[str, set[str]]:
    """The nodes that each node can reach, itself included, under a partition of this shape while n1 leads."""
    nodes = node_names(n)
    fault = resolve(Partition(partition=shape), nodes, "n1", Random(seed))
    lost = {(rule.from_id, rule.to_id) for rule in fault.rules(nodes)}
    assert all((b, a) in lost for a, b in lost), "a partition is symmetric"
    return {a: {b for b in nodes if (a, b) not in lost} for a in nodes}


def sides(view: dict[str, set[str]]) -> list[set[str]]:
    """The groups of a partition whose groups are fully connected and do not overlap."""
    groups = {frozenset(seen) for seen in view.values()}
    assert sum(map(len, groups)) == len(view), "the groups overlap"
    return sorted((set(group) for group in groups), key=len)


@settings(deadline=None)
@given(st.data())
def test_a_split_cuts_exactly_the_links_between_its_groups(data: st.DataObject) -> None:
    nodes = node_names(data.draw(st.integers(3, 15)))
    side = {node: data.draw(st.integers(0, 3)) for node in nodes}
    groups = tuple(group for i in range(4) if (group := tuple(node for node in nodes if side[node] == i)))
    lost = separated(groups, nodes)
    assert set(lost) == {(a, b) for a in nodes for b in nodes if side[a] != side[b]}
    assert len(lost) == len(set(lost))


@settings(deadline=None)
@given(st.data())
def test_members_of_overlapping_groups_see_each_other_when_they_share_one(data: st.DataObject) -> None:
    nodes = node_names(data.draw(st.integers(3, 15)))
    groups = tuple(map(tuple, data.draw(st.lists(st.sets(st.sampled_from(nodes), min_size=1), min_size=1, max_size=5))))
    kept = {(a, b) for a in nodes for b in nodes if a != b} - set(separated(groups, nodes))
    assert kept == {(a, b) for group in groups for a in group for b in group if a != b}


@pytest.mark.parametrize("n", SIZES)
def test_a_minority_is_the_most_that_leaves_a_quorum(n: int) -> None:
    assert n - largest_minority(n) >= quorum_size(n) > n - largest_minority(n) - 1
    assert 2 * quorum_size(n) > n >= 2 * (quorum_size(n) - 1)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shape", ["leader-in-minority", "leader-in-majority", "majority-minority"])
def test_one_side_of_an_uneven_split_is_the_largest_minority(n: int, shape: str) -> None:
    for seed in range(5):
        small, large = sides(visible(n, shape, seed))
        assert len(small) == largest_minority(n)
        assert len(large) >= quorum_size(n)
        if shape != "majority-minority":
            assert "n1" in (small if shape == "leader-in-minority" else large)


@pytest.mark.parametrize("n", SIZES)
def test_halves_of_an_even_cluster_leave_no_quorum(n: int) -> None:
    small, large = sides(visible(n, "halves"))
    assert (len(small), len(large)) == (n // 2, n - n // 2)
    assert (len(large) >= quorum_size(n)) == (n % 2 == 1)


@pytest.mark.parametrize("n", [n for n in SIZES if n >= SHAPES["ring"].min_nodes])
def test_in_a_ring_each_node_sees_a_majority_and_no_two_the_same(n: int) -> None:
    view = visible(n, "ring")
    assert all(quorum_size(n) <= len(seen) < n for seen in view.values())
    assert len({frozenset(seen) for seen in view.values()}) == n


@pytest.mark.parametrize("n", SIZES)
def test_a_bridge_is_all_that_two_halves_share(n: int) -> None:
    view = visible(n, "bridge")
    [bridge] = [node for node, seen in view.items() if len(seen) == n]
    left, right = sides({node: seen - {bridge} for node, seen in view.items() if node != bridge})
    assert len(right) - len(left) in (0, 1)


@pytest.mark.parametrize("n", [n for n in SIZES if n >= SHAPES["quorum-loss"].min_nodes])
def test_after_quorum_loss_only_one_follower_sees_a_quorum(n: int) -> None:
    view = visible(n, "quorum-loss")
    [hub] = [node for node, seen in view.items() if len(seen) >= quorum_size(n)]
    assert hub != "n1"
    assert all(seen == {node, hub} for node, seen in view.items() if node != hub)


@pytest.mark.parametrize("n", SIZES)
def test_chained_cuts_the_leader_and_one_follower_apart_and_nothing_else(n: int) -> None:
    blind = {node: set(node_names(n)) - seen for node, seen in visible(n, "chained").items()}
    [end] = blind["n1"]
    assert blind[end] == {"n1"}
    assert not any(lost for node, lost in blind.items() if node not in ("n1", end))


@pytest.mark.parametrize("n", [n for n in SIZES if n >= SHAPES["constrained-election"].min_nodes])
def test_in_a_constrained_election_only_who_missed_entries_sees_a_quorum(n: int) -> None:
    nodes = node_names(n)
    view = visible(n, "constrained-election")
    assert view["n1"] == {"n1"}
    [hub] = [node for node, seen in view.items() if len(seen) >= quorum_size(n)]
    assert view[hub] == set(nodes) - {"n1"}
    assert all(seen == {node, hub} for node, seen in view.items() if node not in ("n1", hub))
    # In the first stage only the hub is cut off: the others, the leader among them, commit what the hub misses.
    fault = resolve(Partition(partition="constrained-election"), nodes, "n1", Random(0))
    before = {(rule.from_id, rule.to_id) for rule in fault.rules_before(nodes)}
    assert before == {(a, b) for a in nodes for b in nodes if a != b and hub in (a, b)}
    assert fault.prepares_s == 1.0
    assert n - 1 >= quorum_size(n)


@pytest.mark.parametrize("shape", ["bridge", "quorum-loss"])
def test_who_connects_the_groups_can_be_cut_off_first(shape: str) -> None:
    nodes = node_names(5)
    fault = resolve(Partition.model_validate({"partition": shape, "behind": "2s"}), nodes, "n1", Random(3))
    [hub] = hubs(fault.partition)  # type: ignore[arg-type] - it is resolved
    assert len(fault.rules_before(nodes)) == 8
    assert all(hub in (rule.from_id, rule.to_id) for rule in fault.rules_before(nodes))
    assert not any(hub in (rule.from_id, rule.to_id) for rule in fault.rules(nodes))


@pytest.mark.parametrize("clients", ["minority", "majority"])
def test_clients_see_only_the_side_they_are_on(clients: str) -> None:
    nodes = node_names(5)
    fault = Partition.model_validate({"partition": "leader-in-minority", "clients": clients})
    resolved = resolve(fault, nodes, "n1", Random(1))
    lost = {rule.to_id for rule in resolved.rules(nodes) if rule.from_id == CLIENTS}
    assert lost == {rule.from_id for rule in resolved.rules(nodes) if rule.to_id == CLIENTS}
    assert len(lost) == (3 if clients == "minority" else 2)
    assert ("n1" in lost) == (clients == "majority")


def test_clients_that_are_in_no_group_see_every_node() -> None:
    assert not [link for link in separated((("n1",), ("n2", "n3")), node_names(3)) if CLIENTS in link]


def test_isolation_cuts_each_node_off_and_leaves_the_others_alone() -> None:
    rules = Isolate(isolate=("n1", "n2")).rules(node_names(4))
    lost = {(rule.from_id, rule.to_id) for rule in rules}
    assert lost == {(a, b) for a in node_names(4) for b in node_names(4) if a != b and {a, b} & {"n1", "n2"}}


@pytest.mark.parametrize(
    ("direction", "lost"),
    [("in", {("n2", "n1"), ("n3", "n1")}), ("out", {("n1", "n2"), ("n1", "n3")})],
)
def test_one_way_cuts_one_direction(direction: str, lost: set[tuple[str, str]]) -> None:
    fault = OneWay.model_validate({"one_way": ["n1"], "direction": direction})
    assert {(rule.from_id, rule.to_id) for rule in fault.rules(node_names(3))} == lost


def test_links_to_clients_are_apart_from_links_between_nodes() -> None:
    nodes = node_names(3)
    assert set(touching(["n1"], nodes, between="clients")) == {(CLIENTS, "n1"), ("n1", CLIENTS)}
    assert touching(["n1"], nodes, "in", "clients") == [(CLIENTS, "n1")]
    for direction in ("in", "out", "both"):
        parts = [touching(["n1"], nodes, direction, between) for between in ("nodes", "clients", "all")]
        assert sorted(parts[0] + parts[1]) == sorted(parts[2])


def test_a_fault_of_all_nodes_has_one_rule_for_each_link() -> None:
    rules = Drop(drop=0.2, nodes=node_names(4)).rules(node_names(4))
    assert len(rules) == len({(rule.from_id, rule.to_id) for rule in rules}) == 12
    assert {rule.drop for rule in rules} == {0.2}


def test_composed_faults_are_all_in_force_and_a_link_is_cut_once() -> None:
    loss = [LinkRule(from_id="n1", to_id="n2", drop=0.5)]
    table = compose([cut([("n1", "n2")]), loss, cut([("n1", "n2"), ("n2", "n1")]), loss])
    assert table == cut([("n1", "n2"), ("n2", "n1")]) + loss + loss
