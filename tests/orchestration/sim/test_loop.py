"""Virtual time: no call blocks, and calls due at the same time run in the order in which they were scheduled."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time

import pytest

from orchestration.sim_cluster import SimLoop, run_virtual
from orchestration.sim_cluster.loop import START_S, Call


def test_hours_pass_in_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    begin = time.monotonic()
    assert run_virtual(main) == START_S + 3600
    assert time.monotonic() - begin < 60


def test_what_is_due_at_one_moment_runs_in_the_order_of_asking() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        seen: list[str] = []
        for name in "abcdefgh":
            loop.call_later(1.0, seen.append, name)
            loop.at(loop.time() + 1.0, Call(seen.append, (name.upper(),)))
        loop.call_later(0.5, seen.append, "early")
        await asyncio.sleep(2.0)
        return seen

    assert run_virtual(main) == ["early", *"aAbBcCdDeEfFgGhH"]


def test_what_was_cancelled_does_not_happen_and_does_not_move_the_time() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.call_later(5.0, pytest.fail).cancel()
        call = Call(pytest.fail, ())
        loop.at(loop.time() + 5.0, call)
        call.cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.get_running_loop().create_future()
        return loop.time()

    assert run_virtual(main) == START_S + 1.0


def test_work_for_a_thread_is_done_at_once() -> None:
    async def main() -> tuple[int, float]:
        thread = await asyncio.to_thread(threading.get_ident)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        return thread, asyncio.get_running_loop().time()

    assert run_virtual(main) == (threading.get_ident(), START_S)


def test_waiting_for_what_never_happens_is_an_error() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="no call is due"):
        run_virtual(main)


def test_what_is_left_behind_is_cancelled() -> None:
    cancelled = []

    async def forever() -> None:
        try:
            while True:  # noqa: ASYNC110
                await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> None:
        task = asyncio.create_task(forever())
        await asyncio.sleep(3.5)
        assert not task.done()

    run_virtual(main)
    assert cancelled == [True]


def test_another_thread_can_interrupt_it() -> None:
    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        threading.Thread(target=lambda: loop.call_soon_threadsafe(task.cancel)).start()
        while True:  # noqa: ASYNC110
            await asyncio.sleep(1.0)

    with pytest.raises(asyncio.CancelledError):
        run_virtual(main)


@pytest.mark.parametrize("handled", [True, False])
def test_signals_are_served_while_time_flies(handled: bool) -> None:
    """Ctrl-C, by a handler of the loop as well as by none."""
    program = f"""
import asyncio, os, signal
from orchestration.sim_cluster import run_virtual

async def main():
    task = asyncio.current_task()
    if {handled}:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    print("ready", flush=True)
    try:
        while True:
            await asyncio.sleep(1.0)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    run_virtual(main)
except (asyncio.CancelledError, KeyboardInterrupt) as end:
    print(type(end).__name__)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert out.splitlines() == ["cancelled", "CancelledError" if handled else "KeyboardInterrupt"]
