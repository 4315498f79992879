from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import TypeAdapter

from orchestration.errors import PlacementRefused
from orchestration.face import Host
from orchestration.placement import (
    CPU_PER_ACTOR,
    choose_hosts,
    cpus_of_actor,
    host_named,
    hosts_needed,
    shortage,
)
from orchestration.plan import ClusterPlan, Placement
from raft_actor_node.errors import RaftLabError

HOSTS = [
    Host("id-a", "10.0.0.1", 2.0, is_driver=True, name="head"),
    Host("id-c", "10.0.0.3", 2.0, name="host2"),
    Host("id-b", "10.0.0.2", 2.0, name="host1"),
]
HEAD = Host("id-a", "10.0.0.1", 0.0, is_driver=True, name="head")
FIVE = [HEAD, *(Host(f"id-{i}", f"10.0.0.{i}", 1.0, name=f"host{i}") for i in range(2, 6))]


def parse(written: Any) -> Placement:
    found: Placement = TypeAdapter(Placement).validate_python(written)
    return found


def chosen(count: int, written: Any, hosts: list[Host] = HOSTS) -> list[str]:
    """The last letters of the ids."""
    return [host.host_id[-1] for host in choose_hosts(count, hosts, parse(written))]


def refusal(count: int, written: Any, hosts: list[Host] = HOSTS) -> str:
    with pytest.raises(PlacementRefused) as refused:
        choose_hosts(count, hosts, parse(written))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_spread_takes_each_host_once_and_the_drivers_last() -> None:
    assert chosen(2, "spread") == ["b", "c"]
    assert chosen(3, "spread") == ["b", "c", "a"]
    assert chosen(5, "spread") == ["b", "c", "a", "b", "c"]
    assert chosen(3, "spread", HOSTS[:1]) == ["a"] * 3


@pytest.mark.parametrize("nodes", [3, 5, 7, 9, 11, 13, 15])
def test_spread_gives_every_host_its_even_share(nodes: int) -> None:
    shares = Counter(chosen(nodes, "spread", FIVE))
    assert set(shares) == {"2", "3", "4", "5"} if nodes > 3 else {"2", "3", "4"}
    assert max(shares.values()) - min(shares.values()) <= 1


def test_strict_spread_fits_or_is_refused() -> None:
    assert chosen(3, "strict_spread") == ["b", "c", "a"]
    assert refusal(4, "strict_spread") == (
        "placement: strict_spread of 4 nodes needs 4 hosts, there are 3: "
        "10.0.0.2 (host1), 10.0.0.3 (host2), 10.0.0.1 (head)"
    )
    assert refusal(5, "strict_spread", FIVE).endswith("10.0.0.5 (host5) (and without a CPU: 10.0.0.1 (head))")


def test_pack_takes_one_host() -> None:
    assert chosen(3, "pack") == ["b"] * 3


def test_a_majority_is_on_one_host_and_the_others_are_spread() -> None:
    assert chosen(3, "majority", FIVE) == ["2", "2", "3"]
    assert chosen(5, "majority", FIVE) == ["2", "2", "2", "3", "4"]
    assert chosen(15, "majority", FIVE) == ["2"] * 8 + ["3", "4", "5", "3", "4", "5", "3"]
    assert chosen(4, "majority", HOSTS) == ["b", "b", "b", "c"]
    assert chosen(1, "majority", HOSTS[:1]) == ["a"]
    assert "majority of 3 nodes needs 2 hosts, there is 1: 10.0.0.1 (head)" in refusal(3, "majority", HOSTS[:1])


def test_so_many_per_host() -> None:
    assert chosen(7, {"per_host": 3}, FIVE) == ["2"] * 3 + ["3"] * 3 + ["4"]
    assert chosen(2, {"per_host": 1}) == ["b", "c"]
    assert "{per_host: 2} of 7 nodes needs 4 hosts, there are 3" in refusal(7, {"per_host": 2})


def test_hosts_are_named_by_address_host_name_or_id() -> None:
    assert chosen(4, {"hosts": ["host2", "10.0.0.1", "id-b"]}) == ["c", "a", "b", "c"]
    assert chosen(3, {"hosts": ["host1", "host1", "host2"]}) == ["b", "b", "c"]
    assert refusal(3, {"hosts": ["host1", "host9"]}) == (
        "placement: the Ray cluster has no host 'host9'; its hosts: 10.0.0.2 (host1), 10.0.0.3 (host2), 10.0.0.1 (head)"
    )
    assert refusal(1, {"hosts": ["head"]}, FIVE).startswith("placement: 10.0.0.1 (head) offers no CPU; these do: 10.0")


def test_a_name_that_several_ray_nodes_have_is_refused_and_their_ids_are_told() -> None:
    twins = [Host("id-x", "10.0.0.2", 1.0, name="host1"), Host("id-y", "10.0.0.2", 1.0, name="host1")]
    assert chosen(3, "spread", twins) == ["x", "y", "x"]
    assert chosen(2, {"hosts": ["id-y"]}, twins) == ["y", "y"]
    assert refusal(1, {"hosts": ["10.0.0.2"]}, twins) == (
        "placement: 2 Ray nodes are called '10.0.0.2'; name one of them by its id: id-x, id-y"
    )


def test_another_field_may_name_hosts_also_without_cpus() -> None:
    assert host_named("head", FIVE, "load.on") is HEAD
    with pytest.raises(PlacementRefused, match=r"^load\.on: the Ray cluster has no host 'x'"):
        host_named("x", FIVE, "load.on")


@pytest.mark.parametrize("written", ["spread", "strict_spread", "pack", "majority", {"per_host": 1}])
def test_hosts_without_cpu_carry_nothing(written: Any) -> None:
    assert "1" not in chosen(4, written, FIVE)
    assert refusal(1, written, [HEAD]) == "placement: no host of the Ray cluster offers a CPU: 10.0.0.1 (head)"


@pytest.mark.parametrize("count", range(1, 16))
@pytest.mark.parametrize(
    "written", ["spread", "strict_spread", "pack", "majority", {"per_host": 4}, {"hosts": ["host2", "host3"]}]
)
def test_what_a_placement_needs_is_enough_and_what_it_can_use_it_uses(count: int, written: Any) -> None:
    hosts = [Host(f"id-{i:02}", f"10.0.0.{i}", 1.0, name=f"host{i}") for i in range(2, 20)]
    least, most = hosts_needed(count, parse(written))
    assert len(set(choose_hosts(count, hosts, parse(written)))) == most
    if written != {"hosts": ["host2", "host3"]}:
        assert len(set(choose_hosts(count, hosts[:least], parse(written)))) == least
        with pytest.raises(PlacementRefused):
            choose_hosts(count, hosts[: least - 1], parse(written))


def test_the_refusal_is_one_of_usage() -> None:
    assert issubclass(PlacementRefused, RaftLabError)
    assert PlacementRefused.exit_code == 2


def test_a_placement_is_written_back_as_it_was_and_tells_plans_apart() -> None:
    for written in ("majority", {"per_host": 2}, {"hosts": ["a", "b"]}):
        plan = ClusterPlan.model_validate({"placement": written})
        assert plan.model_dump(mode="json")["placement"] == written
        assert ClusterPlan.model_validate(plan.model_dump(mode="json")).placement == plan.placement
        assert len({plan.placement, parse(written), parse("spread")}) == 2


def test_a_host_without_a_free_cpu_is_told() -> None:
    spread = choose_hosts(4, HOSTS, "spread")
    assert shortage(spread, {"id-a": CPU_PER_ACTOR, "id-b": 1 - 98 * CPU_PER_ACTOR, "id-c": 2.0}) == ""
    assert shortage(spread, {"id-a": 2.0, "id-b": 0.01}) == (
        "10.0.0.2 (host1) has 0.01 of its 2 CPUs free, needed: 0.02; "
        "10.0.0.3 (host2) has 0 of its 2 CPUs free, needed: 0.01"
    )
    assert shortage(spread[:2], {"id-b": 0.005, "id-c": 0.01}).startswith(
        "10.0.0.2 (host1) has 0.005 of its 2 CPUs free"
    )
    assert cpus_of_actor(HEAD) == 0
    assert shortage([HEAD], {}) == ""
