"""Text from elsewhere (keys of a history, log lines, names of files, errors of libraries) on a terminal or in a log."""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    """The text with an escape of Python's in place of each character that a terminal obeys or no file can hold, such as
    `\\x1b`, a line feed, or a lone surrogate. Characters in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
