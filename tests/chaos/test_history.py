"""Histories: JSON lines written and read back, histories of other tools, bad input, and columns."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.history import BARE, BadHistory, Function, History, Operation
from chaos.linearizability import check
from tests.chaos.histories import executed


def read(path: Path, *lines: dict[str, Any] | str) -> History:
    file = path / "history.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return History.read_jsonl(file)


def line(process: Any, what: str, f: str, time: Any, value: Any = None, **more: Any) -> dict[str, Any]:
    return {"process": process, "type": what, "f": f, "key": 1, "value": value, "time": time, **more}


def by_invocation(history: History) -> list[Operation]:
    return sorted(history, key=lambda operation: (operation.invoke_ns, operation.return_ns))


@pytest.mark.parametrize("seed", [1, 2])
def test_there_and_back(tmp_path: Path, seed: int) -> None:
    written = executed(500, seed=seed, unknown=0.1)
    written.write_jsonl(tmp_path / "h.jsonl")
    again = History.read_jsonl(tmp_path / "h.jsonl")
    for one, other in zip(by_invocation(written), by_invocation(again), strict=True):
        assert other.process % 16 == one.process
        assert {**_fields(other), "process": 0} == {**_fields(one), "process": 0}
    assert sum(o.outcome == "info" for o in written) == pytest.approx(50, abs=20)
    again.write_jsonl(tmp_path / "again.jsonl")
    lines = [sorted((tmp_path / name).read_text().splitlines()) for name in ("h.jsonl", "again.jsonl")]
    assert lines[0] == lines[1]


def _fields(operation: Operation) -> dict[str, Any]:
    return {name: getattr(operation, name) for name in operation.__slots__}


ATOMS = st.one_of(st.integers(), st.text(max_size=3), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.none() | st.lists(ATOMS, min_size=1, max_size=3).map(tuple)


@st.composite
def single_operations(draw: st.DrawFn) -> Operation:
    f: Function = draw(st.sampled_from(("put", "get", "delete", "cas", "append")))
    begin = draw(st.integers(0, 9))
    operation = Operation(draw(st.integers(0, 3)), f, draw(st.sampled_from((None, 1, "k"))), invoke_ns=begin)
    operation.outcome = draw(st.sampled_from(("ok", "fail", "info")))
    if operation.outcome != "info":
        operation.return_ns = begin + draw(st.integers(0, 5))
    if f in {"put", "cas", "append"}:
        operation.value, operation.size = draw(ATOMS), draw(st.none() | st.integers(0, 64))
    if f == "cas":
        operation.expected = draw(VALUES)
    if operation.outcome == "ok":
        if f == "cas":
            operation.swapped = draw(st.booleans())
        if f == "get" or (f == "cas" and not operation.swapped):
            operation.observed = draw(VALUES)
        elif f == "delete":
            operation.observed = draw(st.none() | st.booleans())
        elif f == "append":
            operation.observed = draw(st.none() | st.integers(0, 99))
    return operation


@settings(deadline=None)
@given(st.lists(single_operations(), max_size=6))
def test_every_kind_of_operation_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, found: list[Operation]
) -> None:
    for at, operation in enumerate(found):
        # A process has one operation at a time, so no two may overlap. An operation may take no time at all.
        operation.invoke_ns += 20 * at
        operation.return_ns += 20 * at
    path = tmp_path_factory.mktemp("history") / "h.jsonl"
    History(found).write_jsonl(path)
    again = History.read_jsonl(path)
    assert [{**_fields(o), "process": 0} for o in again] == [{**_fields(o), "process": 0} for o in found]


def test_a_client_that_does_not_know_goes_on_under_another_number(tmp_path: Path) -> None:
    """The format of other checkers demands a new process after each unknown outcome."""
    operations = [Operation(0, "put", 1, n, outcome="info", invoke_ns=n) for n in range(3)]
    operations.append(Operation(1, "get", 1, observed=None, invoke_ns=9, return_ns=10))
    History(operations).write_jsonl(tmp_path / "h.jsonl")
    assert [o.process for o in History.read_jsonl(tmp_path / "h.jsonl")] == [0, 2, 4, 1]


def test_operations_without_duration_do_not_overlap_in_the_file(tmp_path: Path) -> None:
    operations = [Operation(0, "put", 1, n, invoke_ns=5, return_ns=5, outcome="fail") for n in range(3)]
    History(operations).write_jsonl(tmp_path / "h.jsonl")
    assert History.read_jsonl(tmp_path / "h.jsonl") == History(operations)


def test_what_others_write(tmp_path: Path) -> None:
    """A register of Jepsen: no keys, no times, a nemesis, read and write, an operation that never ends."""
    history = read(
        tmp_path,
        '{"process": 0, "type": "invoke", "f": "write", "value": 3, "index": 0}',
        "",
        '{"process": "nemesis", "type": "info", "f": "start", "value": null}',
        '{"process": 1, "type": "invoke", "f": "read", "value": null}',
        '{"process": 0, "type": "ok", "f": "write", "value": 3}',
        '{"process": 1, "type": "ok", "f": "read", "value": 3}',
        '{"process": 0, "type": "invoke", "f": "cas", "value": [3, 4]}',
        '{"process": 0, "type": "fail", "f": "cas", "value": [3, 4]}',
        '{"process": 1, "type": "invoke", "f": "write", "value": [1, 2]}',
    )
    assert list(history) == [
        Operation(0, "put", None, 3, invoke_ns=1, return_ns=5),
        Operation(1, "get", None, observed=(3,), invoke_ns=4, return_ns=6),
        Operation(0, "cas", None, 4, expected=(3,), outcome="fail", invoke_ns=7, return_ns=8),
        Operation(1, "put", None, (1, 2), outcome="info", invoke_ns=9),
    ]


def test_a_cas_that_did_not_swap_is_a_failure_to_others_and_a_read_to_us(tmp_path: Path) -> None:
    cas = Operation(0, "cas", 1, 4, expected=(3,), observed=(7, 8), swapped=False, invoke_ns=1, return_ns=2)
    History([cas]).write_jsonl(tmp_path / "h.jsonl")
    last = json.loads((tmp_path / "h.jsonl").read_text().splitlines()[1])
    assert (last["type"], last["observed"]) == ("fail", [7, 8])
    assert History.read_jsonl(tmp_path / "h.jsonl") == History([cas])


INVOKED = line(0, "invoke", "put", 5, 1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], ":1: is not JSON: Expecting property name"),
        (["[1]"], ":1: must be a JSON object"),
        ([INVOKED, "\x00"], ":2: is not JSON"),
        (['{"value": NaN}'], ":1: NaN is not a number"),
        (["[" * 100_000], ":1: is not JSON: nested too deeply"),
        ([line("x", "invoke", "put", 5)], ':1: process: must be an integer, not "x"'),
        ([line(True, "invoke", "put", 5)], ":1: process: must be an integer, not true"),
        ([line(0, "begin", "put", 5)], ':1: type: must be invoke, ok, fail or info, not "begin"'),
        ([line(0, ["ok"], "put", 5)], ':1: type: must be invoke, ok, fail or info, not ["ok"]'),  # type: ignore[arg-type]
        ([line(0, "invoke", "incr", 5)], ':1: f: must be put, get, delete, cas or append, not "incr"'),
        ([{**INVOKED, "key": [1]}], ":1: key: must be text, a number or null, not [1]"),
        ([line(0, "invoke", "cas", 5, 3)], ":1: value: of a cas must be [expected, new], not 3"),
        ([line(0, "invoke", "append", 5)], ":1: value: of an append must be what is appended, not null"),
        ([line(0, "invoke", "put", 5.5, 1)], ":1: time: must be an integer, not 5.5"),
        ([INVOKED, line(1, "invoke", "put", None, 1)], ":2: time: is in some lines but not in others"),
        ([INVOKED, INVOKED], ":2: process: 0 begins an operation before it ended that of line 1"),
        ([line(0, "ok", "put", 5)], ":1: process: 0 ends an operation that it did not begin"),
        ([INVOKED, line(0, "ok", "get", 6)], ":2: f: 0 ends get, but began put on line 1"),
        ([INVOKED, {**line(0, "ok", "put", 6), "key": 2}], ":2: key: differs from the one on line 1"),
        ([INVOKED, {**line(0, "ok", "put", 6), "value": 99}], ":2: value: differs from the one on line 1"),
        ([INVOKED, line(0, "ok", "put", 4)], ":2: time: is before that of line 1"),
        (
            [line(0, "invoke", "delete", 1), line(0, "ok", "delete", 2, observed=1)],
            ":2: observed: of delete must be true",
        ),
        ([line(0, "invoke", "append", 1, 5, bytes="8")], ':1: bytes: must be an integer, not "8"'),
        ([line(0, "invoke", "put", 1, 5, error=-1)], ":1: error: must be at least 0, not -1"),
        (
            [line(0, "invoke", "get", 1), {"process": 0, "type": "ok", "f": "get", "time": 2}],
            ":2: value: what was read is missing",
        ),
        ([line([], "invoke", "put", 5)], ":1: process: must be an integer, not []"),
        (['{"value": ' + "7" * 5000 + "}"], ":1: 7777777777... is too large: an integer of 5000 digits"),
        (['{"value": [-' + "7" * 5000 + "]}"], ":1: -777777777... is too large: an integer of 5000 digits"),
        (['{"value": 1e999}'], ":1: 1e999 is too large"),
        (['{"value": {"a": -1' + "0" * 400 + ".5}}"], ":1: -100000000... is too large"),
        (['{"value": -Infinity}'], ":1: -Infinity is not a number"),
        (['{"process": 0, "process": 0}'], ':1: "process" occurs twice in an object'),
        (['{"process": 0, "value": {"a\\n": 1, "b": 2, "a\\n": 1}}'], ':1: "a\\n" occurs twice in an object'),
        ([line(0, "invoke", "put", 1 << 63, 1)], ":1: time: must fit into 64 bits, not 9223372036854775808"),
        ([line(-(1 << 63) - 1, "invoke", "put", 1, 1)], ":1: process: must fit into 64 bits"),
        ([line(0, "invoke", "put", 1, 1, bytes=10**400)], ":1: bytes: must fit into 64 bits, not 1000"),
        ([line(0, "invoke", "put", 1, 1, error=1 << 64)], ":1: error: must fit into 64 bits"),
        (
            [line(0, "invoke", "append", 1, 5), line(0, "ok", "append", 2, 5, observed=1 << 64)],
            ":2: observed: must fit into 64 bits",
        ),
        ([f'{{"value": {"[" * 100}1{"]" * 100}}}'], ":1: is nested more than 100 deep"),
        ([f'{{"value": {"[" * 99}{{"a": 1}}{"]" * 99}}}'], ":1: is nested more than 100 deep"),
    ],
)
def test_one_clear_line_for_what_is_no_history(tmp_path: Path, lines: list[Any], message: str) -> None:
    with pytest.raises(BadHistory, match=re.escape(f"{tmp_path}/history.jsonl{message}")) as error:
        read(tmp_path, *lines)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_numbers_and_nesting_as_large_as_allowed_are_judged(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(99):
        deep = [deep]
    for value in (int("7" * 4300), -(10**4299), 1.7e308, deep, {"a": {"b": [{}]}}, [[]] * 200):
        history = read(
            tmp_path,
            line(0, "invoke", "put", -(1 << 63), value),
            line(0, "ok", "put", 0, value),
            line(1, "invoke", "get", (1 << 63) - 2),
            line(1, "ok", "get", (1 << 63) - 1, "another"),
        )
        result = check(history)
        assert result.verdict == "violated", result.reason
        assert result.violation is not None
        assert len(result.violation.as_text()) < 1000
        assert len(result.violation.as_svg()) < 10_000


@pytest.mark.parametrize(("read_value", "verdict"), [([], "ok"), (None, "violated"), ([None], "violated")])
def test_an_empty_list_is_a_value_of_a_key_that_exists(tmp_path: Path, read_value: Any, verdict: str) -> None:
    put, get = line(0, "invoke", "put", 1, []), line(1, "invoke", "get", 3)
    history = read(tmp_path, put, line(0, "ok", "put", 2, []), get, line(1, "ok", "get", 4, read_value))
    assert check(history).verdict == verdict


FOREIGN = "a\n\x1b[31m\x00<b>&\ud800\x85\u202e\u2028"


def test_what_stands_in_a_history_cannot_command_a_terminal(tmp_path: Path) -> None:
    """This holds for a key, for a value, and for what a value contains; and all output can be encoded."""
    for value in (FOREIGN, {FOREIGN: FOREIGN}, [FOREIGN, 2]):
        lines = [line(0, "invoke", "put", 1, 1), line(0, "ok", "put", 2, 1), line(1, "invoke", "get", 3)]
        lines.append(line(1, "ok", "get", 4, value))
        result = check(read(tmp_path, *({**each, "key": FOREIGN} for each in lines)))
        assert result.violation is not None
        text, picture = result.violation.as_text(), result.violation.as_svg()
        for shown in (result.reason, *text.split("\n"), *picture.split("\n")):
            assert shown.isprintable()
            shown.encode()
        assert result.reason.startswith(r"key 'a\n\x1b[3")
        ElementTree.fromstring(picture)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_bytes(b"\n\xff\n")
    with pytest.raises(BadHistory, match=r"h\.jsonl:2: is not UTF-8 text"):
        History.read_jsonl(tmp_path / "h.jsonl")


def test_keys_of_different_types_are_different_keys() -> None:
    keys: list[Any] = [1, True, 1.0, "1", None, 0, False]
    history = History(Operation(0, "put", key, 1) for key in keys)
    assert [(type(key), len(found)) for key, found in history.by_key()] == [(type(key), 1) for key in keys]


ID = 1 << 40


def columns(rows: list[dict[str, int]], **more: Any) -> dict[str, Any]:
    names = ("start_ns", "end_ns", "kind", "outcome", "key", "client", "written", "observed", "expected", "found")
    whole = {name: np.array([row.get(name, 0) for row in rows], np.uint64) for name in names}
    return {**whole, **more}


def test_columns() -> None:
    put = {"kind": 1, "outcome": 1, "written": ID + 1, "start_ns": 1, "end_ns": 2, "client": 7, "key": 3}
    composites = {"composite_ids": np.array([ID + 1, ID + 2], np.uint64), "composite_end": np.array([0, 2], np.int64)}
    rows = [
        put,
        {**put, "kind": 5, "written": ID + 2, "observed": 72},
        {**put, "kind": 2, "written": 0, "observed": 2, "found": 1},
        {**put, "kind": 2, "written": 0},
        {**put, "kind": 4, "expected": 2, "found": 1},
        {**put, "kind": 4, "expected": ID + 2, "found": 0, "observed": ID + 1},
        {**put, "kind": 4, "expected": ID + 2, "found": 0},
        {**put, "kind": 3, "written": 0, "found": 1},
        {**put, "outcome": 3},
        {**put, "kind": 2, "outcome": 2},
    ]
    common: dict[str, Any] = {"process": 7, "key": 3, "invoke_ns": 1, "return_ns": 2}
    expected = [
        Operation(f="put", value=ID + 1, size=64, **common),
        Operation(f="append", value=ID + 2, size=8, observed=72, **common),
        Operation(f="get", observed=(ID + 1, ID + 2), **common),
        Operation(f="get", observed=None, **common),
        Operation(f="cas", value=ID + 1, size=64, expected=(ID + 1, ID + 2), **common),
        Operation(f="cas", value=ID + 1, size=64, expected=(ID + 2,), swapped=False, observed=(ID + 1,), **common),
        Operation(f="cas", value=ID + 1, size=64, expected=(ID + 2,), swapped=False, observed=None, **common),
        Operation(f="delete", observed=True, **common),
        Operation(f="put", value=ID + 1, size=64, outcome="info", **{**common, "return_ns": math.inf}),
        Operation(f="get", outcome="fail", **common),
    ]
    assert list(History.from_columns(columns(rows, **composites), value_bytes=64)) == expected


def test_each_row_has_the_error_of_its_generators_clock(tmp_path: Path) -> None:
    rows = [{"kind": 1, "outcome": 1, "written": ID + n, "client": n, "start_ns": n, "end_ns": n} for n in range(3)]
    generators = {"generator": np.array([1, 0, 1], np.uint8), "generator_error_ns": np.array([0, 7], np.int64)}
    history = History.from_columns(columns(rows, **generators))
    assert [operation.error_ns for operation in history] == [7, 0, 7]
    history.write_jsonl(tmp_path / "h.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert [line.get("error") for line in lines if line["type"] == "invoke"] == [7, None, 7]
    assert History.read_jsonl(tmp_path / "h.jsonl") == history


def test_columns_without_the_later_ones() -> None:
    """A latency.npz from before the checker existed: what its columns do not tell is unknown, not wrong."""
    row = {"kind": 2, "outcome": 1, "end_ns": 2}
    found = columns(
        [row, {**row, "observed": ID}, {**row, "kind": 3}, {**row, "kind": 5, "written": ID, "observed": 9}]
    )
    del found["expected"], found["found"]
    assert [(o.f, o.observed, o.size) for o in History.from_columns(found)] == [
        ("get", None, None),
        ("get", (ID,), None),
        ("delete", None, None),
        ("append", 9, None),
    ]
    found["kind"][0] = 4
    with pytest.raises(ValueError, match="expected: this column is needed"):
        History.from_columns(found)
    found["expected"] = np.array([ID, 0, 0, 0], np.uint64)
    assert next(iter(History.from_columns(found))).outcome == "info"


def test_an_id_without_padding_is_what_an_append_to_nothing_leaves_behind() -> None:
    append = {"kind": 5, "outcome": 1, "written": ID + 1, "end_ns": 2}
    get = {"kind": 2, "outcome": 1, "observed": ID + 1 + BARE, "found": 1, "start_ns": 3, "end_ns": 4}
    composites = {"composite_ids": np.array([ID + 1 + BARE, ID + 2], np.uint64), "composite_end": np.array([2])}
    rows = [append, get, {**append, "written": ID + 2, "start_ns": 5, "end_ns": 6}]
    rows.append({**get, "observed": 1, "start_ns": 7, "end_ns": 8})
    history = History.from_columns(columns(rows, **composites), value_bytes=64)
    assert [o.observed for o in history if o.f == "get"] == [(ID + 1,), (ID + 1, ID + 2)]
    assert check(history).verdict == "ok"


@pytest.mark.parametrize("kind", [1, 4], ids=["put", "cas"])
def test_a_value_that_lost_its_padding_is_one_that_nobody_wrote(kind: int) -> None:
    """A put of 64 bytes of which 8 are left, and a put that was cut before an append."""
    put = {"kind": kind, "outcome": 1, "written": ID + 1, "found": 1, "end_ns": 2}
    append = {"kind": 5, "outcome": 1, "written": ID + 2, "observed": 72, "start_ns": 3, "end_ns": 4}
    get = {"kind": 2, "outcome": 1, "found": 1, "start_ns": 5, "end_ns": 6}
    composites = {"composite_ids": np.array([ID + 1 + BARE, ID + 2], np.uint64), "composite_end": np.array([2])}
    for rows, saw in (
        ([put, {**get, "observed": ID + 1 + BARE}], "'1:1 unpadded'"),
        ([put, append, {**get, "observed": 1}], "['1:1 unpadded' 1:2]"),
    ):
        result = check(History.from_columns(columns(rows, **composites), value_bytes=64))
        assert result.verdict == "violated"
        assert saw in result.reason
        assert result.reason.endswith("which no client wrote")


def test_values_shorter_than_an_id_are_cut() -> None:
    rows = [{"kind": 1, "outcome": 1, "written": ID + 0x1234, "end_ns": 1}]
    (put,) = History.from_columns(columns(rows), value_bytes=1)
    assert (put.value, put.size) == (0x34, 1)
