from __future__ import annotations

import pytest

from orchestration.errors import PlacementRefused
from orchestration.ray_cluster.placement import CPU_PER_ACTOR, Host, bundles, choose_hosts, describe_missing

HOSTS = [
    Host("id-a", "10.0.0.1", 2.0, is_driver=True),
    Host("id-c", "10.0.0.3", 2.0),
    Host("id-b", "10.0.0.2", 2.0),
]


def chosen(count: int, placement: str, hosts: list[Host] = HOSTS) -> list[str]:
    return [host.host_id for host in choose_hosts(count, hosts, placement)]  # type: ignore[arg-type]


def test_spread_takes_each_host_once_and_the_drivers_last() -> None:
    assert chosen(2, "spread") == ["id-b", "id-c"]
    assert chosen(3, "spread") == ["id-b", "id-c", "id-a"]
    assert chosen(5, "spread") == ["id-b", "id-c", "id-a", "id-b", "id-c"]
    assert chosen(3, "spread", HOSTS[:1]) == ["id-a"] * 3


def test_strict_spread_fits_or_is_refused() -> None:
    assert chosen(3, "strict_spread") == ["id-b", "id-c", "id-a"]
    with pytest.raises(PlacementRefused, match="strict_spread of 4 nodes needs 4 hosts, there are 3"):
        chosen(4, "strict_spread")


def test_pack_takes_one_host() -> None:
    assert chosen(3, "pack") == ["id-b"] * 3


def test_hosts_without_cpu_carry_nothing() -> None:
    assert chosen(2, "spread", [Host("head", "10.0.0.9", 0.0), *HOSTS[1:]]) == ["id-b", "id-c"]
    with pytest.raises(PlacementRefused, match="no host"):
        chosen(1, "spread", [])


def test_bundles_are_pinned_and_cost_next_to_nothing() -> None:
    wanted, strategy = bundles(choose_hosts(3, HOSTS, "spread"))
    assert strategy == "STRICT_SPREAD"
    assert [next(name for name in bundle if name != "CPU") for bundle in wanted] == [
        "node:10.0.0.2",
        "node:10.0.0.3",
        "node:10.0.0.1",
    ]
    wanted, strategy = bundles(choose_hosts(15, HOSTS[:1], "spread"))
    assert strategy == "SPREAD"
    assert sum(bundle["CPU"] for bundle in wanted) == pytest.approx(15 * CPU_PER_ACTOR)
    assert all(0 < value <= 0.01 for bundle in wanted for value in bundle.values())


def test_what_is_missing() -> None:
    line = describe_missing(choose_hosts(4, HOSTS, "spread"), {"CPU": 0.0, "node:10.0.0.1": 1.0, "node:10.0.0.2": 1.0})
    assert line == (
        "asked for 0.02 CPU on 10.0.0.2, 0.01 CPU on 10.0.0.3, 0.01 CPU on 10.0.0.1; "
        "free in the whole cluster: 0 CPU; gone: 10.0.0.3"
    )
