"""Whether clients were served while a fault lasted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from chaos.events import FaultEvent
from sweeps.analysis.availability import availability, late_windows, refutes, under_faults, waiting
from sweeps.load.operations import OK, UNKNOWN
from tests.sweeps.analysis.test_latency import S, operations

TIMEOUT_S = 0.2
"""The longest election timeout: operations count from ten of them, 2 s, after the fault took effect."""


def fault(begin: float, end: float | None, index: int = 0, *, advance: float | None = None) -> list[FaultEvent]:
    """The events of a fault; each action takes 0.1 s to reach all nodes."""
    acts = (("inject", begin), ("advance", advance), ("heal", end))
    return [
        FaultEvent.read(
            {
                "kind": "partition",
                "action": action,
                "index": index,
                "time_ns": int(at * S),
                "done_ns": int((at + 0.1) * S),
            }
        )
        for action, at in acts
        if at is not None
    ]


def successes(*times: float, outcome: int = OK) -> Any:
    rows = [{"start_ns": int(at * S), "end_ns": int(at * S) + 1, "outcome": outcome} for at in times]
    return operations(*rows, measure_ns=(0, 10 * S))


def state(events: list[FaultEvent], operations: Any) -> Any:
    found = availability(events, operations, TIMEOUT_S)
    return found and found["state"]


def test_it_is_available_when_operations_complete_later_than_the_bound() -> None:
    partition = fault(1.0, 5.0)
    assert state(partition, successes(0.5, 3.2)) == "available"
    assert state(partition, successes(0.5, 3.0, 5.0)) == "unavailable", "too early to count, and healed already"
    assert state(partition, successes(3.2, outcome=UNKNOWN)) == "unavailable"
    assert state(partition, successes()) == "unavailable"


def test_what_clocks_cannot_tell_to_be_under_the_fault_is_not() -> None:
    """An operation proves service under the fault only if its clock's error cannot place it after the heal."""
    partition = fault(1.0, 5.0)
    healed = replace(successes(0.5, 4.99), generator_error_ns=np.array([S // 50], np.int64))
    assert state(partition, successes(0.5, 4.99)) == "available"
    assert state(partition, healed) == "unavailable"
    assert late_windows(partition, healed, TIMEOUT_S) == [(3.12 * S, 4.98 * S)]


def test_a_few_operations_are_no_service() -> None:
    """Below 1 % of the rate before the fault, a cell is barely available.

    If that rate is unknown, one operation makes the cell available.
    """
    partition, before = fault(1.0, 5.0), [0.01 * number for number in range(100)]
    assert state(partition, successes(*before, 4.0)) == "barely available"
    assert state(partition, successes(*before, 4.0, 4.1, 4.2)) == "available"
    assert state(partition, successes(4.0)) == "available"
    found = availability(partition, successes(*before, 4.0), TIMEOUT_S)
    assert refutes(found, "available") == "expected to be available, and was barely available"
    assert refutes(found, "unavailable") == "expected to be unavailable, and was barely available"


def test_who_waited_while_nobody_should_be_served() -> None:
    windows = late_windows([*fault(1.0, 5.0), *fault(6.0, 7.0, 1)], successes(), TIMEOUT_S)
    assert windows == [(3.1 * S, 5.0 * S)], "the other one is over too soon"
    begin, end = (np.array(times, np.int64) for times in ([2 * S, 4 * S, 9 * S], [35 * S // 10, 6 * S, 10 * S]))
    waited, unasked = waiting(begin, end, windows)
    assert (waited, round(unasked, 3)) == (2, round(0.5 / 1.9, 3))
    assert waiting(begin, end, [*windows, (7 * S, 8 * S)]) == (0, 1.0), "the worst of them counts"
    assert waiting(begin, end, []) == (0, 1.0)


def test_a_fault_that_is_never_healed_lasts_until_the_end_of_the_measurement() -> None:
    assert state(fault(1.0, None), successes(9.9)) == "available"
    assert state(fault(1.0, 20.0), successes(10.1)) == "unavailable"


def test_one_that_is_over_too_soon_says_nothing() -> None:
    assert state(fault(1.0, 3.0), successes(2.9)) is None
    assert state([*fault(1.0, 3.0), *fault(4.0, 8.0, 1)], successes(6.5)) == "available", "the other one does"
    assert availability([], successes(1.0), TIMEOUT_S) is None
    assert availability(fault(1.0, 5.0), None, TIMEOUT_S) is None


def test_a_fault_of_two_stages_counts_from_the_second() -> None:
    assert state(fault(1.0, 6.0, advance=3.0), successes(4.0)) == "unavailable"
    assert state(fault(1.0, 6.0, advance=3.0), successes(5.5)) == "available"


def test_one_that_never_took_effect_does_not_count() -> None:
    missed = [event.model_copy(update={"took_effect": False}) for event in fault(1.0, 5.0)]
    assert availability(missed, successes(4.0), TIMEOUT_S) is None


def test_faults_that_differ_have_no_common_state() -> None:
    both = [*fault(0.5, 4.0), *fault(5.0, 9.0, 1)]
    found = availability(both, successes(3.0), TIMEOUT_S)
    assert found is not None
    assert found["state"] is None
    assert [each["state"] for each in found["faults"]] == ["available", "unavailable"]
    assert refutes(found, "available") == "expected to be available, but was not under at least one fault"


def test_the_outage_is_the_longest_time_without_success_under_the_fault() -> None:
    [under] = under_faults(fault(1.0, 5.0), successes(0.5, 2.1, 2.2, 4.2), TIMEOUT_S)
    assert under.outage_ms == 2000.0
    assert under.completed == 1
    # One success in the 1.1 s before the fault is in force, and one in the last 1.9 s of the fault, behind the bound.
    assert under.share == round((1 / 1.9) / (1 / 1.1), 3)


def test_what_was_expected_is_compared_in_one_line() -> None:
    found = availability(fault(1.0, 5.0), successes(4.0), TIMEOUT_S)
    assert refutes(found, "available") is None
    assert refutes(found, "unavailable") == "expected to be unavailable, and was available"
    assert refutes(None, "available") == "expected to be available, and no fault lasted more than 10 election timeouts"
