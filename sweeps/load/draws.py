"""Random choices and arrival times, drawn in blocks."""

from __future__ import annotations

import numpy as np

from sweeps.load.operations import KINDS
from sweeps.spec.parameters import LoadSettings

_BLOCK = 8192


class Choices:
    """An endless seeded series of operation kinds and keys, drawn in blocks."""

    def __init__(self, load: LoadSettings, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        shares = load.mix.model_dump()
        self._kinds = [KINDS[name] for name in shares]
        self._shares = np.array(list(shares.values())) / sum(shares.values())
        self._keys = load.keys
        self._zipf = (1 / np.arange(1, load.keys + 1)).cumsum() if load.key_dist == "zipf" else None
        self._block: list[tuple[int, int]] = []
        self._position = 0

    def take(self, count: int) -> list[tuple[int, int]]:
        """Return the next `count` pairs of kind and key number."""
        while len(self._block) - self._position < count:
            self._block, self._position = self._block[self._position :] + self._draw(), 0
        self._position += count
        return self._block[self._position - count : self._position]

    def _draw(self) -> list[tuple[int, int]]:
        kinds = self._rng.choice(self._kinds, _BLOCK, p=self._shares)
        if self._zipf is None:
            keys = self._rng.integers(0, self._keys, _BLOCK)
        else:
            keys = np.searchsorted(self._zipf, self._rng.random(_BLOCK) * self._zipf[-1])
        return list(zip(kinds.tolist(), keys.tolist(), strict=True))


class Arrivals:
    """The due times of the operations of an open load: an endless ascending series."""

    def __init__(self, load: LoadSettings, seed: int, begin_ns: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._poisson = load.arrivals == "poisson"
        self._gap_ns = 1e9 / (load.rate or 1.0)
        self._last_ns = float(begin_ns)
        self._due: list[int] = []
        self._position = 0

    def next_ns(self) -> int:
        """Return when the next operation is due."""
        if self._position == len(self._due):
            self._draw()
        return self._due[self._position]

    def until(self, now_ns: int) -> list[int]:
        """Return the due times up to `now_ns` that were not taken yet."""
        taken: list[int] = []
        while self.next_ns() <= now_ns:
            end = int(np.searchsorted(self._due, now_ns, side="right"))
            taken += self._due[self._position : end]
            self._position = end
        return taken

    def _draw(self) -> None:
        gaps = self._rng.exponential(self._gap_ns, 1024) if self._poisson else np.full(1024, self._gap_ns)
        times = self._last_ns + gaps.cumsum()
        self._last_ns = float(times[-1])
        self._due, self._position = times.astype(np.int64).tolist(), 0
