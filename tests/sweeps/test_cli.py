"""The command line: what is printed, and the exit codes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestration.targets import TARGETS
from sweeps import cli
from sweeps.spec.source import PRESETS
from sweeps.store.reader import resume_command
from tests.sweeps.examinations import FIRST, SECOND, examination, host
from tests.sweeps.fakes import FakeBackend
from tests.sweeps.run.test_runner import CRASH, TWO_CELLS


def sweep(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """A fake backend in place of Ray."""
    fake = FakeBackend()
    monkeypatch.setitem(TARGETS, "raft", replace(TARGETS["raft"], open=lambda place: fake.connect()))
    return fake


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(TWO_CELLS)
    return str(path)


BAD = [
    (["run", "quikc"], "sweep: quikc: no preset and no file of this name; did you mean quick?"),
    (["run", "no/such.yaml"], "sweep: no/such.yaml: no such file"),
    (["plan", "quick", "-o", "cluster.nodes=0"], "sweep: -o cluster.nodes=0: cluster.nodes: must be at least 1, not 0"),
    (["plan", "quick", "-o", "nodes=3"], "sweep: -o nodes=3: nodes: unknown parameter; did you mean cluster.nodes?"),
    (["run", "quick", "-o", "cluster.nodes"], "sweep: -o cluster.nodes: must have the form KEY=VALUE"),
    (["run", "quick", "--seed", "-1"], "sweep: Invalid value for '--seed': -1 is not in the range x>=0."),
    (["run", "quick", "--seed", "x"], "sweep: Invalid value for '--seed': 'x' is not a valid integer range."),
    (["run", "quick", "--nodes", "3"], "sweep: No such option"),
    (["run", "quick", "extra"], "sweep: Got unexpected extra argument"),
    (["rnu"], "sweep: No such command 'rnu'."),
    (
        ["show", "nothing", "--out", "nowhere"],
        "sweep: nothing: no run here; give the directory of a run, or NAME or NAME/TIME below nowhere",
    ),
    (["show", "--out", "nowhere"], "sweep: nowhere: no run here; `sweep run` makes one"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(row[0]) for row in BAD])
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = sweep(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith(message)


def test_a_mistake_in_a_file_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nbase:\n  raft:\n    election_timeout: 300ms-150ms\n")
    result = sweep("plan", str(path))
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert line.startswith(f"sweep: {path}:4: raft.election_timeout: '300ms-150ms' is reversed")


def test_a_traceback_is_shown_when_asked_for() -> None:
    result = sweep("--debug", "plan", "quick", "-o", "x=1")
    assert isinstance(result.exception, Exception)
    assert type(result.exception).__name__ == "ConfigError"


def test_run_shows_the_summary_and_keeps_the_results(backend: FakeBackend, tiny: str, tmp_path: Path) -> None:
    result = sweep("run", tiny, "--out", str(tmp_path / "out"), "-o", "load.clients=3", "--seed", "7")
    assert result.exit_code == 0, result.output
    assert "[1/1] nodes=3  ok" in result.stdout
    assert "put p50" in result.stdout
    latest = (tmp_path / "out" / "latest").resolve()
    assert str(latest) in result.stdout
    assert json.loads((latest / "manifest.json").read_text())["seed"] == 7
    assert len(backend.clusters) == 1

    shown = sweep("show", "--out", str(tmp_path / "out"))
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[0].split()[0] == "nodes"
    assert "incomplete" not in shown.stdout


def test_run_writes_down_its_hosts_and_says_what_is_wrong_with_them(
    backend: FakeBackend, tiny: str, tmp_path: Path
) -> None:
    backend.examination = examination(host(), host(SECOND, open_files=99, niceness=15))
    result = sweep("run", tiny, "--out", str(tmp_path), "-o", "storage.dir=/data")
    assert result.exit_code == 0, "it may be well all the same"
    assert f"wrong: {SECOND}: a process may open 99 files" in result.stdout
    assert "niceness" not in result.stdout
    assert backend.storage_dirs == ["/data"]
    hosts = json.loads((tmp_path / "latest" / "manifest.json").read_text())["hosts"]
    assert [each["address"] for each in hosts["hosts"]] == [FIRST, SECOND]
    assert [each["severity"] for each in hosts["findings"]] == ["wrong", "note"]


def test_a_failed_cell_is_exit_code_1(backend: FakeBackend, tiny: str, tmp_path: Path) -> None:
    result = sweep("run", tiny, "--out", str(tmp_path), "-o", "thresholds.throughput=> 1000000000")
    assert result.exit_code == 1
    assert "threshold throughput: " in result.stdout


def test_show_says_when_a_run_is_incomplete(backend: FakeBackend, tiny: str, tmp_path: Path) -> None:
    assert sweep("run", tiny, "--out", str(tmp_path)).exit_code == 0
    path = (tmp_path / "latest").resolve() / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "complete": False}))
    shown = sweep("show", "tiny", "--out", str(tmp_path)).stdout
    assert (
        f"incomplete: the run was interrupted, or it still runs; `{resume_command(path.parent)}` completes it" in shown
    )


def test_the_command_that_resumes_can_be_typed_as_it_is_printed() -> None:
    assert shlex.split(resume_command(Path("/a b/c's"))) == ["sweep", "resume", "/a b/c's"]


def test_plan_runs_nothing(backend: FakeBackend, tmp_path: Path) -> None:
    path = tmp_path / "crash.yaml"
    path.write_text(CRASH)
    result = sweep("plan", str(path), "-o", "cluster.nodes=3,5,4")
    assert result.exit_code == 0
    assert "tiny: 3 cells, seed 1" in result.stdout
    assert "processes  at most 11 at a time" in result.stdout
    assert "warning: cluster.nodes: 4 nodes tolerate 1 failures" in result.stdout
    assert not backend.clusters


def test_plan_takes_the_options_of_run_and_says_that_some_have_no_effect(tiny: str, tmp_path: Path) -> None:
    result = sweep("plan", tiny, "--out", str(tmp_path / "out"), "--address", "nowhere:1", "--plain")
    assert result.exit_code == 0, result.output
    assert result.stdout == sweep("plan", tiny).stdout
    assert not (tmp_path / "out").exists()
    told = " ".join(sweep("plan", "--help").stdout.split())
    assert "--out, --address and --plain have no effect on the plan" in told


def test_presets_are_listed_with_what_they_are_for() -> None:
    result = sweep("presets")
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.stdout.splitlines()[1:] if not line.startswith(" ")]
    assert listed == sorted(file.stem for file in PRESETS.glob("*.yaml"))
    assert {"chaos", "quick", "scalability", "timeouts", "workload"} <= set(listed)


def test_the_schema_is_json() -> None:
    assert json.loads(sweep("schema").stdout)["title"] == "Sweep"


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "quick"], ["presets"], ["schema"], ["show", "--help"]])
def test_only_run_imports_ray(arguments: list[str]) -> None:
    check = (
        "import sys\nfrom sweeps.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert 'ray' not in sys.modules\nassert 'grpc' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_call_into_ray_that_hangs_does_not_keep_the_program(tmp_path: Path) -> None:
    """At its end, Python would wait for the hung thread in an atexit handler of Ray."""
    program = (
        "import asyncio, atexit, sys, time\n"
        "from orchestration.ray_cluster.calls import bounded\n"
        "from sweeps import cli\n"
        "atexit.register(time.sleep, 100)\n"
        "async def hang():\n"
        "    try: await bounded('Ray', 0.1, lambda: time.sleep(100))\n"
        "    except Exception as error: print(error)\n"
        "asyncio.run(hang())\n"
        "sys.argv = ['sweep', 'show', '--out', sys.argv[1]]\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stdout == "Ray did not answer within 0.1 s\n"
    assert "no run here" in done.stderr
