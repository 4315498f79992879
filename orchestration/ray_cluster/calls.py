"""Calls into Ray that block: nobody waits for one longer than it is told to, whatever became of Ray.

They run in daemon threads: those of a pool would be waited for when the program ends.
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
    """Around each call, so that one which hangs is known."""
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
    """Whether a call does not come back. Then Python does not come to an end by itself: Ray's handler at its exit
    waits for that call."""
    with _ended:
        return not _ended.wait_for(lambda: not _under_way, _GRACE_S)


class Caller:
    """A thread that makes one call after the other, until `end`: for what dies with the thread that started it."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        _start(self._run)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    async def bounded(self, who: str, timeout_s: float, call: Callable[[], T]) -> T:
        """As the function `bounded`; a call that does not end holds up those after it."""
        return await bounded(who, timeout_s, call, start=self._calls.put)

    def end(self) -> None:
        """Let the thread end, once its last call has."""
        self._calls.put(None)


async def bounded(
    who: str, timeout_s: float, call: Callable[[], T], *, start: Callable[[Callable[[], None]], None] = _start
) -> T:
    """The result of `call()`, which asks `who`. Raises InfrastructureError when it fails or takes longer; errors of
    ours pass as they are."""
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
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
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
    """Have `call()` done without waiting for it. That it fails is logged and nothing more."""

    def run() -> None:
        try:
            with _calling():
                call()
        except Exception as error:
            log.warning("Ray: %s: %s", what, first_line(error))

    _start(run)


class Pulse:
    """Asks Ray's head for a sign of life, again and again, until `end`."""

    def __init__(self, question: Callable[[], Any], every_s: float, patience_s: float) -> None:
        """Begin, on the running loop. A question may be asked again and again, for `patience_s` of this program's own
        time: that the program stood still is no silence of the head."""
        self.silent = False
        """Whether the last question was not answered."""
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
        """Ask no more."""
        self._task.cancel()


def first_line(error: BaseException) -> str:
    """What an error is and says, in one line."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def _words(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
