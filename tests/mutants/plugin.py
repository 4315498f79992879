"""Pytest plugin that plants a bug: `pytest -p tests.mutants.plugin --mutant NAME ...`.

The bug is in the process of the tests and in the processes of real nodes.
"""

from __future__ import annotations

import contextlib
import sys

import pytest

from tests.cluster import local
from tests.mutants.catalogue import mutants
from tests.mutants.edit import planted

_STACK = contextlib.ExitStack()


def pytest_addoption(parser: pytest.Parser) -> None:
    """As in pytest."""
    parser.addoption("--mutant", required=True, help="name of a mutant of tests/mutants/planted")


def pytest_configure(config: pytest.Config) -> None:
    """As in pytest."""
    name = config.getoption("--mutant")
    _STACK.enter_context(planted(mutants()[name].edits))
    local.COMMAND = f"{sys.executable} -m tests.mutants.node {name}"


def pytest_unconfigure() -> None:
    """As in pytest."""
    _STACK.close()
