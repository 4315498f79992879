"""The verdict of several findings."""

from __future__ import annotations

import json

from chaos.checks.finding import Finding, worst
from chaos.checks.verdict import as_json

GOOD, BAD, OPEN = Finding("a", "ok", "fine"), Finding("b", "violated", "broken"), Finding("c", "unknown", "too little")


def test_the_worst_verdict_counts_and_nothing_is_unknown() -> None:
    assert worst([GOOD]) == "ok"
    assert worst([GOOD, OPEN]) == "unknown"
    assert worst([GOOD, BAD, OPEN]) == "violated"
    assert worst([]) == "unknown"


def test_as_json_says_why_in_one_line() -> None:
    assert as_json([GOOD]) == {
        "verdict": "ok",
        "reason": "",
        "findings": [{"check": "a", "verdict": "ok", "reason": "fine", "detail": ""}],
        "not_checked": [],
    }
    assert as_json([GOOD, BAD, OPEN])["reason"] == "b: broken"
    assert as_json([])["reason"] == "nothing was checked"
    assert json.loads(json.dumps(as_json([GOOD, OPEN])))["verdict"] == "unknown"


def test_what_was_not_checked_is_told_and_without_history_and_traces_nothing_is_shown() -> None:
    for absent in (["linearizability"], ["invariants", "state"]):
        found = as_json([GOOD], absent)
        assert (found["verdict"], found["not_checked"]) == ("ok", absent)
    found = as_json([GOOD], ["linearizability", "invariants"])
    assert found["verdict"] == "unknown"
    assert found["reason"] == "checks: neither linearizability nor invariants was checked"
    assert as_json([GOOD, BAD], ["linearizability", "invariants"])["verdict"] == "violated"
