"""Wait for conditions, and inspect processes by pid; not by name, because other tests may run the same programs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path


async def eventually(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait until the condition holds. Fails with `what` it waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.01)


def state(pid: int) -> str:
    """Return the state letter of proc(5); empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def gone(pid: int) -> bool:
    """Return whether the process has ended; it may still be a zombie."""
    return state(pid) in ("", "Z", "X")


def remaining(pids: Iterable[int]) -> list[int]:
    """Return the processes that have not ended."""
    return [pid for pid in pids if not gone(pid)]
