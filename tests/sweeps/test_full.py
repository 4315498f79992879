"""Results that cannot be written: one line names the file, the cause and what to do, and no verdict becomes false."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chaos.history import History, Operation
from chaos.linearizability import check
from sweeps import cli
from sweeps.campaign.campaign import Campaign, CampaignReport
from sweeps.campaign.life import SeedResult
from sweeps.judge import program
from sweeps.judge.checking import check_run
from sweeps.spec.parameters import CheckSettings
from sweeps.store.files import WriteFailed, writing
from sweeps.store.writer import RunWriter
from tests.campaign.test_campaign import seed_result
from tests.sweeps.fakes import FakeBackend
from tests.sweeps.run.test_runner import execute, sweep
from tests.sweeps.store.test_results import FACTS, cells, write

FULL = Path("/dev/full")
PAGE = 4096
ONE_CELL = ["run", "quick", "--target", "sim", "-o", "cluster.nodes=3", "-o", "chaos=none", "-o", "phases.measure=1s"]


def told(path: Path) -> str:
    return f"^{path}: cannot be written: No space left on device; make room$"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
@pytest.mark.parametrize("pages", [1, 4, 7, 20, 60])
def test_a_full_disk_is_told_with_the_file_and_how_to_go_on(tmp_path: Path, pages: int) -> None:
    """The size decides which write fails first."""
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
    if pages >= 4:  # large enough that the run directory exists
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
        WriteFailed, match=r"cells/\.\w+\.partial: cannot be written: Not a directory; a part of the path is a file"
    ):
        write(writer, cells()[0])


def test_a_summary_of_a_campaign(tmp_path: Path) -> None:
    report = CampaignReport(tmp_path)
    (report.path / ".campaign.json.partial").symlink_to(FULL)
    with pytest.raises(WriteFailed, match=told(report.path / "campaign.json")):
        report.summary(Campaign(0, 1, None))
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match=r"file/simulate/.*: cannot be written: Not a directory"):
        _ = CampaignReport(tmp_path / "file").path


STALE = History([Operation(0, "get", 1, observed=(5,), invoke_ns=1, return_ns=2)])


def test_a_violation_that_cannot_be_written_down_is_one(tmp_path: Path) -> None:
    STALE.write_jsonl(path := tmp_path / "h.jsonl")
    (tmp_path / "h.violation.txt").symlink_to(FULL)
    found = program.judge_history(path, CheckSettings())
    assert found["verdict"] == "violated"
    assert found["written"] == f"{tmp_path}/h.violation.txt: cannot be written: No space left on device; make room"


def test_neither_does_a_cell_become_unknown_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.checks.linearizability.check", lambda history, **_: check(STALE))
    writer = RunWriter.create(tmp_path, "tiny", "name: tiny\n", FACTS)
    folder = write(writer, cells()[0])
    (folder / "violation.txt").mkdir()
    found = program.judge(folder, CheckSettings())
    [finding] = [each for each in found["findings"] if each["check"] == "linearizability"]
    assert finding["verdict"] == "violated"
    assert f"{folder}/violation.txt: cannot be written: Is a directory" in finding["detail"]


VIOLATED = {
    "verdict": "violated",
    "reason": "a read was stale",
    "findings": [{"check": "linearizability", "verdict": "violated", "reason": "a read was stale", "detail": ""}],
}
OK = {"verdict": "ok", "reason": "", "findings": []}


@pytest.mark.parametrize(
    ("method", "calls", "verdicts", "code"),
    [
        ("write_cell", 2, [VIOLATED], 3),  # of the first cell, before the second one cannot be written
        ("write_result", 1, [VIOLATED], 3),  # of the cell whose verdict cannot be written
        ("write_cell", 2, [OK], 1),
        ("write_cell", 1, [], 1),
    ],
)
async def test_a_violation_found_before_the_disk_was_full_decides_the_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    calls: int,
    verdicts: list[dict[str, Any]],
    code: int,
) -> None:
    """docs/reference/exit-codes.md: if several apply, the first of 130, 2, 3, 1, 4 counts."""
    write, left = getattr(RunWriter, method), iter(verdicts)
    calls_so_far = 0

    def full(self: RunWriter, *arguments: Any) -> Any:
        nonlocal calls_so_far
        calls_so_far += 1
        if calls_so_far >= calls:
            with writing(self.path / "f"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, *arguments)

    async def judged(*_: object) -> dict[str, Any]:
        return next(left)

    monkeypatch.setattr(RunWriter, method, full)
    monkeypatch.setattr("sweeps.run.runner.judged", judged)
    with pytest.raises(WriteFailed) as caught:
        await execute(sweep(), FakeBackend(), tmp_path)
    assert caught.value.exit_code == code
    [path] = (tmp_path / "tiny").glob("2*")
    assert json.loads((path / "manifest.json").read_text())["exit_code"] == code
    notes = "; ".join(caught.value.__notes__)
    assert f"`sweep resume {path}`" in notes
    assert ("violated before that: cell" in notes) is (code == 3)


async def test_an_interruption_that_cannot_be_written_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: RunWriter, event: str, **_: Any) -> None:
        if event == "cell started":
            os.kill(os.getpid(), signal.SIGINT)
        if event == "run interrupted":
            with writing(self.path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunWriter, "journal", full)
    with pytest.raises(WriteFailed) as caught:
        await execute(sweep(), FakeBackend(), tmp_path)
    assert caught.value.exit_code == 130


async def test_a_violation_that_a_check_cannot_write_down_decides_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def judged(*_: object) -> dict[str, Any]:
        return VIOLATED

    writer = RunWriter.create(tmp_path, "tiny", "name: tiny\n", FACTS)
    folder = write(writer, cells()[0])
    writer.finish(complete=True, exit_code=0)
    (folder / ".result.json.partial").symlink_to(FULL)
    monkeypatch.setattr("sweeps.judge.checking.judged", judged)
    with pytest.raises(WriteFailed, match=told(folder / "result.json")) as caught:
        await check_run(writer.path, {}, lambda *_: None)
    assert caught.value.exit_code == 3


def test_a_campaign_prints_what_it_found_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The campaign exits with the code of the violation, which is worse than that of the failed write."""

    def run_seed(seed: int, **_: object) -> SeedResult:
        [report] = (tmp_path / "simulate").iterdir()  # made before the first seed
        (report / ".campaign.json.partial").symlink_to(FULL)
        return replace(seed_result(seed, "violated"), story=("the whole story",))

    monkeypatch.setattr("sweeps.campaign.command.run_seed", run_seed)
    arguments = ["simulate", "--seeds", "1", "--seed", "7", "--story", "--out", str(tmp_path)]
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 3, done.output
    *before, last = done.output.splitlines()
    assert "the whole story" in before
    assert any("violated  1 of 1 seeds" in line for line in before)
    assert "campaign.json: cannot be written: No space left on device; make room" in last
    [report] = (tmp_path / "simulate").iterdir()
    assert json.loads((report / "campaign.json").read_text())["done"] == 0, "what was there before is whole"


def test_a_campaign_that_cannot_write_runs_no_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.campaign.campaign.run_seed", lambda *_, **__: pytest.fail("a seed was run"))
    (tmp_path / "file").touch()
    done = CliRunner().invoke(cli.main, ["simulate", "--seeds", "3", "--serial", "--out", str(tmp_path / "file")])
    assert done.exit_code == 1
    [line] = done.output.splitlines()
    assert f"sweep: {tmp_path}/file/simulate/" in line


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
