"""The signals that end a program cleanly: SIGINT, SIGTERM, and SIGHUP unless the program started with it ignored."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from raft_actor_node.descriptors import leave_lost_terminal


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end this program. Call this before installing handlers.

    A program started with nohup ignores SIGHUP from the start and keeps running when its terminal is closed.
    """
    always = (signal.SIGINT, signal.SIGTERM)
    return always if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*always, signal.SIGHUP)


def raise_keyboard_interrupt() -> None:
    """Make SIGTERM and SIGHUP end this program like SIGINT: with a KeyboardInterrupt in the main thread."""

    def interrupt(number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # The shell and the kernel each send one; the second must not interrupt the shutdown.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            leave_lost_terminal()
        raise KeyboardInterrupt

    for each in ending_signals():
        if each is not signal.SIGINT:
            signal.signal(each, interrupt)


@contextlib.contextmanager
def on_ending_signal(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` on the running event loop at each ending signal, in place of its previous handler.

    SIGHUP counts once, because the shell and the kernel each send one when a terminal is closed. Outside the main
    thread, which alone receives signals, `act` is never called.
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
