"""The states of one key as small numbers.

Only values that an operation may recognise need an identity: values that an operation saw or expected, and their
prefixes. The states of these values form a tree, in which a state is its parent plus an appended atom. All other states
are called opaque; they are distinguished at most by length.
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
        """By number: length in bytes; None: unknown."""
        self.writes: list[int] = []
        """By number: how often operations write the value."""
        self._numbers: dict[Any, int] = {}

    def number(self, atom: Any) -> int:
        """Return the number of a value of any JSON type."""
        if type(atom) not in {int, str}:
            # As keys of a dictionary True, 1 and 1.0 would be equal.
            atom = (json.dumps(atom, sort_keys=True),)
        number = self._numbers.setdefault(atom, len(self.size))
        if number == len(self.size):
            self.size.append(None)
            self.writes.append(0)
        return number

    def written(self, atoms: Iterable[Any], size: int | None) -> tuple[int, ...]:
        """Record a write of `size` bytes (None: unknown), and return the numbers of its atoms."""
        numbers = tuple(map(self.number, atoms))
        if len(numbers) != 1:
            size = None
        for number in numbers:
            # If one value was written with two lengths, its length is unknown.
            self.size[number] = size if not self.writes[number] or self.size[number] == size else None
            self.writes[number] += 1
        return numbers


class States:
    """The states of one key."""

    def __init__(self, atoms: Atoms) -> None:
        self.parent = [ABSENT, EMPTY]
        self.atom = [-1, -1]
        """By state: the atom that was appended last; -1: none."""
        self.size: list[int | None] = [0, 0]
        """By state: length in bytes; None: unknown."""
        self.sized = False
        """Whether opaque states are distinguished by length; must be set before the first opaque state exists."""
        self._atoms = atoms
        self._children: dict[tuple[int, int], int] = {}
        self._opaque: dict[int | None, int] = {}
        self._last: tuple[tuple[int, ...], int] = (), EMPTY

    def __len__(self) -> int:
        return len(self.parent)

    def add(self, value: Sequence[Any] | None) -> int:
        """Return the state of a value that an operation may recognise."""
        if value is None:
            return ABSENT
        atoms, state = tuple(map(self._atoms.number, value)), EMPTY
        # A value that is read again has usually grown, so continue from the last one.
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
        """Return the state after `atoms`, `size` bytes long, are appended to `state`."""
        at = EMPTY if state == ABSENT else state
        for atom in atoms:
            child = self._children.get((at, atom))
            if child is None:
                before = self.size[state]
                return self.opaque(None if before is None or size is None else before + size)
            at = child
        return at

    def opaque(self, size: int | None) -> int:
        """Return the state of a value that no operation recognises, `size` bytes long."""
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
