"""Kills a sweep with SIGKILL wherever it touches its run directory, and completes it. A program of its own, because it
forks: python killed.py OUT MOST

Each time one process runs the sweep, on a cluster that lives in the process, and ends at the k-th time that it makes,
opens for writing, renames or removes something; a second one resumes it, and ends likewise; a third one completes it.
After each the directory must be one that can be read, and what was done once stays as it was, byte for byte. Of all k
at most MOST are tried. Prints how many there are.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.api import Sweep
from sweeps.run import runner
from sweeps.show.live import PlainView
from sweeps.spec.source import read_source
from sweeps.store.reader import find_run, read_run
from tests.sweeps.conftest import FakeJudge
from tests.sweeps.fakes import FakeBackend

SPEC = """
name: tiny
order: sequential
base: {phases: {boot: 10s, warmup: 10ms, measure: 100ms}}
axes: {load.clients: [1, 2]}
"""
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate"}
SEED = 4


def killed_at(number: int, out: Path) -> Callable[[], int]:
    """Have this process end before it touches something below `out` for the `number`-th time; 0: never. Returns a
    function that tells how often it did."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event not in WRITES and not opened:
            return
        place = str(arguments[0])
        if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # as shutil.rmtree does it
            place = str(Path(f"/proc/self/fd/{arguments[1]}").readlink() / place)
        if place.startswith(str(out)):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: count


def forked(work: Callable[[], int]) -> int:
    """Do it in a process of its own; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def sweep(out: Path, *, resume: bool, kill: int = 0, counted: Path | None = None) -> int:
    """Run or resume it; returns the exit code."""
    runner.judged = FakeJudge()  # type: ignore[assignment]
    count = killed_at(kill, out)
    arguments = (["sweep"], FakeBackend().connect, lambda progress: PlainView(Console(quiet=True), progress))
    if resume:
        code, _ = asyncio.run(Sweep.resume(find_run(out, None), *arguments))
    else:
        code, _ = asyncio.run(Sweep.from_source(read_source(SPEC, "file.yaml")).execute(out, *arguments))
    if counted is not None:
        counted.write_text(str(count()))
    return code


def done(out: Path) -> dict[str, dict[str, bytes]]:
    """Of the newest run: cell id to file to content, of the cells that need not run again."""
    stored = read_run(find_run(out, None))
    return {
        cell.params["cell"]: {
            str(path.relative_to(cell.path)): path.read_bytes() for path in cell.path.rglob("*") if path.is_file()
        }
        for cell in stored.cells
        if cell.result["status"] == "ok" and cell.result["verdict"]["verdict"] != "pending"
    }


def check(out: Path, before: dict[str, dict[str, bytes]]) -> dict[str, dict[str, bytes]]:
    """What is done now; it contains what was done before."""
    now = done(out)
    assert before.items() <= now.items(), "a cell that was done has changed"
    return now


def told(out: Path) -> list[Any]:
    """Why cells are not as they should be."""
    return [cell.result["reason"] for cell in read_run(find_run(out, None)).cells]


def one(out: Path, kill: int) -> None:
    """Kill it there, resume it and kill it there too, complete it."""
    assert forked(lambda: sweep(out, resume=False, kill=kill)) == -signal.SIGKILL
    if not any(out.glob("tiny/*/manifest.json")):
        return  # it had not begun
    if not (out / "latest").exists():  # nobody had been pointed to it
        (out / "latest").symlink_to(next(out.glob("tiny/2*")).relative_to(out))
    found = check(out, {})
    assert read_run(find_run(out, None)).manifest["complete"] is False
    if forked(lambda: sweep(out, resume=True, kill=kill)) == -signal.SIGKILL:
        found = check(out, found)
        assert forked(lambda: sweep(out, resume=True)) == 0, told(out)
    found = check(out, found)
    assert len(found) == 2
    run = read_run(find_run(out, None))
    assert run.manifest["complete"] is True
    assert run.manifest["exit_code"] == 0
    assert [path for path in out.rglob("*") if ".partial" in path.name] == []


def main() -> None:
    """Try them all, or some of them."""
    out, most = Path(sys.argv[1]), int(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    counted = out / "count"
    assert forked(lambda: sweep(out / "whole", resume=False, counted=counted)) == 0
    count = int(counted.read_text())
    chosen = sorted(random.Random(SEED).sample(range(1, count + 1), min(most, count)))
    for kill in chosen:
        try:
            one(out / str(kill), kill)
        except BaseException:
            print(f"killed at {kill} of {count}", file=sys.stderr)
            raise
    print(count)


if __name__ == "__main__":
    main()
