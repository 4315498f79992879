"""A seed, from its options to its verdict: it gives the same run every time, and bugs are found."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping

import pytest

from orchestration.sim_cluster import Parts, Silent
from raft_actor_node.core import Effects, HardState, RaftNode, RaftParameters, RequestVote, Role
from raft_actor_node.core.invariants import Snapshot
from raft_actor_node.core.progress import FollowerProgress
from raft_actor_node.core.quorum import reached_by_quorum
from raft_actor_node.kv.store import Result, Store
from sweeps.campaign import draw, run_seed
from sweeps.campaign.clients import Clients
from sweeps.campaign.watch import Coverage

DIGEST = "from sweeps.campaign import run_seed; print([run_seed(seed).digest for seed in (0, 1, 2, 3)])"


def test_the_same_seed_gives_the_same_run_for_any_hash_seed() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            timeout=120,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1
    assert told == {f"{[run_seed(seed).digest for seed in (0, 1, 2, 3)]}\n".encode()}


def test_another_seed_gives_another_run() -> None:
    assert run_seed(0).digest != run_seed(1).digest


def test_the_story_does_not_change_what_happens() -> None:
    told = run_seed(5, story=True)
    assert told.digest == run_seed(5).digest
    assert any("became_leader" in line for line in told.story)


def test_a_seed_has_about_200_operations_and_all_checks() -> None:
    results = [run_seed(seed) for seed in range(20)]
    assert sum(sum(result.operations.values()) for result in results) > 20 * 160
    for result in results:
        checks = {finding.check for finding in result.findings}
        assert {"invariants", "liveness", "linearizability"} <= checks
        assert {finding.verdict for finding in result.findings} == {"ok"}
        assert result.operations["ok"] >= 10


def test_options_can_be_given() -> None:
    options = draw(9, "flaky").model_copy(update={"nodes": 2})
    assert run_seed(9, options=options).options.startswith("profile=flaky nodes=2 ")


class _CountsOldTerms(RaftNode):
    """Commits what is on a majority, whatever its term (Figure 8)."""

    def _advance_commit(self) -> None:
        index = int(reached_by_quorum([self.durable_index, *(p.match_index for p in self.progress.values())]))
        self.commit_index = max(self.commit_index, index)


class _NeverSilent(RaftNode):
    """Steps without end."""

    def next_deadline(self) -> float:
        return self._now


class _NoBatches(RaftNode):
    """Sends heartbeats, and never an entry."""

    def _replicate(self, peer: str, progress: FollowerProgress) -> None:
        pass


class _Forgetful(Store):
    """Applies a retry again."""

    def _repeated(self, session: object, sequence: int, crc: int) -> Result:
        return Result()


@pytest.mark.parametrize(
    ("profile", "parts", "found"),
    [
        ("figure-8", Parts(node=_CountsOldTerms), "invariants"),
        ("storm", Parts(node=_NeverSilent), "invariants"),
        ("flaky", Parts(node=_NoBatches), "liveness"),
        ("lost-answers", Parts(store=_Forgetful), "invariants"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bug_is_found(profile: str, parts: Parts, found: str) -> None:
    for seed in range(8):
        result = run_seed(seed, profile=profile, parts=parts)
        if result.verdict == "violated":
            broken = [finding.check for finding in result.findings if finding.verdict == "violated"]
            assert broken[0] == found, result.findings
            return
    pytest.fail("not found by 8 seeds")


def test_a_clients_view_alone_is_enough_to_find_a_stale_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the invariants, the histories of clients are still judged."""
    monkeypatch.setattr("sweeps.campaign.life.ClusterInvariants", _Blind)
    for seed in range(30):
        result = run_seed(seed, profile="deposed-leader", parts=Parts(node=_ReadsAtOnce), story=True)
        broken = [finding for finding in result.findings if finding.verdict == "violated"]
        if broken:
            assert broken[0].check == "linearizability"
            assert broken[0].detail
            assert result.picture.startswith("<svg")
            return
    pytest.fail("not found by 30 seeds")


class _Blind(Silent):
    """Replaces the invariants and checks nothing."""

    def __init__(self, **_: object) -> None:
        pass

    def compare_states(self, states: object, now: float) -> None:
        """The same member as in ClusterInvariants."""


class _ReadsAtOnce(RaftNode):
    """Answers reads without checking that it still leads."""

    def _confirmed_sequence(self) -> float:
        return float("inf")


def test_reads_at_the_end_that_nobody_answers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    read_all = Clients.read_all

    async def in_no_time(clients: Clients, addresses: Mapping[str, str], timeout_s: float) -> int:
        # This includes the first attempt, which may go to the leader.
        clients._settings = clients._settings.model_copy(update={"rpc_timeout": 1e-6})
        return await read_all(clients, addresses, 1e-6)

    monkeypatch.setattr(Clients, "read_all", in_no_time)
    result = run_seed(0)
    assert result.verdict == "violated"
    [finding] = [each for each in result.findings if each.verdict == "violated"]
    assert (finding.check, finding.reason.partition(",")[0]) == ("liveness", "without faults")


@pytest.fixture
def voter() -> RaftNode:
    """A node that voted for n2 in term 5, in an earlier incarnation."""
    members, parameters = ("n1", "n2", "n3"), RaftParameters(0.15, 0.3, 0.05, 0.1)
    hard_state = HardState(current_term=5, voted_for="n2")
    return RaftNode("n1", members, parameters, rng=random.Random(1), now=0.0, hard_state=hard_state)


def test_a_vote_asked_again_is_one_that_another_candidate_asks_for(voter: RaftNode) -> None:
    """A repeated request of the same candidate is harmless, as that candidate already has the vote."""
    coverage = Coverage()
    coverage.started(voter, 0.0)
    for candidate, times in (("n2", 0), ("n3", 1)):
        request = RequestVote(candidate, "n1", 5, last_log_index=0, last_log_term=0, pre_vote=False, sequence=1)
        coverage.delivered(request, 0.0)
        assert coverage.counts["votes asked again"] == times


def test_reads_that_count_as_refused_had_been_taken_by_a_leader(voter: RaftNode) -> None:
    coverage = Coverage()
    coverage.started(voter, 0.0)
    snapshot = Snapshot(Role.FOLLOWER, 5, "n2", None, 0, 0, 0, 0)
    for role, times in ((Role.FOLLOWER, 0), (Role.LEADER, 2)):
        coverage.stepped(voter, snapshot._replace(role=role), [], Effects(reads_refused=[1, 2]), 0.0)
        assert coverage.counts["reads refused"] == times
