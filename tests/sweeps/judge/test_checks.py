"""Every check of the registry, over a stored cell, an empty one and damaged ones; and a check defined in this file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from chaos.checks.base import Check
from chaos.checks.evidence import Missing, StoredEvidence
from chaos.checks.finding import Finding
from chaos.checks.registry import CHECKS, DECISIVE, SAFETY
from sweeps.judge import program
from sweeps.judge.stored import CellEvidence
from sweeps.spec.parameters import CheckSettings

[CELL] = (Path(__file__).parents[1] / "format-1" / "cells").iterdir()
KEPT = ("params.json", "result.json")
"""Without these two files there is no cell."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(CELL, tmp_path / "cell")


def findings(folder: Path) -> dict[str, tuple[str, str]]:
    verdict = program.judge(folder, CheckSettings())
    return {each["check"]: (each["verdict"], each["reason"]) for each in verdict["findings"]}


def test_the_names_are_different_and_say_which_checks_are_about_safety() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert set(names) - set(SAFETY) == {"liveness", "coverage"}
    assert DECISIVE == ("linearizability", "invariants")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_finds_a_good_cell_ok_under_its_own_name(folder: Path, check: Check) -> None:
    found = check.find(CellEvidence(folder, CheckSettings()))
    assert found is not None
    assert (found.check, found.verdict) == (check.name, "ok")


@pytest.mark.parametrize("what", ["empty", "not JSON", "other JSON"])
def test_every_check_of_an_empty_or_damaged_cell_is_unknown_and_none_crashes(folder: Path, what: str) -> None:
    for path in [*folder.iterdir()]:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in KEPT:
            if what == "empty":
                path.unlink()
            else:
                path.write_text("{" if what == "not JSON" else '{"statuses": 7, "settled": [1], "exits": [{}]}')
    verdict = program.judge(folder, CheckSettings())
    words = {each["check"]: each["verdict"] for each in verdict["findings"]}
    assert verdict["verdict"] == "unknown"
    assert set(words.values()) == {"unknown"}
    assert set(words) == {check.name for check in CHECKS}


def test_a_cell_that_ended_before_its_nodes_could_be_asked_is_no_violation(folder: Path) -> None:
    (folder / "inspection.json").write_text(json.dumps({"settled": None, "statuses": []}))
    words = {name: word for name, (word, _) in findings(folder).items()}
    assert words["durability"] == words["inspection"] == words["state"] == "unknown"
    assert "violated" not in words.values()


def test_a_new_check_goes_through_the_judge(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four new checks: one finds a violation, one lacks evidence, one raises, and one does not apply."""

    def writes(stored: StoredEvidence) -> Finding:
        return Finding("writes", "violated", f"{stored.acknowledged_writes} writes by {len(stored.nodes)} nodes")

    def lacking(stored: StoredEvidence) -> Finding:
        raise Missing("there is no thermometer")

    def failing(stored: StoredEvidence) -> Finding:
        raise ZeroDivisionError("by zero")

    new = (
        Check("writes", writes, safety=True),
        Check("lacking", lacking, safety=False),
        Check("failing", failing, safety=False, switch="invariants"),
        Check("elsewhere", lambda stored: None, safety=False),
    )
    monkeypatch.setattr(program, "CHECKS", (*CHECKS, *new))
    found = findings(folder)
    assert found["writes"][0] == "violated"
    assert found["writes"][1].endswith("writes by 3 nodes")
    assert found["lacking"] == ("unknown", "there is no thermometer")
    assert found["failing"] == ("unknown", "the check failed: ZeroDivisionError: by zero")
    assert {found[check.name][0] for check in CHECKS} == {"ok"}, "they cost no other check"
    assert program.judge(folder, CheckSettings())["not_checked"] == ["elsewhere", "read back"]
    assert "failing" in program.judge(folder, CheckSettings(invariants=False))["not_checked"]
