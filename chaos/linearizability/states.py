"""The states of one key as small numbers.

Only what somebody may recognise needs an identity: values that an operation saw or expected, and what they begin
with. They form a tree, in which a state is its parent and what was appended. All other states are told apart by their
length alone, if by anything; those are called opaque.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

ABSENT = 0
"""The key does not exist."""
EMPTY = 1
"""The key holds the empty value, the root of the tree."""
NONE = -1
"""No state: the step is not possible."""


class Atoms:
    """Written values as small numbers, with their lengths in bytes."""

    def __init__(self) -> None:
        self.size: list[int | None] = []
        """None: not known."""
        self.writes: list[int] = []
        """How often it stands in what is written."""
        self._numbers: dict[Any, int] = {}

    def number(self, atom: Any) -> int:
        """The number of a value of any JSON type."""
        if type(atom) not in {int, str}:
            # As Python's dictionary would have it, True, 1 and 1.0 are one key.
            atom = (json.dumps(atom, sort_keys=True),)
        number = self._numbers.setdefault(atom, len(self.size))
        if number == len(self.size):
            self.size.append(None)
            self.writes.append(0)
        return number

    def written(self, atoms: Iterable[Any], size: int | None) -> tuple[int, ...]:
        """The numbers of what an operation writes, `size` bytes long."""
        numbers = tuple(map(self.number, atoms))
        if len(numbers) != 1:
            size = None
        for number in numbers:
            # The same value of two lengths: then nothing is known of its length.
            self.size[number] = size if not self.writes[number] or self.size[number] == size else None
            self.writes[number] += 1
        return numbers


class States:
    """The states of one key."""

    def __init__(self, atoms: Atoms) -> None:
        self.parent = [ABSENT, EMPTY]
        self.atom = [-1, -1]
        """What was written last to get here; -1: nothing."""
        self.size: list[int | None] = [0, 0]
        """In bytes, None: not known."""
        self.sized = False
        """Whether opaque states are told apart by their lengths; to be set before there are any."""
        self._atoms = atoms
        self._children: dict[tuple[int, int], int] = {}
        self._opaque: dict[int | None, int] = {}
        self._last: tuple[tuple[int, ...], int] = (), EMPTY

    def __len__(self) -> int:
        return len(self.parent)

    def add(self, value: Sequence[Any] | None) -> int:
        """The state of a value that somebody may recognise."""
        if value is None:
            return ABSENT
        atoms, state = tuple(map(self._atoms.number, value)), EMPTY
        # What is read twice has mostly grown in between: go on from there.
        known, at = self._last
        if atoms[: len(known)] == known:
            state = at
            rest = atoms[len(known) :]
        else:
            rest = atoms
        for atom in rest:
            child = self._children.get((state, atom))
            if child is None:
                sizes = self.size[state], self._atoms.size[atom]
                child = self._new(state, atom, None if None in sizes else sum(sizes))  # type: ignore[arg-type]
                self._children[state, atom] = child
            state = child
        self._last = atoms, state
        return state

    def extended(self, state: int, atoms: Sequence[int], size: int | None) -> int:
        """The state after `atoms`, `size` bytes long, are appended to `state`."""
        at = EMPTY if state == ABSENT else state
        for atom in atoms:
            child = self._children.get((at, atom))
            if child is None:
                before = self.size[state]
                return self.opaque(None if before is None or size is None else before + size)
            at = child
        return at

    def opaque(self, size: int | None) -> int:
        """The state of a value that nobody recognises, `size` bytes long."""
        size = size if self.sized else None
        state = self._opaque.get(size)
        if state is None:
            state = self._opaque[size] = self._new(ABSENT, -1, size)
        return state

    def _new(self, parent: int, atom: int, size: int | None) -> int:
        self.parent.append(parent)
        self.atom.append(atom)
        self.size.append(size)
        return len(self.parent) - 1
