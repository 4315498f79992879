"""Text of messages: foreign text (keys, log lines, file names) made printable, and hints for mistyped names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def printable(text: str, *, keep: str = "") -> str:
    """Replace each unprintable character by its Python escape, except those in `keep`.

    Unprintable are characters that a terminal obeys or that no file can hold: `\\x1b`, a line feed, a lone surrogate.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for a mistyped name, or "" if no known name is close.

    Names may be dotted. Order of preference: a similar last part in the same section; the same last part in another
    section (`nodes`: cluster.nodes); a similar full name; a similar last part in another section.
    """
    text, names = str(name), list(known)
    section, leaf = _parts(text)
    beside = {_parts(each)[1]: each for each in names if section and _parts(each)[0] == section}
    leaves = {_parts(each)[1]: each for each in names}
    close = [beside[match] for match in difflib.get_close_matches(leaf, beside, n=1)]
    close = close or difflib.get_close_matches(text, [each for each in names if _parts(each)[1] == leaf], n=1, cutoff=0)
    close = close or difflib.get_close_matches(text, names, n=1)
    close = close or [leaves[match] for match in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)]
    return f"; did you mean {close[0]}?" if close else ""


def _parts(name: str) -> tuple[str, str]:
    """Return the section and the last part of a dotted name."""
    section, _, leaf = name.rpartition(".")
    return section, leaf
