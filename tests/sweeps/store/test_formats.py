"""Runs of older versions are shown and judged, but never resumed. format-1/ is a run directory of version 0.1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeps.store.manifest import FORMAT
from sweeps.store.reader import read_run
from tests.sweeps.run.test_simulated import command

OLD = Path(__file__).parents[1] / "format-1"


@pytest.fixture(autouse=True)
def judge() -> None:
    """Keep the real judge."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return shutil.copytree(OLD, tmp_path / "run")


def change_manifest(path: Path, **changes: Any) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def contents(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_an_old_run_is_shown(old: Path) -> None:
    done = command("show", str(old))
    assert done.exit_code == 0, done.output
    assert "280" in done.stdout
    assert "5.11 ms" in done.stdout


def test_an_old_run_is_judged(old: Path) -> None:
    [cell] = read_run(old).cells
    result = cell.path / "result.json"
    result.write_text(result.read_text().replace('"verdict": "ok"', '"verdict": "pending"'))
    done = command("check", str(old))
    assert done.exit_code == 0, done.output
    assert "verdict ok" in done.stdout


@pytest.mark.parametrize("spec", ["as it was", "not readable any more"])
def test_an_old_run_is_not_resumed(old: Path, spec: str) -> None:
    """Otherwise one run would mix cells that were measured and counted differently."""
    change_manifest(old, complete=False)
    if spec != "as it was":
        (old / "spec.yaml").write_text("what: was this?")
    before = contents(old)
    done = command("resume", str(old))
    assert done.exit_code == 2
    assert done.stderr == (
        f"sweep: {old}: a run of format 1, and this version writes format {FORMAT}: resume it with the version that "
        "began it (commit fb2f6f1), or run its spec.yaml anew\n"
    )
    assert contents(old) == before


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "incomplete"])
def test_an_old_run_is_not_said_to_be_resumable(old: Path, lost: bool) -> None:
    change_manifest(old, complete=lost)
    if lost:
        [cell] = read_run(old).cells
        (cell.path / "result.json").write_text(json.dumps({**cell.result, "status": "infrastructure"}))
    done = command("show", str(old))
    assert done.exit_code == 0
    assert (
        f"; a run of format 1, and this version writes format {FORMAT}: resume it with the version that began it "
        "(commit fb2f6f1), or run its spec.yaml anew\n"
    ) in done.stdout
    assert "`sweep resume" not in done.stdout


@pytest.mark.parametrize("what", ["show", "check", "resume"])
def test_a_run_of_a_later_version_is_refused(old: Path, what: str) -> None:
    change_manifest(old, format=FORMAT + 1)
    before = contents(old)
    done = command(what, str(old))
    assert done.exit_code == 2
    assert done.stderr == (
        f"sweep: {old}: a run of format {FORMAT + 1}; this version reads formats 1 to {FORMAT}: use the one that "
        "wrote it\n"
    )
    assert contents(old) == before
