"""Values, and what their bytes tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.history import BARE
from sweeps.load.values import CLIENT_SHIFT, FOREIGN, Values

IDS = [(client + 1) << CLIENT_SHIFT | number for client, number in ((0, 1), (0, 2), (99_999, 3), (7, 2**39))]


def composite(values: Values, number: int) -> list[int]:
    """The ids that a number below 2**40 represents."""
    ids, ends = values.composites()
    begin = int(ends[number - 2]) if number > 1 else 0
    return [int(each) for each in ids[begin : int(ends[number - 1])]]


@pytest.mark.parametrize("value_bytes", [8, 9, 16, 64, 1000])
def test_a_value_has_its_length_and_tells_its_id(value_bytes: int) -> None:
    values = Values(value_bytes)
    assert [len(values.make(written)) for written in IDS] == [value_bytes] * 4
    assert values.numbers([values.make(written) for written in IDS]) == IDS
    bare = BARE if value_bytes > 8 else 0
    assert values.numbers([values.piece(written) for written in IDS]) == [written + bare for written in IDS]
    assert values.numbers([None]) == [0]


@given(st.sampled_from([8, 16, 64]), st.booleans(), st.lists(st.sampled_from(IDS), min_size=2, max_size=12))
def test_what_was_appended_is_told_apart_in_order(value_bytes: int, put: bool, ids: list[int]) -> None:
    values = Values(value_bytes)
    first, *others = ids
    whole = (values.make(first) if put else values.piece(first)) + b"".join(map(values.piece, others))
    [number] = values.numbers([whole])
    assert 0 < number < 1 << CLIENT_SHIFT
    assert composite(values, number) == [first if put or value_bytes == 8 else first + BARE, *others]
    assert values.numbers([whole]) == [number], "the same value is one row"


def test_a_value_without_its_padding_is_another_one() -> None:
    """A put of 64 bytes that was cut to its id, and a put that lost its padding before an append."""
    values, (first, second, *_) = Values(64), IDS
    whole, cut, rest = values.make(first), values.make(first)[:8], values.piece(second)
    assert values.numbers([whole, cut]) == [first, first + BARE]
    numbers = values.numbers([whole + rest, cut + rest])
    assert [composite(values, number) for number in numbers] == [[first, second], [first + BARE, second]]


def test_bytes_that_nobody_wrote_are_no_value_of_ours() -> None:
    values = Values(16)
    whole = values.make(IDS[0])
    wrong = [b"", b"x", whole[:-1], whole + b"y", bytes(16), whole[:9] + b"!" + whole[10:]]
    numbers = values.numbers(wrong)
    for number in numbers:
        ids = [number] if number >= FOREIGN else composite(values, number)
        assert not set(ids) <= set(IDS), number
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("value_bytes", [1, 2, 7])
def test_short_values_hold_the_end_of_their_ids_and_are_all_composites(value_bytes: int) -> None:
    values = Values(value_bytes)
    mask = (1 << 8 * value_bytes) - 1
    first, second = values.make(IDS[0]), values.make(IDS[1])
    numbers = values.numbers([first, second, first + values.piece(IDS[1]), None])
    ends = [written & mask for written in IDS[:2]]
    assert [composite(values, number) for number in numbers[:3]] == [ends[:1], ends[1:], ends]
    assert numbers[3] == 0
    assert values.numbers([values.make(IDS[3])]) == [4]
    assert composite(values, 4) == [IDS[3] & mask]


def test_empty_values_tell_nothing() -> None:
    values = Values(0)
    assert (values.make(IDS[0]), values.piece(IDS[1])) == (b"", b"")
    assert values.numbers([b"", None]) == [1, 0]
