"""How much time and memory a check may take."""

from __future__ import annotations

import math
import time
from typing import Literal

PAUSE_S = 5.0
"""From one look to the next; after more than that this process was stopped, which is none of the check's time."""


class OutOfBounds(Exception):
    """There is no time left, or no room: nobody knows the verdict."""

    def __init__(self, what: Literal["time", "memory"]) -> None:
        super().__init__(what)
        self.what = what


class Bounds:
    """What is left of both. Whoever works looks here after each piece of work that may take 0.1 s, or some MB."""

    def __init__(self, end: float = math.inf, most_bytes: float = math.inf) -> None:
        self.end = end
        """On the monotonic clock, in seconds."""
        self.most_bytes = most_bytes
        self._looked = time.monotonic()

    def room(self, occupied: float) -> float:
        """Bytes that are left beside those that are occupied. Raises OutOfBounds."""
        self.look()
        if occupied >= self.most_bytes:
            raise OutOfBounds("memory")
        return self.most_bytes - occupied

    def look(self) -> None:
        """Look at the clock. Raises OutOfBounds."""
        now = time.monotonic()
        if now - self._looked > PAUSE_S:
            self.end += now - self._looked
        self._looked = now
        if now >= self.end:
            raise OutOfBounds("time")
