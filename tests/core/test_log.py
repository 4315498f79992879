"""The log in memory, and quorum arithmetic, against their obvious definitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raft_actor_node.core import Log
from raft_actor_node.core.log import ENTRY_BYTES
from raft_actor_node.core.quorum import quorum_size, reached_by_quorum

some_terms = st.lists(st.integers(1, 5), max_size=20).map(sorted)


def log(terms: list[int]) -> Log:
    return Log(terms, [b"x" * (k % 4) for k in range(len(terms))])


@given(some_terms, st.integers(0, 25), st.integers(0, 6))
def test_matches_is_equality_of_terms(terms: list[int], index: int, term: int) -> None:
    """Index 0, of term 0, precedes every log (5.3)."""
    at = [0, *terms]
    assert log(terms).matches(index, term) == (index < len(at) and at[index] == term)


@given(some_terms, st.integers(1, 6))
def test_search_by_term(terms: list[int], term: int) -> None:
    """First and last index of a term, by their definitions (end of 5.3)."""
    here = [k for k, t in enumerate(terms, 1) if t == term]
    assert log(terms).last_index_of(term) == (here[-1] if here else None)
    if here:
        assert log(terms).first_index_of(term) == here[0]


@given(some_terms, st.data())
def test_first_difference_is_where_a_loop_would_find_it(terms: list[int], data: st.DataObject) -> None:
    """The first new entry that is missing, or whose term differs (Figure 2, receiver 3 and 4)."""
    first = data.draw(st.integers(1, len(terms) + 1))
    new = data.draw(some_terms)
    expected = first
    while expected - first < len(new) and expected <= len(terms) and terms[expected - 1] == new[expected - first]:
        expected += 1
    assert log(terms).first_difference(first, new) == expected


@given(some_terms, st.integers(1, 25), st.integers(1, 8), st.integers(0, 12))
def test_batch_end_is_the_longest_batch_within_the_limits(terms: list[int], lo: int, most: int, size: int) -> None:
    """At least one entry, if there is one; beyond that, the longest batch within both limits."""
    it = log(terms)
    lo = min(lo, len(terms) + 1)
    hi, total = it.batch_end(lo, most, size)
    lengths = [len(p) + ENTRY_BYTES for p in it.payloads(lo, len(terms) + 1)]
    fits = [k for k in range(min(most, len(lengths)) + 1) if sum(lengths[:k]) <= size]
    assert hi - lo == min(max(*fits, 1), len(lengths))
    assert total == sum(lengths[: hi - lo])


@given(some_terms, some_terms, st.integers(1, 20))
def test_truncate_and_append(terms: list[int], more: list[int], first: int) -> None:
    """The log behaves like a list with indexes from 1."""
    it, first = log(terms), min(first, len(terms) + 1)
    it.truncate(first)
    it.append(more, [b"new"] * len(more))
    assert list(it.terms(1, it.last_index + 1)) == terms[: first - 1] + more
    assert it.last_index == first - 1 + len(more)
    assert it.last_term == ([0, *terms[: first - 1], *more])[-1]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_a_quorum_has_reached_it_and_not_more(values: list[int]) -> None:
    """More than half of all voters, also of an even number (5.2)."""
    reached = reached_by_quorum(values)
    assert 2 * sum(v >= reached for v in values) > len(values)
    assert 2 * sum(v > reached for v in values) <= len(values)
    assert 2 * quorum_size(len(values)) > len(values) >= 2 * (quorum_size(len(values)) - 1)
