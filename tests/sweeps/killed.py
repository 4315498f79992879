"""Kill a sweep with SIGKILL at each write to its run directory, resume it, and check the directory.

python killed.py OUT MOST

This is a separate program because it forks. For each k, one process runs a sweep on a cluster in that process, and
kills itself just before the k-th time that it creates, opens for writing, renames or removes something. A second
process resumes the run and is killed likewise. A third one completes it. After each of them the directory must be
readable, and finished cells must stay the same, byte for byte. At most MOST of all k are tried. Prints the number of
all k.
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
    """Make this process kill itself before its `number`-th change below `out`; 0 means never.

    Returns a function that counts the changes so far.
    """
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event not in WRITES and not opened:
            return
        place = str(arguments[0])
        if event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # shutil.rmtree passes a directory descriptor
            place = str(Path(f"/proc/self/fd/{arguments[1]}").readlink() / place)
        if place.startswith(str(out)):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: count


def forked(work: Callable[[], int]) -> int:
    """Run the work in a child process; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def sweep(out: Path, *, resume: bool, kill: int = 0, counted: Path | None = None) -> int:
    """Run or resume the sweep; return its exit code."""
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
    """The files of the newest run's finished cells: cell id -> file -> content."""
    stored = read_run(find_run(out, None))
    return {
        cell.params["cell"]: {
            str(path.relative_to(cell.path)): path.read_bytes() for path in cell.path.rglob("*") if path.is_file()
        }
        for cell in stored.cells
        if cell.result["status"] == "ok" and cell.result["verdict"]["verdict"] != "pending"
    }


def check(out: Path, before: dict[str, dict[str, bytes]]) -> dict[str, dict[str, bytes]]:
    """Return the finished cells; fail if one that was finished before has changed."""
    now = done(out)
    assert before.items() <= now.items(), "a cell that was done has changed"
    return now


def told(out: Path) -> list[Any]:
    """The reasons why cells are not ok."""
    return [cell.result["reason"] for cell in read_run(find_run(out, None)).cells]


def one(out: Path, kill: int) -> None:
    """Kill the run at this change, kill its resumption at the same count, and complete it."""
    assert forked(lambda: sweep(out, resume=False, kill=kill)) == -signal.SIGKILL
    if not any(out.glob("tiny/*/manifest.json")):
        return  # the run had not begun
    if not (out / "latest").exists():  # the process died before it made the link
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
    """Try all kill points, or a sample of MOST of them."""
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
