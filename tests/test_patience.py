"""Patience expires when other processes are silent, but not because this process was paused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from orchestration.errors import InfrastructureError
from orchestration.ray_cluster.calls import Pulse, bounded
from orchestration.sim_cluster import run_virtual
from raft_actor_node.patience import LATE_S, SLICE_S, Patience, communicate

PAUSE_S = 0.8
"""How long the event loop is blocked. Afterwards all timers that became due meanwhile fire at once."""
ANSWER_S = 0.4
"""When the answer arrives: during the pause."""
PATIENCE_S = 0.3
"""When a timeout that counts the pause would expire: before the answer."""
assert ANSWER_S > PATIENCE_S
assert PAUSE_S - PATIENCE_S > LATE_S


def answered_during_a_pause() -> asyncio.Future[str]:
    """Return an answer that arrives while this process is paused."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()
    loop.call_later(ANSWER_S, answer.set_result, "well")
    loop.call_soon(time.sleep, PAUSE_S)
    return answer


def test_a_pause_of_this_process_is_no_silence_of_others() -> None:
    async def main() -> None:
        async with Patience(PATIENCE_S) as patience:
            assert await answered_during_a_pause() == "well"
        assert not patience.over
        assert patience.paused_s == pytest.approx(PAUSE_S - PATIENCE_S, abs=LATE_S)

    asyncio.run(main())


def test_a_timeout_of_asyncio_takes_it_for_that() -> None:
    """The control: asyncio's timeout counts the pause."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await answered_during_a_pause()

    with pytest.raises(TimeoutError):
        asyncio.run(main())


@pytest.mark.parametrize("seconds", [0.0, 0.3, SLICE_S, 2.5, 21.0])
def test_it_runs_out_after_its_time(seconds: float) -> None:
    """It expires after its exact time, however many slices that takes."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        with pytest.raises(TimeoutError):
            async with Patience(seconds):
                await asyncio.sleep(1000.0)
        assert loop.time() - begin_s == pytest.approx(seconds)

        begin_s = loop.time()
        async with Patience(seconds, interrupt=False) as patience:
            while not patience.over:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert loop.time() - begin_s == pytest.approx(seconds, abs=0.02)

    run_virtual(main)


def test_patience_without_end_and_its_end_from_outside() -> None:
    async def main() -> None:
        async with Patience(None):
            await asyncio.sleep(1000.0)
        with pytest.raises(TimeoutError):
            async with Patience(None) as patience:
                asyncio.get_running_loop().call_later(1.0, patience.end)
                await asyncio.sleep(1000.0)
        assert patience.over

    run_virtual(main)


def test_errors_and_cancellations_pass() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with Patience(1.0):
                _ = 1 / 0

        async def waits() -> None:
            async with Patience(100.0):
                await asyncio.sleep(1000.0)

        task = asyncio.create_task(waits())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main)


def answering(seconds: float) -> subprocess.Popen[str]:
    """Start a process that echoes its input after `seconds`."""
    program = f"import sys, time; text = sys.stdin.read(); time.sleep({seconds}); print(text, end='')"
    return subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_process_that_ended_during_a_pause_was_not_silent() -> None:
    """The process ends during the pause. Its end is noticed although more than the timeout has passed on the clock."""
    with answering(2 * PATIENCE_S) as process:
        pause = threading.Timer(PATIENCE_S / 3, os.kill, (os.getpid(), signal.SIGUSR1))
        before = signal.signal(signal.SIGUSR1, lambda *_: time.sleep(4 * PATIENCE_S + LATE_S))
        pause.start()
        try:
            assert communicate(process, "well", seconds=PATIENCE_S) == ("well", None)
        finally:
            pause.join()
            signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("seconds", [0.2, SLICE_S + 0.2])
def test_a_process_that_does_not_end_is_waited_for_as_long_as_was_said(seconds: float) -> None:
    with answering(60.0) as process:
        begin = time.monotonic()
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                communicate(process, "well", seconds=seconds)
            assert time.monotonic() - begin >= seconds
            assert process.poll() is None
        finally:
            process.kill()


def test_a_process_that_answers_after_several_slices_gets_its_message_once() -> None:
    with answering(SLICE_S + 0.2) as process:
        assert communicate(process, "well", seconds=30.0) == ("well", None)


def test_a_question_to_ray_that_was_answered_during_a_pause_is_answered() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, PAUSE_S)
        assert await bounded("Ray", PATIENCE_S, lambda: time.sleep(ANSWER_S)) is None

    asyncio.run(main())


def pulse(question: Callable[[], Any], story: Callable[[Pulse], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        watched = Pulse(question, every_s=0.01, patience_s=PATIENCE_S)
        await story(watched)
        watched.end()

    asyncio.run(main())


def test_ray_is_not_silent_because_this_program_was_paused() -> None:
    async def story(watched: Pulse) -> None:
        for _ in range(2):
            await asyncio.sleep(0.1)
            time.sleep(PAUSE_S)  # noqa: ASYNC251 - this is the pause
            await asyncio.sleep(0)
            assert not watched.silent
        await asyncio.sleep(0.1)
        assert not watched.silent

    pulse(lambda: time.sleep(0.05), story)


@pytest.mark.parametrize("how", ["hangs", "refuses"])
def test_ray_is_silent_when_its_head_does_not_answer_and_not_any_more_when_it_does(how: str) -> None:
    well = False

    def question() -> None:
        if not well and how == "hangs":
            time.sleep(1.0)
        if not well:
            raise InfrastructureError("no")

    async def story(watched: Pulse) -> None:
        nonlocal well
        async with asyncio.timeout(10.0):
            while not watched.silent:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        well = True
        async with asyncio.timeout(10.0):
            while watched.silent:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    pulse(question, story)
