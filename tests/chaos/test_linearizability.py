"""Histories whose linearizability is known, and the bounds of the checker."""

from __future__ import annotations

import math
import tracemalloc
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest

from chaos.history import Function, History, Operation
from chaos.linearizability import Linearizability, Violation, check
from tests.chaos.histories import executed


def op(process: int, f: Function, begin: int, end: float, value: Any = None, **more: Any) -> Operation:
    """An operation on key `k`; an endless one is of unknown outcome."""
    if f == "get":
        more["observed"] = value if value is None or isinstance(value, tuple) else (value,)
        value = None
    return Operation(process, f, "k", value, invoke_ns=begin, return_ns=end, **more)


def unknown(process: int, f: Function, begin: int, value: Any = None, **more: Any) -> Operation:
    return op(process, f, begin, math.inf, value, outcome="info", **more)


def judge(*operations: Operation, **limits: Any) -> Linearizability:
    return check(History(operations), **limits)


def found(result: Linearizability) -> Violation:
    assert result.verdict == "violated", result.reason
    assert result.violation is not None
    alone = check(History(result.violation.operations))
    assert alone.verdict == "violated", "what is shown must be a violation by itself"
    assert result.violation.impossible in result.violation.operations
    return result.violation


LINEARIZABLE = {
    "one after the other": [op(0, "put", 0, 1, 1), op(1, "get", 2, 3, 1)],
    "a write is seen before it returns": [op(0, "put", 0, 9, 1), op(1, "get", 2, 3, 1), op(1, "get", 4, 5, 1)],
    "and not seen while it runs": [op(0, "put", 0, 9, 1), op(1, "get", 2, 3), op(1, "get", 4, 5, 1)],
    "two writes, two orders": [op(0, "put", 0, 9, 1), op(1, "put", 0, 9, 2), op(2, "get", 10, 11, 1)],
    "equal times overlap": [op(0, "put", 0, 5, 1), op(1, "get", 5, 6)],
    "an operation that overlaps both of a process": [
        op(0, "put", 0, 5, 1), op(0, "put", 5, 9, 2), op(1, "get", 5, 5), op(2, "get", 5, 5, 2), op(3, "get", 5, 5, 1),
    ],
    "what nobody knows the end of may come after what its client asked next": [
        unknown(0, "put", 0, 1), op(0, "put", 5, 6, 2), op(1, "get", 7, 8, 1),
    ],
    "a cas that writes what it expects, twice": [
        op(0, "cas", 0, 1, None), op(0, "cas", 2, 3, None), op(0, "put", 4, 5, 1),
        op(0, "cas", 6, 7, 1, expected=(1,)), op(1, "cas", 8, 9, 1, expected=(1,)), op(1, "get", 10, 11, 1),
    ],
    "a cas of nothing by nothing, once": [
        op(0, "cas", 0, 1, None), op(1, "get", 2, 3), op(0, "put", 4, 5, 1), op(1, "get", 6, 7, 1),
    ],
    "an unknown write that never was": [unknown(0, "put", 0, 1), op(1, "get", 5, 6)],
    "an unknown write that was": [unknown(0, "put", 0, 1), op(1, "get", 5, 6), op(1, "get", 7, 8, 1)],
    "an unknown write, long after it was given up": [
        unknown(0, "put", 0, 1), op(1, "put", 10, 11, 2), op(1, "get", 12, 13, 2), op(1, "get", 14, 15, 1),
    ],
    "a failed write is not there": [op(0, "put", 0, 1, 1, outcome="fail"), op(1, "get", 2, 3)],
    "a failed read says nothing": [op(0, "put", 0, 1, 1), op(1, "get", 2, 3, outcome="fail")],
    "an unknown delete explains an absence": [op(0, "put", 0, 1, 1), unknown(1, "delete", 2), op(2, "get", 3, 4)],
    "an unknown put explains what a delete found": [unknown(0, "put", 0, 1), op(1, "delete", 2, 3, observed=True)],
    "an unknown append explains a length": [
        op(0, "append", 0, 1, 1, size=8, observed=8), unknown(1, "append", 2, 2, size=8),
        op(0, "append", 3, 4, 3, size=8, observed=24),
    ],
    "a chain of unknown cas": [
        unknown(0, "cas", 0, 1), unknown(1, "cas", 0, 2, expected=(1,)), op(2, "get", 5, 6, 2),
    ],
    "a cas that lost": [
        op(0, "put", 0, 1, 1), op(1, "cas", 2, 9, 2, expected=(1,)),
        op(2, "cas", 2, 9, 3, expected=(1,), swapped=False, observed=(2,)),
    ],
    "appends in the order that lengths and reads tell": [
        op(0, "append", 0, 9, 1, size=8, observed=16), op(1, "append", 0, 9, 2, size=8, observed=8),
        op(2, "get", 10, 11, (2, 1)),
    ],
    "the same value again": [
        op(0, "put", 0, 1, 1), op(0, "put", 2, 3, 2), op(1, "get", 3, 4, 2),
        op(0, "put", 5, 6, 1), op(1, "get", 7, 8, 1),
    ],
    "a list that grows from the empty one": [
        op(0, "put", 0, 1, ()), op(0, "get", 2, 3, ()), op(0, "append", 4, 5, 1), op(0, "get", 6, 7, 1),
    ],
    "writing nothing": [op(0, "put", 0, 1, 1), op(0, "put", 2, 3, None), op(0, "get", 4, 5)],
}  # fmt: skip

VIOLATED = {
    "a stale read": [op(0, "put", 0, 1, 1), op(0, "put", 2, 3, 2), op(1, "get", 4, 5, 1)],
    "a lost update": [op(0, "put", 0, 1, 1), op(1, "get", 2, 3)],
    "two cas from the same value": [
        op(0, "put", 0, 1, 1), op(1, "cas", 2, 9, 2, expected=(1,)), op(2, "cas", 2, 9, 3, expected=(1,)),
    ],
    "a read goes back": [
        op(0, "put", 0, 9, 1), op(1, "get", 1, 2, 1), op(1, "get", 3, 4), op(2, "get", 20, 21, 1),
    ],
    "new, then old, on two clients": [
        op(0, "put", 0, 1, 1), op(0, "put", 2, 9, 2), op(1, "get", 3, 4, 2), op(2, "get", 5, 6, 1),
    ],
    "readers disagree about the order of two writes": [
        op(0, "put", 0, 9, 1), op(1, "put", 0, 9, 2),
        op(2, "get", 1, 2, 1), op(2, "get", 3, 4, 2), op(3, "get", 5, 6, 1),
    ],
    "a value that nobody wrote": [op(0, "put", 0, 1, 1), op(1, "get", 0, 1, 7)],
    "a failed write is seen": [op(0, "put", 0, 1, 1, outcome="fail"), op(1, "get", 2, 3, 1)],
    "a value seen before it was written": [op(1, "get", 0, 1, 1), op(0, "put", 2, 3, 1)],
    "an unknown write seen before it was begun": [op(1, "get", 0, 1, 1), unknown(0, "put", 2, 1)],
    "an append that a retry did twice": [
        op(0, "append", 0, 1, 1), op(0, "append", 2, 9, 2), op(1, "get", 10, 11, (1, 2, 2)),
    ],
    "a length that tells of an append done twice": [
        op(0, "append", 0, 1, 1, size=8, observed=8), op(0, "append", 2, 9, 2, size=8, observed=24),
    ],
    "a length that goes back": [
        op(0, "append", 0, 1, 1, size=8, observed=8), op(0, "append", 2, 3, 2, size=8, observed=16),
        op(0, "append", 4, 5, 3, size=8, observed=16),
    ],
    "a length that does not fit what was seen": [
        op(0, "put", 0, 1, 1, size=64), op(0, "append", 2, 3, 2, size=8, observed=80), op(0, "get", 4, 5, (1, 2)),
    ],
    "an append that was lost": [
        op(0, "append", 0, 1, 1), op(0, "append", 2, 3, 2), op(0, "append", 4, 5, 3), op(1, "get", 6, 7, (1, 3)),
    ],
    "a delete found what was deleted": [
        op(0, "put", 0, 1, 1), op(0, "delete", 2, 3, observed=True), op(0, "delete", 4, 5, observed=True),
    ],
    "a delete found nothing": [op(0, "put", 0, 1, 1), op(0, "delete", 2, 3, observed=False)],
    "a cas did not swap, though it saw what it expected": [
        op(0, "put", 0, 1, 1), op(0, "cas", 2, 3, 2, expected=(1,), swapped=False, observed=(1,)),
    ],
    "an unknown put is used twice": [
        unknown(0, "put", 0, 1), op(1, "delete", 2, 3, observed=True), op(1, "delete", 4, 5, observed=True),
    ],
    "a process does not see what it has just put": [op(0, "put", 0, 10, 1), op(0, "get", 10, 20)],
    "a process sees what it puts next": [op(0, "get", 0, 10, 1), unknown(0, "put", 10, 1)],
    "two reads of a process go back at one moment": [
        op(0, "put", 0, 9, 1), op(0, "delete", 9, 9), op(1, "get", 5, 9), op(1, "get", 9, 9, 1), op(1, "get", 9, 9),
        op(1, "get", 9, 12, 1),
    ],
    "two processes, each of which sees only what the other one put next": [
        op(0, "get", 0, 5, 2), op(0, "put", 5, 9, 1), op(1, "get", 0, 5, 1), op(1, "put", 5, 9, 2),
    ],
    "true is not 1": [op(0, "put", 0, 1, True), op(0, "get", 2, 3, 1)],
}  # fmt: skip


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_these_have_an_order(name: str) -> None:
    result = judge(*LINEARIZABLE[name])
    assert result.verdict == "ok", result.reason


@pytest.mark.parametrize("name", VIOLATED)
def test_these_have_none(name: str) -> None:
    violation = found(judge(*VIOLATED[name]))
    assert len(violation.operations) <= len(VIOLATED[name])


@pytest.mark.parametrize("name", VIOLATED)
def test_a_violation_is_found_among_many_operations_and_made_small(name: str) -> None:
    """Other traffic precedes and follows the violation, on this key and others; its values are strings, not numbers."""
    last = max(operation.invoke_ns for operation in VIOLATED[name]) + 100
    hidden = [replace(o, key="k", process=o.process + 10) for o in _traffic(1)]
    shift = int(max(o.return_ns for o in hidden if o.return_ns < math.inf)) + 10
    cleared = [op(9, "delete", shift, shift + 1), *(_moved(o, shift + 5) for o in VIOLATED[name])]
    after = [_moved(replace(o, process=o.process + 10, key="k"), shift + last) for o in _traffic(2)]
    violation = found(judge(*_traffic(3), *hidden, *cleared, *after))
    assert violation.key == "k"
    assert len(violation.operations) <= len(VIOLATED[name]) + 2
    assert violation.left_out > 200


def _traffic(seed: int) -> list[Operation]:
    history = executed(150, seed=seed, sessions=4, keys=1, unknown=0.0, mix={"put": 0.5, "get": 0.5})
    for operation in history:
        operation.key = "other"
        operation.value = None if operation.value is None else f"{seed}.{operation.value}"
        operation.observed = operation.observed and (f"{seed}.{operation.observed[0]}",)
    # Reads of the initial state would not hold later.
    return [operation for operation in history if operation.f == "put" or operation.observed]


def _moved(operation: Operation, by_ns: int) -> Operation:
    return replace(operation, invoke_ns=operation.invoke_ns + by_ns, return_ns=operation.return_ns + by_ns)


def test_each_key_is_an_object_of_its_own() -> None:
    one, other = op(0, "put", 0, 1, 1), op(0, "get", 2, 3)
    assert judge(one, replace(other, key="another")).verdict == "ok"
    assert judge(one, replace(other, key="k")).verdict == "violated"


def test_what_says_nothing_is_not_ok() -> None:
    nothing = ([], [op(0, "put", 0, 1, 1, outcome="fail")], [op(0, "get", 0, 1, outcome="info")])
    for operations in (*nothing, [unknown(0, "put", 0, 1), unknown(1, "get", 2)]):
        result = judge(*operations)
        assert result.verdict == "unknown"
        assert "nothing to judge" in result.reason


def test_an_error_of_the_clocks_widens_what_overlaps() -> None:
    stale = VIOLATED["a stale read"]
    assert judge(*stale).verdict == "violated"
    assert judge(*(replace(o, error_ns=1) for o in stale)).verdict == "ok"


def test_the_order_of_a_process_holds_whatever_the_error_of_its_clock() -> None:
    """A process reads one clock. Operations of others at that time may come before or after."""
    own = [op(0, "put", 0, 1, 1), op(0, "put", 2, 3, 2), op(0, "get", 4, 5, 1)]
    wrong = [replace(operation, error_ns=10**9) for operation in own]
    assert judge(*wrong).verdict == "violated"
    assert judge(*wrong[:2], replace(wrong[2], process=1)).verdict == "ok"


def test_a_violation_says_how_right_its_times_are() -> None:
    stale = [replace(o, invoke_ns=o.invoke_ns * 10**9, return_ns=o.return_ns * 10**9) for o in VIOLATED["a stale read"]]
    assert "accurate to" not in found(judge(*stale)).as_text()
    assert "accurate to 0.400 ms" in found(judge(*(replace(o, error_ns=400_000) for o in stale))).as_text()


def hard(operations: int) -> History:
    """Few values, many clients, one key: too many orders to try them all."""
    return executed(operations, seed=2, sessions=40, keys=1, unknown=0.3, values=4)


def test_time_that_runs_out_is_unknown() -> None:
    result = check(hard(3000), time_limit_s=0.7)
    assert (result.verdict, result.checked_keys) == ("unknown", 0)
    assert result.reason == "time ran out: 1 of 1 keys are not decided"
    assert result.seconds < 3.0


def test_memory_that_runs_out_is_unknown() -> None:
    history, limit = hard(3000), 20_000_000
    tracemalloc.start()
    try:
        result = check(history, time_limit_s=100.0, memory_limit_bytes=limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (result.verdict, result.reason) == ("unknown", "memory ran out: 1 of 1 keys are not decided")
    assert peak < limit


@pytest.mark.parametrize("kind", ["put", "get", "cas"])
def test_bounds_hold_however_many_operations_overlap(kind: str) -> None:
    """Each step of the search compares thousands of operations, and keeps a layer of as many states."""
    every = [op(n, "put", n, 10**9 + n, n % 2000) for n in range(4000)]
    if kind == "get":
        every += [op(n + 4000, "get", n, 10**9 + n, n % 2000) for n in range(4000)]
    elif kind == "cas":
        every = [replace(o, f="cas", expected=((o.value + 1) % 2000,)) for o in every]
    limit = 40_000_000
    tracemalloc.start()
    try:
        result = check(History(every), time_limit_s=2.0, memory_limit_bytes=limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.seconds < 5.0
    assert peak < 1.5 * limit
    assert result.verdict != "ok" or result.seconds <= 2.5


def test_a_hard_key_hides_no_violation_of_another() -> None:
    hidden = [replace(o, key="another") for o in VIOLATED["readers disagree about the order of two writes"]]
    assert check(History([*hard(1000), *hidden]), time_limit_s=20.0).verdict == "violated"


@pytest.mark.parametrize(
    "load",
    [
        {"sessions": 16, "keys": 5, "unknown": 0.05},
        {"sessions": 16, "keys": 1, "unknown": 0.3},
        {"sessions": 128, "keys": 1, "unknown": 0.02},
        {"sessions": 8, "keys": 1, "values": 5, "unknown": 0.02},
        {"sessions": 32, "keys": 1, "unknown": 0.1, "mix": {"put": 0.2, "get": 0.4, "cas": 0.4}},
        {"sessions": 32, "keys": 1, "unknown": 0.1, "mix": {"put": 0.5, "delete": 0.5}},
        {"sessions": 8, "keys": 2, "unknown": 0.1, "mix": {"append": 0.8, "put": 0.1, "get": 0.1}},
    ],
)
def test_long_histories_are_decided(load: dict[str, Any]) -> None:
    result = check(executed(2000, seed=3, **load), time_limit_s=60.0)
    assert result.verdict == "ok", result.reason


def test_the_text_shows_who_did_what_when() -> None:
    violation = found(
        judge(
            op(0, "put", 5_000_000, 6_000_000, (4 << 40) + 17),
            unknown(3, "append", 5_500_000, "<&>"),
            op(0, "put", 7_000_000, 8_000_000, 2),
            op(12, "get", 9_000_000, 9_250_000, (4 << 40) + 17),
        )
    )
    assert violation.as_text() == (
        "key 'k': the get of client 12 found what had been replaced before it began:"
        " the put of client 0 took effect in between\n"
        "Other operations on the key, left out: 1. No order exists even if each of them took effect at any moment after"
        " it began, or never.\n"
        "\n"
        "    client  from ms  to ms  operation\n"
        "         0    0.000  1.000  put 4:17\n"
        "         0    2.000  3.000  put 2\n"
        ">>      12    4.000  4.250  get -> 4:17  impossible\n"
    )


def test_the_picture_has_a_bar_for_each_operation() -> None:
    violation = found(judge(*VIOLATED["an unknown write seen before it was begun"]))
    root = ET.fromstring(violation.as_svg())
    name = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{name}rect")) == 1 + 1, "the ground, and what returned"
    (open_end,) = root.findall(f"{name}path")
    assert not open_end.attrib["d"].endswith("Z")
    texts = [text.text or "" for text in root.findall(f"{name}text")]
    assert all(16 + 7 * len(text) < float(root.attrib["width"]) for text in texts), "nothing is cut off"
    assert {"put 1", "get -> 1", "client 0", "client 1"} <= set(texts)


def test_names_in_a_picture_are_escaped() -> None:
    nasty = '<&"\x07\n>'
    violation = found(judge(op(0, "put", 0, 1, nasty), op(0, "put", 2, 3, 1), op(1, "get", 4, 5, nasty)))
    assert ET.fromstring(violation.as_svg()) is not None
    assert len(violation.as_text().splitlines()) == 7
