"""Durations and sizes: the written form and the held value are equivalent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from raft_actor_node.units import (
    WRITTEN,
    Duration,
    DurationOrOff,
    DurationRange,
    Range,
    format_duration,
    format_range,
    format_size,
    parse_duration,
    parse_range,
    parse_size,
)

DURATION, RANGE = TypeAdapter(Duration), TypeAdapter(DurationRange)
OR_OFF = TypeAdapter[float | None](DurationOrOff)


@pytest.mark.parametrize(
    ("text", "seconds"), [("150ms", 0.15), ("1s", 1.0), ("2m", 120.0), ("250us", 0.00025), ("1.5s", 1.5), ("0s", 0.0)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["150", 150, 1.5, "", "-1s", "1 year", "nan s", None, True, "infs"])
def test_a_written_duration_carries_its_unit(value: object) -> None:
    with pytest.raises(ValidationError, match="unit"):
        DURATION.validate_python(value, context=WRITTEN)


@pytest.mark.parametrize(("written", "seconds"), [("off", None), (False, None), (None, None), ("150ms", 0.15)])
def test_a_duration_may_be_off(written: object, seconds: float | None) -> None:
    held = OR_OFF.validate_python(written, context=WRITTEN)
    assert held == seconds
    assert OR_OFF.validate_python(OR_OFF.dump_python(held)) == seconds
    assert OR_OFF.dump_json(held) == (b'"off"' if seconds is None else b'"150ms"')


@pytest.mark.parametrize("value", ["0s", "on", True, 0, "-1s", 0.15])
def test_what_is_neither_off_nor_a_duration_above_zero_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        OR_OFF.validate_python(value, context=WRITTEN)


def test_a_program_may_pass_seconds() -> None:
    assert DURATION.validate_python(0.15) == 0.15
    assert RANGE.validate_python(Range(0.15, 0.3)) == (0.15, 0.3)
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValidationError):
            DURATION.validate_python(bad)
    with pytest.raises(ValidationError):
        RANGE.validate_python(Range(0.3, 0.15))


@pytest.mark.parametrize("value", ["300ms-150ms", "150-300", [0.15, 0.3], "150ms", ""])
def test_a_written_range_has_two_durations_in_order(value: object) -> None:
    with pytest.raises(ValidationError):
        RANGE.validate_python(value, context=WRITTEN)


@given(st.integers(1, 10**10))
def test_durations_survive_a_round_trip(microseconds: int) -> None:
    assert parse_duration(format_duration(microseconds / 1e6)) == pytest.approx(microseconds / 1e6, abs=1e-9)


def test_ranges_survive_a_round_trip() -> None:
    assert format_range(parse_range("150ms-1.5s")) == "150ms-1.5s"


@given(st.integers(0, 2**40))
def test_sizes_survive_a_round_trip(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("value", ["1KB", "1.0001KiB", -1, 1.5, True, "many"])
def test_bad_sizes_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"size|whole"):
        parse_size(value)


@pytest.mark.parametrize("text", ["200us", "7us", "33.3ms", "75ms", "1.5s", "90s"])
def test_a_duration_is_read_back_exactly_as_it_was(text: str) -> None:
    seconds = parse_duration(text)
    assert parse_duration(format_duration(seconds)) == seconds
    assert format_duration(seconds) == text
