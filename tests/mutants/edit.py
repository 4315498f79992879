"""Plant a bug: recompile a function of the product from its own source with some lines changed.

So a mutant reads like a diff. It affects every caller of the function, however the caller imported it. If its lines are
not in the product (any more), it raises an error. Only the function's `__code__` is replaced, and restored afterwards.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any, NamedTuple


class Edit(NamedTuple):
    """Lines of one function and their replacement. Indentation is relative to the function's `def`."""

    where: str
    """Module and qualified name, such as "raft_actor_node.core.node:RaftNode._vote"."""
    old: tuple[str, ...]
    """Consecutive lines that occur exactly once in the function."""
    new: tuple[str, ...]


class Rewritten(NamedTuple):
    """A function of the product, its original code, and the code to plant."""

    function: FunctionType
    own: CodeType
    planted: CodeType


@contextmanager
def planted(edits: Iterable[Edit]) -> Iterator[None]:
    """Apply these changes to the product, within the context and in this process only."""
    rewritten = rewrite(edits)
    for function, _, code in rewritten:
        function.__code__ = code
    try:
        yield
    finally:
        for function, code, _ in rewritten:
            function.__code__ = code


def rewrite(edits: Iterable[Edit]) -> list[Rewritten]:
    """Compile the changed functions without planting them.

    Raises ValueError if the old lines of an edit do not occur exactly once.
    """
    texts: dict[str, tuple[FunctionType, list[str]]] = {}
    for edit in edits:
        function, lines = texts.get(edit.where) or _source(edit.where)
        texts[edit.where] = function, _replaced(edit, lines)
    return [Rewritten(function, function.__code__, _compiled(function, lines)) for function, lines in texts.values()]


def _replaced(edit: Edit, lines: Sequence[str]) -> list[str]:
    count = len(edit.old)
    found = [at for at in range(len(lines) - count + 1) if tuple(lines[at : at + count]) == edit.old]
    if len(found) != 1:
        raise ValueError(f"{edit.where}: these lines occur {len(found)} times, not once:\n" + "\n".join(edit.old))
    return [*lines[: found[0]], *edit.new, *lines[found[0] + count :]]


def _source(where: str) -> tuple[FunctionType, list[str]]:
    module, _, path = where.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    found = getattr(found, "fget", None) or inspect.unwrap(getattr(found, "__func__", found))
    assert isinstance(found, FunctionType), f"{where} is no function"
    return found, textwrap.dedent(inspect.getsource(found)).splitlines()


def _compiled(function: FunctionType, lines: Sequence[str]) -> CodeType:
    """Compile the changed text; return the code of the function in it."""
    first = function.__code__.co_firstlineno  # so that tracebacks point to about the right line
    text = "\n" * (first - 1) + "\n".join(lines)
    flags = __future__.annotations.compiler_flag
    module = compile(text, function.__code__.co_filename, "exec", dont_inherit=True, flags=flags)
    codes = [constant for constant in module.co_consts if isinstance(constant, CodeType)]
    code = next(code for code in codes if code.co_name == function.__name__)
    if code.co_freevars != function.__code__.co_freevars:
        raise ValueError(f"{function.__qualname__}: a closure cannot be rewritten")
    return code
