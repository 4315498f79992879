"""The signals that end a program in order: SIGINT, SIGTERM, and SIGHUP unless the program was started to ignore it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from raft_actor_node.descriptors import leave_lost_terminal


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end this program. Ask before installing handlers.

    What was started with nohup ignores SIGHUP from its start on, and goes on when its terminal is closed.
    """
    always = (signal.SIGINT, signal.SIGTERM)
    return always if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*always, signal.SIGHUP)


def raise_keyboard_interrupt() -> None:
    """Have SIGTERM and SIGHUP end this program as SIGINT does, by a KeyboardInterrupt in the main thread."""

    def interrupt(number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # A shell and the kernel send one each; the second must not disturb what the first has begun.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            leave_lost_terminal()
        raise KeyboardInterrupt

    for each in ending_signals():
        if each is not signal.SIGINT:
            signal.signal(each, interrupt)


@contextlib.contextmanager
def on_ending_signal(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` on the running event loop at each of these signals, in place of what else they would do.

    SIGHUP counts once: a shell and the kernel send one each when a terminal is closed. Elsewhere than in the main
    thread, which alone is told of signals, nothing is called.
    """
    loop = asyncio.get_running_loop()
    hung_up = False

    def hang_up() -> None:
        nonlocal hung_up
        if not hung_up:
            hung_up = True
            leave_lost_terminal()
            act()

    before = {each: signal.getsignal(each) for each in ending_signals()}
    installed = []
    try:
        with contextlib.suppress(RuntimeError, ValueError):
            for each in before:
                loop.add_signal_handler(each, hang_up if each is signal.SIGHUP else act)
                installed.append(each)
        yield
    finally:
        for each in installed:
            loop.remove_signal_handler(each)
            if before[each] is not None:  # else the handler is not Python's
                signal.signal(each, before[each])
