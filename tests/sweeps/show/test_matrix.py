"""The tables of sweeps with named cases."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from sweeps.show.matrix import Found, found, has_cases, notes, view


def cell(case: str, expect: str = "available", state: str | None = "available", **more: Any) -> Any:
    axes = {"case": case, **more.pop("axes", {})}
    params = {
        "axes": axes,
        "label": f"case={case}",
        "parameters": {
            "expect": expect,
            "cluster": {"nodes": more.pop("nodes", 5)},
            "target": more.pop("target", "raft"),
            "raft": more.pop("raft", {}),
        },
        "signature": more.pop("signature", {}),
    }
    return params, result(state, **more)


def result(state: str | None = "available", verdict: str = "ok", *, unexpected: bool = False, **more: Any) -> Any:
    return {
        "status": "ok",
        "verdict": {"verdict": verdict, "unexpected": unexpected},
        "availability": {"state": state, "outage_ms": 812.3, "faults": []},
        "elections": {"won": 2},
        "operations": {"ok": 1234, "failed": 5, "unknown": 6},
        "metrics": {"elections": 2, "outage": 812.3},
        **more,
    }


def text(table: Table, width: int = 140) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("outcome", "expected", "words", "good"),
    [
        (result(), "available", "available", True),
        (result("unavailable"), "unavailable", "unavailable, expected", True),
        (result("unavailable", status="failed"), "available", "UNAVAILABLE", False),
        (result("available", status="failed"), "unavailable", "available, not expected", False),
        (result(verdict="violated", unexpected=True), "available", "VIOLATED", False),
        (result(verdict="violated", unexpected=True, status="failed"), "unavailable", "VIOLATED", False),
        (result(verdict="violated"), "violated", "violated, expected", True),
        (result(verdict="ok", unexpected=True, status="failed"), "violated", "ok, not violated", False),
        (result(verdict="unknown"), "unknown", "unknown, expected", True),
        (result(verdict="unknown", unexpected=True), "available", "available, verdict unknown", False),
        (result(verdict="unknown"), "safe", "available, verdict unknown", True),
        (result("barely available", status="failed"), "available", "barely available", False),
        (result(None, faults=1), "ok", "ok", True),
        (result(None, faults=1, status="failed"), "ok", "failed", False),
        (result(availability=None), "available", "available", True),
        (result(availability=None, operations={"ok": 0}), "unavailable", "unavailable, expected", True),
        (result(status="failed"), "ok", "available, failed", False),
    ],
)
def test_what_was_found_is_said_against_what_was_expected(outcome: Any, expected: str, words: str, good: bool) -> None:
    assert found(outcome, expected)[:2] == Found(words, good)[:2]


def test_a_matrix_has_a_row_per_case_and_size_and_a_column_per_combination_of_switches() -> None:
    cells = [
        cell(case, nodes=nodes, axes={"cluster.nodes": nodes, "raft.pre_vote": pre_vote, "raft.check_quorum": check})
        for case in ("deaf leader", "chained")
        for nodes in (5, 7)
        for pre_vote in (True, False)
        for check in (True, False)
    ]
    cells[1] = cell("deaf leader", "unavailable", "unavailable", axes={**cells[1][0]["axes"], "case": "deaf leader"})
    head, *lines = text(view(cells))
    assert head.split("  ")[0] == "case"
    assert [part.strip() for part in head.split("  ") if part.strip()][2:] == [
        "pre vote + check quorum",
        "pre vote",
        "check quorum",
        "neither",
    ]
    assert [line.split()[:3] for line in lines] == [
        ["deaf", "leader", "5"],
        ["7", "available", "812"],
        ["chained", "5", "available"],
        ["7", "available", "812"],
    ]
    assert "unavailable, expected" in lines[0]


@pytest.mark.parametrize(
    ("raft", "axes", "heading"),
    [
        ({"pre_vote": False, "check_quorum": True}, {}, "check quorum"),
        ({"pre_vote": True, "check_quorum": True}, {}, "pre vote + check quorum"),
        ({"pre_vote": False, "check_quorum": False}, {}, "neither"),
        ({"pre_vote": True, "check_quorum": False}, {"raft.check_quorum": False}, "pre vote"),
        ({"pre_vote": True, "check_quorum": True}, {"load.clients": 4}, "clients 4"),
    ],
)
def test_a_column_is_named_by_the_switches_that_are_on(
    raft: dict[str, bool], axes: dict[str, Any], heading: str
) -> None:
    """A switch is named whether it varies or has the same value in all cells."""
    cells = [cell("chained", nodes=nodes, raft=raft, axes={"cluster.nodes": nodes, **axes}) for nodes in (5, 7)]
    assert [part.strip() for part in text(view(cells))[0].split("  ") if part.strip()][2:] == [heading]


def test_of_repeats_the_worst_is_shown_with_its_count() -> None:
    axes = {"raft.pre_vote": True}
    good, bad = (cell("x", axes=axes, state=state, status=status) for state, status in OUTCOMES)
    [line] = text(view([good, bad, good]))[1:]
    assert "1 of 3 UNAVAILABLE" in line
    [line] = text(view([good, good]))[1:]
    assert line.endswith("available 812 ms")


OUTCOMES = (("available", "ok"), ("unavailable", "failed"))


def test_without_other_axes_each_case_has_a_row() -> None:
    head, first, second = text(view([cell("calm", "ok"), cell("cut", "unavailable", "unavailable")]))
    assert head.split() == ["case", "expected", "found", "outage", "elections", "ok", "failed", "unknown"]
    assert first.split() == ["calm", "ok", "available", "812", "ms", "2", "1,234", "5", "6"]
    assert second.split()[:4] == ["cut", "unavailable", "unavailable,", "expected"]


def test_a_signature_is_shown_beside_what_was_seen_and_refusals_with_their_rule() -> None:
    signature = {"elections": ">= 10", "outage": "< 1s", "busy": ">= 0.9"}
    lines = text(view([cell("churn", "safe", signature=signature)], {"batch": "raft.max_batch_bytes: at most 8 MiB"}))
    assert [line.split()[-3:] for line in lines[1:4]] == [
        [">=", "10", "2"],
        ["1s", "812", "ms"],
        ["0.9", "not", "measured"],
    ]
    assert lines[4].split()[:3] == ["batch", "refused", "refused"]
    assert lines[4].endswith("raft.max_batch_bytes: at most 8 MiB")


def test_a_signature_of_a_lower_bound_says_that_it_is_one() -> None:
    known = cell("slow", signature={"latency.put.p99": "< 5s"}, metrics={"latency.put.p99": 2272.0})
    params, bounded = cell("slow", signature=known[0]["signature"], metrics={"latency.put.p99": 2272.0})
    bounded["lower_bounds"] = ["latency.put.p99"]
    assert "2.27 s" in text(view([known]))[1]
    assert "≥2.27 s" in text(view([(params, bounded)]))[1]


def test_a_signature_of_an_earlier_version_is_shown_with_what_it_is_called_now() -> None:
    lines = text(view([cell("crash", signature={"failover.elected": "> 600ms"}, metrics={"failover.elected": 700.0})]))
    assert "failover.elected.max" in " ".join(lines)


def test_notes_tell_of_what_was_not_expected_only() -> None:
    bad = cell("cut", state="unavailable", status="failed", reason="expected to be available, and was unavailable")
    lines = notes([cell("calm", reason="nothing"), bad])
    assert lines[0] == "case=cut: expected to be available, and was unavailable"
    assert lines[1].startswith("available: operations completed under the fault later than 10 election timeouts")
    assert len(lines) == 2


def test_simulated_cases_are_marked_so_and_with_the_load_that_they_had() -> None:
    cells = [cell("a", target="sim", load_scaled={"load.rate": [1000.0, 391.7]}), cell("b", target="sim")]
    lines = notes(cells)
    assert lines[0] == "case=a: simulated with less load: load.rate 391.7, not 1000.0"
    assert lines[-1].startswith("simulated: times are those of the simulated world")
    assert len(lines) == 3


def test_only_sweeps_with_cases_have_these_tables() -> None:
    params, outcome = cell("x")
    assert has_cases([(params, outcome)])
    assert not has_cases([({**params, "axes": {"cluster.nodes": 5}}, outcome)])
