"""Errors survive the transfer between processes."""

from __future__ import annotations

import pickle

import pytest

from raft_actor_node.errors import Attempt, InvariantViolated, OperationError, OperationFailed, OperationUnknown


@pytest.mark.parametrize("kind", [OperationFailed, OperationUnknown])
def test_what_became_of_an_operation_survives_pickling(kind: type[OperationError]) -> None:
    """The process of the sweep reports that a load generator could not open its session."""
    attempts = (Attempt("n1", "NOT_LEADER", 1, 2), Attempt("n2", "DEADLINE_EXCEEDED", 3, 4))
    again = pickle.loads(pickle.dumps(kind("open session: nobody leads", "NOT_LEADER", attempts)))
    assert type(again) is kind
    assert (str(again), again.code, again.attempts) == ("open session: nobody leads", "NOT_LEADER", attempts)


def test_a_broken_invariant_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(InvariantViolated("term decreases", rule="terms", node_id="n1", time_s=1.5)))
    assert (str(again), again.rule, again.node_id, again.time_s) == ("term decreases", "terms", "n1", 1.5)
