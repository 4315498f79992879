"""Text that several packages share: hints for mistyped names, and names of nodes."""

from __future__ import annotations

import pytest

from raft_actor_node.names import node_names
from raft_actor_node.text import did_you_mean

PARAMETERS = ("cluster.nodes", "raft.pre_vote", "latency.get.p99", "latency.put.p99", "load.clients")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("raft.prevote", "raft.pre_vote"),
        ("nodes", "cluster.nodes"),
        ("raft.nodes", "cluster.nodes"),
        ("latency.putt.p99", "latency.put.p99"),
        ("clientss", "load.clients"),
    ],
)
def test_a_mistyped_name_is_recognised(name: str, meant: str) -> None:
    assert did_you_mean(name, PARAMETERS) == f"; did you mean {meant}?"


@pytest.mark.parametrize("name", ["", "something else", None, 7])
def test_what_resembles_nothing_gets_no_hint(name: object) -> None:
    assert did_you_mean(name, PARAMETERS) == ""


def test_nodes_are_numbered_from_one() -> None:
    assert node_names(3) == ("n1", "n2", "n3")
    assert node_names(0) == ()
