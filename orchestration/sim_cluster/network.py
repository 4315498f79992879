"""The network between nodes, and between clients and nodes: it delays, loses, duplicates and replays messages.

The link faults of chaos are not implemented here: each node applies them itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestration.sim_cluster.loop import Call, SimLoop
from orchestration.sim_cluster.ports import Ports
from orchestration.sim_cluster.settings import SimSettings


@dataclass(slots=True)
class NetworkCounters:
    """Counts of messages so far."""

    sent: int = 0
    lost: int = 0
    duplicated: int = 0
    replayed: int = 0


class Network:
    """Delivers posted messages."""

    def __init__(self, loop: SimLoop, settings: SimSettings, rng: random.Random) -> None:
        self.settings = settings
        """The network's parameters; may be replaced at any time."""
        self.counters = NetworkCounters()
        self.ports = Ports()
        """The processes that listen, by address and by node."""
        self.loop = loop
        self._rng = rng

    def post(self, deliver: Callable[..., object], *args: Any, once: bool = False) -> bool:
        """Call `deliver(*args)` when the message arrives: once, never, or several times. Returns False if it is lost.

        `once`: at most once, as on a stream between a client and a node.
        """
        settings, random_, counters = self.settings, self._rng.random, self.counters
        counters.sent += 1
        if settings.loss and random_() < settings.loss:
            counters.lost += 1
            return False
        self._arrive(self.delay_s(), deliver, args)
        if once:
            return True
        if settings.duplicate and random_() < settings.duplicate:
            counters.duplicated += 1
            self._arrive(self.delay_s(), deliver, args)
        if settings.replay and random_() < settings.replay:
            counters.replayed += 1
            self._arrive(self._rng.uniform(*settings.replay_after), deliver, args)
        return True

    def delay_s(self) -> float:
        """Draw the travel time of a message."""
        settings, random_ = self.settings, self._rng.random
        low, high = settings.delay
        delay_s = low + (high - low) * random_()
        if settings.tail and random_() < settings.tail:
            delay_s += self._rng.uniform(*settings.tail_delay)
        return delay_s

    def after(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Call:
        """Schedule a callback after a fixed time; neither faults nor pauses delay it."""
        call = Call(callback, args)
        self.loop.at(self.loop.time() + delay_s, call)
        return call

    def _arrive(self, delay_s: float, deliver: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.loop.at(self.loop.time() + delay_s, Call(deliver, args))
