"""Quantities with units in configuration files: durations and sizes.

A duration is written ``150ms`` and held as a float in seconds; a range of durations is written ``150ms-300ms``. A size
is written ``1KiB``, or as a plain number of bytes, and held as an int in bytes. Quantities are written back in the same
form, so a configuration survives a round trip through YAML or JSON.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

_SECONDS = {"us": (1, 1e6), "ms": (1, 1e3), "s": (1, 1), "m": (60, 1), "h": (3600, 1)}
"""Seconds per unit, as a fraction (times, per).

200us round-trips only as 200 / 1e6, the nearest float; 200 * 1e-6 is another float.
"""
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(rf"({_NUMBER})\s*(us|ms|s|m|h)")
_RANGE = re.compile(rf"({_NUMBER}\s*(?:us|ms|s|m|h))\s*-\s*({_NUMBER}\s*(?:us|ms|s|m|h))")
_SIZE = re.compile(rf"({_NUMBER})\s*(B|KiB|MiB|GiB)?")


WRITTEN = {"written": True}
"""Validation context for hand-written files: durations must have a unit. Programs may pass seconds as floats."""


class Range(NamedTuple):
    """A closed interval of durations, in seconds."""

    min_s: float
    max_s: float


def parse_duration(value: Any) -> float:
    """Return the seconds of a duration such as ``"150ms"``. Raises ValueError for anything without a unit."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write a number with a unit (us, ms, s, m, h), such as 150ms")
    times, per = _SECONDS[match[2]]
    return float(match[1]) * times / per


def format_duration(seconds: float) -> str:
    """Return the shortest exact form of a duration; the inverse of parse_duration."""
    if seconds == 0:
        return "0s"
    unit, scale = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e-3)) if seconds >= s), ("us", 1e-6))
    return f"{_plain(round(seconds / scale, 6))}{unit}"


def parse_range(value: Any) -> Range:
    """Parse a range such as ``"150ms-300ms"``. Raises ValueError if it is reversed or has no units."""
    match = _RANGE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a range of durations; write two with units, such as 150ms-300ms")
    low, high = parse_duration(match[1]), parse_duration(match[2])
    if low > high:
        raise ValueError(f"{value!r} is reversed; the first duration must not exceed the second")
    return Range(low, high)


def format_range(value: Range) -> str:
    """Return the written form of a range; the inverse of parse_range."""
    return f"{format_duration(value[0])}-{format_duration(value[1])}"


def parse_size(value: Any) -> int:
    """Return the bytes of a size such as ``"1KiB"`` or ``1024``. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{value!r} is not a size; write bytes, or a number with B, KiB, MiB or GiB")
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write bytes, or a number with B, KiB, MiB or GiB")
    size = float(match[1]) * _BYTES[match[2] or "B"]
    if size != int(size):
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return int(size)


def format_size(size: int) -> str | int:
    """Return a size in the largest unit that divides it, or as plain bytes if none does; the inverse of parse_size."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return size


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def _duration(value: Any, info: ValidationInfo) -> float:
    if isinstance(value, float) and info.context != WRITTEN and math.isfinite(value) and value >= 0:
        return value
    return parse_duration(value)


def _duration_or_off(value: Any, info: ValidationInfo) -> float | None:
    if value is None or value is False or value == "off":  # YAML 1.1 reads a plain `off` as false
        return None
    seconds = _duration(value, info)
    if seconds <= 0:
        raise ValueError(f"{value!r} is not above zero; write off, or a duration such as 150ms")
    return seconds


def _format_or_off(seconds: float | None) -> str:
    return "off" if seconds is None else format_duration(seconds)


def _range(value: Any, info: ValidationInfo) -> Range:
    if isinstance(value, Range) and info.context != WRITTEN and 0 <= value.min_s <= value.max_s < math.inf:
        return value
    return parse_range(value)


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["150ms"]}),
]
"""A duration in seconds, written with its unit."""

DurationOrOff = Annotated[
    float | None,
    BeforeValidator(_duration_or_off),
    PlainSerializer(_format_or_off),
    WithJsonSchema(
        {"type": "string", "pattern": f"^(off|{_DURATION.pattern})$", "examples": ["off", "150ms"], "default": "off"}
    ),
]
"""A duration above zero in seconds, written with its unit; None is written `off`."""

DurationRange = Annotated[
    Range,
    BeforeValidator(_range),
    PlainSerializer(format_range),
    WithJsonSchema({"type": "string", "pattern": f"^{_RANGE.pattern}$", "examples": ["150ms-300ms"]}),
]
"""A closed range of durations in seconds, written with units."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": f"^{_SIZE.pattern}$"}]}),
]
"""A size in bytes, written with or without a binary unit."""
