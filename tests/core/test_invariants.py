"""A broken rule stops the node with an error, even where asserts are switched off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raft_actor_node.core import Role
from raft_actor_node.core.invariants import QUORUM_PATIENCE, Snapshot, check
from raft_actor_node.core.node import RaftNode
from raft_actor_node.errors import InvariantViolated
from tests.core.bench import Solo, ack, appends

GOOD = Snapshot(Role.FOLLOWER, 3, "n1", "n2", last_index=5, last_term=3, durable_index=4, commit_index=2)


@pytest.mark.parametrize(
    ("rule", "after"),
    [
        ("term decreased", GOOD._replace(current_term=2, last_term=1)),
        ("commit_index decreased", GOOD._replace(commit_index=1)),
        ("commit_index beyond", GOOD._replace(commit_index=6)),
        ("durable_index beyond", GOOD._replace(durable_index=6)),
        ("later term", GOOD._replace(last_term=4)),
        ("election safety", GOOD._replace(voted_for="n3")),
        ("election safety", GOOD._replace(voted_for=None)),
    ],
)
def test_what_a_step_must_not_do(rule: str, after: Snapshot) -> None:
    """Terms, votes and commit_index per Figure 2 and Figure 3."""
    check(GOOD, GOOD)
    with pytest.raises(InvariantViolated, match=rule):
        check(GOOD, after)


def test_what_a_leader_must_not_do() -> None:
    """Leader append-only, and no candidate in its own term (Figure 3, Figure 4)."""
    leader = GOOD._replace(role=Role.LEADER)
    check(leader, leader._replace(last_index=9))
    with pytest.raises(InvariantViolated, match="append-only"):
        check(leader, leader._replace(last_index=4))
    with pytest.raises(InvariantViolated, match="candidate"):
        check(leader, leader._replace(role=Role.CANDIDATE))


def followed(node: RaftNode) -> None:
    node.progress["n2"].match_index -= 1


def asked_twice(node: RaftNode) -> None:
    node.progress["n2"].next_index = node.progress["n2"].match_index


def counted_early(node: RaftNode) -> None:
    node.commit_index = node.log.last_index


@pytest.mark.parametrize(
    ("breaks", "rule"),
    [
        (followed, "match_index decreased"),
        (asked_twice, "next_index not above match_index"),
        (counted_early, "not durable on a quorum"),
    ],
)
def test_how_a_leader_must_not_keep_account_of_its_followers(
    breaks: Callable[[RaftNode], None], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader checks its account of followers after each step (Figure 2, volatile state on leaders; section 5.3)."""
    bench = Solo()
    bench.receive(*map(ack, bench.lead()))
    assert bench.node.progress["n2"].match_index == bench.node.commit_index == 1
    bench.propose(b"x")
    monkeypatch.setattr(bench.node, "_hand_to_disk", lambda: breaks(bench.node))
    with pytest.raises(InvariantViolated, match=rule):
        bench.wait(0.0)


def test_what_is_known_of_a_follower_begins_anew_with_each_leadership() -> None:
    bench = Solo()
    bench.receive(*map(ack, bench.lead()))
    bench.wait(10.0)
    assert bench.node.role == Role.FOLLOWER
    bench.lead()
    assert bench.node.progress["n2"].match_index == 0


@pytest.mark.parametrize("check_quorum", [True, False])
def test_a_leader_that_hears_no_quorum_notices_that_it_still_leads(
    check_quorum: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check quorum (dissertation, section 6.2), in case stepping down fails."""
    bench = Solo(5, check_quorum=check_quorum)
    monkeypatch.setattr(bench.node, "_hears_quorum", lambda: True)
    first = bench.lead()
    patience_s = QUORUM_PATIENCE * bench.parameters.election_timeout_max
    bench.wait(patience_s)
    bench.receive(ack(appends(first, "n2")[0]))
    if not check_quorum:
        bench.wait(10 * patience_s)
        return
    with pytest.raises(InvariantViolated, match="check quorum"):
        bench.wait(0.001)


def test_rules_that_hold_cost_no_formatting() -> None:
    """The checks run after every step, on the hot path: they format a message only when a rule is broken."""

    class Silent(Snapshot):
        __slots__ = ()

        def __repr__(self) -> str:
            raise AssertionError("formatted though nothing is wrong")

    check(Silent(*GOOD), Silent(*GOOD))


SCRIPT = """
import random, sys
from raft_actor_node.core import AppendEntries, RaftNode, RaftParameters, Receive
from raft_actor_node.errors import InvariantViolated

assert False, "asserts are on"
node = RaftNode("n1", ["n1", "n2", "n3"], RaftParameters(0.15, 0.3, 0.05, 0.1), rng=random.Random(0), now=0.0)
node.step([Receive(AppendEntries("n2", "n1", 1, 0, 0, [1], [b"x"], 1, 1))], 0.0)
try:
    node.step([Receive(MESSAGE)], 0.0)
except InvariantViolated as error:
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    "message",
    [
        'AppendEntries("n3", "n1", 1, 0, 0, [], [], 0, 1)',  # a second leader in term 1
        'AppendEntries("n2", "n1", 2, 1, 2, [], [], 0, 1)',  # a conflict at the committed index 1
        'AppendEntries("n2", "n1", 2, 0, 0, [2], [b"y"], 0, 1)',
    ],
)
def test_invariants_survive_python_o(message: str) -> None:
    """Exit code 7 also under `python -O`."""
    script = SCRIPT.replace("MESSAGE", message)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-O", "-c", script], cwd=root, check=False, timeout=60)
    assert done.returncode == InvariantViolated.exit_code == 7
