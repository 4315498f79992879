"""Sweeps on real processes that have bugs, or that prove nothing: the verdicts and the exit codes."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rich.console import Console

from orchestration import RayBackend
from sweeps.api import Sweep
from sweeps.judge.checking import check_run
from sweeps.show.live import PlainView
from sweeps.spec.source import read_source
from sweeps.store.reader import StoredRun, read_run
from tests.ray_head import private_ray
from tests.sweeps.buggy_node import BUGS

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

COMMANDS = {bug: [sys.executable, str(Path(__file__).with_name("buggy_node.py")), bug] for bug in BUGS}
BASE: dict[str, Any] = {
    "raft": {"election_timeout": "300ms-600ms", "heartbeat_interval": "75ms"},
    "load": {"mode": "open", "rate": 200, "clients": 512, "keys": 10},
    "phases": {"warmup": "200ms", "measure": "2s"},
}


@pytest.fixture(autouse=True)
def judge() -> None:
    """Keep the real judge."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend() -> AsyncIterator[RayBackend]:
    """One private Ray for all tests of this file."""
    async with private_ray() as connected:
        yield connected


async def run(backend: RayBackend, spec: dict[str, Any], out: Path) -> tuple[int, StoredRun]:
    """Run the sweep quietly; return its exit code and the stored run."""

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        yield backend

    sweep = Sweep.from_source(read_source(json.dumps({"name": "bugs", "order": "sequential", **spec}), "bugs.yaml"))
    view = functools.partial(PlainView, Console(quiet=True))
    code, path = await sweep.execute(out, ["sweep"], connect, view)
    stored = read_run(path)
    for kept in {Path(each) for cell in stored.cells for each in cell.result.get("kept", ())}:
        shutil.rmtree(kept)  # the logs that a failed cell keeps for inspection
        with contextlib.suppress(OSError):  # other cells of the run may keep logs in it
            kept.parent.rmdir()
    return code, stored


def violated(result: dict[str, Any]) -> set[str]:
    """The names of the violated checks."""
    return {each["check"] for each in result["verdict"]["findings"] if each["verdict"] == "violated"}


async def test_a_buggy_node_program_is_caught_and_the_exit_code_is_3(backend: RayBackend, tmp_path: Path) -> None:
    crash_all = {"crash": "all", "at": "500ms", "restart_after": "1s"}
    axes = {
        "cluster.command": [COMMANDS["forgets_its_log"], COMMANDS["reads_from_a_cache"]],
        "chaos": [crash_all, "none"],
    }
    base = {**BASE, "phases": {"warmup": "200ms", "measure": "3s"}}
    exclude = [
        {"cluster.command": COMMANDS["forgets_its_log"], "chaos": "none"},
        {"cluster.command": COMMANDS["reads_from_a_cache"], "chaos": crash_all},
    ]
    code, stored = await run(backend, {"base": base, "axes": axes, "exclude": exclude}, tmp_path)
    assert code == 3
    assert stored.manifest["exit_code"] == 3
    forgetful, cached = stored.cells
    assert {"linearizability", "invariants"} <= violated(forgetful.result)
    assert violated(cached.result) == {"linearizability"}
    for cell in stored.cells:
        assert cell.result["verdict"]["verdict"] == "violated"
        assert "impossible" in (cell.path / "violation.txt").read_text()
        assert (cell.path / "violation.svg").read_text().startswith("<svg")
    row = (stored.path / "results.csv").read_text().splitlines()[1]
    assert ",violated,," in row, "nothing was left unchecked"

    # Judging the same files again gives the same verdict.
    (cached.path / "violation.txt").unlink()
    assert await check_run(stored.path, {}, lambda params, result: None) == 3
    assert (cached.path / "violation.txt").exists()
    assert violated(read_run(stored.path).cells[0].result) == violated(forgetful.result)


@pytest.mark.parametrize(
    ("mutant", "more", "code", "check"),
    [
        ("swap-without-compare", {"load.mix": {"put": 0.3, "delete": 0.3, "cas": 0.4}}, 3, "linearizability"),
        ("link-faults-do-nothing", {"chaos": {"drop": 0.2}}, 4, "coverage"),
    ],
)
async def test_a_planted_bug_shows_on_real_nodes_too(
    backend: RayBackend, tmp_path: Path, mutant: str, more: dict[str, Any], code: int, check: str
) -> None:
    axes = {"cluster.command": [[sys.executable, "-m", "tests.mutants.node", mutant]]}
    axes |= {name: [value] for name, value in more.items()}
    found, stored = await run(backend, {"base": BASE, "axes": axes}, tmp_path)
    assert found == code
    [cell] = stored.cells
    [first] = [each for each in cell.result["verdict"]["findings"] if each["check"] == check]
    assert first["verdict"] == {3: "violated", 4: "unknown"}[code]


async def test_a_run_that_proves_nothing_is_unknown_and_the_exit_code_is_4(backend: RayBackend, tmp_path: Path) -> None:
    base = {**BASE, "load": {"mode": "open", "rate": 5}, "checks": {"when": "defer"}}
    code, stored = await run(backend, {"base": base}, tmp_path)
    assert code == 4
    [cell] = stored.cells
    assert cell.result["status"] == "ok"
    assert cell.result["verdict"]["reason"].startswith("coverage: only ")
    findings = {each["check"]: each["verdict"] for each in cell.result["verdict"]["findings"]}
    assert findings == {
        "linearizability": "ok", "invariants": "ok", "inspection": "ok", "exits": "ok", "state": "ok",
        "durability": "ok", "liveness": "ok", "coverage": "unknown",
    }  # fmt: skip
