"""Results that cannot be written: which file, why, and what to do; in one line, and without a false verdict."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chaos.history import History, Operation
from chaos.linearizability import check
from sweeps import judge
from sweeps.campaign.campaign import Campaign, Report
from sweeps.results import RunWriter, WriteFailed
from sweeps.spec import CheckSettings
from tests.sweeps.test_results import FACTS, cells, write

FULL = Path("/dev/full")
PAGE = 4096
ONE_CELL = ["run", "quick", "--target", "sim", "-o", "cluster.nodes=3", "-o", "chaos=none", "-o", "phases.measure=1s"]


def told(path: Path) -> str:
    return f"^{path}: cannot be written: No space left on device; make room$"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
@pytest.mark.parametrize("pages", [1, 4, 7, 20, 60])
def test_a_full_disk_is_told_with_the_file_and_how_to_go_on(tmp_path: Path, pages: int) -> None:
    """Whichever write is the first that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweeps.small_out", str(tmp_path / "out"), str(pages * PAGE), *ONE_CELL],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith(f"sweep: {tmp_path}/out/quick/")
    assert ": cannot be written: No space left on device; make room" in line
    if pages >= 4:  # there was a run by then
        run = line.rpartition("`sweep resume ")[2].partition("`")[0]
        assert line.startswith(f"sweep: {run}/")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("journal.jsonl", lambda writer: writer.journal("event")),
        ("manifest.json", lambda writer: writer.add_facts({"more": 1})),
        ("results.csv", lambda writer: write(writer, cells()[0])),
    ],
)
def test_each_file_of_a_run(tmp_path: Path, name: str, change: Callable[[RunWriter], Any]) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "name: tiny\n", FACTS)
    (writer.path / (name if name.endswith("jsonl") else f".{name}.partial")).symlink_to(FULL)
    with pytest.raises(WriteFailed, match=told(writer.path / name)):
        change(writer)


def test_a_folder_in_the_way_of_a_cell(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "tiny", "name: tiny\n", FACTS)
    (writer.path / "cells").rmdir()
    (writer.path / "cells").touch()
    with pytest.raises(
        WriteFailed, match=r"cells/\.\w+\.partial: cannot be written: Not a directory; make it writable"
    ):
        write(writer, cells()[0])


def test_a_summary_of_a_campaign(tmp_path: Path) -> None:
    report = Report(tmp_path)
    (report.path / "campaign.json").symlink_to(FULL)
    with pytest.raises(WriteFailed, match=told(report.path / "campaign.json")):
        report.summary(Campaign(0, 1, None))
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match=r"file/simulate/.*: cannot be written: Not a directory"):
        _ = Report(tmp_path / "file").path


STALE = History([Operation(0, "get", 1, observed=(5,), invoke_ns=1, return_ns=2)])


def test_a_violation_that_cannot_be_written_down_is_one(tmp_path: Path) -> None:
    STALE.write_jsonl(path := tmp_path / "h.jsonl")
    (tmp_path / "h.violation.txt").symlink_to(FULL)
    found = judge.judge_history(path, CheckSettings())
    assert found["verdict"] == "violated"
    assert found["written"] == f"{tmp_path}/h.violation.txt: cannot be written: No space left on device; make room"


def test_neither_does_a_cell_become_unknown_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "check", lambda history, **_: check(STALE))
    writer = RunWriter.create(tmp_path, "tiny", "name: tiny\n", FACTS)
    folder = write(writer, cells()[0])
    (folder / "violation.txt").mkdir()
    found = judge.judge(folder, CheckSettings())
    [finding] = [each for each in found["findings"] if each["check"] == "linearizability"]
    assert finding["verdict"] == "violated"
    assert f"{folder}/violation.txt: cannot be written: Is a directory" in finding["detail"]


@pytest.mark.parametrize("arguments", [["presets"], ["schema"]])
def test_standard_output_that_is_full(arguments: list[str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sweeps.cli", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "sweep: standard output: No space left on device\n")
