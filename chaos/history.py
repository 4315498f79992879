"""Histories: what clients asked, what they were answered, and when; as objects, as columns, and as JSON lines.

This module judges nothing (chaos/linearizability does). The format on disk is the usual one for such histories: JSON
lines, one when an operation is invoked and one when it ends, paired by process.

    {"process": 3, "type": "invoke", "f": "put", "key": 7, "value": 41, "time": 1200, "bytes": 64}
    {"process": 3, "type": "ok",     "f": "put", "key": 7, "value": 41, "time": 5100}

| field   | meaning                                                                                              |
|---------|------------------------------------------------------------------------------------------------------|
| process | a client, an integer; it has one operation at a time. Lines of the process `nemesis` are skipped     |
| type    | `invoke`; then `ok`: it took effect, `fail`: it had no effect, or `info`: outcome unknown, it may    |
|         | take effect at any later time                                                                        |
| f       | `put`, `get`, `delete`, `cas`, `append`; `write` and `read` are other names of `put` and `get`       |
| key     | text, number or null; missing: null, for a history of one register                                   |
| value   | put, append: the value written. get: null, and in the `ok` line the value read. cas: [expected, new] |
| time    | nanoseconds on one clock for all processes; if no line has it, the order of the lines counts         |
| bytes   | put, append, cas (optional, `invoke`): length of the value written, so that lengths can be judged;   |
|         | if the same value was written with different lengths, its length is unknown                          |
| error   | (optional, `invoke`): error of both times of the operation in nanoseconds, in either direction       |
| observed| (optional, last line) append: length of the value after it; delete: whether there was a value        |

A value is null if the key does not exist. Otherwise it is a single written value, or a list: the value put first, then
each value appended, in order ([x] and x are the same). The empty list is the value of a key that exists: after `put []`
a get must return [], not null. Written values should be unique; repeated values are judged correctly, but more slowly.

A cas that did not swap ends with `fail`, because it had no effect. Its `observed` is the value it saw instead of the
expected one, and the operation is judged as a read of that value. A `fail` without `observed` carries no information.

An operation without a last line is an `info`. After an `info` a client continues under a new process number, because
other checkers require that. At equal times invocations count as earlier than ends, but each operation of a process ends
before its next one begins. Fields with other names are ignored.

The reader rejects a line, and names FILE:LINE, if the line is not such an object, if a name occurs twice in an object,
if a number is too large (an integer of more than 4300 digits, 1e999; for a process, a time or a length: more than 64
bits), or if the line is nested more than 100 deep.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from raft_actor_node.errors import ConfigError
from raft_actor_node.files import replacing

Function = Literal["put", "get", "delete", "cas", "append"]
Outcome = Literal["ok", "fail", "info"]
Key: TypeAlias = str | int | float | bool | None
Atom: TypeAlias = Any
"""A value as it was written: any JSON type except a list."""
Value: TypeAlias = tuple[Atom, ...] | None
"""The value of a key: the value put first, then each value appended, in order; None: the key does not exist."""

_FUNCTIONS: dict[str, Function] = {
    "put": "put", "write": "put", "get": "get", "read": "get", "delete": "delete", "cas": "cas", "append": "append",
}  # fmt: skip
_KINDS: dict[int, Function] = {1: "put", 2: "get", 3: "delete", 4: "cas", 5: "append"}
_OUTCOMES: dict[int, Outcome] = {1: "ok", 2: "fail", 3: "info"}
_ID_BYTES = 8
_FIRST_ID = 1 << 40
"""Smaller numbers in the columns of values are row numbers of the table of composites."""
BARE = 1 << 62
"""Added to the first id of a value if the padding that a put writes after its id is missing."""


_MOST_DEEP = 100
_INT64 = range(-(1 << 63), 1 << 63)


class BadHistory(ConfigError, ValueError):
    """A file that is not a valid history. The message is one line that begins with file and line."""


@dataclass(slots=True)
class Operation:
    """One operation of a client, from its invocation to its end."""

    process: int
    f: Function
    key: Key
    value: Any = None
    """The value written: an atom, or a tuple of them. For put and cas, None makes the key not exist."""
    expected: Value = None
    """The expected value; cas only."""
    outcome: Outcome = "ok"
    observed: Any = None
    """The result.

    get, and cas that did not swap: the Value seen. delete: whether there was a value, None: unknown. append: length in
    bytes of the value after it, None: unknown.
    """
    swapped: bool = True
    """Whether a cas that is ok swapped."""
    size: int | None = None
    """Length in bytes of the value written, if known."""
    invoke_ns: int = 0
    return_ns: int | float = math.inf
    """When the operation ended; infinite if its outcome is info, because it may still take effect."""
    error_ns: int = 0
    """Error of both times relative to other processes, in either direction.

    The times come from another clock, whose offset is known with this error. One process reads one clock, so the order
    of its own operations is exact.
    """

    @property
    def written(self) -> Value:
        """The value written, as a Value."""
        return self.value if self.value is None or isinstance(self.value, tuple) else (self.value,)


class History:
    """The operations of one run, on one clock within the errors of their times."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self.operations = list(operations)

    def __len__(self) -> int:
        return len(self.operations)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.operations == other.operations

    def by_key(self) -> list[tuple[Key, list[Operation]]]:
        """Return the operations of each key; keys in the order of their first appearance."""
        groups: dict[Any, list[Operation]] = {}
        for operation in self.operations:
            key = operation.key
            # In a dictionary True, 1 and 1.0 would be one key.
            groups.setdefault(key if type(key) in {int, str} else (type(key), key), []).append(operation)
        return [(group[0].key, group) for group in groups.values()]

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray[Any]], *, value_bytes: int | None = None) -> History:
        """Return the history in the columns of a `latency.npz`; sweeps/load/operations.py documents them.

        The columns start_ns, end_ns, kind, outcome, key, client, written and observed are required. Optional columns:

        * expected: cas: id of the expected value, 0 for none. Required if there is any cas (ValueError).
        * found: get: whether the key exists; delete: whether it existed; cas: whether it swapped. Without this column,
          a get with 0 in `observed` found no value, what a delete found is unknown, and a cas that expected a value and
          saw 0 has an unknown outcome.
        * composite_ids, composite_end: values longer than one id. A number n below 2**40 in `observed` of a get or
          cas, or in `expected`, refers to composite_ids[composite_end[n - 2] : composite_end[n - 1]] (from 0 for n =
          1).
        * generator, generator_error_ns: generator_error_ns[generator] is the error of a row's times.

        BARE may be added to the first id of a value. An append to a key without a value leaves such an id. If a put
        wrote the id, its padding was lost, and the value read is one that no client wrote.

        `value_bytes` is the length of the value of a put (an append writes the id alone); without it lengths are not
        judged. Values shorter than an id are cut from the left.
        """
        return cls(_from_columns(columns, value_bytes))

    @classmethod
    def read_jsonl(cls, path: Path | str) -> History:
        """Read JSON lines, written by this project or by other tools.

        Raises BadHistory, with file, line and field, and OSError.
        """
        return cls(_Reader(str(path)).read(Path(path)))

    def write_jsonl(self, path: Path | str) -> None:
        """Write JSON lines, replacing the file atomically. Raises OSError."""
        with replacing(path) as file:
            file.writelines(f"{json.dumps(line)}\n" for line in _lines(self.operations))


def _from_columns(columns: Mapping[str, NDArray[Any]], value_bytes: int | None) -> list[Operation]:
    kind = columns["kind"]
    if "expected" not in columns and bool((kind == 4).any()):
        raise ValueError("expected: this column is needed to judge a cas")
    rows = len(kind)
    found = columns["found"].tolist() if "found" in columns else [None] * rows
    expected = columns["expected"] if "expected" in columns else np.zeros(rows, np.uint64)
    id_bytes = _ID_BYTES if value_bytes is None else min(_ID_BYTES, value_bytes)
    written = columns["written"] & np.uint64((1 << 8 * id_bytes) - 1)
    composites = _composites(columns)
    appended = set(columns["written"][kind == 5].tolist())
    long = None if value_bytes is None else value_bytes
    short = None if value_bytes is None else id_bytes

    def value(number: int, exists: bool | None) -> Value:
        if exists is None:
            exists = number != 0
        if not exists:
            return None
        ids = composites.get(number, (number,))
        return (_first(ids[0], appended), *ids[1:]) if ids and ids[0] >= BARE else ids

    operations = []
    fields = (columns["client"], kind, columns["key"], written, expected, columns["outcome"], columns["observed"])
    exact = np.zeros(rows, np.int64)
    errors = columns["generator_error_ns"][columns["generator"]] if "generator" in columns else exact
    times = (columns["start_ns"], columns["end_ns"], errors)
    for process, code, key, wrote, expects, ended, seen, begin, end, error, was_found in zip(
        *(column.tolist() for column in fields + times), found, strict=True
    ):
        f, outcome = _KINDS[code], _OUTCOMES[ended]
        operation = Operation(process, f, key, None, None, outcome, None, True, None, begin, end, error)
        if f == "get":
            operation.observed = value(seen, was_found)
        elif f == "delete":
            operation.observed = None if was_found is None else bool(was_found)
        else:
            operation.value, operation.size = wrote, short if f == "append" else long
            if f == "append":
                operation.observed = seen or None
            elif f == "cas":
                operation.expected = value(expects, None)
                operation.swapped = seen == 0 if was_found is None else bool(was_found)
                if not operation.swapped:
                    operation.observed = value(seen, None)
                elif was_found is None and expects:
                    operation.outcome = "info"
        if operation.outcome == "info":
            operation.return_ns, operation.observed = math.inf, None
        operations.append(operation)
    return operations


def _first(number: int, appended: Set[int]) -> Atom:
    """Return the first atom of a value whose first number is BARE or more."""
    written = number - BARE
    if written >= BARE or written in appended:
        return number if written >= BARE else written
    return f"{written >> 40}:{written & _FIRST_ID - 1} unpadded"


def _composites(columns: Mapping[str, NDArray[Any]]) -> dict[int, tuple[int, ...]]:
    if "composite_end" not in columns:
        return {}
    ids, ends = columns["composite_ids"].tolist(), columns["composite_end"].tolist()
    return {row: tuple(ids[begin:end]) for row, (begin, end) in enumerate(zip([0, *ends], ends, strict=False), 1)}


def _json_value(value: Value) -> Any:
    return value[0] if value is not None and len(value) == 1 else value


def _lines(operations: Sequence[Operation]) -> list[dict[str, Any]]:
    """Return the lines of a history, by time. A process that continues after an info gets a new number."""
    stride = 1 + max((operation.process for operation in operations), default=0)
    life: dict[int, int] = {}
    lines: list[tuple[tuple[float, int, int, int], dict[str, Any]]] = []
    for number, operation in enumerate(sorted(operations, key=lambda o: (o.invoke_ns, o.return_ns))):
        process = life.setdefault(operation.process, operation.process)
        line = {"process": process, "type": "invoke", "f": operation.f, "key": operation.key}
        line["value"] = _json_value(operation.written)
        if operation.f == "cas":
            line["value"] = [_json_value(operation.expected), line["value"]]
        begin, end = operation.invoke_ns, operation.return_ns
        more = {} if operation.size is None else {"bytes": operation.size}
        more |= {"error": operation.error_ns} if operation.error_ns else {}
        # At equal times, ends come before invocations, so that each process has one operation at a time.
        lines.append(((begin, 1, number, 0), {**line, "time": begin, **more}))
        if operation.outcome == "info":
            life[operation.process] += stride
            end = begin if math.isinf(end) else end
        at_once = end == begin
        lines.append(((end, int(at_once), number, 1), {**line, **_ending(operation), "time": end}))
    lines.sort(key=lambda pair: pair[0])
    return [line for _, line in lines]


def _ending(operation: Operation) -> dict[str, Any]:
    """Return the fields of the last line of an operation that replace, or are added to, those of its first line."""
    if operation.outcome != "ok":
        return {"type": operation.outcome}
    if operation.f == "get":
        return {"type": "ok", "value": _json_value(operation.observed)}
    if operation.f == "cas" and not operation.swapped:
        return {"type": "fail", "observed": _json_value(operation.observed)}
    if operation.f in {"append", "delete"} and operation.observed is not None:
        return {"type": "ok", "observed": operation.observed}
    return {"type": "ok"}


class _Reader:
    """A parser of JSON lines that tracks its position in the file."""

    def __init__(self, name: str) -> None:
        self._where = name
        self._open: dict[int, tuple[Operation, int]] = {}
        """By process: the operation it has begun, and the number of the line."""
        self._timed: bool | None = None

    def read(self, path: Path) -> list[Operation]:
        name, operations = self._where, []
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                self._where = f"{name}:{number}"
                if not raw.strip():
                    continue
                line = self._parse(raw)
                if line.get("process") in ("nemesis", ":nemesis"):
                    continue
                invoked = self._take(line, number)
                if invoked is not None:
                    operations.append(invoked)
        return operations

    def _fail(self, message: str) -> NoReturn:
        raise BadHistory(f"{self._where}: {message}")

    def _parse(self, raw: bytes) -> dict[str, Any]:
        try:
            line = json.loads(
                raw.decode("utf-8"),
                parse_constant=self._not_a_number,
                parse_int=self._parsed_int,
                parse_float=self._parsed_float,
                object_pairs_hook=self._parsed_object,
            )
        except UnicodeDecodeError:
            self._fail("is not UTF-8 text")
        except json.JSONDecodeError as error:
            self._fail(f"is not JSON: {error.msg} (column {error.colno})")
        except RecursionError:
            self._fail("is not JSON: nested too deeply")
        if not isinstance(line, dict):
            self._fail("must be a JSON object")
        if raw.count(b"[") + raw.count(b"{") > _MOST_DEEP and _deeper(line, _MOST_DEEP):
            self._fail(f"is nested more than {_MOST_DEEP} deep")
        return line

    def _not_a_number(self, text: str) -> NoReturn:
        self._fail(f"{text} is not a number")

    def _parsed_int(self, text: str) -> int:
        try:
            return int(text)
        except ValueError:  # more digits than Python converts
            self._fail(f"{text[:10]}... is too large: an integer of {len(text.lstrip('-'))} digits")

    def _parsed_float(self, text: str) -> float:
        if math.isinf(value := float(text)):
            self._fail(f"{text if len(text) <= 20 else f'{text[:10]}...'} is too large")
        return value

    def _parsed_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            self._fail(f"{_shown(twice)} occurs twice in an object")
        return found

    def _take(self, line: dict[str, Any], number: int) -> Operation | None:
        """Return the operation that a line begins, or None when it ends one."""
        process = self._integer(line, "process")
        what, f = line.get("type"), line.get("f")
        if what not in ("invoke", "ok", "fail", "info"):
            self._fail(f"type: must be invoke, ok, fail or info, not {_shown(what)}")
        if not isinstance(f, str) or f not in _FUNCTIONS:
            self._fail(f"f: must be put, get, delete, cas or append, not {_shown(f)}")
        time_ns = self._time(line, number)
        if what == "invoke":
            if process in self._open:
                self._fail(
                    f"process: {process} begins an operation before it ended that of line {self._open[process][1]}"
                )
            operation = self._invoked(process, _FUNCTIONS[f], line)
            operation.invoke_ns = time_ns
            self._open[process] = operation, number
            return operation
        if process not in self._open:
            self._fail(f"process: {process} ends an operation that it did not begin")
        operation, begun = self._open.pop(process)
        if operation.f != _FUNCTIONS[f]:
            self._fail(f"f: {process} ends {f}, but began {operation.f} on line {begun}")
        if "key" in line and (type(line["key"]), line["key"]) != (type(operation.key), operation.key):
            self._fail(f"key: differs from the one on line {begun}")
        if operation.f in {"put", "append"} and line.get("value") is not None:
            written = line["value"]
            if (tuple(written) if isinstance(written, list) else written) != operation.value:
                self._fail(f"value: differs from the one on line {begun}")
        if time_ns < operation.invoke_ns:
            self._fail(f"time: is before that of line {begun}")
        if what != "info":
            operation.return_ns = time_ns
        operation.outcome = what
        self._ended(operation, line)
        return None

    def _integer(self, line: dict[str, Any], field: str) -> int:
        value = line.get(field)
        if type(value) is not int:
            self._fail(f"{field}: must be an integer, not {_shown(value)}")
        if value not in _INT64:
            self._fail(f"{field}: must fit into 64 bits, not {_shown(value)}")
        return value

    def _time(self, line: dict[str, Any], number: int) -> int:
        timed = line.get("time") is not None
        if self._timed is None:
            self._timed = timed
        if timed != self._timed:
            self._fail("time: is in some lines but not in others; give it in all lines or in none")
        return self._integer(line, "time") if timed else number

    def _invoked(self, process: int, f: Function, line: dict[str, Any]) -> Operation:
        key, value, size = line.get("key"), line.get("value"), line.get("bytes")
        if isinstance(key, (list, dict)):
            self._fail(f"key: must be text, a number or null, not {_shown(key)}")
        operation = Operation(process, f, key, outcome="info")
        if f == "cas":
            if not isinstance(value, list) or len(value) != 2:
                self._fail(f"value: of a cas must be [expected, new], not {_shown(value)}")
            operation.expected, value = _value(value[0]), value[1]
        if f in {"put", "cas", "append"}:
            operation.value = tuple(value) if isinstance(value, list) else value
        if f == "append" and value in (None, []):
            self._fail(f"value: of an append must be what is appended, not {_shown(value)}")
        if size is not None:
            operation.size = self._integer(line, "bytes")
        if line.get("error") is not None:
            operation.error_ns = self._integer(line, "error")
            if operation.error_ns < 0:
                self._fail(f"error: must be at least 0, not {operation.error_ns}")
        return operation

    def _ended(self, operation: Operation, line: dict[str, Any]) -> None:
        observed = line.get("observed")
        if operation.f == "get" and operation.outcome == "ok":
            if "value" not in line:
                self._fail("value: what was read is missing")
            operation.observed = _value(line["value"])
        elif operation.f == "cas" and operation.outcome == "fail" and "observed" in line:
            operation.outcome, operation.swapped, operation.observed = "ok", False, _value(observed)
        elif operation.outcome == "ok" and observed is not None:
            kind = {"append": int, "delete": bool}.get(operation.f)
            if kind is not None and type(observed) is not kind:
                words = "a length in bytes" if kind is int else "true or false"
                self._fail(f"observed: of {operation.f} must be {words}, not {_shown(observed)}")
            if kind is int:
                observed = self._integer(line, "observed")
            operation.observed = observed if kind is not None else None


def _value(value: Any) -> Value:
    return None if value is None else tuple(value) if isinstance(value, list) else (value,)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."


def _deeper(value: Any, most: int) -> bool:
    """Return whether lists and objects are nested more than `most` deep."""
    layer = [value]
    for _ in range(most):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, (list, dict))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return False
    return any(isinstance(each, (list, dict)) for each in layer)
