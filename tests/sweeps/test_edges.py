"""The surroundings of `sweep`: closed descriptors, signals, and a terminal that hangs up."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeps.store.reader import StoredRun, read_run

pytestmark = pytest.mark.timeout(180)

SWEEP = [sys.executable, "-m", "sweeps.cli"]
PATIENCE_S = 90.0


def spec(folder: Path, measure: str) -> list[str]:
    """Arguments of a sweep of one small cell."""
    text = {
        "name": "tiny",
        "base": {
            "cluster": {"nodes": 3},
            "load": {"clients": 2},
            "storage": {"dir": str(folder / "logs")},
            "phases": {"warmup": "200ms", "measure": measure},
        },
    }
    (folder / "tiny.yaml").write_text(json.dumps(text))
    return [str(folder / "tiny.yaml"), "--out", str(folder / "results"), "--plain"]


def stored(folder: Path) -> StoredRun:
    return read_run((folder / "results" / "latest").resolve())


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"did not come about: {what}"
        time.sleep(0.05)


def measures(folder: Path) -> bool:
    """Whether a cell has begun: its nodes have written a log."""
    return any((folder / "logs").rglob("*.wal"))


@contextlib.contextmanager
def running(words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed when the context ends."""
    with subprocess.Popen(words, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def children(pid: int) -> set[int]:
    """The other processes in the session that this process leads."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == pid != int(entry.parent.name) and fields[0] != "Z":
                found.add(int(entry.parent.name))
    return found


def blocks_hangups(pid: int) -> bool:
    """Whether the main thread of a process blocks SIGHUP; true if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    return bool(int(next(line for line in lines if line.startswith("SigBlk:")).split()[1], 16) & 1 << signal.SIGHUP - 1)


def test_a_sweep_that_was_started_without_descriptors_measures_and_judges(tmp_path: Path) -> None:
    """Neither cells, load generator, nodes and judge, nor a later `sweep check` need descriptors 0 to 2."""
    script = 'exec "$@" 0<&- 1>&- 2>&-'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *SWEEP, "run", *spec(tmp_path, "3s")], timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0
    run = stored(tmp_path)
    [cell] = run.cells
    assert run.manifest["complete"] is True
    assert (cell.result["status"], cell.result["verdict"]["verdict"]) == ("ok", "ok")
    checked = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *SWEEP, "check", str(run.path)], timeout=PATIENCE_S, check=False
    )
    assert checked.returncode == 0


def test_a_terminal_that_hangs_up_ends_a_sweep_in_order(tmp_path: Path) -> None:
    """The shell gets SIGHUP from the kernel and ends; then the kernel sends SIGHUP to the whole foreground group.

    The group includes Ray's processes, which the sweep needs to clean up. Other shells pass SIGHUP on before they end,
    so the sweep must bear it twice. Its output goes nowhere.
    """
    controller, terminal = pty.openpty()
    # With --ctty the terminal belongs to the session; it hangs up when the controller is closed.
    words = ["setsid", "--ctty", "/bin/sh", "-c", '"$@"; true', "sh", *SWEEP, "run", *spec(tmp_path, "60s")[:-1]]
    with running(words, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        until(lambda: _drained(controller) and measures(tmp_path), "the cell runs")
        [sweep, *of_ray] = sorted(children(process.pid))
        assert of_ray, "Ray's processes have the terminal, too"
        assert [pid for pid in of_ray if not blocks_hangups(pid)] == [], "and would end before the sweep can clean up"
        assert not blocks_hangups(sweep)
        os.close(controller)
        assert process.wait(PATIENCE_S) == -signal.SIGHUP, "the shell"
        with contextlib.suppress(ProcessLookupError):
            os.kill(sweep, signal.SIGHUP)
        until(lambda: not children(process.pid), "nothing of it is left")
    run = stored(tmp_path)
    [cell] = run.cells
    assert (run.manifest["complete"], run.manifest["exit_code"]) == (False, 130)
    assert cell.result["status"] == "interrupted"
    assert not any((tmp_path / "logs").rglob("*.wal")), "the nodes' logs were removed, through Ray"


def _drained(controller: int) -> bool:
    """Read the output of the sweep, so that the sweep never blocks on a full terminal."""
    os.set_blocking(controller, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(controller, 1 << 16):
            pass
    return True


SIGNALLED = """
import os, signal, sys
from sweeps import cli

@cli.main.command()
def wait():
    print("waits", flush=True)
    while True:
        signal.pause()

cli.main(["wait"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_every_command_ends_with_130(number: signal.Signals) -> None:
    """This includes a command that has no signal handler of its own."""
    # As from a terminal: a background process may inherit an ignored SIGINT.
    words = ["env", "--default-signal", sys.executable, "-c", SIGNALLED]
    with running(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        process.send_signal(number)
        assert process.wait(30) == 130


def test_a_sweep_that_was_started_with_nohup_does_not_notice(tmp_path: Path) -> None:
    words = ["nohup", *SWEEP, "run", *spec(tmp_path, "2s"), "--target", "sim"]
    with running(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        while b"results in" not in first:
            first = process.stdout.readline()
            assert first, "it ended"
        process.send_signal(signal.SIGHUP)
        process.stdout.read()
        assert process.wait(PATIENCE_S) == 0
    assert stored(tmp_path).manifest["complete"] is True
