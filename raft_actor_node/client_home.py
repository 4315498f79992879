"""The event loop and process that a client belongs to. On another loop or after a fork it would hang or crash."""

from __future__ import annotations

import asyncio
import os

_opened_in: list[int] = []
"""Id of the process that opened the first channel; empty before that. A forked process inherits the list."""


class Home:
    """The event loop, and therefore the process, that an object belongs to."""

    def __init__(self, what: str) -> None:
        """Take the running event loop. `what` names the object in errors. Raises RuntimeError if no loop runs."""
        self._what = what
        self._pid = os.getpid()
        self.loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Raise RuntimeError unless the caller runs on the loop of the object."""
        try:
            # In a forked process asyncio has no running loop, so this also detects a fork.
            if asyncio.get_running_loop() is self.loop:
                return
        except RuntimeError:
            pass
        if os.getpid() != self._pid:
            raise RuntimeError(f"{self._what} does not survive a fork: make a new one, in a spawned process")
        raise RuntimeError(
            f"{self._what} belongs to another event loop, on which it was started: use and close it there, "
            "or make a new one on this loop (each asyncio.run starts a new loop)"
        )


def enter_grpc() -> None:
    """Note that this process opens channels. Raises RuntimeError if a process that did so was forked into this one.

    gRPC's threads are missing after a fork: a call would hang or crash the process.
    """
    if not _opened_in:
        _opened_in.append(os.getpid())
    if _opened_in != [os.getpid()]:
        raise RuntimeError(
            "this process was forked from a process that uses gRPC, and gRPC does not survive a fork: start this "
            "process with subprocess, or with the multiprocessing method 'spawn' or 'forkserver'"
        )
