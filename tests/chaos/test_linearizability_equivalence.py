"""The checker agrees with brute force in both directions, and with the store's model."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.history import History, Operation
from chaos.linearizability import check
from chaos.linearizability.pose import pose
from chaos.linearizability.problem import Problem, Step
from chaos.linearizability.states import ABSENT, NONE
from raft_actor_node.kv.model import step
from tests.chaos.brute_force import as_command, decoded, explains, linearizable
from tests.chaos.histories import executed

LOADS: list[dict[str, Any]] = [
    {"keys": 1},
    {"keys": 1, "mix": {"put": 0.5, "get": 0.5}},
    {"keys": 1, "mix": {"append": 0.6, "get": 0.2, "delete": 0.2}},
    {"keys": 1, "mix": {"cas": 0.5, "put": 0.2, "get": 0.3}},
    {"keys": 1, "mix": {"put": 0.4, "delete": 0.6}},
    {"keys": 1, "mix": {"put": 0.2, "append": 0.6, "delete": 0.2}},
]


def judged(operations: list[Operation]) -> bool:
    """Whether the checker finds an order; a history without anything to judge has one."""
    result = check(History(operations))
    assert result.verdict != "unknown" or "nothing to judge" in result.reason
    return result.verdict != "violated"


@st.composite
def any_operations(draw: st.DrawFn) -> list[Operation]:
    """A few operations on one key, with any answers; unique values or not, lengths known or not."""
    count, unique, sized = draw(st.integers(1, 6)), draw(st.booleans()), draw(st.booleans())
    kinds = draw(st.lists(st.sampled_from(("put", "get", "delete", "cas", "append")), min_size=1, unique=True))
    atoms = st.integers(1, count if unique else 3)
    lists = st.lists(atoms, min_size=1, max_size=3) if "append" in kinds else st.lists(atoms, min_size=1, max_size=1)
    values = st.none() | lists.map(tuple)
    operations = []
    for at in range(count):
        # A process has one operation at a time; one may begin at the moment at which the previous one ends.
        process = draw(st.integers(0, at))
        free_ns = max((int(o.return_ns) for o in operations if o.process == process and o.outcome == "ok"), default=0)
        operation = Operation(process, draw(st.sampled_from(kinds)), 0, invoke_ns=free_ns + draw(st.integers(0, 6)))
        if operation.f in {"put", "cas", "append"}:
            operation.value = at + 1 if unique else draw(atoms)
            operation.size = None if not sized else operation.value % 2 + 1 if not unique or at % 2 else 1
        if operation.f == "cas":
            operation.expected = draw(values)
        operation.outcome = draw(st.sampled_from(("ok", "ok", "ok", "info")))
        if operation.outcome == "ok":
            operation.return_ns = operation.invoke_ns + draw(st.integers(0, 8))
            _answer(draw, operation, values, sized)
        operations.append(operation)
    return operations


def _answer(draw: st.DrawFn, operation: Operation, values: st.SearchStrategy[Any], sized: bool) -> None:
    if operation.f == "cas":
        operation.swapped = draw(st.booleans())
    if operation.f == "get" or not operation.swapped:
        operation.observed = draw(values)
    elif operation.f == "delete":
        operation.observed = draw(st.sampled_from((None, True, False)))
    elif operation.f == "append" and sized:
        operation.observed = draw(st.none() | st.integers(1, 6))


@settings(max_examples=1000, deadline=None)
@given(any_operations(), st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_any_history_gets_the_verdict_of_brute_force(operations: list[Operation], errors_ns: list[int]) -> None:
    for operation in operations:
        operation.error_ns = errors_ns[operation.process]
    assert judged(operations) == linearizable(operations)


def mutated(rng: random.Random, operations: list[Operation]) -> None:
    """Change an answer, a moment or an outcome, so that the history may no longer be linearizable."""
    operation = rng.choice(operations)
    others = [o.observed for o in operations if o.f == "get" and o.outcome == "ok"] or [None]
    match rng.randrange(4):
        case 0 if operation.outcome == "ok":
            length = operation.return_ns - operation.invoke_ns
            operation.return_ns = operation.invoke_ns + length // 2
        case 1:
            by = rng.randrange(-3_000_000, 3_000_000)
            operation.invoke_ns, operation.return_ns = operation.invoke_ns + by, operation.return_ns + by
            operation.process += 100  # its own process has one operation at a time
        case 2 if operation.f == "get":
            operation.observed = rng.choice(others)
        case 3 if operation.f == "append" and operation.observed is not None:
            operation.observed += rng.choice((-8, 8))
        case 3 if operation.f == "delete" and operation.observed is not None:
            operation.observed = not operation.observed
        case 3 if operation.f != "get":
            operation.outcome, operation.return_ns, operation.observed = "info", math.inf, None
            operation.swapped = True


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(LOADS), st.integers(0, 2**32), st.integers(1, 7), st.sampled_from((None, 2)), st.booleans())
def test_a_mutated_history_gets_the_verdict_of_brute_force(
    load: dict[str, Any], seed: int, count: int, values: int | None, mutate: bool
) -> None:
    rng = random.Random(seed)
    operations = executed(count, seed=seed, sessions=rng.randint(1, 4), unknown=0.2, values=values, **load).operations
    for _ in range(rng.randint(1, 3) if mutate else 0):
        mutated(rng, operations)
    order = linearizable(operations)
    assert order or mutate
    assert judged(operations) == order


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LOADS), st.integers(0, 2**32), st.integers(1, 8), st.sampled_from((None, 3)))
def test_what_was_executed_has_an_order(load: dict[str, Any], seed: int, sessions: int, values: int | None) -> None:
    operations = executed(150, seed=seed, sessions=sessions, unknown=0.1, values=values, **load).operations
    assert judged(operations)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(LOADS), st.integers(0, 2**32))
def test_what_a_violation_shows_is_one(load: dict[str, Any], seed: int) -> None:
    """Brute force confirms the reduced violation, and all of its operations happened."""
    rng = random.Random(seed)
    operations = executed(40, seed=seed, sessions=4, unknown=0.1, **load).operations
    for _ in range(3):
        mutated(rng, operations)
    for operation in operations:
        operation.error_ns = operation.process * 200_000
    violation = check(History(operations)).violation
    if violation is not None:
        assert all(any(o is shown for o in operations) for shown in violation.operations)
        assert violation.left_out + len(violation.operations) <= len(operations)
        assert violation.impossible in violation.operations
        if len(violation.operations) <= 8:  # brute force would take too long for more
            assert not linearizable(violation.operations)


@pytest.mark.parametrize("seed", range(20))
def test_each_step_means_what_the_model_says(seed: int) -> None:
    """Random operations pass through both the store's model and the checker's steps over numbered states."""
    rng = random.Random(seed)
    operations = executed(60, seed=seed, sessions=1, keys=1, unknown=0.0).operations
    problem = pose(operations)
    steps = {id(step.operation): step for step in problem.steps}
    current, state = None, ABSENT
    for operation in operations:
        taken = steps[id(operation)]
        for other in rng.sample(operations, 10):
            _agree(problem, steps[id(other)], other, current, state)
        current, result = step(current, as_command(operation, current), value_bytes=1 << 20)
        assert explains(operation, result)
        state = problem.after(state, taken)
        assert (state == ABSENT) == (current is None)


def _agree(problem: Problem, taken: Step, operation: Operation, current: bytes | None, state: int) -> None:
    """In this state the step is possible exactly if the model gives the answer that the client got."""
    value, result = step(current, as_command(operation, current), value_bytes=1 << 20)
    after = problem.after(state, taken)
    if after != NONE:
        assert explains(operation, result)
        assert problem.states.size[after] in {None, len(value or b"")}
    elif explains(operation, result):
        # The step also knows whether the value it made was seen, and which value it was.
        assert operation.f == "append" or decoded(value) is None
