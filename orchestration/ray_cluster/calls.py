"""Blocking calls into Ray, each with a time limit, even if Ray hangs.

The calls run in daemon threads, because Python waits for the threads of an executor when the program ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from orchestration.errors import InfrastructureError
from raft_actor_node.errors import RaftLabError
from raft_actor_node.patience import Patience

log = logging.getLogger(__name__)

T = TypeVar("T")


_GRACE_S = 1.0
_under_way: set[object] = set()
_ended = threading.Condition()


def _start(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="call into Ray", daemon=True).start()


@contextlib.contextmanager
def _calling() -> Iterator[None]:
    """Register a call while it runs, so that `hangs` can see it."""
    call = object()
    with _ended:
        _under_way.add(call)
    try:
        yield
    finally:
        with _ended:
            _under_way.remove(call)
            _ended.notify_all()


def hangs() -> bool:
    """Return whether a call is still running after _GRACE_S.

    In that case Python cannot exit by itself, because Ray's exit handler waits for that call.
    """
    with _ended:
        return not _ended.wait_for(lambda: not _under_way, _GRACE_S)


class CallThread:
    """A thread that makes one call after the other until `end`.

    Calls that start processes need such a thread if those processes die with the thread that started them.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        _start(self._run)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    async def bounded(self, who: str, timeout_s: float, call: Callable[[], T]) -> T:
        """Make a call as the function `bounded` does; a call that hangs delays all later calls."""
        return await bounded(who, timeout_s, call, start=self._calls.put)

    def end(self) -> None:
        """End the thread after its last call."""
        self._calls.put(None)


async def bounded(
    who: str, timeout_s: float, call: Callable[[], T], *, start: Callable[[Callable[[], None]], None] = _start
) -> T:
    """Run `call()` in another thread and return its result.

    `who` is the process that the call asks; the error names it. `start` runs a function in the other thread. Raises
    InfrastructureError when the call fails or takes more than `timeout_s`; a RaftLabError of the call passes unchanged.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(set_it: Callable[[Any], None], value: Any) -> None:
        if not answer.done():
            set_it(value)

    def run() -> None:
        try:
            with _calling():
                outcome: tuple[Callable[[Any], None], Any] = answer.set_result, call()
        except BaseException as error:
            outcome = answer.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop is closed: the caller no longer waits
            loop.call_soon_threadsafe(settle, *outcome)

    start(run)
    try:
        async with Patience(timeout_s) as patience:
            return await answer
    except RaftLabError:
        raise
    except Exception as error:
        late = isinstance(error, TimeoutError) and patience.over
        reason = f" within {timeout_s:g} s" if late else f": {_words(error)}"
        raise InfrastructureError(f"{who} did not answer{reason}") from error


def in_background(what: str, call: Callable[[], Any]) -> None:
    """Run `call()` without waiting for it; a failure is only logged."""

    def run() -> None:
        try:
            with _calling():
                call()
        except Exception as error:
            log.warning("Ray: %s: %s", what, first_line(error))

    _start(run)


class Pulse:
    """Checks periodically, until `end`, whether Ray's head answers."""

    def __init__(self, question: Callable[[], Any], every_s: float, patience_s: float) -> None:
        """Start a task on the running loop that asks the head and sleeps for `every_s`, again and again.

        The task retries `question` for `patience_s` of this program's running time. Time during which this program was
        suspended does not count as silence of the head.
        """
        self.silent = False
        """Whether the head did not answer the last question, retries included."""
        self._question, self._every_s, self._patience_s = question, every_s, patience_s
        self._task = asyncio.create_task(self._run(), name="pulse of Ray's head")

    async def _run(self) -> None:
        while True:
            try:
                async with Patience(self._patience_s):
                    await self._answer()
            except TimeoutError:
                self.silent = True
            else:
                self.silent = False
            await asyncio.sleep(self._every_s)

    async def _answer(self) -> None:
        while True:
            with contextlib.suppress(InfrastructureError):
                await bounded("Ray's head", self._patience_s, self._question)
                return
            await asyncio.sleep(self._every_s)

    def end(self) -> None:
        """Stop checking."""
        self._task.cancel()


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def _words(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
